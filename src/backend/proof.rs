//! A device proves that it computes, before it is used.
//!
//! A driver without a GPU, a GPU without code in this LibTorch, a graphics API without an adapter: burn finds out at the
//! first operation, by a panic. So a device is given out only after a small convolution and its gradients were computed right.

use std::{sync::mpsc, thread, time::Duration};

use burn::tensor::{Device, Tensor, TensorData, module::conv2d, ops::ConvOptions};

use super::probe::quietly;

/// The longest that a device may take. It takes minutes if the driver has to compile the code for the GPU's generation first.
const PATIENCE: Duration = Duration::from_secs(600);

/// How far a value may be off, as a fraction of the largest one expected: devices multiply with ten bits (TF32), or convolve
/// by way of fractions (Winograd). One that computes something else is off by a whole number.
const TOLERANCE: f32 = 1e-3;

/// Image `[1, 1, 4, 4]` and kernel `[1, 1, 3, 3]`: small whole numbers, whose products ten bits hold.
const IMAGE: [i8; 16] = [1, 2, 0, 3, 4, 1, 2, 0, 0, 3, 1, 2, 2, 0, 4, 1];
const KERNEL: [i8; 9] = [1, 0, -1, 2, 0, -2, 1, 1, -1];

/// Computes a convolution and its gradients on the device and compares them with what they have to be.
///
/// # Errors
///
/// What the device said, or what it computed instead.
pub(super) fn prove(device: &Device) -> Result<(), String> {
    let (done, result) = mpsc::channel();
    let device = device.clone();
    // On a thread of its own: a driver that never answers is left behind there.
    let spawned = thread::Builder::new()
        .name("device-proof".to_string())
        .spawn(move || {
            let proof = quietly(|| compute(&device)).unwrap_or_else(Err);
            let _ = done.send(proof);
        });
    spawned.map_err(|error| format!("no thread to try it on: {error}"))?;
    // If the driver hangs, the thread can't be stopped. The worker can still say so, and go on.
    result
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Err(format!("it gave no result within {PATIENCE:?}")))
}

/// The loss is half the sum of the squares of the convolution's output, so that the output is its own gradient.
fn compute(device: &Device) -> Result<(), String> {
    let device = device.clone().autodiff();
    let image = square(&IMAGE, 4, &device);
    let kernel = square(&KERNEL, 3, &device);
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    let output = conv2d(image.clone(), kernel.clone(), None, options);
    let loss = (output.clone() * output.clone()).sum() * 0.5;
    let gradients = loss.backward();
    let expected = Expected::new();
    for (what, found, expected) in [
        (
            "a convolution's output",
            Some(output.inner()),
            &expected.output,
        ),
        (
            "a convolution's gradient for the image",
            image.grad(&gradients),
            &expected.image,
        ),
        (
            "a convolution's gradient for the kernel",
            kernel.grad(&gradients),
            &expected.kernel,
        ),
    ] {
        let found = found.ok_or_else(|| format!("burn made no tensor for {what}"))?;
        let found = values_of(found)?;
        if !agree(&found, expected) {
            return Err(format!(
                "it computed {what} wrong: {found:?} instead of {expected:?}"
            ));
        }
    }
    Ok(())
}

/// A tensor `[1, 1, side, side]` that wants a gradient.
fn square(values: &[i8], side: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = values.iter().map(|value| f32::from(*value)).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, side, side]), device).require_grad()
}

fn values_of(tensor: Tensor<4>) -> Result<Vec<f32>, String> {
    let data = tensor.try_into_data().map_err(|error| error.to_string())?;
    data.try_into_vec_as::<f32>()
        .map_err(|error| error.to_string())
}

/// Whether this is what was expected, within the tolerance.
fn agree(found: &[f32], expected: &[f32]) -> bool {
    if found.len() != expected.len() {
        return false;
    }
    let largest = expected
        .iter()
        .fold(0f32, |max, value| max.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        let is_near = (found - expected).abs() <= TOLERANCE * largest;
        // Not "is far": a NaN is neither.
        if !is_near {
            return false;
        }
    }
    true
}

/// The same in plain arithmetic.
struct Expected {
    output: Vec<f32>,
    image: Vec<f32>,
    kernel: Vec<f32>,
}

impl Expected {
    fn new() -> Self {
        let (mut output, mut image, mut kernel) = (vec![0.0; 4], vec![0.0; 16], vec![0.0; 9]);
        for out in 0..4 {
            for at in 0..9 {
                output[out] += f32::from(KERNEL[at]) * f32::from(IMAGE[pixel(out, at)]);
            }
        }
        for out in 0..4 {
            for at in 0..9 {
                image[pixel(out, at)] += output[out] * f32::from(KERNEL[at]);
                kernel[at] += output[out] * f32::from(IMAGE[pixel(out, at)]);
            }
        }
        Self {
            output,
            image,
            kernel,
        }
    }
}

/// The index of the image's value that this value of the kernel is multiplied with for this value of the output.
fn pixel(out: usize, at: usize) -> usize {
    let (row, column) = (out / 2 + at / 3, out % 2 + at % 3);
    row * 4 + column
}

#[cfg(all(test, any(feature = "flex", feature = "ndarray", feature = "libtorch")))]
mod tests {
    use super::*;
    use crate::backend::DeviceSpec;

    #[test]
    fn what_is_expected_is_a_convolution() {
        // The upper left corner: (1 - 0) + 2 (4 - 2) + (0 + 3 - 1).
        assert_eq!(Expected::new().output[0], 7.0);
    }

    #[test]
    fn rounding_is_forgiven_and_a_wrong_value_is_not() {
        let Expected { output, .. } = Expected::new();
        let with =
            |change: f32| -> Vec<f32> { output.iter().map(|value| value + change).collect() };
        assert!(agree(&with(1e-5), &output));
        for wrong in [
            with(1.0),
            with(f32::NAN),
            vec![0.0; 4],
            output[1..].to_vec(),
        ] {
            assert!(!agree(&wrong, &output), "{wrong:?}");
        }
    }

    #[test]
    fn a_device_that_works_proves_it_and_one_that_panics_says_why() {
        let device = DeviceSpec::Cpu.device().unwrap();
        assert_eq!(prove(&device), Ok(()));
        let said = quietly(|| -> Result<(), String> { panic!("no kernel image") });
        assert_eq!(said, Err("no kernel image".to_string()));
    }
}
