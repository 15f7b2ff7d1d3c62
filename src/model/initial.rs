//! PyTorch's initial values, drawn on the host.

use std::sync::Arc;

use rand_core::Rng;

use crate::{
    ids::RoundId,
    parameters::{Layout, Parameters, Role},
    rng::{self, Purpose},
};

/// What PyTorch initialises layers of these names and shapes to, drawn from a job's seed: the same on every device.
///
/// - A `weight` of two dimensions or more and its `bias` are uniform in ±1/√fan_in, and fan_in is the number of
///   values behind one output: `kaiming_uniform(a = √5)` and its bias, the default of `torch.nn.Linear` and
///   `torch.nn.Conv2d` (<https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html>).
/// - A normalisation's `weight` and running variance are one, its `bias` and running mean zero.
///
/// A tensor that is none of these is uniform by its own shape if it has two dimensions or more, and else zero.
pub fn pytorch_initial(layout: &Arc<Layout>, seed: u64) -> Parameters {
    let mut rng = rng::keyed(seed, Purpose::Initialize, RoundId(0), None);
    let mut parameters = Parameters::zeros(layout.clone());
    for spec in layout.tensors() {
        let (prefix, own) = match spec.name.rsplit_once('.') {
            Some((module, own)) => (format!("{module}."), own),
            None => (String::new(), spec.name.as_str()),
        };
        let values = &mut parameters.values_mut()[spec.range()];
        let weight = match own {
            "bias" => layout.find(&format!("{prefix}weight")).unwrap_or(spec),
            _ => spec,
        };
        match (spec.role, weight.shape.len()) {
            (Role::Trainable, 2..) => {
                // The first dimension of PyTorch's weights is that of the outputs.
                let fan_in: usize = weight.shape[1..].iter().product();
                let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
                values.iter_mut().for_each(|value| {
                    // Drawn here and not by a device: burn's generators differ between backends.
                    let unit = f64::from(rng.next_u32()) / 2f64.powi(32);
                    *value = ((2.0 * unit - 1.0) * bound) as f32;
                });
            }
            (Role::Trainable, 1) if own == "weight" => values.fill(1.0),
            (Role::Buffer, _) if own == "running_var" => values.fill(1.0),
            _ => {}
        }
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Arc<Layout> {
        Layout::new([
            ("bn.bias".to_string(), vec![4], Role::Trainable),
            ("bn.running_mean".to_string(), vec![4], Role::Buffer),
            ("bn.running_var".to_string(), vec![4], Role::Buffer),
            ("bn.weight".to_string(), vec![4], Role::Trainable),
            ("conv.bias".to_string(), vec![1000], Role::Trainable),
            (
                "conv.weight".to_string(),
                vec![1000, 4, 3, 3],
                Role::Trainable,
            ),
        ])
        .unwrap()
    }

    #[test]
    fn weights_and_biases_fill_the_interval_that_pytorch_draws_from() {
        let initial = pytorch_initial(&layout(), 7);
        for name in ["conv.weight", "conv.bias"] {
            let values = initial.tensor(name).unwrap();
            let bound = 1.0 / 6.0;
            let max = values.iter().fold(0f32, |max, value| max.max(value.abs()));
            assert!(max <= bound && max > 0.99 * bound, "{name}: {max}");
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            assert!(mean.abs() < 0.01, "{name}: {mean}");
            let square =
                values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
            let expected = bound * bound / 3.0;
            assert!((square / expected - 1.0).abs() < 0.1, "{name}: {square}");
        }
        assert_eq!(initial.tensor("bn.weight").unwrap(), [1.0; 4]);
        assert_eq!(initial.tensor("bn.running_var").unwrap(), [1.0; 4]);
        assert_eq!(initial.tensor("bn.bias").unwrap(), [0.0; 4]);
        assert_eq!(initial.tensor("bn.running_mean").unwrap(), [0.0; 4]);
    }

    #[test]
    fn the_seed_decides() {
        let layout = layout();
        assert_eq!(pytorch_initial(&layout, 7), pytorch_initial(&layout, 7));
        assert_ne!(pytorch_initial(&layout, 7), pytorch_initial(&layout, 8));
    }
}
