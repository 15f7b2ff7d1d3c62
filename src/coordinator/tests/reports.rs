//! Reports that are not what they should be.

use super::*;
use crate::{
    ids::{ModelVersion, RoundId},
    job::StrategySpec,
    parameters::{Encoded, Payloads},
};

/// Two workers with a client each: `bad` is about to send something, `good` sends an honest report afterwards.
struct Pair {
    lab: Lab,
    job: JobId,
    bad: Credentials,
    bad_task: TaskMessage,
    good: Credentials,
    good_task: TaskMessage,
}

impl Pair {
    async fn open() -> Self {
        let lab = Lab::open(CoordinatorConfig::default()).await;
        let (bad, good) = (lab.worker("bad").await, lab.worker("good").await);
        let job = lab.submit(|_| {}).await;
        let bad_task = lab.poll(&bad, Vec::new()).await;
        let good_task = lab.poll(&good, Vec::new()).await;
        Self {
            lab,
            job,
            bad,
            bad_task,
            good,
            good_task,
        }
    }

    async fn bad_report(&self, metadata: ReportMetadata, body: &[u8]) -> (u16, String) {
        self.lab
            .put_report(&self.bad, &self.bad_task, &metadata, body)
            .await
    }

    fn metadata(&self) -> ReportMetadata {
        self.lab.metadata(&self.bad_task)
    }

    /// The round commits with the good report alone: the bad client is not waited for.
    async fn commits_without_the_bad_one(self) {
        assert_eq!(self.lab.report(&self.good, &self.good_task).await.0, 204);
        let (summary, rounds, model) = self.lab.finished(self.job).await;
        assert_eq!(summary.phase, "completed", "{}", summary.detail);
        assert_eq!(rounds[0].folded, [self.good_task.client]);
        assert_eq!(model.values(), [1.0; SIZE]);
    }

    /// The refusal was not the last word: an honest report of the same client is taken.
    async fn commits_with_both(self) {
        assert_eq!(self.lab.report(&self.bad, &self.bad_task).await.0, 204);
        assert_eq!(self.lab.report(&self.good, &self.good_task).await.0, 204);
        let (_, rounds, _) = self.lab.finished(self.job).await;
        assert_eq!(rounds[0].folded.len(), 2);
    }
}

