//! Which copies of which datasets the live workers have, so that a registration is checked without a look at every
//! worker. It only counts: what follows from a difference is the handler's to say.

use std::collections::BTreeMap;

use crate::protocol::{DatasetInfo, Registration};

/// The copies of the live workers' datasets. Workers whose data is their own don't count: no two have the same.
#[derive(Debug, Default)]
pub(super) struct DatasetCopies {
    /// By name, then by fingerprint: how many live workers have it. No count is 0 and no name without a copy.
    counts: BTreeMap<String, BTreeMap<String, usize>>,
}

impl DatasetCopies {
    /// A worker is live from now on.
    pub fn add(&mut self, registration: &Registration) {
        for dataset in shared(registration) {
            // Not `entry`, which needs a copy of the name for each worker: nearly all names are known already.
            if !self.counts.contains_key(&dataset.name) {
                self.counts.insert(dataset.name.clone(), BTreeMap::new());
            }
            let Some(copies) = self.counts.get_mut(&dataset.name) else {
                continue;
            };
            match copies.get_mut(&dataset.fingerprint) {
                Some(count) => *count += 1,
                None => {
                    copies.insert(dataset.fingerprint.clone(), 1);
                }
            }
        }
    }

    /// A worker that was added is live no more.
    pub fn remove(&mut self, registration: &Registration) {
        for dataset in shared(registration) {
            let Some(copies) = self.counts.get_mut(&dataset.name) else {
                continue;
            };
            if let Some(count) = copies.get_mut(&dataset.fingerprint) {
                *count -= 1;
                if *count == 0 {
                    copies.remove(&dataset.fingerprint);
                }
            }
            if copies.is_empty() {
                self.counts.remove(&dataset.name);
            }
        }
    }

    /// The fingerprint of a live worker's copy of this dataset that is not this one, if there is such a worker.
    pub fn other_than(&self, dataset: &DatasetInfo) -> Option<&str> {
        let copies = self.counts.get(&dataset.name)?;
        let mut fingerprints = copies.keys().map(String::as_str);
        // Takes at most two steps: of two copies, one differs.
        fingerprints.find(|fingerprint| *fingerprint != dataset.fingerprint)
    }
}

fn shared(registration: &Registration) -> &[DatasetInfo] {
    if registration.local {
        &[]
    } else {
        &registration.datasets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PROTOCOL;

    fn dataset(name: &str, fingerprint: &str) -> DatasetInfo {
        DatasetInfo {
            name: name.to_string(),
            fingerprint: fingerprint.to_string(),
            train_examples: 1,
            test_examples: 1,
        }
    }

    fn worker(local: bool, datasets: &[(&str, &str)]) -> Registration {
        Registration {
            protocol: PROTOCOL,
            protocol_min: None,
            capabilities: Vec::new(),
            name: "worker".to_string(),
            slots: 1,
            hardware: Default::default(),
            device: String::new(),
            datasets: datasets
                .iter()
                .map(|(name, fingerprint)| dataset(name, fingerprint))
                .collect(),
            encodings: vec!["f32".to_string()],
            local,
        }
    }

    #[test]
    fn a_copy_counts_as_long_as_one_worker_that_has_it_is_live() {
        let mut copies = DatasetCopies::default();
        let both = worker(false, &[("digits", "a"), ("faces", "x")]);
        let one = worker(false, &[("digits", "a")]);
        copies.add(&both);
        copies.add(&one);
        copies.remove(&both);
        assert_eq!(copies.other_than(&dataset("digits", "b")), Some("a"));
        assert_eq!(copies.other_than(&dataset("digits", "a")), None);
        assert_eq!(copies.other_than(&dataset("faces", "y")), None);
        copies.remove(&one);
        assert_eq!(copies.other_than(&dataset("digits", "b")), None);
        assert!(copies.counts.is_empty());
    }

    #[test]
    fn with_two_copies_live_neither_is_taken() {
        // One that was lost when the other registered, and is back.
        let mut copies = DatasetCopies::default();
        copies.add(&worker(false, &[("digits", "a")]));
        copies.add(&worker(false, &[("digits", "b")]));
        assert_eq!(copies.other_than(&dataset("digits", "a")), Some("b"));
        assert_eq!(copies.other_than(&dataset("digits", "b")), Some("a"));
    }

    #[test]
    fn data_of_a_workers_own_is_nobody_elses_copy() {
        let mut copies = DatasetCopies::default();
        let local = worker(true, &[("digits", "a")]);
        copies.add(&local);
        assert_eq!(copies.other_than(&dataset("digits", "b")), None);
        copies.add(&worker(false, &[("digits", "b")]));
        copies.remove(&local);
        assert_eq!(copies.other_than(&dataset("digits", "a")), Some("b"));
    }
}
