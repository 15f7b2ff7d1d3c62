//! A step that fails.

use std::{
    collections::BTreeMap,
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
    visits: BTreeMap<Site, usize>,
}

impl Fault {
    /// With this number of an error. No site: nothing fails.
    pub fn new(site: Option<Site>, nth: usize, error: i32) -> Arc<Self> {
        let visits = BTreeMap::new();
        Arc::new(Self {
            site,
            error,
            state: Mutex::new(State { nth, visits }),
        })
    }

    /// How often each site was visited.
    pub fn visits(&self) -> BTreeMap<Site, usize> {
        self.state.lock().unwrap().visits.clone()
    }

    /// Whether it has happened.
    pub fn has_failed(&self) -> bool {
        self.state.lock().unwrap().nth == 0
    }
}

impl Observer for Fault {
    fn step(&self, step: &Step, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        *state.visits.entry(step.site).or_default() += 1;
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
