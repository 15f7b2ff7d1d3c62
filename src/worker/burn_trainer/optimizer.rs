//! PyTorch's optimizers, written out here so that their state can be kept between rounds.

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    optim::GradientsParams,
    tensor::Tensor,
};

use crate::{
    job::{OptimizerKind, TrainingSettings},
    model::{self, BridgeError},
    parameters::{Layout, Parameters, Role},
};

/// Adam's decay of the first moment, of the second, and what keeps it from dividing by zero: PyTorch's defaults.
const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// The names under which a client keeps the state of its optimizer.
const VELOCITY: &str = "optimizer.velocity";
const FIRST: &str = "optimizer.m";
const SECOND: &str = "optimizer.v";
const STEPS: &str = "optimizer.step";

/// A new optimizer without any state. The learning rate is given at each step.
pub(super) fn local_optimizer(settings: &TrainingSettings) -> LocalOptimizer {
    // None instead of a factor of zero spares a pass over the parameters in each step.
    let decay = (settings.weight_decay > 0.0).then_some(settings.weight_decay);
    let penalty = decay.map(|decay| decay as f32);
    let rule = match settings.optimizer {
        OptimizerKind::Adam => Rule::Adam(Adam {
            penalty,
            decay: None,
        }),
        OptimizerKind::AdamW => Rule::Adam(Adam {
            penalty: None,
            decay,
        }),
        _ => Rule::Sgd(Sgd {
            penalty,
            momentum: (settings.momentum > 0.0).then_some(settings.momentum as f32),
            nesterov: settings.nesterov,
        }),
    };
    LocalOptimizer {
        rule,
        first: GradientsParams::new(),
        second: GradientsParams::new(),
        steps: HashMap::new(),
    }
}

/// One client's optimizer, with what it remembers of each parameter.
pub(super) struct LocalOptimizer {
    rule: Rule,
    /// SGD's velocity, or Adam's first moment.
    first: GradientsParams,
    /// Adam's second moment.
    second: GradientsParams,
    /// Adam's steps, of each parameter, since one without a gradient is passed over.
    steps: HashMap<ParamId, u32>,
}

#[derive(Clone, Copy)]
enum Rule {
    Sgd(Sgd),
    Adam(Adam),
}

impl LocalOptimizer {
    /// Moves the module's parameters that have a gradient.
    pub(super) fn step<M: Module>(
        &mut self,
        lr: f64,
        module: M,
        mut gradients: GradientsParams,
    ) -> M {
        module.map(&mut Stepper {
            optimizer: self,
            gradients: &mut gradients,
            lr,
        })
    }

    /// Puts its state beside the client's other state, for a round that goes on with it.
    pub(super) fn save<M: Module>(
        &self,
        module: &M,
        global: &Parameters,
        state: &mut BTreeMap<String, Parameters>,
    ) -> Result<(), BridgeError> {
        forget(state);
        let layout = global.layout();
        if self.first.is_empty() {
            return Ok(());
        }
        let first = model::save_tensors(module, &self.first, layout)?;
        if let Rule::Sgd(_) = self.rule {
            state.insert(VELOCITY.to_string(), first);
            return Ok(());
        }
        let second = model::save_tensors(module, &self.second, layout)?;
        let names = model::trainable_names(module)?;
        let of_steps = Layout::new(names.values().map(|name| {
            let one_value = Vec::new();
            (name.clone(), one_value, Role::Trainable)
        }))?;
        let mut steps = Parameters::zeros(of_steps.clone());
        for (id, count) in &self.steps {
            if let Some(spec) = names.get(&id.val()).and_then(|name| of_steps.find(name)) {
                // f32 has every number up to 2^24 exactly; past that Adam's corrections are 1 anyway.
                steps.values_mut()[spec.range()].fill((*count).min(1 << 24) as f32);
            }
        }
        state.insert(FIRST.to_string(), first);
        state.insert(SECOND.to_string(), second);
        state.insert(STEPS.to_string(), steps);
        Ok(())
    }

    /// Goes on with what [`LocalOptimizer::save`] left. If that is not there, or is another optimizer's or another model's, it
    /// starts from nothing.
    pub(super) fn restore<M: Module>(
        &mut self,
        module: &M,
        global: &Parameters,
        state: &BTreeMap<String, Parameters>,
    ) -> Result<(), BridgeError> {
        let fitting = |name: &str| {
            let found = state.get(name);
            found.filter(|found| found.layout().check_same(global.layout()).is_ok())
        };
        if let Rule::Sgd(sgd) = self.rule {
            if let Some(velocity) = fitting(VELOCITY)
                && sgd.momentum.is_some()
            {
                self.first = model::load_tensors(module, velocity, &|_| true)?;
            }
            return Ok(());
        }
        let (Some(first), Some(second), Some(steps)) =
            (fitting(FIRST), fitting(SECOND), state.get(STEPS))
        else {
            return Ok(());
        };
        let mut counts = HashMap::new();
        for (id, name) in model::trainable_names(module)? {
            match steps.tensor(&name) {
                Some([count]) if *count >= 1.0 => {
                    counts.insert(ParamId::from(id), *count as u32);
                }
                // It never had a gradient.
                Some([_]) => {}
                _ => return Ok(()),
            }
        }
        self.first = model::load_tensors(module, first, &|_| true)?;
        self.second = model::load_tensors(module, second, &|_| true)?;
        self.steps = counts;
        Ok(())
    }
}

