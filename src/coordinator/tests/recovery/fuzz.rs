//! A journal in which something was damaged: the next coordinator says so, or goes on; it never panics, and never takes more memory
//! than there is. SQLite's own damage is in `damage.rs`; here the bytes of one fact, snapshot, record or log entry are others.

use std::fs;

use super::*;
use crate::{
    coordinator::{
        facts::{
            CoordinatorFact, DataFact, JobFact, MachineRecord, WorkerFact, json, parse,
            parse_layout, parse_partitions, partitions_fact,
        },
        history::{EVENTS, ROUNDS},
    },
    store::journal::{Body, Entry, Position},
    testing::fuzz::Target,
};

/// All that a journal has, with its folder.
struct Kept {
    items: Vec<(Stream, Item)>,
    root: tempfile::TempDir,
}

/// One thing in a stream.
#[derive(Clone, Debug)]
enum Item {
    Snapshot(Vec<u8>),
    Record(Record),
    Fact(String, Vec<u8>),
    Entry(&'static str, u64, Vec<u8>),
}

impl Item {
    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Snapshot(bytes) | Self::Fact(_, bytes) | Self::Entry(_, _, bytes) => bytes,
            Self::Record(record) => &mut record.body,
        }
    }
}

/// A coordinator in the midst of a round: one report accepted, one task under way, one job that waits, one worker that left.
async fn kept() -> Kept {
    let home = Home::new();
    let mut config = CoordinatorConfig::default();
    config.jobs.max_running = 1;
    let lab = home.start_with(config).await;
    let (first, second) = (lab.worker("a").await, lab.worker("b").await);
    submit(&lab).await;
    submit(&lab).await;
    let task = lab.poll(&first, vec![]).await;
    lab.poll(&second, vec![]).await;
    assert_eq!(lab.report(&first, &task).await.0, 204);
    kill(lab).await;
    let mut items = Vec::new();
    for (stream, _) in home.journal.streams().unwrap() {
        if let Some(snapshot) = home.journal.snapshot(stream).unwrap() {
            items.push((stream, Item::Snapshot(snapshot)));
        }
        for record in home.journal.records(stream).unwrap() {
            items.push((stream, Item::Record(record)));
        }
        for (name, body) in home.journal.facts(stream, "").unwrap() {
            items.push((stream, Item::Fact(name, body)));
        }
        for log in [EVENTS, ROUNDS, "audit"] {
            for (number, body) in home.journal.entries(stream, log, 0, 100).unwrap() {
                items.push((stream, Item::Entry(log, number, body)));
            }
        }
    }
    Kept {
        items,
        root: home.root,
    }
}

/// The same in a new journal, with these bytes in the place of one item's.
fn damaged(items: &[(Stream, Item)], index: usize, bytes: &[u8]) -> MemoryJournal {
    let journal = MemoryJournal::default();
    let mut positions = std::collections::BTreeMap::<Stream, Position>::new();
    for (at, (stream, item)) in items.iter().enumerate() {
        let mut item = item.clone();
        if at == index {
            *item.bytes() = bytes.to_vec();
        }
        let batch = match item {
            Item::Snapshot(bytes) => Batch {
                snapshot: Some(Body::from(bytes)),
                ..Batch::default()
            },
            Item::Record(record) => Batch {
                records: vec![record],
                ..Batch::default()
            },
            Item::Fact(name, bytes) => Batch::default().fact(name, bytes),
            Item::Entry(log, number, bytes) => Batch {
                entries: vec![Entry {
                    log,
                    number,
                    body: Body::from(bytes),
                }],
                ..Batch::default()
            },
        };
        let position = positions.entry(*stream).or_default();
        journal.append(*stream, *position, batch);
        *position = position.next();
    }
    journal
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let place = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir(&place).unwrap();
            copy_tree(&path, &place);
        } else {
            fs::copy(&path, &place).unwrap();
        }
    }
}

/// A coordinator over this journal and a copy of the folder.
fn start(
    kept: &Kept,
    root: &tempfile::TempDir,
    journal: MemoryJournal,
) -> Result<Coordinator, RecoveryError> {
    copy_tree(kept.root.path(), root.path());
    let folder = DataFolder::open(root.path()).unwrap();
    let trainers = Arc::new(NoopTrainers::new(SIZE, 100).unwrap());
    let spool = FileSpool::new(folder.clone(), FileSpoolConfig::default());
    Coordinator::builder(trainers)
        .config(CoordinatorConfig::default())
        .spool(Arc::new(spool))
        .models(Arc::new(FileModels::new(folder)))
        .recover(Arc::new(journal))
}

