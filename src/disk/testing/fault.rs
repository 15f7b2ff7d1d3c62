//! A step that fails.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use super::watch::{Observer, Step};
use crate::disk::Site;

/// What the operating system says of a bad sector.
pub(crate) const EIO: i32 = 5;

/// What it says of a disk that can only be read.
#[cfg(feature = "sqlite")]
pub(crate) const EROFS: i32 = 30;

/// Fails the `nth` step at a site.
pub(crate) struct Fault {
    site: Option<Site>,
    error: i32,
    state: Mutex<State>,
}

struct State {
    nth: usize,
    visited: BTreeSet<Site>,
}

impl Fault {
    /// With this number of an error. No site: nothing fails.
    pub fn new(site: Option<Site>, nth: usize, error: i32) -> Arc<Self> {
        let visited = BTreeSet::new();
        Arc::new(Self {
            site,
            error,
            state: Mutex::new(State { nth, visited }),
        })
    }

    /// The sites that were visited.
    pub fn visited(&self) -> BTreeSet<Site> {
        self.state.lock().unwrap().visited.clone()
    }

    /// Whether it has happened.
    pub fn has_failed(&self) -> bool {
        self.state.lock().unwrap().nth == 0
    }
}

impl Observer for Fault {
    fn step(&self, step: &Step, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.visited.insert(step.site);
        if self.site == Some(step.site) && state.nth > 0 {
            state.nth -= 1;
            if state.nth == 0 {
                return Err(io::Error::from_raw_os_error(self.error));
            }
        }
        drop(state);
        act()
    }
}
