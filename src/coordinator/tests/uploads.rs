//! Reports whose upload breaks off, and what their sender can do then: over HTTP, with reports in files.

use super::*;
use crate::{
    parameters::Digest,
    round::JobEvent,
    store::{DataFolder, FileModels, FileSpool, FileSpoolConfig, MemoryJournal},
};

/// A coordinator that goes on with every broken upload, however small, and a place that outlives it.
struct Home {
    journal: Arc<MemoryJournal>,
    folder: Arc<DataFolder>,
    trainers: Arc<NoopTrainers>,
    root: tempfile::TempDir,
    resume_from: u64,
}

impl Home {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            journal: Arc::default(),
            folder: DataFolder::open(root.path()).unwrap(),
            trainers: Arc::new(NoopTrainers::new(SIZE, 100).unwrap()),
            root,
            resume_from: 0,
        }
    }

    async fn start(&self) -> Lab {
        let config = FileSpoolConfig {
            // What a killed coordinator keeps is noted with each piece.
            sync_every: 1,
            ..FileSpoolConfig::default()
        };
        let mut limits = CoordinatorConfig::default();
        limits.uploads.resume_from = self.resume_from;
        let coordinator = Coordinator::builder(self.trainers.clone())
            .config(limits)
            .spool(Arc::new(FileSpool::new(self.folder.clone(), config)))
            .models(Arc::new(FileModels::new(self.folder.clone())))
            .recover(self.journal.clone())
            .unwrap();
        let (address, server) = serve_here(&coordinator).await;
        Lab {
            coordinator,
            address,
            trainers: self.trainers.clone(),
            spool: MemorySpool::new(0),
            _server: server,
        }
    }

    /// The names of the spool's files.
    fn files(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.root.path().join("spool")];
        while let Some(folder) = folders.pop() {
            // A folder may go while it is read.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    names.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        names
    }

    fn has_file(&self, ending: &str) -> bool {
        self.files().iter().any(|name| name.ends_with(ending))
    }
}

/// A job of one round with two clients, each at a worker of its own. The first one's upload is the one that breaks.
struct Pair {
    home: Home,
    lab: Lab,
    job: JobId,
    first: Credentials,
    task: TaskMessage,
    second: Credentials,
    second_task: TaskMessage,
}

/// Where the uploads of these tests break, counted from their end: in the midst of a value.
const MISSING: usize = 22;

impl Pair {
    async fn open() -> Self {
        Self::open_in(Home::new()).await
    }

    async fn open_in(home: Home) -> Self {
        let lab = home.start().await;
        let (first, second) = (lab.worker("first").await, lab.worker("second").await);
        let job = lab.submit(|spec| spec.limits.min_updates = 1).await;
        let task = lab.poll(&first, Vec::new()).await;
        let second_task = lab.poll(&second, Vec::new()).await;
        Self {
            home,
            lab,
            job,
            first,
            task,
            second,
            second_task,
        }
    }

    fn body(&self) -> Vec<u8> {
        self.lab.body(1.0)
    }

    /// How many bytes come before the break.
    fn came(&self) -> usize {
        self.body().len() - MISSING
    }

    fn url(&self) -> String {
        let TaskMessage {
            job, round, client, ..
        } = &self.task;
        format!("/api/v1/jobs/{job}/rounds/{round}/reports/{client}")
    }

    /// The headers of every request about the first worker's report.
    fn headers(&self) -> String {
        let metadata = self.lab.metadata(&self.task);
        let common = report_headers(&self.first, &metadata);
        let common = common.replace("content-type: application/octet-stream\r\n", "");
        format!("{common}fedavg-digest: {}\r\n", Digest::of(&self.body()))
    }

