//! Two layers that burn has too, the way that PyTorch and federated averaging need them.

use burn::{
    module::{Module, Param, RunningState},
    nn::Initializer,
    tensor::{Device, Tensor, TensorData, module},
};
use rand_core::Rng;

use crate::rng::ChaCha8Rng;

/// PyTorch's BatchNorm over `[images, channels, ...]`: `eps = 1e-5`, `momentum = 0.1`.
///
/// burn's moves its running variance by the batch's biased variance; PyTorch, and this one, by the unbiased one
/// (n / (n - 1) of it). Names are PyTorch's. On a device with autodiff it normalises by the batch's statistics and
/// moves the running ones, on a plain device it uses the running ones.
#[derive(Module, Debug)]
pub struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: RunningState<Tensor<1>>,
    running_var: RunningState<Tensor<1>>,
}

const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

impl BatchNorm {
    /// Weight and running variance one, bias and running mean zero.
    pub fn new(channels: usize, device: &Device) -> Self {
        Self {
            weight: Initializer::Ones.init([channels], device),
            bias: Initializer::Zeros.init([channels], device),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
        }
    }

    /// Of the input's shape.
    ///
    /// # Panics
    ///
    /// If the input's second dimension is not the number of channels.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if !input.is_autodiff() {
            let (mean, variance) = (self.running_mean.value(), self.running_var.value());
            return module::batch_norm(input, weight, bias, mean, variance, EPSILON);
        }
        let [channels] = weight.dims();
        let samples = input.shape().num_elements() / channels.max(1);
        let batch = module::batch_norm_train(input, weight, bias, EPSILON);
        // A batch of one value has no unbiased variance: its factor would be 1 / 0.
        let unbiased = samples as f64 / samples.saturating_sub(1).max(1) as f64;
        follow(&self.running_mean, batch.mean, 1.0);
        follow(&self.running_var, batch.variance, unbiased);
        batch.output
    }
}

/// Moves a running statistic towards the batch's.
fn follow(running: &RunningState<Tensor<1>>, batch: Tensor<1>, factor: f64) {
    let kept = running.value().mul_scalar(1.0 - MOMENTUM);
    let moved = kept.add(batch.detach().mul_scalar(MOMENTUM * factor));
    running.update(moved.detach());
    // burn keeps an update aside until the next one; a reader of the module in between would miss it.
    running.value_sync();
}

/// Dropout by masks from the caller's generator: each value is zero with this probability, and the others grow by
/// 1 / (1 - probability). Without a generator, or at a probability of 0, the input as it is.
///
/// The mask is drawn on the host, one word for each value, so that it is the same on every device. N. Srivastava et
/// al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 2014.
///
/// # Panics
///
/// If the probability is not at least 0 and below 1.
pub fn dropout<const D: usize>(
    input: Tensor<D>,
    probability: f64,
    rng: Option<&mut ChaCha8Rng>,
) -> Tensor<D> {
    assert!(
        (0.0..1.0).contains(&probability),
        "a dropout probability of {probability}"
    );
    let Some(rng) = rng.filter(|_| probability > 0.0) else {
        return input;
    };
    let shape = input.dims();
    let mut words = vec![0u32; shape.iter().product()];
    rng.fill_bytes(bytemuck::cast_slice_mut(&mut words));
    let dropped_below = (probability * 2f64.powi(32)) as u32;
    let scale = (1.0 / (1.0 - probability)) as f32;
    let mask: Vec<f32> = words
        .into_iter()
        .map(|word| if word < dropped_below { 0.0 } else { scale })
        .collect();
    let mask = Tensor::from_data(TensorData::new(mask, shape), &input.device());
    input.mul(mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::RoundId,
        model::testing::devices,
        rng::{Purpose, keyed},
    };

    #[test]
    fn dropout_drops_its_share_and_keeps_the_mean_the_same_on_every_device() {
        let mut first: Option<Vec<f32>> = None;
        for (_, device) in devices() {
            let mut rng = keyed(1, Purpose::Dropout, RoundId(1), None);
            let ones = Tensor::<2>::ones([100, 100], &device);
            let dropped = dropout(ones.clone(), 0.25, Some(&mut rng));
            let values: Vec<f32> = dropped.into_data().try_into_vec().unwrap();
            let zeros = values.iter().filter(|&&value| value == 0.0).count();
            assert!((2_300..2_700).contains(&zeros), "{zeros}");
            assert!(
                values
                    .iter()
                    .all(|&value| value == 0.0 || value == 4.0 / 3.0)
            );
            assert_eq!(&values, first.get_or_insert(values.clone()));

            // The generator goes on, and if there is none nothing is dropped.
            let next = dropout(ones.clone(), 0.25, Some(&mut rng));
            assert_ne!(next.into_data().try_into_vec::<f32>().unwrap(), values);
            let kept = [
                dropout(ones.clone(), 0.25, None),
                dropout(ones, 0.0, Some(&mut rng)),
            ];
            for kept in kept {
                let values: Vec<f32> = kept.into_data().try_into_vec().unwrap();
                assert!(values.iter().all(|&value| value == 1.0));
            }
        }
    }
}
