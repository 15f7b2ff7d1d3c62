//! Models over the wire: whole, in part, and not at all if they are there already.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;

use super::{
    Limits, Running, credentials,
    fake::{Fake, OnDisk, parameters},
};
use crate::{
    ids::{JobId, ModelVersion},
    parameters::{Digest, Encoding, Parameters, safetensors},
    transport::{
        BodyError, ModelBody, Operator, Request, Response, Transport,
        http::{ClientConfig, HttpTransport},
    },
};

/// Some pieces and a bit.
const VALUES: usize = 500_000;

const PATH: &str = "/api/v1/jobs/1/models/3";

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

impl Running {
    async fn with_model_on_disk(model: Parameters) -> (Self, Arc<OnDisk>) {
        Self::with_stored(OnDisk::new(&model), model, Limits::default()).await
    }

    async fn with_stored(disk: OnDisk, model: Parameters, config: Limits) -> (Self, Arc<OnDisk>) {
        let disk = Arc::new(disk);
        let mut fake = Fake::with_model(model);
        fake.stored = Some(disk.clone());
        (Self::start(fake, config).await, disk)
    }

    async fn ask(&self, method: &str, headers: &str) -> Answer {
        let head = format!("{method} {PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        let answer = self.raw_bytes(format!("{head}{headers}\r\n")).await;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, body) = answer.split_at(end.unwrap() + 4);
        let mut lines = std::str::from_utf8(head).unwrap().lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Answer {
            status: status.parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            body: body.to_vec(),
        }
    }
}

/// A coordinator with the model in memory and one with it on disk.
async fn both() -> [(Running, Vec<u8>); 2] {
    let model = parameters(VALUES, 3);
    let file = safetensors::encode(&model);
    let memory = Running::start(Fake::with_model(model.clone()), Limits::default()).await;
    let (disk, _) = Running::with_model_on_disk(model).await;
    [(memory, file.clone()), (disk, file)]
}

#[tokio::test]
async fn a_model_comes_with_all_that_is_known_of_it() {
    for (running, file) in both().await {
        let digest = Digest::of(&file);
        let tag = format!("\"1-3-f32-{:08x}\"", digest.crc32());
        for method in ["GET", "HEAD"] {
            // A part is defined for GET alone.
            let range = if method == "HEAD" {
                "range: bytes=0-0\r\n"
            } else {
                ""
            };
            let answer = running.ask(method, range).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-length"), file.len().to_string());
            assert_eq!(answer.header("content-type"), "application/octet-stream");
            assert_eq!(answer.header("etag"), tag);
            assert_eq!(answer.header("accept-ranges"), "bytes");
            assert_eq!(answer.header("fedavg-digest"), digest.to_string());
            assert_eq!(answer.header("fedavg-model-version"), "3");
            let expected = if method == "GET" { &file[..] } else { &[] };
            assert!(answer.body == expected, "{method}");
        }
    }
}

#[tokio::test]
async fn a_head_reads_nothing() {
    let (running, disk) = Running::with_model_on_disk(parameters(VALUES, 3)).await;
    assert_eq!(running.ask("HEAD", "").await.status, 200);
    let known = format!(
        "if-none-match: {}\r\n",
        running.ask("HEAD", "").await.header("etag")
    );
    assert_eq!(running.ask("GET", &known).await.status, 304);
    assert_eq!(disk.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn ranges_are_parts() {
    for (running, file) in both().await {
        let end = file.len();
        let length = end.to_string();
        for (range, part) in [
            ("bytes=0-0".to_string(), 0..1),
            ("bytes=1-300000".to_string(), 1..300_001),
            (format!("bytes={}-", end - 5), end - 5..end),
            ("bytes=-300000".to_string(), end - 300_000..end),
            ("bytes=7-18446744073709551615".to_string(), 7..end),
        ] {
            let answer = running.ask("GET", &format!("range: {range}\r\n")).await;
            assert_eq!(answer.status, 206, "{range}");
            assert_eq!(answer.header("content-length"), part.len().to_string());
            let expected = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            assert_eq!(answer.header("content-range"), expected);
            let digest = Digest::of(&file).to_string();
            assert_eq!(answer.header("fedavg-digest"), digest);
            assert!(answer.header("etag").starts_with('"'));
            assert!(answer.body == file[part], "{range}");
        }
        for range in ["bytes=0-0,2-2", "bytes=5-3", "items=0-1", "nonsense"] {
            let answer = running.ask("GET", &format!("range: {range}\r\n")).await;
            assert_eq!(answer.status, 200, "{range}");
            assert_eq!(answer.header("content-range"), "");
            assert!(answer.body == file);
        }
        for range in [format!("bytes={length}-"), "bytes=-0".to_string()] {
            let answer = running.ask("GET", &format!("range: {range}\r\n")).await;
            assert_eq!(answer.status, 416, "{range}");
            assert_eq!(answer.header("content-range"), format!("bytes */{length}"));
            assert_eq!(answer.header("content-type"), "application/problem+json");
            let text = String::from_utf8(answer.body).unwrap();
            assert!(
                text.contains("\"code\":\"range_not_satisfiable\""),
                "{text}"
            );
        }
    }
}

#[tokio::test]
async fn who_has_the_model_downloads_nothing() {
    for (running, file) in both().await {
        let tag = running.ask("HEAD", "").await.header("etag").to_string();
        for known in [
            format!("if-none-match: {tag}\r\n"),
            format!("if-none-match: \"other\", W/{tag}\r\n"),
            "if-none-match: *\r\n".to_string(),
            // The condition comes before the range, even one that is not there.
            format!("if-none-match: {tag}\r\nrange: bytes=99999999999-\r\n"),
        ] {
            for method in ["GET", "HEAD"] {
                let answer = running.ask(method, &known).await;
                assert_eq!(answer.status, 304, "{known}");
                assert_eq!(answer.header("etag"), tag);
                assert_eq!(answer.header("fedavg-model-version"), "3");
                assert_eq!(answer.header("content-length"), "");
                assert!(answer.body.is_empty());
            }
        }
        let other = running.ask("GET", "if-none-match: \"other\"\r\n").await;
        assert_eq!(other.status, 200);
        assert!(other.body == file);
    }
}

#[tokio::test]
async fn a_part_of_another_model_is_the_whole_of_this_one() {
    for (running, file) in both().await {
        let tag = running.ask("HEAD", "").await.header("etag").to_string();
        for (if_range, status) in [
            (tag.clone(), 206),
            (format!("W/{tag}"), 200),
            ("\"other\"".to_string(), 200),
            ("Sat, 29 Oct 1994 19:43:31 GMT".to_string(), 200),
        ] {
            let headers = format!("if-range: {if_range}\r\nrange: bytes=5-\r\n");
            let answer = running.ask("GET", &headers).await;
            assert_eq!(answer.status, status, "{if_range}");
            let from = if status == 206 { 5 } else { 0 };
            assert!(answer.body == file[from..]);
        }
        let headers = "if-range: \"other\"\r\nrange: bytes=99999999999-\r\n";
        assert_eq!(running.ask("GET", headers).await.status, 200);
    }
}

async fn download(worker: &HttpTransport) -> Result<Arc<Parameters>, BodyError> {
    let request = Request::Model {
        credentials: credentials(1),
        job: JobId(1),
        version: ModelVersion(3),
        payload: None,
    };
    match worker.send(request).await.unwrap() {
        Response::Model(body @ ModelBody::Stream { .. }) => body.collect(Encoding::F32, None).await,
        other => panic!("not a model: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_piece_at_a_time_serves_everybody() {
    let model = parameters(VALUES, 3);
    let config = Limits::with(|limits| {
        limits.router.pieces = 1;
    });
    let (running, _) = Running::with_stored(OnDisk::new(&model), model, config).await;
    let worker = running.worker();
    for found in join_all((0..20).map(|_| download(&worker))).await {
        assert_eq!(found.unwrap(), running.fake.model);
    }
}

fn impatient() -> ClientConfig {
    ClientConfig {
        resume_tries: 3,
        resume_pause: Duration::from_millis(1),
        ..ClientConfig::default()
    }
}

#[tokio::test]
async fn storage_that_fails_for_good_breaks_the_download_and_nothing_else() {
    let model = parameters(VALUES, 3);
    let disk = OnDisk {
        hole: Some(1_000_000),
        ..OnDisk::new(&model)
    };
    let (running, _) = Running::with_stored(disk, model, Limits::default()).await;
    let error = download(&running.worker_with(impatient()))
        .await
        .unwrap_err();
    assert!(matches!(error, BodyError::Broken(_)), "{error:?}");
    assert!(running.operator(None).health().await.is_ok());
}

#[tokio::test]
async fn storage_that_fails_now_and_then_only_breaks_it_off() {
    let model = parameters(VALUES, 3);
    let disk = OnDisk {
        hole: Some(1_000_000),
        failures: AtomicUsize::new(2),
        ..OnDisk::new(&model)
    };
    let (running, disk) = Running::with_stored(disk, model, Limits::default()).await;
    let found = download(&running.worker_with(impatient())).await;
    assert_eq!(found.unwrap(), running.fake.model);
    assert_eq!(disk.failures.load(Ordering::SeqCst), 0);
    assert_eq!(running.fake.asked.lock().unwrap().len(), 3);
}
