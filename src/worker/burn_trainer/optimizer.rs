//! PyTorch's optimizers: Adam is burn's with PyTorch's settings, SGD is written out here.

use burn::{
    optim::{
        AdamConfig, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource,
        decay::WeightDecayConfig,
    },
    tensor::{Device, Tensor},
};

use crate::job::{OptimizerKind, TrainingSettings};

/// A new optimizer without any state. The learning rate is given at each step.
pub(super) fn local_optimizer(settings: &TrainingSettings) -> ModuleOptimizer {
    // None instead of a factor of zero spares a pass over the parameters in each step.
    let penalty = (settings.weight_decay > 0.0).then_some(settings.weight_decay as f32);
    match settings.optimizer {
        OptimizerKind::Sgd => ModuleOptimizer::from(Sgd {
            penalty,
            momentum: (settings.momentum > 0.0).then_some(settings.momentum as f32),
        }),
        OptimizerKind::Adam => AdamConfig::new()
            // PyTorch's defaults: burn's epsilon is another one.
            .with_beta_1(0.9)
            .with_beta_2(0.999)
            .with_epsilon(1e-8)
            .with_weight_decay(penalty.map(WeightDecayConfig::new))
            .init(),
    }
}

/// `torch.optim.SGD` without dampening and without Nesterov's momentum.
///
/// burn's own gives the same bits at a dampening of zero, by way of a product with 1 for each gradient: one more pass
/// over memory than the five that are left, which are most of an optimizer's time.
#[derive(Debug, Clone)]
struct Sgd {
    penalty: Option<f32>,
    momentum: Option<f32>,
}

/// What momentum remembers of a parameter.
#[derive(Clone)]
struct Velocity<const D: usize>(Tensor<D>);

impl Optimizer for Sgd {
    type State<const D: usize> = Velocity<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Velocity<D>>,
    ) -> (Tensor<D>, Option<Velocity<D>>) {
        let gradient = match self.penalty {
            Some(penalty) => parameter.clone().mul_scalar(penalty).add(gradient),
            None => gradient,
        };
        let Some(momentum) = self.momentum else {
            return (parameter - gradient.mul_scalar(lr), None);
        };
        let velocity = match state {
            Some(state) => gradient.add(state.0.mul_scalar(momentum)),
            // PyTorch's first velocity is the gradient itself, not a share of it.
            None => gradient,
        };
        let moved = parameter - velocity.clone().mul_scalar(lr);
        (moved, Some(Velocity(velocity)))
    }

    fn to_device<const D: usize>(state: Velocity<D>, device: &Device) -> Velocity<D> {
        Velocity(state.0.to_device(device))
    }
}

impl<const D: usize> RecordState for Velocity<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "velocity", self.0.clone().into_data());
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        let data = src.take_tensor(prefix, "velocity")?;
        Some(Self(Tensor::from_data(data, device)))
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        module::Module,
        nn::{Linear, LinearConfig},
        optim::{GradientsParams, SgdConfig, momentum::MomentumConfig},
    };

    use super::*;
    use crate::model::{export, import, testing::devices};

    fn steps(device: &Device, mut optimizer: ModuleOptimizer) -> Vec<f32> {
        let device = device.clone().autodiff();
        let fresh: Linear = LinearConfig::new(3, 2).init(&device);
        let mut initial = export(&fresh).unwrap();
        let values = initial.values_mut().iter_mut();
        values
            .enumerate()
            .for_each(|(at, value)| *value = at as f32 / 7.0);
        let mut module = import(fresh, &initial).unwrap();
        for step in 1..5 {
            let input = Tensor::<2>::ones([4, 3], &device) / f64::from(step);
            let loss = module.forward(input).square().mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &module);
            module = optimizer.step(0.1, module, gradients);
        }
        export(&module.valid()).unwrap().into_values()
    }

    #[test]
    fn sgd_gives_the_bits_of_burns_own() {
        for (momentum, weight_decay) in [(0.9, 1e-2), (0.9, 0.0), (0.0, 1e-2), (0.0, 0.0)] {
            let ours = local_optimizer(&TrainingSettings {
                momentum,
                weight_decay,
                ..Default::default()
            });
            let with_momentum = MomentumConfig::new()
                .with_momentum(momentum)
                .with_dampening(0.0);
            let burns = SgdConfig::new()
                .with_momentum((momentum > 0.0).then_some(with_momentum))
                .with_weight_decay(
                    (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32)),
                );
            for (name, device) in devices() {
                let expected = steps(&device, burns.init());
                assert_eq!(steps(&device, ours.clone()), expected, "{name}");
            }
        }
    }
}
