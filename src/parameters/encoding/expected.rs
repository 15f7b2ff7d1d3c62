//! What a body must be: known beforehand, or read from the body's own header.

use std::sync::Arc;

use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::{
    BodyForm, Encoding, EncodingError, Form,
    form::{SCALES, VALUES},
    payloads::prefix_of,
};
use crate::parameters::{
    Layout, LayoutError, Roles,
    safetensors::{SafetensorsError, is_batch_counter, role_of, roles_of},
};

/// What a body must be.
#[derive(Debug)]
pub(super) enum Expected {
    /// It has this form, with at most as many entries of sparse payloads.
    Body(Arc<BodyForm>),
    /// A payload with this name, or a model without one, of any layout, whose trainable tensors are in this encoding.
    Any(String, Encoding),
}

impl Expected {
    /// The form that the body with this header has if it is what it must be.
    ///
    /// # Errors
    ///
    /// [`EncodingError::Malformed`] if the header shows already that it is not.
    pub fn form(&self, header: &Metadata) -> Result<BodyForm, EncodingError> {
        match self {
            Self::Body(form) => with_entries(form, header),
            Self::Any(name, encoding) => {
                let form = form_of_any(name, *encoding, header)?;
                Ok(BodyForm::one(name, form))
            }
        }
    }
}

/// The expected form, with as many entries of each sparse payload as the header announces.
fn with_entries(expected: &BodyForm, header: &Metadata) -> Result<BodyForm, EncodingError> {
    let mut parts = expected.parts().to_vec();
    for part in &mut parts {
        if !part.form.is_sparse() {
            continue;
        }
        let name = format!("{}{VALUES}", part.prefix());
        let Some(values) = header.info(&name) else {
            return Err(LayoutError::Missing { name }.into());
        };
        let &[entries] = &values.shape[..] else {
            let detail = format!(
                "{name} has shape {:?}, and must be a list: one dimension",
                values.shape
            );
            return Err(SafetensorsError::Malformed(detail).into());
        };
        let limit = part.form.entries();
        // A spool has set space aside for this many.
        if entries > limit {
            let found = entries;
            return Err(SafetensorsError::Entries { found, limit }.into());
        }
        part.form = part.form.clone().sparse(entries, Vec::new());
    }
    Ok(BodyForm::new(parts))
}

/// The form of a payload whose layout only its own header has.
fn form_of_any(
    payload: &str,
    encoding: Encoding,
    header: &Metadata,
) -> Result<Form, EncodingError> {
    if !encoding.is_dense() {
        let detail = format!(
            "a body in {encoding} does not say its layout; send a whole model as f32, f16, bf16 or int8"
        );
        return Err(SafetensorsError::Malformed(detail).into());
    }
    let roles = roles_of(header);
    let prefix = prefix_of(payload);
    let mut tensors = Vec::new();
    for full_name in header.offset_keys() {
        let info = info(header, &full_name)?;
        let Some(name) = full_name.strip_prefix(&prefix) else {
            return Err(LayoutError::Unexpected { name: full_name }.into());
        };
        let is_scales = encoding == Encoding::Int8 && name == SCALES;
        let is_counter = is_batch_counter(name) && info.dtype == Dtype::I64;
        if is_scales || is_counter {
            continue;
        }
        // In the metadata a tensor has its whole name, with the payload's prefix.
        let role = role_of(roles.as_ref(), &full_name, name);
        tensors.push((name.to_string(), info.shape.clone(), role));
    }
    Ok(Form::new(encoding, Layout::new(tensors)?, Roles::ALL))
}

/// What the header says of a tensor.
pub(super) fn info<'a>(
    header: &'a Metadata,
    name: &str,
) -> Result<&'a TensorInfo, SafetensorsError> {
    header
        .info(name)
        .ok_or_else(|| SafetensorsError::Malformed(name.to_string()))
}
