//! Who had which name among the workers with data of their own, so that one that comes back is known without a look at
//! every worker.

use std::collections::BTreeSet;

use crate::{ids::WorkerId, round::Roster};

/// The workers with data of their own, by name.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// May have some that the roster has forgotten: at most as many as it remembers, and a few.
    names: BTreeSet<(String, WorkerId)>,
}

impl Former {
    /// A worker of this name is there. The last of the same name before it that the roster still remembers.
    pub fn replace<I>(
        &mut self,
        name: &str,
        worker: WorkerId,
        roster: &Roster<I>,
    ) -> Option<WorkerId> {
        const SLACK: usize = 64;
        if self.names.len() > 2 * roster.len() + SLACK {
            self.names
                .retain(|(_, worker)| roster.find(*worker).is_some());
        }
        let all_of_name = (name.to_string(), WorkerId(0))..=(name.to_string(), WorkerId(u64::MAX));
        let of_name = self.names.range(all_of_name);
        let former = of_name
            .rev()
            .map(|(_, former)| *former)
            .find(|former| roster.find(*former).is_some());
        self.names.insert((name.to_string(), worker));
        former
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::Timestamp;

    /// Registers a worker of this name at this time; whom it replaces.
    fn register(
        former: &mut Former,
        roster: &mut Roster<()>,
        name: &str,
    ) -> (WorkerId, Option<WorkerId>) {
        let worker = roster.register((), Timestamp(0));
        (worker, former.replace(name, worker, roster))
    }

    #[test]
    fn a_worker_replaces_the_last_of_its_name_that_is_remembered() {
        let mut former = Former::default();
        let mut roster = Roster::new(Duration::from_secs(90));
        let (first, none) = register(&mut former, &mut roster, "a");
        assert_eq!(none, None);
        assert_eq!(register(&mut former, &mut roster, "ab").1, None);
        let (second, replaced) = register(&mut former, &mut roster, "a");
        assert_eq!(replaced, Some(first));
        // The second is forgotten, after many others that are gone.
        roster.leave(second);
        for _ in 0..1000 {
            let (worker, _) = register(&mut former, &mut roster, "other");
            roster.leave(worker);
        }
        assert!(roster.find(second).is_none());
        assert_eq!(register(&mut former, &mut roster, "a").1, Some(first));
    }

    #[test]
    fn names_are_not_remembered_for_ever() {
        let mut former = Former::default();
        let mut roster = Roster::new(Duration::from_secs(90));
        for index in 0..10_000 {
            let (worker, _) = register(&mut former, &mut roster, &format!("worker {index}"));
            roster.leave(worker);
        }
        assert!(former.names.len() < 1000, "{}", former.names.len());
    }
}
