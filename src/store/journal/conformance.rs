//! What every journal must do: one property for each function, for implementors' own tests (feature `testing`).

use std::{ops::Deref, sync::Arc};

use super::{Batch, Body, Entry, Fact, Journal, JournalError, Position, Record, Stream};
use crate::ids::JobId;

const JOB: Stream = Stream::Job(JobId(7));

/// Runs all of them. `new` makes an empty journal in a place of its own, and gives what holds both: a `Box`, or the journal with its
/// folder. `open` opens the journal of the same place again.
pub async fn check<P>(new: impl Fn() -> P, open: impl Fn(P) -> P)
where
    P: Deref<Target: Journal + Sized> + Send + Sync + 'static,
{
    what_was_appended_reads_back(new(), &open).await;
    a_snapshot_takes_the_place_of_the_records_before_it(new(), &open).await;
    facts_have_their_latest_values(new(), &open).await;
    logs_are_read_by_page_and_entries_are_replaced(new(), &open).await;
    streams_do_not_mix_and_are_removed_alone(new(), &open).await;
    a_batch_at_another_position_is_a_conflict_for_good(new()).await;
    what_was_appended_before_is_durable_with_what_came_after(new(), &open).await;
    appending_from_many_threads_keeps_the_order_of_each_stream(new()).await;
}

fn record(body: &str) -> Record {
    Record {
        semantics: 3,
        body: body.as_bytes().to_vec(),
    }
}

fn records(bodies: &[&str]) -> Batch {
    Batch {
        records: bodies.iter().map(|body| record(body)).collect(),
        ..Batch::default()
    }
}

fn entry(log: &'static str, number: u64, body: &str) -> Entry {
    Entry {
        log,
        number,
        body: Body::Bytes(body.as_bytes().to_vec()),
    }
}

/// Appends batches one after the other, and waits for the last.
async fn append_all(journal: &dyn Journal, stream: Stream, batches: Vec<Batch>) {
    let mut position = Position(0);
    let mut last = None;
    for batch in batches {
        last = Some(journal.append(stream, position, batch));
        position = position.next();
    }
    if let Some(last) = last {
        last.wait().await.unwrap();
        assert!(last.is_done());
    }
}

async fn what_was_appended_reads_back<P: Deref<Target: Journal + Sized>>(
    journal: P,
    open: &impl Fn(P) -> P,
) {
    let strange = Record {
        semantics: u32::MAX,
        body: vec![0, 255, 10, 13, 39, 0],
    };
    let mut first = records(&["a", ""]);
    first.records.push(strange.clone());
    append_all(&*journal, JOB, vec![first, records(&["c"])]).await;
    let journal = open(journal);
    assert_eq!(
        journal.records(JOB).unwrap(),
        [record("a"), record(""), strange, record("c")]
    );
    assert_eq!(journal.streams().unwrap(), [(JOB, Position(2))]);
    assert_eq!(journal.snapshot(JOB).unwrap(), None);
}

async fn a_snapshot_takes_the_place_of_the_records_before_it<P: Deref<Target: Journal + Sized>>(
    journal: P,
    open: &impl Fn(P) -> P,
) {
    let mut with_snapshot = records(&["b"]);
    with_snapshot.snapshot = Some(Body::Later(Box::new(|| b"a and b".to_vec())));
    append_all(
        &*journal,
        JOB,
        vec![records(&["a"]), with_snapshot, records(&["c"])],
    )
    .await;
    let journal = open(journal);
    assert_eq!(journal.snapshot(JOB).unwrap().unwrap(), b"a and b");
    assert_eq!(journal.records(JOB).unwrap(), [record("c")]);
    assert_eq!(journal.streams().unwrap(), [(JOB, Position(3))]);
}

async fn facts_have_their_latest_values<P: Deref<Target: Journal + Sized>>(
    journal: P,
    open: &impl Fn(P) -> P,
) {
    let binary = vec![255, 0, 1];
    let mut forgets = Batch::default().fact("a/2", binary.clone());
    forgets.facts.push(Fact {
        name: "a/1".to_string(),
        body: None,
    });
    let batches = vec![
        Batch::default()
            .fact("a/1", b"1".to_vec())
            .fact("a_2", b"not of this prefix".to_vec())
            .fact("a/3", Vec::new()),
        Batch::default().fact("a/2", b"{}".to_vec()),
        forgets,
    ];
    append_all(&*journal, Stream::Coordinator, batches).await;
    let journal = open(journal);
    let found = journal.facts(Stream::Coordinator, "a/").unwrap();
    assert_eq!(
        found,
        [("a/2".to_string(), binary), ("a/3".to_string(), Vec::new())]
    );
    assert!(journal.facts(JOB, "a/").unwrap().is_empty());
}

