//! What happens to gradients between the loss and the optimizer: an objective's correction, then clipping. All of it is on
//! the device, so that no step waits for a value.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};

use crate::{
    model::{self, BridgeError},
    parameters::{Parameters, Role},
    worker::objective::Correction,
};

/// Keeps a division by a norm of zero finite, as PyTorch does.
const EPSILON: f64 = 1e-6;

/// What is done to the gradients of each step of a task.
pub(super) struct GradientChange {
    /// The pull towards the global model, with that model's tensors.
    pull: Option<(f64, GradientsParams)>,
    shift: Option<GradientsParams>,
    clip_norm: Option<f64>,
}

impl GradientChange {
    /// Brings to the module's device, once for the task, what the correction needs.
    pub(super) fn new<M: Module>(
        module: &M,
        global: &Parameters,
        correction: &Correction,
        clip_norm: Option<f64>,
    ) -> Result<Self, BridgeError> {
        // A client's own tensors are in no mean: there is nothing that they could drift from.
        let is_averaged = |name: &str| {
            let found = global.layout().find(name);
            found.is_some_and(|tensor| tensor.role != Role::Frozen)
        };
        let pull = if correction.pull == 0.0 {
            None
        } else {
            let tensors = model::load_tensors(module, global, &is_averaged)?;
            Some((correction.pull, tensors))
        };
        let shift = correction.shift.as_ref();
        let shift = shift.map(|shift| model::load_tensors(module, shift, &is_averaged));
        Ok(Self {
            pull,
            shift: shift.transpose()?,
            clip_norm,
        })
    }

    /// The gradients as the optimizer gets them. If there is nothing to change, they are the same tensors.
    pub(super) fn apply<M: Module>(
        &self,
        module: &M,
        gradients: GradientsParams,
    ) -> GradientsParams {
        if self.pull.is_none() && self.shift.is_none() && self.clip_norm.is_none() {
            return gradients;
        }
        let mut correct = Correct {
            change: self,
            gradients,
            squares: None,
        };
        module.visit(&mut correct);
        let Correct {
            gradients, squares, ..
        } = correct;
        let (Some(most), Some(squares)) = (self.clip_norm, squares) else {
            return gradients;
        };
        let norm = squares.sqrt().add_scalar(EPSILON);
        // 1 for a shorter gradient, whose bits a product with 1 keeps: reading the norm would stall the device.
        let factor = norm.recip().mul_scalar(most).clamp_max(1.0);
        let mut scale = Scale { gradients, factor };
        module.visit(&mut scale);
        scale.gradients
    }
}

/// Adds the correction, and sums up the squares if gradients are clipped.
struct Correct<'a> {
    change: &'a GradientChange,
    gradients: GradientsParams,
    squares: Option<Tensor<1>>,
}

impl ModuleVisitor for Correct<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(mut gradient) = self.gradients.remove::<D>(param.id) else {
            return;
        };
        if let Some((pull, global)) = &self.change.pull
            && let Some(global) = global.get::<D>(param.id)
        {
            let away = param.val().inner() - global;
            gradient = gradient.add(away.mul_scalar(*pull));
        }
        if let Some(shift) = &self.change.shift
            && let Some(shift) = shift.get::<D>(param.id)
        {
            gradient = gradient.add(shift);
        }
        if self.change.clip_norm.is_some() {
            let squares = gradient.clone().square().sum();
            self.squares = Some(match self.squares.take() {
                Some(before) => before.add(squares),
                None => squares,
            });
        }
        self.gradients.register(param.id, gradient);
    }
}

struct Scale {
    gradients: GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let factor = self.factor.clone().reshape([1; D]);
            self.gradients.register(param.id, gradient.mul(factor));
        }
    }
}
