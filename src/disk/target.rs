//! What a step is about.

use std::path::Path;

/// What a step is about.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "only tests look at what a step is about")
)]
pub(super) enum Target<'a> {
    /// A file or a folder.
    Path(&'a Path),
    /// From this path to that one.
    Move(&'a Path, &'a Path),
}
