//! Values that belong to a module's trainable tensors but are not the module's: a correction of gradients, an optimizer's
//! momentum. They cross the bridge in the module's own form, and the module stays as it is.

use std::{collections::BTreeMap, sync::Arc};

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{DType, Tensor},
};

use super::{error::BridgeError, export, import, pytorch::Path};
use crate::parameters::{Layout, Parameters};

/// These values on the module's device, without autodiff, each found by the id of its trainable tensor.
pub(super) fn load<M: Module>(
    module: &M,
    parameters: &Parameters,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<GradientsParams, BridgeError> {
    let mut visitor = Loader {
        path: Path::default(),
        parameters,
        wanted,
        loaded: GradientsParams::new(),
        error: None,
    };
    module.visit(&mut visitor);
    match visitor.error {
        Some(error) => Err(error),
        None => Ok(visitor.loaded),
    }
}

/// The other way round, in this layout. What has no value is zero.
pub(super) fn save<M: Module>(
    module: &M,
    values: &GradientsParams,
    layout: &Arc<Layout>,
) -> Result<Parameters, BridgeError> {
    let mut visitor = Saver {
        path: Path::default(),
        values,
        saved: Parameters::zeros(layout.clone()),
        error: None,
    };
    module.visit(&mut visitor);
    match visitor.error {
        Some(error) => Err(error),
        None => Ok(visitor.saved),
    }
}

/// PyTorch's names of the trainable tensors, by the numbers of their ids.
pub(super) fn names<M: Module>(module: &M) -> BTreeMap<u64, String> {
    let mut visitor = Names::default();
    module.visit(&mut visitor);
    visitor.names
}

struct Loader<'a> {
    path: Path,
    parameters: &'a Parameters,
    wanted: &'a dyn Fn(&str) -> bool,
    loaded: GradientsParams,
    error: Option<BridgeError>,
}

impl ModuleVisitor for Loader<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.error.is_some() || !param.is_require_grad() || !(self.wanted)(&self.path.name()) {
            return;
        }
        match import::data(&self.path, self.parameters, param) {
            Ok(data) => {
                let tensor = Tensor::from_data(data, (&param.lazy_device(), DType::F32));
                // A copy of one parameter, which has no state that it would share.
                let loaded = param.clone().transform_for_load(tensor, param.id).val();
                self.loaded.register(param.id, loaded.inner());
            }
            Err(error) => self.error = Some(error),
        }
    }
}

struct Saver<'a> {
    path: Path,
    values: &'a GradientsParams,
    saved: Parameters,
    error: Option<BridgeError>,
}

impl Saver<'_> {
    fn save<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<(), BridgeError> {
        let Some(value) = self.values.get::<D>(param.id) else {
            return Ok(());
        };
        // In the parameter's place, so that it is turned into PyTorch's form as the parameter would be.
        let found = export::found(&self.path, &param.clone().map(|_| value), true)?;
        if let Some(spec) = self.saved.layout().find(&found.name).cloned() {
            self.saved.values_mut()[spec.range()].copy_from_slice(&found.values);
        }
        Ok(())
    }
}

impl ModuleVisitor for Saver<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.error.is_none()
            && let Err(error) = self.save(param)
        {
            self.error = Some(error);
        }
    }
}

#[derive(Default)]
struct Names {
    path: Path,
    names: BTreeMap<u64, String>,
}

impl ModuleVisitor for Names {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.names.insert(param.id.val(), self.path.name());
        }
    }
}
