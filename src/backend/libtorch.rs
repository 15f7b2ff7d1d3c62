//! The LibTorch that this program is built against, and the one that it was started with.

use std::{fs, path::Path};

use super::{hardware::LIBTORCH, version::version};

/// Checks that the libraries that this process runs with are of the version that it is built against. Others lack
/// functions, or have them with other arguments.
///
/// Nothing is checked if the system does not show which libraries those are (other than Linux), or if they do not
/// say their version.
///
/// # Errors
///
/// A sentence that names both versions, and the folder of the libraries.
pub(super) fn check_loaded() -> Result<(), String> {
    // The memory map and not LD_LIBRARY_PATH: what counts is the file that the loader has found.
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    match (LIBTORCH, loaded(&maps)) {
        (Some(built), Some(library)) => check(built, library, |file| fs::read_to_string(file).ok()),
        _ => Ok(()),
    }
}

/// The path of LibTorch's main library in a process's memory map.
fn loaded(maps: &str) -> Option<&Path> {
    maps.lines()
        .filter_map(|line| Some(Path::new(&line[line.find('/')?..])))
        .find(|path| path.ends_with("libtorch_cpu.so"))
}

fn check(
    built: &str,
    library: &Path,
    read: impl Fn(&Path) -> Option<String>,
) -> Result<(), String> {
    let Some(root) = library.parent().and_then(Path::parent) else {
        return Ok(());
    };
    let Some(found) = version(root, read) else {
        return Ok(());
    };
    if release(built) == release(&found) {
        return Ok(());
    }
    Err(format!(
        "this program is built against LibTorch {built} and was started with the libraries of {found} in {}: set \
         LD_LIBRARY_PATH to those of {built}, or build again with LIBTORCH={}",
        root.join("lib").display(),
        root.display()
    ))
}

/// The version without its build: CPU and CUDA builds of one release have the same functions.
fn release(version: &str) -> &str {
    version.split('+').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0001000 r--p 00000000 fe:01 12 /usr/bin/fedavg-worker
7f0000000000-7f0000001000 r--p 00000000 fe:01 34 /opt/libtorch 2.7/lib/libtorch_cpu.so
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
7f0000004000-7f0000005000 r--p 00000000 fe:01 56 /opt/libtorch 2.7/lib/libc10.so";

    fn with(file: &'static str, text: &'static str) -> impl Fn(&Path) -> Option<String> {
        move |asked| asked.ends_with(file).then(|| text.to_string())
    }

    #[test]
    fn other_libraries_than_those_of_the_build_are_named() {
        let library = loaded(MAPS).unwrap();
        assert_eq!(library, Path::new("/opt/libtorch 2.7/lib/libtorch_cpu.so"));
        for (file, text) in [
            ("build-version", "2.7.1+cu126\n"),
            (
                "version.py",
                "from typing import Optional\n__version__ = '2.7.1+cu126'\n",
            ),
        ] {
            let said = check("2.9.0+cu128", library, with(file, text)).unwrap_err();
            for part in ["2.9.0+cu128", "2.7.1+cu126", "/opt/libtorch 2.7/lib:"] {
                assert!(said.contains(part), "{said}");
            }
        }
    }

    #[test]
    fn the_same_release_passes_and_what_says_nothing_too() {
        let library = loaded(MAPS).unwrap();
        let same = with("build-version", "2.7.1+cpu");
        assert_eq!(check("2.7.1+cu126", library, same), Ok(()));
        assert_eq!(check("2.7.1", library, |_| None), Ok(()));
        assert_eq!(loaded("7f00-7f01 r--p 0 fe:01 1 /usr/lib/libc.so.6"), None);
        assert_eq!(check_loaded(), Ok(()));
    }
}
