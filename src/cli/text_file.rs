//! Files of text that arguments name.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::Failure;

/// The most bytes of a job file or a token file.
pub(super) const SMALL: u64 = 1 << 20;
/// The most bytes of a run's record. One of 10 000 rounds with 100 reports each has 300 MB.
pub(super) const RECORD: u64 = 4 << 30;

/// Reads a file that has at most `limit` bytes: `/dev/zero` has no end.
///
/// # Errors
///
/// [`Failure::Usage`] with the file's name.
pub(super) fn read_text(file: &Path, limit: u64) -> Result<String, Failure> {
    if fs::metadata(file).is_ok_and(|found| found.is_dir()) {
        return Err(Failure::of_file(file, "is a folder; give a file"));
    }
    let mut bytes = Vec::new();
    let opened = File::open(file).and_then(|open| open.take(limit + 1).read_to_end(&mut bytes));
    let read = opened.map_err(|error: io::Error| Failure::of_file(file, error))?;
    if read as u64 > limit {
        return Err(Failure::of_file(
            file,
            format!("has more than {limit} bytes, and that is the most"),
        ));
    }
    String::from_utf8(bytes).map_err(|_| Failure::of_file(file, "is not a file of text"))
}

/// Warns of a file or a folder with secrets that other users of the machine can read or enter, with the command that ends that.
pub(super) fn warn_if_shared(path: &Path, mend: &str) {
    if is_shared(path) {
        let shown = path.display();
        tracing::warn!(
            "other users of this machine can read {shown}: \"{mend} {shown}\" keeps them out"
        );
    }
}

#[cfg(unix)]
fn is_shared(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    fs::metadata(path).is_ok_and(|found| {
        // A pipe, as of a shell's `<(...)`, is nobody else's.
        (found.is_file() || found.is_dir()) && found.permissions().mode() & 0o077 != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_file_of_the_size_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("job.toml");
        fs::write(&file, "rounds = 3").unwrap();
        assert_eq!(read_text(&file, 10).unwrap(), "rounds = 3");
        let problem = |path: &Path| read_text(path, 9).unwrap_err().to_string();
        assert!(problem(&file).ends_with("job.toml: has more than 9 bytes, and that is the most"));
        assert!(problem(folder.path()).ends_with("is a folder; give a file"));
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(problem(&file).ends_with("job.toml: is not a file of text"));
        fs::remove_file(&file).unwrap();
        assert!(problem(&file).contains("job.toml: "));
    }
}
