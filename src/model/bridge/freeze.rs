//! A mapper that takes tensors out of what is differentiated.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::Tensor,
};

use super::pytorch::Path;

/// The module, with the tensors of these names not requiring a gradient.
pub(super) fn without_gradients<M: Module>(module: M, fixed: &dyn Fn(&str) -> bool) -> M {
    module.map(&mut Freezer {
        path: Path::default(),
        fixed,
    })
}

struct Freezer<'a> {
    path: Path,
    fixed: &'a dyn Fn(&str) -> bool,
}

impl ModuleMapper for Freezer<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if param.is_require_grad() && (self.fixed)(&self.path.name()) {
            param.set_require_grad(false)
        } else {
            param
        }
    }
}
