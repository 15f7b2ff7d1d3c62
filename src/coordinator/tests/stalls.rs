//! A disk that takes its time: who needs it waits, and nobody else.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
};

use super::{places::Places, recovery::kill, *};
use crate::{
    disk::{
        Site,
        testing::{Observer, Step, watch},
    },
    round::JobEvent,
    store::Journal,
};

/// Holds the steps at one site up while it is closed.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
    reached: tokio::sync::Notify,
}

#[derive(Default)]
struct GateState {
    closed: Option<Site>,
}

impl Gate {
    fn close(&self, site: Site) {
        self.state.lock().unwrap().closed = Some(site);
    }

    fn open(&self) {
        self.state.lock().unwrap().closed = None;
        self.changed.notify_all();
    }
}

impl Observer for Gate {
    fn step(&self, step: &Step, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        if state.closed == Some(step.site) {
            self.reached.notify_one();
        }
        // With a limit, so that a test whose only thread comes here fails and does not hang.
        let is_closed = |state: &mut GateState| state.closed == Some(step.site);
        let waited = self.changed.wait_timeout_while(state, LIMIT, is_closed);
        drop(waited.unwrap());
        act()
    }
}

fn heartbeat(credentials: &Credentials) -> Request {
    Request::Heartbeat {
        credentials: credentials.clone(),
        busy: Vec::new(),
    }
}

