//! What version a folder of LibTorch is. `build.rs` uses this file too, so that it names nothing of this crate.

use std::path::Path;

/// The version of the LibTorch in this folder, such as `2.9.0+cu128`: what its archive or its wheel says.
pub fn version(root: &Path, read: impl Fn(&Path) -> Option<String>) -> Option<String> {
    if let Some(text) = read(&root.join("build-version")) {
        return Some(text.trim().to_string());
    }
    // A wheel: `__version__ = '2.9.0+cu128'`.
    let text = read(&root.join("version.py"))?;
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    Some(line.split('\'').nth(1)?.to_string())
}