async fn logs_are_read_by_page_and_entries_are_replaced<P: Deref<Target: Journal + Sized>>(
    journal: P,
    open: &impl Fn(P) -> P,
) {
    let mut first = Batch::default();
    for number in 1..=5 {
        first.entries.push(entry("events", number, "\"old\""));
    }
    first.entries.push(entry("rounds", 9, "{}"));
    let mut second = Batch::default();
    second.entries.push(entry("events", 4, "\"new\""));
    append_all(&*journal, JOB, vec![first, second]).await;
    let journal = open(journal);
    let page = journal.entries(JOB, "events", 2, 2).unwrap();
    assert_eq!(page, [(3, b"\"old\"".to_vec()), (4, b"\"new\"".to_vec())]);
    assert!(journal.entries(JOB, "events", 5, 9).unwrap().is_empty());
    assert!(
        journal
            .entries(JOB, "events", u64::MAX, 9)
            .unwrap()
            .is_empty()
    );
    assert_eq!(journal.last_entry(JOB, "events").unwrap(), 5);
    assert_eq!(journal.last_entry(JOB, "rounds").unwrap(), 9);
    assert_eq!(journal.last_entry(JOB, "others").unwrap(), 0);
}

async fn streams_do_not_mix_and_are_removed_alone<P: Deref<Target: Journal + Sized>>(
    journal: P,
    open: &impl Fn(P) -> P,
) {
    let other = Stream::Job(JobId(8));
    for stream in [JOB, other, Stream::Coordinator] {
        let mut batch = records(&["a"]).fact("f", b"1".to_vec());
        batch.entries.push(entry("events", 1, "1"));
        append_all(&*journal, stream, vec![batch]).await;
    }
    journal.remove(JOB).wait().await.unwrap();
    // It begins again, at position 0.
    append_all(&*journal, JOB, vec![records(&["b"])]).await;
    let journal = open(journal);
    assert_eq!(journal.records(JOB).unwrap(), [record("b")]);
    assert!(journal.facts(JOB, "").unwrap().is_empty());
    assert!(journal.entries(JOB, "events", 0, 9).unwrap().is_empty());
    for stream in [other, Stream::Coordinator] {
        assert_eq!(journal.records(stream).unwrap(), [record("a")]);
        assert_eq!(journal.facts(stream, "").unwrap().len(), 1);
        assert_eq!(journal.last_entry(stream, "events").unwrap(), 1);
    }
}

async fn a_batch_at_another_position_is_a_conflict_for_good<P: Deref<Target: Journal + Sized>>(
    journal: P,
) {
    append_all(&*journal, JOB, vec![records(&["a"])]).await;
    let conflict = journal.append(JOB, Position(0), records(&["b"]));
    assert_eq!(conflict.wait().await, Err(JournalError::Conflict));
    let later = journal.append(JOB, Position(1), records(&["c"]));
    assert_eq!(later.wait().await, Err(JournalError::Conflict));
    assert!(!later.is_done());
    assert_eq!(journal.records(JOB).unwrap(), [record("a")]);
}

async fn what_was_appended_before_is_durable_with_what_came_after<
    P: Deref<Target: Journal + Sized>,
>(
    journal: P,
    open: &impl Fn(P) -> P,
) {
    let idle = journal.append(JOB, Position(0), records(&["a"]));
    let wanted = journal.append(Stream::Coordinator, Position(0), records(&["b"]));
    wanted.wait().await.unwrap();
    assert!(idle.is_done());
    idle.wait_idly().await.unwrap();
    // Nobody waits for this one. A journal that is closed in order writes it, too.
    let _ = journal.append(JOB, Position(1), records(&["c"]));
    let journal = open(journal);
    assert_eq!(journal.records(JOB).unwrap(), [record("a"), record("c")]);
}

async fn appending_from_many_threads_keeps_the_order_of_each_stream<
    P: Deref<Target: Journal + Sized> + Send + Sync + 'static,
>(
    journal: P,
) {
    const EACH: u64 = 200;
    let journal = Arc::new(journal);
    let mut threads = Vec::new();
    for job in 1..=4 {
        let journal = journal.clone();
        threads.push(std::thread::spawn(move || {
            let stream = Stream::Job(JobId(job));
            let mut last = None;
            for number in 0..EACH {
                let batch = records(&[&number.to_string()]);
                last = Some(journal.append(stream, Position(number), batch));
            }
            last
        }));
    }
    for thread in threads {
        if let Some(last) = thread.join().unwrap() {
            last.wait().await.unwrap();
        }
    }
    for job in 1..=4 {
        let found = journal.records(Stream::Job(JobId(job))).unwrap();
        let expected: Vec<_> = (0..EACH)
            .map(|number| record(&number.to_string()))
            .collect();
        assert_eq!(found, expected);
    }
}
