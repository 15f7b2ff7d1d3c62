//! Power failures and errors of the disk: what a worker kept is there, and what is there is whole.

use std::{collections::BTreeMap, path::Path};

use super::*;
use crate::{
    disk::{
        Site,
        testing::{EIO, Fault, Scenario, watch},
    },
    ids::{ClientId, CoordinatorId, JobId, RoundId, WorkerId},
    parameters::{Layout, Parameters, Role},
    protocol::{Registered, Registration},
    worker::memory::{Kept, Prepared},
};

fn folder(root: &Path) -> Result<StateFolder, String> {
    let coordinator = CoordinatorId("c1".to_string());
    let base = root.join("workers");
    StateFolder::open(&base, &coordinator, "lab", false).map_err(|error| error.to_string())
}

fn kept(value: f32) -> Kept {
    let layout = Layout::new([("w".to_string(), vec![2], Role::Trainable)]).unwrap();
    let parameters = Parameters::new(layout, vec![value, 1.0]).unwrap();
    Kept {
        personal: None,
        state: BTreeMap::new(),
        residuals: BTreeMap::from([("delta".to_string(), parameters)]),
    }
}

/// The state of the last report, and that of the one before it, are those of these rounds.
fn has_states(root: &Path, committed: Option<u64>, prepared: u64) -> Result<(), String> {
    let expected = |round: u64| -> Prepared { (RoundId(round), kept(round as f32)) };
    let (before, last) = folder(root)?.client(JobId(1), ClientId(0)).read();
    // The next write may have been complete already.
    let next = (Some(expected(prepared)), Some(expected(prepared + 1)));
    if (&before, &last) == (&committed.map(expected), &Some(expected(prepared)))
        || (before.clone(), last.clone()) == next
    {
        Ok(())
    } else {
        Err(format!("it has {before:?} and {last:?}"))
    }
}

#[test]
fn a_client_state_and_the_registration_survive() {
    let registration = Registration::new("lab");
    let json = r#"{"worker":7,"coordinator":"c1","token":"secret","heartbeat_ms":1,"poll_ms":2}"#;
    let registered: Registered = serde_json::from_str(json).unwrap();
    Scenario::Worker.check(|root, power| {
        let worker = folder(root).unwrap();
        worker.keep_registration(&registration, &registered);
        power.promise("the registration", |root| {
            let found = folder(root)?.registration();
            let worker = found.map(|(_, registered)| registered.worker);
            if worker == Some(WorkerId(7)) {
                Ok(())
            } else {
                Err("it is lost".to_string())
            }
        });
        let client = worker.client(JobId(1), ClientId(0));
        let mut before: Option<Prepared> = None;
        for round in 1..4 {
            let kept = kept(round as f32);
            client
                .write(before.as_ref(), RoundId(round), &kept)
                .unwrap();
            let committed = before.as_ref().map(|(round, _)| round.0);
            power.promise("the states", move |root| has_states(root, committed, round));
            before = Some((RoundId(round), kept));
        }
        power.withdraw("the states");
        client.clear().unwrap();
    });
}

#[test]
fn an_error_of_the_disk_leaves_the_state_before_and_the_next_write_counts() {
    for site in [
        Site::WorkerAboveSync,
        Site::WorkerWrite,
        Site::WorkerSync,
        Site::WorkerRename,
        Site::ClientSync,
    ] {
        let root = tempfile::tempdir().unwrap();
        let worker = folder(root.path()).unwrap();
        let fault = Fault::new(Some(site), 1, EIO);
        let _watch = watch(root.path(), fault.clone());
        let client = worker.client(JobId(1), ClientId(0));
        let error = client.write(None, RoundId(1), &kept(1.0)).unwrap_err();
        assert!(fault.has_failed(), "{site:?}");
        let (path, error) = (root.path().display().to_string(), error.to_string());
        assert!(
            error.contains(&path) && error.contains("os error 5"),
            "{error}"
        );
        // All of it, if its name was in place already; or nothing.
        let (committed, prepared) = client.read();
        assert!(committed.is_none(), "{site:?}");
        assert!(prepared.is_none() || prepared == Some((RoundId(1), kept(1.0))));
        client.write(None, RoundId(1), &kept(1.0)).unwrap();
        // Each of the three folders: one whose name may not be on the disk is not taken for durable.
        let syncs = fault.visits()[&Site::WorkerAboveSync];
        assert_eq!(syncs, 3 + usize::from(site == Site::WorkerAboveSync));
        assert_eq!(client.read().1, Some((RoundId(1), kept(1.0))));
    }
}