    /// Sends the first part of the report; the connection stays open.
    async fn begin(&self) -> TcpStream {
        let body = self.body();
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: localhost\r\n{}content-length: {}\r\n\r\n",
            self.url(),
            self.headers(),
            body.len()
        );
        let mut stream = TcpStream::connect(self.lab.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body[..body.len() - MISSING]).unwrap();
        until(|| self.home.has_file(".resume")).await;
        stream
    }

    /// An upload whose connection breaks; how many of its bytes are kept.
    async fn break_off(&self) -> usize {
        drop(self.begin().await);
        let kept = self.ask().await.unwrap();
        assert!((1..=self.came()).contains(&kept), "{kept}");
        kept
    }

    /// The head of the answer to a question, in lower case.
    async fn ask_with(&self, url: &str, headers: &str) -> String {
        let request =
            format!("HEAD {url} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        let address = self.lab.address;
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer.to_lowercase()
        };
        tokio::task::spawn_blocking(exchange).await.unwrap()
    }

    /// How much of the report is kept; the answer, if it says no number.
    async fn ask(&self) -> Result<usize, String> {
        offset_in(self.ask_with(&self.url(), &self.headers()).await)
    }

    async fn send_rest(&self, headers: &str, rest: &[u8]) -> (u16, String) {
        let headers = format!(
            "{}content-type: application/partial-upload\r\n{headers}",
            self.headers()
        );
        let line = format!("PATCH {}", self.url());
        self.lab.send(&line, &headers, rest).await
    }

    async fn go_on(&self, offset: usize) -> (u16, String) {
        let headers = format!("upload-offset: {offset}\r\nupload-complete: ?1\r\n");
        self.send_rest(&headers, &self.body()[offset..]).await
    }

    /// The other report comes, too: the round is the one of two whole uploads, and nothing is left of the broken one.
    async fn commits(self) {
        let answer = self.lab.report(&self.second, &self.second_task).await;
        assert_eq!(answer.0, 204, "{answer:?}");
        let (summary, rounds, model) = self.lab.finished(self.job).await;
        assert_eq!(summary.phase, "completed", "{}", summary.detail);
        assert_eq!(rounds[0].folded.len(), 2);
        assert_eq!(model.values(), [1.0; SIZE]);
        until(|| self.home.files().is_empty()).await;
    }
}

fn offset_in(answer: String) -> Result<usize, String> {
    let offset = answer.split("\r\nupload-offset: ").nth(1);
    let offset = offset.and_then(|rest| rest.split("\r\n").next());
    offset.and_then(|text| text.parse().ok()).ok_or(answer)
}

fn refused(status: u16, kind: RefusalKind) -> (u16, String) {
    (status, kind.code().to_string())
}

/// Waits for something that another task is about to do.
async fn until(done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("in time");
}