/// Drops what an optimizer left in a client's state.
pub(super) fn forget(state: &mut BTreeMap<String, Parameters>) {
    for name in [VELOCITY, FIRST, SECOND, STEPS] {
        state.remove(name);
    }
}

struct Stepper<'a> {
    optimizer: &'a mut LocalOptimizer,
    gradients: &'a mut GradientsParams,
    lr: f64,
}

impl ModuleMapper for Stepper<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = match self.gradients.remove::<D>(id) {
            Some(gradient) => {
                let requires_gradient = tensor.is_require_grad();
                let strategy = tensor.gradient_checkpointing_strategy();
                let moved = self.moved(id, tensor.inner(), gradient);
                // Back to what a forward pass differentiates, as burn's own optimizers do.
                let mut moved = Tensor::from_inner(moved);
                if let Some(strategy) = strategy {
                    moved = moved.with_gradient_checkpointing_strategy(strategy);
                }
                if requires_gradient {
                    moved = moved.require_grad();
                }
                moved
            }
            None => tensor,
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

impl Stepper<'_> {
    fn moved<const D: usize>(
        &mut self,
        id: ParamId,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
    ) -> Tensor<D> {
        let optimizer = &mut *self.optimizer;
        // Taken out and put back: a tensor that has one owner can be changed in place.
        let first = optimizer.first.remove::<D>(id);
        match optimizer.rule {
            Rule::Sgd(sgd) => {
                let (moved, velocity) = sgd.step(self.lr, tensor, gradient, first);
                if let Some(velocity) = velocity {
                    optimizer.first.register(id, velocity);
                }
                moved
            }
            Rule::Adam(adam) => {
                let steps = optimizer.steps.entry(id).or_insert(0);
                *steps = steps.saturating_add(1);
                // A state that was restored has zeros for a tensor that never had a gradient: no state at all.
                let is_first = *steps == 1;
                let moments = first
                    .zip(optimizer.second.remove::<D>(id))
                    .filter(|_| !is_first);
                let (moved, first, second) = adam.step(self.lr, *steps, tensor, gradient, moments);
                optimizer.first.register(id, first);
                optimizer.second.register(id, second);
                moved
            }
        }
    }
}

/// `torch.optim.SGD` without dampening.
///
/// burn's own gives the same bits at a dampening of zero, by way of a product with 1 for each gradient: one more pass
/// over memory than the five that are left, which are most of an optimizer's time.
#[derive(Debug, Clone, Copy)]
struct Sgd {
    penalty: Option<f32>,
    momentum: Option<f32>,
    nesterov: bool,
}

impl Sgd {
    fn step<const D: usize>(
        self,
        lr: f64,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        velocity: Option<Tensor<D>>,
    ) -> (Tensor<D>, Option<Tensor<D>>) {
        let gradient = match self.penalty {
            Some(penalty) => parameter.clone().mul_scalar(penalty).add(gradient),
            None => gradient,
        };
        let Some(momentum) = self.momentum else {
            return (parameter - gradient.mul_scalar(lr), None);
        };
        let ahead = self.nesterov.then(|| gradient.clone());
        let velocity = match velocity {
            Some(velocity) => gradient.add(velocity.mul_scalar(momentum)),
            // PyTorch's first velocity is the gradient itself, not a share of it.
            None => gradient,
        };
        let step = match ahead {
            Some(gradient) => gradient.add(velocity.clone().mul_scalar(momentum)),
            None => velocity.clone(),
        };
        (parameter - step.mul_scalar(lr), Some(velocity))
    }
}

/// `torch.optim.Adam`, and `AdamW`, whose decay is not in the gradient. The operations and their order are those of burn's
/// own, and so are the bits.
#[derive(Debug, Clone, Copy)]
struct Adam {
    /// Added to the gradient.
    penalty: Option<f32>,
    /// Taken from the parameter, times the learning rate.
    decay: Option<f64>,
}