/// The fact of a job with its workers' own data has the number of its clients alone.
#[tokio::test]
async fn a_damaged_number_of_clients_takes_no_memory() {
    let mut kept = kept().await;
    let is_dealt = |item: &Item| matches!(item, Item::Fact(name, _) if name == "partitions");
    kept.items.retain(|(_, item)| !is_dealt(item));
    let mut count = 0;
    for (_, item) in &mut kept.items {
        if let Item::Fact(name, bytes) = item
            && name == "data"
        {
            let mut data: DataFact = parse(name, bytes).unwrap();
            data.local_clients = usize::MAX;
            *bytes = json(&data);
            count += 1;
        }
    }
    assert!(count > 0);
    let root = tempfile::tempdir().unwrap();
    let coordinator = start(&kept, &root, damaged(&kept.items, usize::MAX, &[])).unwrap();
    let jobs = coordinator.jobs(&HERE).await.unwrap();
    assert_eq!(jobs.len(), 2);
    coordinator
        .0
        .stopped
        .store(true, std::sync::atomic::Ordering::SeqCst);
}

#[test]
fn recovery() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let kept = runtime.block_on(kept());
    let mut target = Target::new("recovery").runs(120).long(2);
    for (index, (_, item)) in kept.items.iter().enumerate() {
        target = target.seed([&[index as u8], &**item.clone().bytes()].concat());
    }
    target.run(|bytes| {
        let Some((index, bytes)) = bytes.split_first() else {
            return String::new();
        };
        let index = usize::from(*index) % kept.items.len();
        let _inside = runtime.enter();
        let root = tempfile::tempdir().unwrap();
        let recovered = start(&kept, &root, damaged(&kept.items, index, bytes));
        match recovered {
            Ok(coordinator) => {
                let jobs = runtime.block_on(coordinator.jobs(&HERE)).unwrap();
                coordinator
                    .0
                    .stopped
                    .store(true, std::sync::atomic::Ordering::SeqCst);
                format!(
                    "{:?}",
                    jobs.iter().map(|job| &job.phase).collect::<Vec<_>>()
                )
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains("damaged"), "{error}");
                error
            }
        }
    });
}

/// What one fact is, whatever it is of: read, written and read again.
#[test]
fn facts() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let kept = runtime.block_on(kept());
    let mut target = Target::new("facts");
    for (_, item) in &kept.items {
        target = target.seed(item.clone().bytes().clone());
    }
    target.run(|bytes| {
        let mut what = String::new();
        let mut note = |name: &str, read: bool| what.push_str(&format!("{name} {read} "));
        fn again<T>(bytes: &[u8]) -> bool
        where
            T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
        {
            let Ok(read) = parse::<T>("fact", bytes) else {
                return false;
            };
            assert_eq!(parse::<T>("fact", &json(&read)).as_ref(), Ok(&read));
            true
        }
        note("coordinator", again::<CoordinatorFact>(bytes));
        note("worker", again::<WorkerFact>(bytes));
        note("job", again::<JobFact>(bytes));
        note("data", again::<DataFact>(bytes));
        note("token", again::<crate::access::KnownToken>(bytes));
        note("version", again::<crate::store::PublishedVersion>(bytes));
        note("record", again::<RoundRecord>(bytes));
        note("event", again::<LoggedEvent>(bytes));
        note("layout", parse_layout(bytes).is_ok());
        let partitions = parse_partitions(bytes);
        if let Some(partitions) = &partitions {
            assert_eq!(partitions_fact(partitions), bytes);
        }
        note("partitions", partitions.is_some());
        let record = rmp_serde::from_slice::<MachineRecord>(bytes);
        if let Ok(record) = &record {
            let written = rmp_serde::to_vec_named(record).unwrap();
            let again: MachineRecord = rmp_serde::from_slice(&written).unwrap();
            // NaN is in no event that is equal to itself.
            assert_eq!(format!("{again:?}"), format!("{record:?}"));
        }
        note("machine", record.is_ok());
        what
    });
}
