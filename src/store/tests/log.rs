//! A log across the border between memory and its file.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::*;
use crate::store::{LogEntry, LogFiles, LogPage, LogPlace, WindowedLog, journal::Stream};

const LIMIT: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    number: u64,
    text: String,
}

impl LogEntry for Entry {
    fn number(&self) -> u64 {
        self.number
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
}

fn entry(number: u64) -> Arc<Entry> {
    // Line ends and letters of several bytes: an entry is a line of the file whatever is in it.
    let text = format!("entry\n{number} ü{}", "x".repeat((number % 97) as usize));
    Arc::new(Entry { number, text })
}

fn log_in(files: LogFiles, limit: usize) -> WindowedLog<Entry> {
    let place = LogPlace::Files(files);
    WindowedLog::after(
        0,
        limit,
        place,
        Stream::Job(JOB),
        "events",
        Handle::current(),
    )
}

fn file_of(disk: &Disk) -> PathBuf {
    disk.path().join("logs/job-1/events.jsonl")
}

/// Appends as workers cause events: at the disk's pace.
async fn append(log: &WindowedLog<Entry>, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        log.room().await;
        log.append(entry(number));
    }
}

/// Waits until nothing is being spilled any more.
async fn settled(log: &WindowedLog<Entry>) {
    while log.is_spilling() {
        tokio::task::yield_now().await;
    }
}

async fn read_all(log: &WindowedLog<Entry>, first: u64, limit: usize) -> Vec<Arc<Entry>> {
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    let mut after = first;
    loop {
        let LogPage {
            entries: page,
            is_last,
        } = log.page(after, limit).await.unwrap();
        assert!(page.len() <= limit);
        if let Some(last) = page.last() {
            after = last.number;
        }
        entries.extend(page);
        if is_last {
            return entries;
        }
    }
}

