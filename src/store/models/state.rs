//! The numbers of a strategy's state, beside the model that they belong to.

use std::{collections::BTreeMap, io, path::Path};

use serde_json::json;

use crate::{
    disk::{self, Site},
    store::{
        StoreError,
        folder::{DataFolder, failed, private},
    },
};

/// Writes the numbers as `state.json` and brings them to the disk. Without any there is no file.
///
/// # Errors
///
/// [`StoreError::Io`]; [`StoreError::Encoding`] for a number that JSON does not have.
pub(super) fn write(
    folder: &DataFolder,
    path: &Path,
    numbers: &BTreeMap<String, f64>,
) -> Result<(), StoreError> {
    if numbers.is_empty() {
        return Ok(());
    }
    for (name, number) in numbers {
        // JSON has no form for it, and `serde_json` would write `null`.
        if !number.is_finite() {
            let detail = format!("{name} of the strategy's state is {number}");
            return Err(StoreError::Encoding(detail));
        }
    }
    let json = json!({ "numbers": numbers }).to_string();
    let path = path.join("state.json");
    write_file(folder, &path, json.as_bytes()).map_err(|error| failed(&path, error))
}

fn write_file(folder: &DataFolder, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = private().create_new(true).open(path)?;
    folder.write_at(Site::NumbersWrite, (&file, path), bytes, 0)?;
    disk::sync_data(Site::NumbersSync, &file, path)
}

/// A state tensor's name as part of a file's: names have only letters, digits, `_`, `-` and `.`.
pub(super) fn file_name(state: &str) -> String {
    format!("state-{state}.safetensors")
}