/// On one thread: whatever waits for the disk on it stops all.
#[tokio::test]
async fn while_a_report_waits_for_the_disk_all_others_are_answered() {
    let (root, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let _watch = watch(root.path(), gate.clone());
    let lab = Arc::new(Places::open(root.path()).unwrap().start().await);
    let (first, second) = (lab.worker("a").await, lab.worker("b").await);
    let job = lab.submit(|_| ()).await;
    let task = lab.poll(&first, vec![]).await;
    gate.close(Site::ReportSync);
    let upload = tokio::spawn({
        let (lab, first) = (lab.clone(), first.clone());
        async move { lab.report(&first, &task).await }
    });
    gate.reached.notified().await;
    let answer = lab
        .coordinator
        .handle(Peer::InProcess, heartbeat(&second))
        .await;
    assert!(!matches!(answer, Response::Refused(_)), "{answer:?}");
    let status = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(status.accepted, 0);
    let other = lab.poll(&second, vec![]).await;
    assert_eq!(other.job, job);
    assert!(lab.coordinator.health().await.is_ok());
    assert!(!upload.is_finished());
    gate.open();
    assert_eq!(upload.await.unwrap().0, 204);
    assert_eq!(lab.report(&second, &other).await.0, 204);
    assert_eq!(lab.finished(job).await.0.phase, "completed");
    kill(Arc::into_inner(lab).unwrap()).await;
}

#[tokio::test]
async fn while_the_journal_waits_for_the_disk_what_waits_for_it_is_bounded() {
    const MOST: u64 = 8;
    let (root, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let _watch = watch(root.path(), gate.clone());
    let mut config = CoordinatorConfig::default();
    config.journal.backlog = MOST;
    let places = Places::open(root.path()).unwrap();
    let lab = Arc::new(places.start_with(config).await.unwrap());
    let live = lab.worker("live").await;
    gate.close(Site::JournalCommit);
    let mut registering = Vec::new();
    // Each that is not refused waits, and is one batch or more that waits.
    let refused = loop {
        assert!(registering.len() as u64 <= MOST + 1, "there is no limit");
        let lab = lab.clone();
        let name = format!("worker-{}", registering.len());
        let mut asked = tokio::spawn(async move { lab.register(lab.registration(&name)).await });
        // Asked, and either answered or waiting.
        let batches = places.journal.backlog();
        while !asked.is_finished() && places.journal.backlog() == batches {
            tokio::task::yield_now().await;
        }
        if asked.is_finished() {
            break (&mut asked).await.unwrap().unwrap_err();
        }
        registering.push(asked);
    };
    assert_eq!(refused.kind, RefusalKind::Busy);
    assert!(refused.detail.contains("try again later"), "{refused:?}");
    let before = places.journal.backlog();
    let submitted = lab
        .coordinator
        .submit(&HERE, lab.trainers.job(), None)
        .await;
    assert_eq!(refusal(submitted).kind, RefusalKind::Busy);
    let poll = Request::Poll {
        credentials: live.clone(),
        busy: Vec::new(),
        wait: Duration::ZERO,
    };
    let answer = lab.coordinator.handle(Peer::InProcess, poll).await;
    assert!(
        matches!(&answer, Response::Refused(refusal) if refusal.kind == RefusalKind::Busy),
        "{answer:?}"
    );
    assert_eq!(places.journal.backlog(), before);
    assert!(lab.coordinator.health().await.is_ok());
    gate.open();
    for asked in registering {
        asked.await.unwrap().unwrap();
    }
    lab.worker("later").await;
    kill(Arc::into_inner(lab).unwrap()).await;
}

#[tokio::test]
async fn what_the_journal_does_not_have_yet_is_shown_to_nobody() {
    let (root, gate) = (tempfile::tempdir().unwrap(), Arc::new(Gate::default()));
    let _watch = watch(root.path(), gate.clone());
    let lab = Arc::new(Places::open(root.path()).unwrap().start().await);
    let worker = lab.worker("a").await;
    let job = lab.submit(|_| ()).await;
    let task = lab.poll(&worker, vec![]).await;
    // Followers are shown the log up to here.
    let shown = || {
        let state = lab.coordinator.state();
        let progress = state.jobs[&job].progress.borrow();
        progress.sequence
    };
    gate.close(Site::JournalCommit);
    let upload = tokio::spawn({
        let (lab, worker) = (lab.clone(), worker.clone());
        async move { lab.report(&worker, &task).await }
    });
    // The machine has accepted it, and the note of that waits.
    let accepted = || {
        let state = lab.coordinator.state();
        let machine = state.jobs[&job].machine.as_ref().unwrap();
        machine.status().accepted
    };
    while accepted() == 0 {
        tokio::task::yield_now().await;
    }
    gate.reached.notified().await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let log = lab.coordinator.log(job).await.unwrap();
    let accepted = log
        .iter()
        .find(|entry| matches!(entry.event, JobEvent::ReportAccepted { .. }));
    let accepted = accepted.unwrap().sequence;
    assert!(!upload.is_finished() && shown() < accepted);
    gate.open();
    assert_eq!(upload.await.unwrap().0, 204);
    while shown() < accepted {
        tokio::task::yield_now().await;
    }
    kill(Arc::into_inner(lab).unwrap()).await;
}

/// Lets each commit of the journal fail while it is on.
#[derive(Default)]
struct Full(std::sync::atomic::AtomicBool);

impl Full {
    fn set(&self, is_full: bool) {
        self.0.store(is_full, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Observer for Full {
    fn step(&self, step: &Step, act: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if step.site == Site::JournalCommit && self.0.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("no space left on device"));
        }
        act()
    }
}

#[tokio::test]
async fn while_the_journal_can_not_be_written_operators_are_told_why() {
    let (root, full) = (tempfile::tempdir().unwrap(), Arc::new(Full::default()));
    let _watch = watch(root.path(), full.clone());
    let mut config = CoordinatorConfig::default();
    config.journal.patience = Duration::from_millis(20);
    let places = Places::open(root.path()).unwrap();
    let lab = Arc::new(places.start_with(config).await.unwrap());
    let job = lab.submit(|_| ()).await;
    assert_eq!(lab.coordinator.health().await.unwrap().journal, None);
    full.set(true);
    // What is durable is told all the same.
    let status = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(status.job, job);
    let registering = tokio::spawn({
        let lab = lab.clone();
        async move { lab.register(lab.registration("a")).await }
    });
    let stall = loop {
        if let Some(stall) = lab.coordinator.health().await.unwrap().journal {
            break stall;
        }
        tokio::task::yield_now().await;
    };
    assert!(stall.reason.contains("no space left"), "{stall:?}");
    assert!(stall.since.0 > 0);
    let told = |refused: &Refusal| {
        let reason = "can't be written, for 0 s by now: no space left on device";
        refused.kind == RefusalKind::Storage && refused.detail.contains(reason)
    };
    // The worker's registration is not on the disk.
    let refused = refusal(lab.coordinator.workers(&HERE).await);
    assert!(told(&refused), "{refused:?}");
    let refused = refusal(lab.coordinator.jobs(&HERE).await);
    assert!(told(&refused), "{refused:?}");
    let refused = refusal(lab.coordinator.cancel(&HERE, job).await);
    assert!(told(&refused), "{refused:?}");
    assert!(
        refused.detail.ends_with("nothing was changed"),
        "{refused:?}"
    );
    assert!(!registering.is_finished());
    full.set(false);
    registering.await.unwrap().unwrap();
    assert_eq!(lab.coordinator.workers(&HERE).await.unwrap().len(), 1);
    assert_eq!(lab.coordinator.health().await.unwrap().journal, None);
    let status = lab.coordinator.job(&HERE, job).await.unwrap();
    assert_eq!(status.outcome, None, "it was cancelled");
    kill(Arc::into_inner(lab).unwrap()).await;
}
