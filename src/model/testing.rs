//! What the tests of models and trainers share.

use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    backend::DeviceSpec,
    parameters::{Parameters, safetensors},
};

/// Every CPU device that is compiled in, by name.
pub(crate) fn devices() -> Vec<(&'static str, Device)> {
    ["flex", "ndarray", "libtorch"]
        .into_iter()
        .filter_map(|name| Some((name, name.parse::<DeviceSpec>().ok()?.device().ok()?)))
        .collect()
}

/// A file of `tests/fixtures`.
pub(crate) fn fixture_bytes(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/{name}.safetensors",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap()
}

pub(crate) fn fixture(name: &str) -> Parameters {
    safetensors::decode(&fixture_bytes(name)).unwrap()
}

/// One tensor of a fixture, on a device.
pub(crate) fn tensor<const D: usize>(file: &Parameters, name: &str, device: &Device) -> Tensor<D> {
    let spec = file.layout().find(name).unwrap();
    let values = file.tensor(name).unwrap().to_vec();
    Tensor::from_data(TensorData::new(values, spec.shape.clone()), device)
}

/// The largest difference between two slices of the same length.
pub(crate) fn distance(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter()
        .zip(right)
        .fold(0.0, |max, (left, right)| (left - right).abs().max(max))
}
