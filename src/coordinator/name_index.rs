//! Which worker had a name last, among the workers with data of their own, so that one that comes back is known in
//! constant time.

use std::collections::BTreeMap;

use crate::{ids::WorkerId, round::Roster};

/// How many names may be there before the first look at which of them are to be kept.
const SLACK: usize = 64;

/// The workers with data of their own, by name.
#[derive(Debug)]
pub(super) struct NameIndex {
    last: BTreeMap<String, WorkerId>,
    /// From this many names on, those that nobody needs are dropped: the cost of that is spread over as many registrations.
    prune_at: usize,
}

impl Default for NameIndex {
    fn default() -> Self {
        Self {
            last: BTreeMap::new(),
            prune_at: SLACK,
        }
    }
}

impl NameIndex {
    /// The last worker of this name. The roster may have forgotten it.
    pub fn last(&self, name: &str) -> Option<WorkerId> {
        self.last.get(name).copied()
    }

    /// The name is this worker's from now on. A name is kept as long as the roster has its last worker, or it is needed:
    /// a job has a client whose data a worker of this name has.
    pub fn set<I>(
        &mut self,
        name: &str,
        worker: WorkerId,
        roster: &Roster<I>,
        is_needed: impl Fn(&str) -> bool,
    ) {
        self.last.insert(name.to_string(), worker);
        if self.last.len() > self.prune_at {
            self.last
                .retain(|name, worker| roster.find(*worker).is_some() || is_needed(name));
            self.prune_at = 2 * self.last.len() + SLACK;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::Timestamp;

    /// Ten thousand workers of other names come and go.
    fn crowd(names: &mut NameIndex, roster: &mut Roster<()>, needed: &str) {
        for index in 0..10_000 {
            let worker = roster.register((), Timestamp(0));
            names.set(&format!("worker {index}"), worker, roster, |name| {
                name == needed
            });
            roster.leave(worker);
        }
    }

    #[test]
    fn a_name_that_a_job_needs_is_kept_whatever_happens_meanwhile() {
        let mut names = NameIndex::default();
        let mut roster = Roster::new(Duration::from_secs(90));
        let first = roster.register((), Timestamp(0));
        names.set("a", first, &roster, |_| true);
        assert_eq!(names.last("ab"), None);
        roster.leave(first);
        crowd(&mut names, &mut roster, "a");
        assert!(roster.find(first).is_none());
        assert_eq!(names.last("a"), Some(first));
        let second = roster.register((), Timestamp(0));
        names.set("a", second, &roster, |_| true);
        assert_eq!(names.last("a"), Some(second));
    }

    #[test]
    fn names_that_nobody_needs_are_not_remembered_for_ever() {
        let mut names = NameIndex::default();
        let mut roster = Roster::new(Duration::from_secs(90));
        crowd(&mut names, &mut roster, "");
        assert!(names.last.len() < 1000, "{}", names.last.len());
    }
}
