//! From parameters to a module: a mapper that puts values in place of the module's own.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Tensor, TensorData},
};

use super::{
    error::BridgeError,
    pytorch::{Path, transpose},
};
use crate::parameters::{LayoutError, Parameters};

/// Maps the module onto these values, whose layout must be the module's.
pub(super) fn fill<M: Module>(module: M, parameters: &Parameters) -> Result<M, BridgeError> {
    let mut mapper = Mapper {
        path: Path::default(),
        parameters,
        error: None,
    };
    let module = module.map(&mut mapper);
    match mapper.error {
        Some(error) => Err(error),
        None => Ok(module),
    }
}

struct Mapper<'a> {
    path: Path,
    parameters: &'a Parameters,
    error: Option<BridgeError>,
}

/// The tensor at this path in the form that the parameter loads.
pub(super) fn data<const D: usize>(
    path: &Path,
    parameters: &Parameters,
    param: &Param<Tensor<D>>,
) -> Result<TensorData, BridgeError> {
    let name = path.name();
    let layout = parameters.layout();
    let Some(spec) = layout.find(&name) else {
        return Err(LayoutError::Missing { name }.into());
    };
    let values = &parameters.values()[spec.range()];
    if spec.shape.len() != D {
        return Err(LayoutError::Shape {
            name,
            expected: param.lazy_shape().to_vec(),
            found: spec.shape.clone(),
        }
        .into());
    }
    if D == 2 && path.is_linear_weight() && !transposes_when_loading(param) {
        let (outputs, inputs) = (spec.shape[0], spec.shape[1]);
        let values = transpose(values, outputs, inputs);
        return Ok(TensorData::new(values, [inputs, outputs]));
    }
    Ok(TensorData::new(values.to_vec(), spec.shape.clone()))
}

/// Whether this linear layer loads `[outputs, inputs]`, as one of burn's column-major layout does. Burn tells only by
/// doing it.
fn transposes_when_loading<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let mut shape = [1; D];
    shape[D - 1] = 2;
    let probe = Tensor::<D>::zeros(shape, &param.lazy_device());
    let loaded = param.clone().transform_for_load(probe, param.id).val();
    loaded.dims() != shape
}

impl ModuleMapper for Mapper<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        match data(&self.path, self.parameters, &param) {
            Ok(data) => {
                let tensor = Tensor::from_data(data, (&param.lazy_device(), DType::F32));
                // The id is kept, since an optimizer finds its state by it.
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
