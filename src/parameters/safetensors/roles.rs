//! The roles of a file's tensors: what its metadata says, or else their names.

use std::collections::BTreeMap;

use ::safetensors::tensor::Metadata;

use crate::parameters::Role;

/// The key of the file's metadata that names every tensor whose role is not trainable, as JSON.
pub(in crate::parameters) const ROLES: &str = "fedavg.roles";
/// PyTorch's counter of BatchNorm's batches: an integer that no averaging needs, so files may have it and layouts don't.
const BATCH_COUNTER: &str = "num_batches_tracked";

/// Whether a tensor of this name is PyTorch's counter of BatchNorm's batches.
pub(in crate::parameters) fn is_batch_counter(name: &str) -> bool {
    name.rsplit('.').next() == Some(BATCH_COUNTER)
}

/// The role of a tensor: what the file says, or what its name does if the file has no roles at all.
pub(in crate::parameters) fn role_of(
    roles: Option<&BTreeMap<String, Role>>,
    full_name: &str,
    name: &str,
) -> Role {
    match roles {
        Some(roles) => roles.get(full_name).copied().unwrap_or_default(),
        None if name.ends_with("running_mean") || name.ends_with("running_var") => Role::Buffer,
        None => Role::Trainable,
    }
}

/// The roles that a file's metadata names: none if it has no such entry, as files of other programs.
pub(in crate::parameters) fn roles_of(metadata: &Metadata) -> Option<BTreeMap<String, Role>> {
    metadata
        .metadata()
        .as_ref()?
        .get(ROLES)
        .and_then(|text| serde_json::from_str(text).ok())
}
