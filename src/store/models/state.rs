//! A strategy's state beside the model that it belongs to.

use std::{fs::File, path::Path};

use serde_json::json;

use crate::{
    parameters::{Encoding, Form, Parameters},
    store::{
        StoreError,
        folder::{DataFolder, failed},
    },
    strategy::StrategyState,
};

/// Writes the state's numbers as `state.json`, with the names of its parameters, and each of these as
/// `state-NAME.safetensors`, and brings them to the disk. An empty state has no files.
///
/// # Errors
///
/// [`StoreError::Io`]; [`StoreError::Encoding`] for a number that JSON does not have.
pub(super) fn write(
    folder: &DataFolder,
    path: &Path,
    state: &StrategyState,
) -> Result<(), StoreError> {
    if state.is_empty() {
        return Ok(());
    }
    if let Some((name, number)) = state.numbers.iter().find(|(_, number)| !number.is_finite()) {
        let detail = format!("{name} of the strategy's state is {number}");
        return Err(StoreError::Encoding(detail));
    }
    let names: Vec<_> = state.parameters.keys().collect();
    let json = json!({ "numbers": state.numbers, "parameters": names }).to_string();
    write_file(folder, &path.join("state.json"), &[json.as_bytes()])?;
    for (name, parameters) in &state.parameters {
        let file = path.join(format!("state-{}.safetensors", escaped(name)));
        write_file(
            folder,
            &file,
            &pieces(parameters).each_ref().map(|piece| &**piece),
        )?;
    }
    Ok(())
}

fn pieces(parameters: &Parameters) -> [std::borrow::Cow<'_, [u8]>; 2] {
    let form = Form::new(Encoding::F32, parameters.layout().clone());
    let values = bytemuck::cast_slice(parameters.values());
    [form.header("").into(), values.into()]
}

fn write_file(folder: &DataFolder, path: &Path, pieces: &[&[u8]]) -> Result<(), StoreError> {
    let write = || {
        let file = File::create_new(path)?;
        let mut offset = 0;
        for piece in pieces {
            folder.write_at(&file, piece, offset)?;
            offset += piece.len() as u64;
        }
        file.sync_data()
    };
    write().map_err(|error| failed(path, &error))
}

/// A name as part of a file's: what could mean something to a file system is `%` and two hexadecimal digits.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let mut text = String::new();
    for byte in name.bytes() {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text
}
