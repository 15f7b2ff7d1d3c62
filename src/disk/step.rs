//! One step: in a usual build the call of the operating system, in tests with what they ask for around it.

use std::io;

use super::{Site, target::Target};

/// Does a step.
#[cfg(not(any(test, feature = "testing")))]
#[inline(always)]
pub(super) fn step<E: From<io::Error>>(
    _site: Site,
    _target: Target<'_>,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    act()
}

/// Does a step, unless a test wants something else.
#[cfg(any(test, feature = "testing"))]
pub(super) fn step<E: From<io::Error>>(
    site: Site,
    target: Target<'_>,
    act: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    #[cfg(feature = "testing")]
    super::kill::before(site);
    #[cfg(test)]
    let done = super::testing::around(site, target, act);
    #[cfg(not(test))]
    let done = {
        let _ = target;
        act()
    };
    #[cfg(feature = "testing")]
    super::kill::after(site);
    done
}