/// As `kill -9`.
async fn kill(lab: Lab) {
    let stopped = &lab.coordinator.0.stopped;
    stopped.store(true, std::sync::atomic::Ordering::SeqCst);
    lab._server.abort();
    let _ = lab._server.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_broke_off_goes_on() {
    let pair = Pair::open().await;
    let kept = pair.break_off().await;
    let answer = pair.ask_with(&pair.url(), &pair.headers()).await;
    for part in [
        "http/1.1 204",
        "\r\nupload-complete: ?0\r\n",
        "\r\ncache-control: no-store\r\n",
    ] {
        assert!(answer.contains(part), "{answer}");
    }
    assert_eq!(pair.go_on(kept).await.0, 204);
    // As after an answer that was lost.
    let answer = pair.ask_with(&pair.url(), &pair.headers()).await;
    assert!(answer.contains("\r\nupload-complete: ?1\r\n"), "{answer}");
    assert_eq!(pair.go_on(kept).await.0, 204);
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_half_dead_is_taken_over_by_who_asks() {
    let pair = Pair::open().await;
    let mut half_dead = pair.begin().await;
    let kept = pair.ask().await.unwrap();
    assert!((1..=pair.came()).contains(&kept), "{kept}");
    // What still comes over the first connection goes nowhere.
    let _ = half_dead.write_all(&[7; 32]);
    assert_eq!(pair.go_on(kept).await.0, 204);
    let _ = half_dead.shutdown(std::net::Shutdown::Write);
    let mut answer = String::new();
    let _ = half_dead.read_to_string(&mut answer);
    assert!(
        answer.is_empty() || answer.contains("\"truncated\""),
        "{answer}"
    );
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_is_told_or_goes_on_with_it() {
    let pair = Pair::open().await;
    let kept = pair.break_off().await;
    let (url, headers) = (pair.url(), pair.headers());
    let metadata = pair.lab.metadata(&pair.task);
    let of_second = report_headers(&pair.second, &metadata);
    let of_second = format!("{of_second}fedavg-digest: {}\r\n", Digest::of(&pair.body()));
    let digest = Digest::of(&pair.body()).to_string();
    let other_digest = headers.replace(&digest, "crc32=00000000");
    for (what, url, headers) in [
        ("another worker", &url, &of_second),
        ("another digest", &url, &other_digest),
        (
            "another round",
            &url.replace("rounds/1", "rounds/2"),
            &headers,
        ),
        (
            "another client",
            &url.replace("reports/0", "reports/1"),
            &headers,
        ),
    ] {
        let answer = pair.ask_with(url, headers).await;
        assert_eq!(offset_in(answer), Ok(0), "{what}");
    }
    let stolen = headers.replace(
        &format!("fedavg-worker: {}", pair.first.worker),
        &format!("fedavg-worker: {}", pair.second.worker),
    );
    let answer = pair.ask_with(&url, &stolen).await;
    assert!(answer.starts_with("http/1.1 403"), "{answer}");
    let line = format!("PATCH {url}");
    let rest = format!("content-type: application/partial-upload\r\nupload-offset: {kept}\r\n");
    let plain = of_second.replace("content-type: application/octet-stream\r\n", "");
    let answer = pair
        .lab
        .send(&line, &format!("{plain}{rest}"), &pair.body()[kept..])
        .await;
    assert_eq!(answer, refused(409, RefusalKind::NotLeased));
    let answer = pair
        .lab
        .send(
            &line,
            &format!("{other_digest}{rest}"),
            &pair.body()[kept..],
        )
        .await;
    assert_eq!(answer, refused(409, RefusalKind::UploadOffset));
    assert_eq!(pair.ask().await, Ok(kept));
    assert_eq!(pair.go_on(kept).await.0, 204);
    // Of a report that was accepted, its sender alone is told so.
    let answer = pair.ask_with(&url, &of_second).await;
    assert_eq!(offset_in(answer), Ok(0));
    assert!(pair.ask().await.is_err());
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_that_is_not_the_rest_is_refused_and_mixes_nothing() {
    let pair = Pair::open().await;
    let kept = pair.break_off().await;
    let rest = pair.body()[kept..].to_vec();
    let unreadable = refused(400, RefusalKind::Malformed);
    let length = pair.body().len();
    for headers in [
        String::new(),
        "upload-offset: 0\r\n".to_string(),
        "upload-offset: -5\r\n".to_string(),
        "upload-offset: +5\r\n".to_string(),
        "upload-offset: 5.0\r\n".to_string(),
        "upload-offset: five\r\n".to_string(),
        "upload-offset: 99999999999999999999999\r\n".to_string(),
        format!("upload-offset: {kept}\r\nupload-complete: ?0\r\n"),
        format!("upload-offset: {kept}\r\nupload-complete: yes\r\n"),
        format!("upload-offset: {kept}\r\nupload-length: {}\r\n", length + 1),
        format!("upload-offset: {kept}\r\nupload-length: no\r\n"),
    ] {
        let answer = pair.send_rest(&headers, &rest).await;
        assert_eq!(answer, unreadable, "{headers}");
    }
    let offset = refused(409, RefusalKind::UploadOffset);
    for wrong in [
        1,
        kept - 1,
        kept + 1,
        length,
        length + 1,
        999_999_999_999_999,
    ] {
        let answer = pair
            .send_rest(&format!("upload-offset: {wrong}\r\n"), &rest)
            .await;
        assert_eq!(answer, offset, "{wrong}");
    }
    let line = format!("PATCH {}", pair.url());
    let plain = format!(
        "{}upload-offset: {kept}\r\ncontent-type: text/plain\r\n",
        pair.headers()
    );
    assert_eq!(pair.lab.send(&line, &plain, &rest).await.0, 415);
    let digest = format!("fedavg-digest: {}\r\n", Digest::of(&pair.body()));
    let without = pair.headers().replace(&digest, "");
    let answer = pair.ask_with(&pair.url(), &without).await;
    assert!(answer.starts_with("http/1.1 400"), "{answer}");
    assert_eq!(pair.ask().await, Ok(kept));
    let all = format!(
        "{}content-type: application/octet-stream\r\nupload-offset: {kept}\r\nupload-length: {length}\r\n",
        pair.headers()
    );
    assert_eq!(pair.lab.send(&line, &all, &rest).await.0, 204);
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_of_another_body_is_refused_and_the_report_begins_again() {
    let pair = Pair::open().await;
    let kept = pair.break_off().await;
    let headers = format!("upload-offset: {kept}\r\n");
    let truncated = refused(400, RefusalKind::Truncated);
    let mut wrong = pair.body()[kept..].to_vec();
    let last = wrong.len() - 4;
    wrong[last] ^= 1;
    assert_eq!(pair.send_rest(&headers, &wrong).await, truncated);
    assert_eq!(pair.ask().await, Ok(0));
    assert_eq!(
        pair.go_on(kept).await,
        refused(409, RefusalKind::UploadOffset)
    );
    // One that ends too early is gone, too.
    let kept = pair.break_off().await;
    let headers = format!("upload-offset: {kept}\r\n");
    let early = pair.body()[kept..pair.body().len() - 4].to_vec();
    assert_eq!(pair.send_rest(&headers, &early).await, truncated);
    assert_eq!(pair.ask().await, Ok(0));
    assert_eq!(pair.lab.report(&pair.first, &pair.task).await.0, 204);
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rest_that_is_too_long_is_the_verdict_on_the_report_as_for_a_whole_one() {
    let pair = Pair::open().await;
    let kept = pair.break_off().await;
    let headers = format!("upload-offset: {kept}\r\n");
    let long = [&pair.body()[kept..], &[0; 4]].concat();
    let answer = pair.send_rest(&headers, &long).await;
    assert_eq!(answer, refused(422, RefusalKind::Malformed));
    until(|| pair.home.files().is_empty()).await;
    assert_eq!(
        pair.lab.report(&pair.second, &pair.second_task).await.0,
        204
    );
    let (_, rounds, _) = pair.lab.finished(pair.job).await;
    assert_eq!(rounds[0].folded, [pair.second_task.client]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_coordinator_keeps_the_part_and_another_takes_the_rest() {
    let mut pair = Pair::open().await;
    let stream = pair.begin().await;
    // A note of all that came is written.
    let noted = || {
        let spool = pair.home.root.path().join("spool/job-1/round-1");
        let files = std::fs::read_dir(spool).into_iter().flatten().flatten();
        let notes = files.filter(|file| file.path().extension().is_some_and(|end| end == "resume"));
        notes
            .flat_map(|file| std::fs::read(file.path()))
            .any(|notes| {
                notes
                    .windows(8)
                    .any(|offset| offset == (pair.came() as u64).to_le_bytes())
            })
    };
    until(noted).await;
    let came = pair.came();
    kill(pair.lab).await;
    drop(stream);
    pair.lab = pair.home.start().await;
    assert_eq!(pair.ask().await, Ok(came));
    assert_eq!(pair.go_on(came).await.0, 204);
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_ends_with_its_round_also_while_no_coordinator_runs() {
    let pair = Pair::open().await;
    pair.break_off().await;
    assert!(pair.home.has_file(".part"));
    pair.lab.coordinator.cancel(&HERE, pair.job).await.unwrap();
    until(|| pair.home.files().is_empty()).await;
    assert_eq!(pair.ask().await, Ok(0));

    let mut pair = Pair::open_in(Home::new()).await;
    pair.break_off().await;
    kill(pair.lab).await;
    // The next one does not know the job.
    pair.home.journal = Arc::default();
    pair.lab = pair.home.start().await;
    assert!(pair.home.files().is_empty(), "{:?}", pair.home.files());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_goes_when_its_client_can_not_report_any_more() {
    let pair = Pair::open().await;
    pair.break_off().await;
    // The same client's report comes whole, from its beginning.
    assert_eq!(pair.lab.report(&pair.first, &pair.task).await.0, 204);
    until(|| !pair.home.has_file(".part") && !pair.home.has_file(".resume")).await;
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_goes_when_its_client_has_failed() {
    let pair = Pair::open().await;
    pair.break_off().await;
    let (metadata, bad) = (pair.lab.metadata(&pair.task), pair.lab.body(f32::NAN));
    let answer = pair
        .lab
        .put_report(&pair.first, &pair.task, &metadata, &bad);
    assert_eq!(answer.await, refused(422, RefusalKind::Malformed));
    // The round is still open.
    until(|| pair.home.files().is_empty()).await;
    assert_eq!(pair.go_on(100).await, refused(422, RefusalKind::Malformed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_upload_that_breaks_off_leaves_nothing() {
    let mut home = Home::new();
    home.resume_from = 1000;
    let pair = Pair::open_in(home).await;
    let body = pair.body();
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: localhost\r\n{}content-length: {}\r\n\r\n",
        pair.url(),
        pair.headers(),
        body.len()
    );
    let mut stream = TcpStream::connect(pair.lab.address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body[..body.len() - MISSING]).unwrap();
    until(|| pair.home.has_file(".part")).await;
    assert!(!pair.home.has_file(".resume"));
    drop(stream);
    until(|| pair.home.files().is_empty()).await;
    assert_eq!(pair.ask().await, Ok(0));
    assert_eq!(pair.lab.report(&pair.first, &pair.task).await.0, 204);
    pair.commits().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_of_a_broken_upload_what_it_says_of_every_one() {
    let pair = Pair::open().await;
    let kept = pair.break_off().await;
    assert_eq!(pair.go_on(kept).await.0, 204);
    let log = pair.lab.coordinator.log(pair.job).await.unwrap();
    let client = pair.task.client;
    let of_client: Vec<_> = log
        .iter()
        .filter_map(|entry| match &entry.event {
            JobEvent::ReportRefused {
                client: of,
                refusal,
                ..
            } if *of == client => Some(refusal.kind.code()),
            JobEvent::ReportAccepted { client: of, .. } if *of == client => Some("accepted"),
            _ => None,
        })
        .collect();
    assert_eq!(of_client, ["truncated", "accepted"]);
}
