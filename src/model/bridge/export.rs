//! From a module to parameters: a visitor that collects names, shapes, roles and values.

use std::sync::Arc;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Tensor},
};

use super::{
    error::BridgeError,
    pytorch::{Path, transpose},
};
use crate::parameters::{Layout, LayoutError, Parameters, Role};

/// What a visit found.
#[derive(Default)]
pub(super) struct Collected {
    tensors: Vec<Found>,
}

pub(super) struct Found {
    pub(super) name: String,
    shape: Vec<usize>,
    role: Role,
    pub(super) values: Vec<f32>,
}

/// Visits the module with its values.
pub(super) fn collect<M: Module>(module: &M) -> Result<Collected, BridgeError> {
    visit(module, true)
}

/// Visits the module without reading any value.
pub(super) fn layout<M: Module>(module: &M) -> Result<Arc<Layout>, BridgeError> {
    visit(module, false)?.layout()
}

fn visit<M: Module>(module: &M, with_values: bool) -> Result<Collected, BridgeError> {
    let mut visitor = Visitor {
        path: Path::default(),
        collected: Collected::default(),
        with_values,
        error: None,
    };
    // In training mode every parameter says whether it wants a gradient, which it does not on a plain device; and the
    // change of mode makes BatchNorm take its last update, which it keeps aside until then.
    module.clone().train().visit(&mut visitor);
    match visitor.error {
        Some(error) => Err(error),
        None => Ok(visitor.collected),
    }
}

struct Visitor {
    path: Path,
    collected: Collected,
    with_values: bool,
    error: Option<BridgeError>,
}

impl Visitor {
    fn found<const D: usize>(&self, param: &Param<Tensor<D>>) -> Result<Found, BridgeError> {
        found(&self.path, param, self.with_values)
    }
}

/// The tensor at this path, in PyTorch's form; without its values if they are not wanted.
pub(super) fn found<const D: usize>(
    path: &Path,
    param: &Param<Tensor<D>>,
    with_values: bool,
) -> Result<Found, BridgeError> {
    // burn has no word for a buffer: BatchNorm's running values are parameters without a gradient.
    let role = if param.is_require_grad() {
        Role::Trainable
    } else {
        Role::Buffer
    };
    let is_linear = D == 2 && path.is_linear_weight();
    // A linear layer's value is `[inputs, outputs]` for both of burn's layouts; what it saves is not.
    let tensor = if is_linear {
        param.val()
    } else {
        param.transform_for_save().val()
    };
    let mut found = Found {
        name: path.name(),
        shape: tensor.dims().to_vec(),
        role,
        values: Vec::new(),
    };
    // Converting it here would give the module values of another precision than it trains with.
    if tensor.dtype() != DType::F32 {
        return Err(BridgeError::Dtype {
            name: found.name,
            found: format!("{:?}", tensor.dtype()),
        });
    }
    if with_values {
        let data = tensor
            .try_into_data()
            .map_err(|error| BridgeError::Panicked(error.to_string()))?;
        found.values = data
            .try_into_vec::<f32>()
            .map_err(|error| BridgeError::Panicked(error.to_string()))?;
    }
    if is_linear {
        let (inputs, outputs) = (found.shape[0], found.shape[1]);
        found.values = if with_values {
            transpose(&found.values, inputs, outputs)
        } else {
            Vec::new()
        };
        found.shape = vec![outputs, inputs];
    }
    Ok(found)
}

impl ModuleVisitor for Visitor {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // A visitor can't stop a visit: the rest is passed over.
        if self.error.is_some() {
            return;
        }
        match self.found(param) {
            Ok(found) => self.collected.tensors.push(found),
            Err(error) => self.error = Some(error),
        }
    }
}

impl Collected {
    fn layout(&self) -> Result<Arc<Layout>, BridgeError> {
        let tensors = self
            .tensors
            .iter()
            .map(|found| (found.name.clone(), found.shape.clone(), found.role));
        Ok(Layout::new(tensors)?)
    }

    pub(super) fn into_parameters(self) -> Result<Parameters, BridgeError> {
        let layout = self.layout()?;
        self.into_layout(&layout)
    }

    /// The values in this layout's order.
    pub(super) fn into_layout(self, layout: &Arc<Layout>) -> Result<Parameters, BridgeError> {
        // Without this, a tensor of the layout that the module lacks would silently be zeros.
        layout.check_same(&*self.layout()?)?;
        let mut parameters = Parameters::zeros(layout.clone());
        for found in self.tensors {
            let spec = layout
                .find(&found.name)
                .ok_or(LayoutError::Missing { name: found.name })?;
            parameters.values_mut()[spec.range()].copy_from_slice(&found.values);
        }
        Ok(parameters)
    }
}