impl Pair {
    /// Sends the first part of the bad worker's report, and gives the connection and the rest.
    async fn begin_upload(&self) -> (TcpStream, Vec<u8>) {
        let (task, body) = (&self.bad_task, self.lab.body(1.0));
        let line = format!(
            "PUT /api/v1/jobs/{}/rounds/{}/reports/{}",
            task.job, task.round, task.client
        );
        let headers = report_headers(&self.bad, &self.metadata());
        let head = format!(
            "{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(self.lab.address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body[..20]).unwrap();
        until(|| self.lab.spool.used() > 0).await;
        (stream, body[20..].to_vec())
    }
}

fn refused(status: u16, kind: RefusalKind) -> (u16, String) {
    (status, kind.code().to_string())
}

#[tokio::test]
async fn another_layout() {
    let pair = Pair::open().await;
    let mut body = pair.lab.body(1.0);
    let name = body
        .windows(12)
        .position(|window| window == b"delta/weight")
        .unwrap();
    body[name..name + 12].copy_from_slice(b"delta/height");
    assert_eq!(
        pair.bad_report(pair.metadata(), &body).await,
        refused(422, RefusalKind::Malformed)
    );
    pair.commits_without_the_bad_one().await;
}

#[tokio::test]
async fn a_value_that_is_not_finite() {
    let pair = Pair::open().await;
    let body = pair.lab.body(f32::NAN);
    assert_eq!(
        pair.bad_report(pair.metadata(), &body).await,
        refused(422, RefusalKind::Malformed)
    );
    pair.commits_without_the_bad_one().await;
}

#[tokio::test]
async fn something_that_can_not_be_decoded() {
    let pair = Pair::open().await;
    let answer = pair
        .bad_report(
            pair.metadata(),
            b"\x80\x04\x95 this is a pickle, is it not?",
        )
        .await;
    assert_eq!(answer, refused(422, RefusalKind::Malformed));
    pair.commits_without_the_bad_one().await;
}

#[tokio::test]
async fn a_body_that_ends_early() {
    let pair = Pair::open().await;
    let body = pair.lab.body(1.0);
    let answer = pair
        .bad_report(pair.metadata(), &body[..body.len() - 4])
        .await;
    assert_eq!(answer, refused(400, RefusalKind::Truncated));
    pair.commits_with_both().await;
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_a_body() {
    let pair = Pair::open().await;
    let stream = pair.begin_upload().await.0;
    let task = &pair.bad_task;
    let answer = pair.lab.report(&pair.bad, task).await;
    assert_eq!(answer, refused(409, RefusalKind::Duplicate));
    drop(stream);
    until(|| pair.lab.spool.used() == 0).await;
    pair.commits_with_both().await;
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

#[tokio::test]
async fn a_body_larger_than_the_limit() {
    let pair = Pair::open().await;
    let body = vec![0; 2 << 20];
    assert_eq!(
        pair.bad_report(pair.metadata(), &body).await,
        refused(413, RefusalKind::TooLarge)
    );
    pair.commits_without_the_bad_one().await;
}

#[tokio::test]
async fn more_examples_than_the_partition_has() {
    let pair = Pair::open().await;
    let metadata = ReportMetadata {
        examples: 51,
        ..pair.metadata()
    };
    let body = pair.lab.body(100.0);
    assert_eq!(
        pair.bad_report(metadata, &body).await,
        refused(422, RefusalKind::ExamplesExceeded)
    );
    pair.commits_without_the_bad_one().await;
}

#[tokio::test]
async fn a_report_from_another_version() {
    let pair = Pair::open().await;
    let metadata = ReportMetadata {
        base_version: ModelVersion(7),
        ..pair.metadata()
    };
    let body = pair.lab.body(1.0);
    assert_eq!(
        pair.bad_report(metadata, &body).await,
        refused(409, RefusalKind::Stale)
    );
    pair.commits_with_both().await;
}

/// An honest report, sent to the wrong place.
async fn astray(change: impl FnOnce(&mut TaskMessage), status: u16, kind: RefusalKind) {
    let pair = Pair::open().await;
    let mut task = pair.bad_task.clone();
    change(&mut task);
    let body = pair.lab.body(1.0);
    let answer = pair
        .lab
        .put_report(&pair.bad, &task, &pair.metadata(), &body)
        .await;
    assert_eq!(answer, refused(status, kind));
    pair.commits_with_both().await;
}

#[tokio::test]
async fn an_unknown_job() {
    astray(|task| task.job = JobId(99), 404, RefusalKind::UnknownJob).await;
}

#[tokio::test]
async fn a_round_that_has_not_begun() {
    astray(|task| task.round = RoundId(5), 409, RefusalKind::WrongRound).await;
}

#[tokio::test]
async fn an_unknown_client() {
    astray(
        |task| task.client = ClientId(77),
        404,
        RefusalKind::UnknownClient,
    )
    .await;
}

#[tokio::test]
async fn another_workers_token_and_another_workers_client() {
    let pair = Pair::open().await;
    let body = pair.lab.body(1.0);
    let stolen = Credentials {
        worker: pair.good.worker,
        token: pair.bad.token.clone(),
    };
    let answer = pair
        .lab
        .put_report(&stolen, &pair.good_task, &pair.metadata(), &body)
        .await;
    assert_eq!(answer, refused(403, RefusalKind::Forbidden));
    let answer = pair
        .lab
        .put_report(&pair.bad, &pair.good_task, &pair.metadata(), &body)
        .await;
    assert_eq!(answer, refused(409, RefusalKind::NotLeased));
    let nobody = Credentials {
        worker: pair.good.worker,
        token: Token("0".repeat(64)),
    };
    let answer = pair
        .lab
        .put_report(&nobody, &pair.good_task, &pair.metadata(), &body)
        .await;
    assert_eq!(answer, refused(401, RefusalKind::Unauthorized));
    pair.commits_with_both().await;
}

#[tokio::test]
async fn a_report_that_comes_twice_counts_once_and_a_late_one_not_at_all() {
    let pair = Pair::open().await;
    let (bad, bad_task) = (pair.bad.clone(), pair.bad_task.clone());
    assert_eq!(pair.lab.report(&bad, &bad_task).await.0, 204);
    let other = pair
        .lab
        .put_report(&bad, &bad_task, &pair.metadata(), &pair.lab.body(500.0))
        .await;
    assert_eq!(other.0, 204, "the same verdict, and the first values");
    assert_eq!(pair.lab.report(&pair.good, &pair.good_task).await.0, 204);
    let (_, _, model) = pair.lab.finished(pair.job).await;
    assert_eq!(model.values(), [1.0; SIZE]);
    assert_eq!(
        pair.lab.report(&bad, &bad_task).await.0,
        204,
        "still accepted after the round"
    );
}

#[tokio::test]
async fn a_full_spool_is_a_transient_refusal() {
    let config = CoordinatorConfig {
        uploads: UploadLimits {
            spool_bytes: (4 * SIZE) as u64 + 1,
            ..UploadLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    let lab = Lab::open(config).await;
    let (first, second) = (lab.worker("first").await, lab.worker("second").await);
    let job = lab.submit(|_| {}).await;
    let (one, two) = (
        lab.poll(&first, Vec::new()).await,
        lab.poll(&second, Vec::new()).await,
    );
    assert_eq!(lab.report(&first, &one).await.0, 204);
    assert_eq!(
        lab.report(&second, &two).await,
        refused(503, RefusalKind::Busy)
    );
    lab.coordinator.cancel(&HERE, job).await.unwrap();
}

#[tokio::test]
async fn in_process_bodies_are_checked_like_streams() {
    let pair = Pair::open().await;
    let layout = pair
        .lab
        .trainers
        .initial(&pair.lab.trainers.job().description())
        .unwrap()
        .layout()
        .clone();
    let delta = Parameters::new(layout, vec![f32::INFINITY; SIZE]).unwrap();
    let request = Request::Report {
        credentials: pair.bad.clone(),
        job: pair.job,
        round: pair.bad_task.round,
        client: pair.bad_task.client,
        metadata: pair.metadata(),
        body: ReportBody::Memory(Payloads::delta(Encoded::plain(Arc::new(delta)))),
    };
    let answer = pair.lab.coordinator.handle(Peer::InProcess, request).await;
    assert!(
        matches!(
            answer,
            Response::Refused(Refusal {
                kind: RefusalKind::Malformed,
                ..
            })
        ),
        "{answer:?}"
    );
    pair.commits_without_the_bad_one().await;
}

#[tokio::test]
async fn an_upload_that_outlives_its_round_is_late_and_leaves_nothing_behind() {
    let pair = Pair::open().await;
    let (mut stream, rest) = pair.begin_upload().await;
    pair.lab.coordinator.cancel(&HERE, pair.job).await.unwrap();
    stream.write_all(&rest).unwrap();
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 409") && answer.contains("late"),
        "{answer}"
    );
    until(|| pair.lab.spool.used() == 0).await;
}

#[tokio::test]
async fn a_report_that_was_damaged_on_its_way_may_be_sent_again() {
    let pair = Pair::open().await;
    let task = &pair.bad_task;
    let line = format!(
        "PUT /api/v1/jobs/{}/rounds/{}/reports/{}",
        task.job, task.round, task.client
    );
    let headers = report_headers(&pair.bad, &pair.metadata());
    let headers = format!("{headers}fedavg-digest: crc32=01234567\r\n");
    let answer = pair.lab.send(&line, &headers, &pair.lab.body(1.0)).await;
    assert_eq!(answer, (400, "truncated".to_string()));
    assert_eq!(pair.lab.spool.used(), 0);
    assert_eq!(pair.lab.report(&pair.bad, task).await.0, 204);
    assert_eq!(pair.lab.report(&pair.good, &pair.good_task).await.0, 204);
    let (_, rounds, _) = pair.lab.finished(pair.job).await;
    assert_eq!(rounds[0].folded.len(), 2);
}

/// Sends the head of an honest report and the first bytes of its body, and no more.
fn begin_upload(lab: &Lab, credentials: &Credentials, task: &TaskMessage) -> TcpStream {
    let (metadata, body) = (lab.metadata(task), lab.body(1.0));
    let head = format!(
        "PUT /api/v1/jobs/{}/rounds/{}/reports/{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{}\
         content-length: {}\r\n\r\n",
        task.job,
        task.round,
        task.client,
        report_headers(credentials, &metadata),
        body.len()
    );
    let mut stream = TcpStream::connect(lab.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body[..16]).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stops_keeps_no_place_and_ends_with_its_round() {
    let config = CoordinatorConfig {
        uploads: UploadLimits {
            max: 1,
            ..UploadLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    let lab = Lab::open(config).await;
    let [slow, honest] = [lab.worker("slow").await, lab.worker("honest").await];
    let job = lab
        .submit(|spec| {
            spec.limits.min_workers = 2;
            spec.limits.goal = Some(1);
            // Both are asked, and one report is enough.
            spec.strategy = StrategySpec::preset("fedavg")
                .with("fraction", 1.0)
                .with("over_selection", 1.0);
        })
        .await;
    let task = lab.poll(&slow, Vec::new()).await;
    let mut stopped = begin_upload(&lab, &slow, &task);
    // The only place is not kept by what does not come: the round commits with the other report.
    let task = lab.poll(&honest, Vec::new()).await;
    assert_eq!(lab.report(&honest, &task).await.0, 204);
    let (summary, rounds, _) = lab.finished(job).await;
    assert_eq!((summary.version.0, rounds[0].folded.len()), (1, 1));
    // And the other upload was told at once, without a byte more.
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        stopped.read_to_string(&mut answer).unwrap();
        answer
    });
    let answer = answer.await.unwrap();
    assert!(answer.contains("\"late\""), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_sends_a_byte_now_and_then_keeps_no_place() {
    let idle = Duration::from_millis(100);
    let config = CoordinatorConfig {
        uploads: UploadLimits {
            max: 1,
            idle,
            ..UploadLimits::default()
        },
        ..CoordinatorConfig::default()
    };
    let lab = Lab::open(config).await;
    let [slow, honest] = [lab.worker("slow").await, lab.worker("honest").await];
    let job = lab
        .submit(|spec| {
            spec.limits.min_workers = 2;
            spec.limits.goal = Some(1);
            spec.strategy = StrategySpec::preset("fedavg")
                .with("fraction", 1.0)
                .with("over_selection", 1.0);
        })
        .await;
    let task = lab.poll(&slow, Vec::new()).await;
    let mut dripping = begin_upload(&lab, &slow, &task);
    let body = lab.body(1.0);
    let drips = tokio::task::spawn_blocking(move || {
        // Never silent for as long as an upload may be. It is the sender that is slow: nothing waits for this to pass.
        for byte in &body[16..] {
            let sent = dripping.write_all(&[*byte]);
            if sent.is_err() {
                break;
            }
            std::thread::sleep(idle / 4);
        }
        // The end of its bytes: otherwise it would be heard on for a while.
        let _ = dripping.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = dripping.read_to_string(&mut answer);
        answer
    });
    let task = lab.poll(&honest, Vec::new()).await;
    // It is first, although the other one began before it and goes on all the time.
    assert_eq!(lab.report(&honest, &task).await.0, 204);
    let (_, rounds, _) = lab.finished(job).await;
    assert_eq!(rounds[0].folded, [task.client]);
    let answer = drips.await.unwrap();
    assert!(!answer.contains("204"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finite_reports_whose_sum_is_not_make_no_model() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let worker = lab.worker("only").await;
    let job = lab
        .submit(|spec| {
            spec.clients = Some(1);
            spec.rounds = 3;
            spec.limits.max_attempts = 1;
        })
        .await;
    for _ in 0..2 {
        let task = lab.poll(&worker, Vec::new()).await;
        let (metadata, body) = (lab.metadata(&task), lab.body(3e38));
        let metadata = ReportMetadata {
            examples: 100,
            ..metadata
        };
        let (status, _) = lab.put_report(&worker, &task, &metadata, &body).await;
        assert_eq!(status, 204);
    }
    let (summary, rounds, model) = lab.finished(job).await;
    assert!(
        summary.detail.contains("training diverged"),
        "{}",
        summary.detail
    );
    assert_eq!(summary.version.0, 1, "the last good model stays");
    assert!(model.values().iter().all(|value| *value == 3e38));
    let reason = rounds[1].abandoned.as_deref().unwrap_or_default();
    assert!(reason.contains("would be inf at index 0"), "{reason}");
}