impl Adam {
    /// The parameter after its step number `steps`, and both moments.
    fn step<const D: usize>(
        self,
        lr: f64,
        steps: u32,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        moments: Option<(Tensor<D>, Tensor<D>)>,
    ) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
        let gradient = match self.penalty {
            Some(penalty) => parameter.clone().mul_scalar(penalty).add(gradient),
            None => gradient,
        };
        // The first moment is done before the second begins: fewer tensors at a time is less memory to allocate.
        let (m, v) = moments.unzip();
        let first = gradient.clone().mul_scalar(1.0 - BETA_1);
        let first = match m {
            Some(m) => m.mul_scalar(BETA_1).add(first),
            None => first,
        };
        let second = gradient.square().mul_scalar(1.0 - BETA_2);
        let second = match v {
            Some(v) => v.mul_scalar(BETA_2).add(second),
            None => second,
        };
        let time = i32::try_from(steps).unwrap_or(i32::MAX);
        let correction = (1.0 - BETA_2.powi(time)).sqrt();
        let scale = correction / (1.0 - BETA_1.powi(time));
        let direction = first
            .clone()
            .mul_scalar(scale)
            .div(second.clone().sqrt().add_scalar(EPSILON * correction));
        let parameter = match self.decay {
            Some(decay) => parameter.mul_scalar(1.0 - lr * decay),
            None => parameter,
        };
        (parameter - direction.mul_scalar(lr), first, second)
    }
}

#[cfg(test)]
mod tests {
    use burn::{
        module::Module,
        nn::{Linear, LinearConfig},
        optim::{
            AdamConfig, AdamWConfig, ModuleOptimizer, SgdConfig, decay::WeightDecayConfig,
            momentum::MomentumConfig,
        },
        tensor::Device,
    };

    use super::*;
    use crate::model::{export, import, testing::devices};

    /// Steps of ours, or of burn's.
    fn steps(
        device: &Device,
        mut step: impl FnMut(f64, Linear, GradientsParams) -> Linear,
    ) -> Vec<f32> {
        let device = device.clone().autodiff();
        let fresh: Linear = LinearConfig::new(3, 2).init(&device);
        let mut initial = export(&fresh).unwrap();
        let values = initial.values_mut().iter_mut();
        values
            .enumerate()
            .for_each(|(at, value)| *value = at as f32 / 7.0);
        let mut module = import(fresh, &initial).unwrap();
        for count in 1..5 {
            let input = Tensor::<2>::ones([4, 3], &device) / f64::from(count);
            let loss = module.forward(input).square().mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &module);
            module = step(0.1, module, gradients);
        }
        export(&module.valid()).unwrap().into_values()
    }

    fn gives_the_bits_of(settings: TrainingSettings, burns: ModuleOptimizer) {
        for (name, device) in devices() {
            let mut burns = burns.clone();
            let expected = steps(&device, |lr, module, grads| burns.step(lr, module, grads));
            let mut ours = local_optimizer(&settings);
            let found = steps(&device, |lr, module, grads| ours.step(lr, module, grads));
            assert_eq!(found, expected, "{name}, {settings:?}");
        }
    }

    #[test]
    fn sgd_gives_the_bits_of_burns_own() {
        for (momentum, weight_decay) in [(0.9, 1e-2), (0.9, 0.0), (0.0, 1e-2), (0.0, 0.0)] {
            let with_momentum = MomentumConfig::new()
                .with_momentum(momentum)
                .with_dampening(0.0);
            let burns = SgdConfig::new()
                .with_momentum((momentum > 0.0).then_some(with_momentum))
                .with_weight_decay(
                    (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32)),
                );
            let ours = TrainingSettings {
                momentum,
                weight_decay,
                ..Default::default()
            };
            gives_the_bits_of(ours, burns.init());
        }
    }

    #[test]
    fn adam_gives_the_bits_of_burns_own() {
        for weight_decay in [0.0, 1e-2] {
            let penalty = (weight_decay > 0.0).then(|| WeightDecayConfig::new(weight_decay as f32));
            let burns = AdamConfig::new()
                .with_epsilon(1e-8)
                .with_weight_decay(penalty);
            let ours = TrainingSettings {
                optimizer: OptimizerKind::Adam,
                weight_decay,
                ..Default::default()
            };
            gives_the_bits_of(ours, burns.init());
        }
        // burn's AdamW divides in another order: its values, but for rounding.
        let settings = TrainingSettings {
            optimizer: OptimizerKind::AdamW,
            weight_decay: 0.25,
            ..Default::default()
        };
        for (name, device) in devices() {
            let config = AdamWConfig::new()
                .with_epsilon(1e-8)
                .with_weight_decay(0.25);
            let mut burns = config.init();
            let expected = steps(&device, |lr, module, grads| burns.step(lr, module, grads));
            let mut ours = local_optimizer(&settings);
            let found = steps(&device, |lr, module, grads| ours.step(lr, module, grads));
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{name}: {found} {expected}"
                );
            }
        }
    }
}
