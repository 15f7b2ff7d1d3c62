//! Models put together of what came in several pieces.

use std::sync::Arc;

use crate::parameters::{Layout, LayoutError, Parameters, Role};

/// Returns the whole model: what came of it, and the frozen tensors.
pub(super) fn with_frozen(
    sent: &Parameters,
    frozen: &Parameters,
) -> Result<Parameters, LayoutError> {
    let mut tensors = Vec::new();
    for (parameters, wants_frozen) in [(sent, false), (frozen, true)] {
        for spec in parameters.layout().tensors() {
            if (spec.role == Role::Frozen) == wants_frozen {
                tensors.push((spec.name.clone(), spec.shape.clone(), spec.role));
            }
        }
    }
    // The layout sorts the tensors: sent and frozen ones lie between each other in it.
    let mut whole = Parameters::zeros(Layout::new(tensors)?);
    let layout = whole.layout().clone();
    for spec in layout.tensors() {
        let source = if spec.role == Role::Frozen {
            frozen
        } else {
            sent
        };
        if let Some(values) = source.tensor(&spec.name) {
            whole.values_mut()[spec.range()].copy_from_slice(values);
        }
    }
    Ok(whole)
}

/// Returns a payload's values on the model's layout: zeros for tensors that it does not have.
pub(super) fn on_layout(
    sent: &Parameters,
    layout: &Arc<Layout>,
) -> Result<Parameters, LayoutError> {
    let mut whole = Parameters::zeros(layout.clone());
    for spec in sent.layout().tensors() {
        let Some(target) = layout.find(&spec.name) else {
            let name = spec.name.clone();
            return Err(LayoutError::Unexpected { name });
        };
        if target.shape != spec.shape {
            return Err(LayoutError::Shape {
                name: spec.name.clone(),
                expected: target.shape.clone(),
                found: spec.shape.clone(),
            });
        }
        let values = &sent.values()[spec.range()];
        whole.values_mut()[target.range()].copy_from_slice(values);
    }
    Ok(whole)
}
