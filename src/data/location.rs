//! The folder that datasets are looked for in: one rule for every command and process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::DataError;

/// The environment variable that names the folder of datasets.
pub const DATA_DIR_VARIABLE: &str = "FEDAVG_DATA";

/// The folder in which datasets are looked for, and into which they are downloaded. The first that is given:
///
/// 1. `argument`, which is `--data-dir`;
/// 2. `variable`, the value of `FEDAVG_DATA`, unless it is empty;
/// 3. `fedavg` in the user's cache folder (`~/.cache/fedavg` on Linux, `~/Library/Caches/fedavg` on macOS,
///    `%LOCALAPPDATA%\fedavg` on Windows).
///
/// The folder need not exist. The variable's value is an argument so that the rule is a function; call it as
/// `data_dir(argument, std::env::var_os(DATA_DIR_VARIABLE))`.
pub fn data_dir(argument: Option<&Path>, variable: Option<OsString>) -> Result<PathBuf, DataError> {
    if let Some(folder) = argument {
        return Ok(folder.to_owned());
    }
    if let Some(folder) = variable.filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(folder));
    }
    dirs::cache_dir()
        .map(|cache| cache.join("fedavg"))
        .ok_or(DataError::NoDataDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_wins_then_the_variable_then_the_cache() {
        let argument = Path::new("/argument");
        let variable = || Some(OsString::from("/variable"));
        let rule = |argument, variable| data_dir(argument, variable).unwrap();
        assert_eq!(rule(Some(argument), variable()), argument);
        assert_eq!(rule(None, variable()), Path::new("/variable"));
        if let Some(cache) = dirs::cache_dir() {
            assert_eq!(rule(None, None), cache.join("fedavg"));
            assert_eq!(rule(None, Some(OsString::new())), cache.join("fedavg"));
        }
    }
}
