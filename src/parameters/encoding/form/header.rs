//! The bytes of a safetensors file before its values.

use std::collections::BTreeMap;

use serde_json::json;

use super::Form;
use crate::parameters::{
    Role,
    safetensors::{LENGTH_BYTES, ROLES},
};

impl Form {
    /// The bytes of a safetensors file before this payload, if it is the only one. `prefix` goes in front of each name.
    pub fn header(&self, prefix: &str) -> Vec<u8> {
        header_of(&[(prefix, self)])
    }
}

/// The bytes of a safetensors file before its payloads, which follow each other without gaps.
pub(crate) fn header_of(parts: &[(&str, &Form)]) -> Vec<u8> {
    let mut roles = BTreeMap::new();
    for (prefix, form) in parts {
        for spec in form.layout.tensors() {
            if spec.role != Role::Trainable && form.roles.contains(spec.role) {
                roles.insert(format!("{prefix}{}", spec.name), spec.role);
            }
        }
    }
    let roles = json!(roles).to_string();
    // Written tensor by tensor, since the header must have the payload's order and a JSON map of the library sorts its keys.
    let mut text = format!(
        "{{\"__metadata__\":{}",
        json!({ "format": "pt", ROLES: roles })
    );
    let mut base = 0;
    for (prefix, form) in parts {
        for entry in form.tensors() {
            let name = json!(format!("{prefix}{}", entry.name));
            let offsets = [base + entry.bytes.start, base + entry.bytes.end];
            let info =
                json!({ "dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets });
            text.push_str(&format!(",{name}:{info}"));
        }
        base += form.bytes();
    }
    text.push('}');
    // The values then begin at a multiple of eight bytes in the file, so that other programs can map them as they are.
    while !text.len().is_multiple_of(LENGTH_BYTES) {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
