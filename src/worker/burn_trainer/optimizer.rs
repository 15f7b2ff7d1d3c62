//! PyTorch's optimizers, as burn's with PyTorch's settings.

use burn::optim::{
    AdamConfig, ModuleOptimizer, SgdConfig, decay::WeightDecayConfig, momentum::MomentumConfig,
};

use crate::job::{OptimizerKind, TrainingSettings};

/// A new optimizer without any state. The learning rate is given at each step.
pub(super) fn local_optimizer(settings: &TrainingSettings) -> ModuleOptimizer {
    let decay =
        (settings.weight_decay > 0.0).then(|| WeightDecayConfig::new(settings.weight_decay as f32));
    match settings.optimizer {
        OptimizerKind::Sgd => {
            // burn dampens by default, PyTorch does not.
            let momentum = MomentumConfig::new()
                .with_momentum(settings.momentum)
                .with_dampening(0.0);
            SgdConfig::new()
                .with_momentum((settings.momentum > 0.0).then_some(momentum))
                .with_weight_decay(decay)
                .init()
        }
        OptimizerKind::Adam => AdamConfig::new()
            .with_beta_1(0.9)
            .with_beta_2(0.999)
            .with_epsilon(1e-8)
            .with_weight_decay(decay)
            .init(),
    }
}