#[tokio::test]
async fn all_entries_are_read_in_order_from_anywhere_across_the_border() {
    let disk = Disk::new();
    for files in [LogFiles::new(disk.folder.clone()), LogFiles::temporary()] {
        let log = log_in(files, LIMIT);
        // Numbers have gaps: the first round of a job can be any.
        append(&log, (1..=5000).map(|number| 3 * number)).await;
        settled(&log).await;
        let border = log.spilled_to();
        assert!(border > 3 * 1000 && border < 3 * 5000, "{border}");
        for limit in [1, 7, 10_000] {
            let near = border - 3;
            for after in [
                0,
                1,
                2,
                3,
                4,
                2999,
                near,
                border,
                border + 1,
                14_999,
                15_000,
            ] {
                if limit == 1 && after < near {
                    continue;
                }
                let expected: Vec<_> = (1..=5000)
                    .map(|number| 3 * number)
                    .filter(|number| *number > after)
                    .map(entry)
                    .collect();
                assert_eq!(
                    read_all(&log, after, limit).await,
                    expected,
                    "after {after}"
                );
            }
        }
        let beyond = log.page(u64::MAX, 10).await.unwrap();
        assert!(beyond.entries.is_empty() && beyond.is_last);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_miss_nothing_while_entries_move_to_the_file() {
    let disk = Disk::new();
    let log = log_in(LogFiles::new(disk.folder.clone()), 16 << 10);
    let is_done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..2 {
        let (log, is_done) = (log.clone(), is_done.clone());
        readers.push(tokio::spawn(async move {
            // Always at the end, and so at the border again and again.
            let mut last = 0;
            loop {
                let was_done = is_done.load(Ordering::SeqCst);
                let page = log.page(last, 64).await.unwrap();
                for found in &page.entries {
                    last += 1;
                    assert_eq!(found.number, last);
                }
                if page.is_last && was_done {
                    return last;
                }
                // What is at the border is moving at this moment.
                let border = log.spilled_to();
                let page = log.page(border, 1).await.unwrap();
                if let Some(found) = page.entries.first() {
                    assert_eq!(found.number, border + 1);
                }
            }
        }));
    }
    append(&log, 1..=20_000).await;
    is_done.store(true, Ordering::SeqCst);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 20_000);
    }
    assert!(log.spilled_to() > 15_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_stays_within_its_limit_while_entries_come_as_fast_as_they_can() {
    let log = log_in(LogFiles::temporary(), LIMIT);
    let mut most = 0;
    for number in 1..=100_000 {
        log.room().await;
        log.append(entry(number));
        most = most.max(log.window_bytes());
    }
    // The last entry may go beyond.
    assert!(most <= LIMIT + entry(96).bytes(), "{most}");
    settled(&log).await;
    assert!(log.window_bytes() <= LIMIT / 2);
}

#[tokio::test]
async fn a_page_ends_after_a_megabyte() {
    let log = log_in(LogFiles::temporary(), 16 << 20);
    for number in 1..=20 {
        let text = "x".repeat(300_000);
        log.append(Arc::new(Entry { number, text }));
    }
    let from_memory = log.page(0, 1000).await.unwrap();
    assert_eq!(from_memory.entries.len(), 4);
    for number in 21..=100 {
        let text = "x".repeat(300_000);
        log.append(Arc::new(Entry { number, text }));
    }
    settled(&log).await;
    assert!(log.spilled_to() > 4);
    let from_file = log.page(0, 1000).await.unwrap();
    assert_eq!(from_file.entries.len(), 4);
    assert!(!from_memory.is_last && !from_file.is_last);
}

#[tokio::test]
async fn what_a_full_disk_does_not_take_stays_in_memory_until_it_does() {
    let disk = Disk::new();
    let log = log_in(LogFiles::new(disk.folder.clone()), LIMIT);
    disk.leave_room(Some(100_000));
    append(&log, 1..=5000).await;
    settled(&log).await;
    let border = log.spilled_to();
    // One batch was written before the disk was full.
    assert!(border > 0 && border < 2000, "{border}");
    assert!(log.window_bytes() > LIMIT);
    let expected: Vec<_> = (1..=5000).map(entry).collect();
    assert_eq!(read_all(&log, 0, 100).await, expected);

    disk.leave_room(None);
    append(&log, 5001..=8000).await;
    settled(&log).await;
    assert!(log.spilled_to() > 5000);
    assert!(log.window_bytes() <= LIMIT / 2);
    let expected: Vec<_> = (1..=8000).map(entry).collect();
    assert_eq!(read_all(&log, 0, 100).await, expected);
}

#[tokio::test]
async fn a_folder_that_can_t_be_used_keeps_everything_in_memory() {
    let disk = Disk::new();
    fs::remove_dir(disk.path().join("logs")).unwrap();
    fs::write(disk.path().join("logs"), "not a folder").unwrap();
    let log = log_in(LogFiles::new(disk.folder.clone()), LIMIT);
    append(&log, 1..=5000).await;
    settled(&log).await;
    assert_eq!(log.spilled_to(), 0);
    let expected: Vec<_> = (1..=5000).map(entry).collect();
    assert_eq!(read_all(&log, 0, 100).await, expected);
}

#[tokio::test]
async fn a_file_that_is_damaged_is_an_error_to_whoever_reads_it() {
    let disk = Disk::new();
    let log = log_in(LogFiles::new(disk.folder.clone()), LIMIT);
    append(&log, 1..=5000).await;
    settled(&log).await;
    fs::write(file_of(&disk), "{\"number\":1,\n").unwrap();
    assert!(log.page(0, 10).await.is_err());
    let newest = log.page(log.spilled_to(), 10).await.unwrap();
    assert_eq!(newest.entries.len(), 10);
}

#[tokio::test]
async fn the_file_goes_with_the_last_that_reads_it() {
    let disk = Disk::new();
    let log = log_in(LogFiles::new(disk.folder.clone()), LIMIT);
    append(&log, 1..=10).await;
    settled(&log).await;
    assert!(
        !file_of(&disk).exists(),
        "nothing is written before it must be"
    );
    append(&log, 11..=5000).await;
    settled(&log).await;
    let reader = log.clone();
    drop(log);
    assert!(file_of(&disk).exists());
    assert_eq!(read_all(&reader, 0, 100).await.len(), 5000);
    drop(reader);
    // The thread that wrote it lets it go, too.
    while file_of(&disk).exists() {
        tokio::task::yield_now().await;
    }
    assert!(below(&disk.path().join("logs")).is_empty());
}
