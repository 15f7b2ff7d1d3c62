//! One step: in a usual build the call of the operating system, in tests with what they ask for around it.

use std::{io, path::Path};

use super::Site;

/// Does a step that is about this path; of a rename, the new name.
#[cfg(not(any(test, feature = "testing")))]
#[inline(always)]
pub(super) fn step<E: From<io::Error>>(
    _site: Site,
    _path: &Path,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    act()
}

/// Does a step that is about this path, unless a test wants something else.
#[cfg(any(test, feature = "testing"))]
pub(super) fn step<E: From<io::Error>>(
    site: Site,
    path: &Path,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    #[cfg(feature = "testing")]
    super::kill::before(site);
    #[cfg(test)]
    let done = super::testing::around(site, path, act);
    #[cfg(not(test))]
    let done = {
        let _ = path;
        act()
    };
    #[cfg(feature = "testing")]
    super::kill::after(site);
    done
}
