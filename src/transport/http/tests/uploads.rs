//! Reports whose upload breaks off, at a server that does as it is told.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use super::{credentials, fake::parameters};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RoundId},
    parameters::{Digest, Encoded, Payloads},
    report::{RefusalKind, ReportMetadata},
    transport::{
        ReportBody, Request, Response, Transport, TransportError,
        http::{ClientConfig, HttpTransport},
    },
};

/// What the server does with a connection: it takes so many bytes of the body, and sends this answer, if any.
struct Turn {
    takes: usize,
    answer: String,
}

/// A request as it came: its head in lower case, and what was taken of its body.
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.head.split(&format!("\r\n{name}: ")).nth(1)?;
        found.split("\r\n").next()
    }
}

fn turn(takes: usize, answer: &str) -> Turn {
    Turn {
        takes,
        answer: answer.to_string(),
    }
}

fn kept(offset: usize) -> Turn {
    turn(
        0,
        &format!(
            "HTTP/1.1 204 X\r\nconnection: close\r\nupload-offset: {offset}\r\nupload-complete: ?0\r\n\r\n"
        ),
    )
}

const ACCEPTED: &str = "HTTP/1.1 204 X\r\nconnection: close\r\n\r\n";

fn problem(status: u16, code: &str) -> String {
    let body = format!("{{\"code\":\"{code}\"}}");
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Serves one connection after the other, each with one turn.
fn serve(turns: Vec<Turn>) -> (SocketAddr, JoinHandle<Vec<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for Turn { takes, answer } in turns {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).unwrap() > 0);
            }
            let mut body = vec![0; takes];
            reader.read_exact(&mut body).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            if !answer.is_empty() {
                // To close with bytes that were not read would reset the connection, and the answer could be lost.
                let _ = stream.shutdown(Shutdown::Write);
                let _ = io::copy(&mut reader, &mut io::sink());
            }
            let head = head.to_lowercase();
            seen.push(Seen { head, body });
        }
        seen
    });
    (address, serving)
}

fn transport(address: SocketAddr, resume_from: u64) -> HttpTransport {
    let config = ClientConfig {
        resume_tries: 3,
        resume_pause: Duration::from_millis(1),
        resume_from,
        ..ClientConfig::default()
    };
    HttpTransport::new(&address.to_string(), config).unwrap()
}

fn payloads() -> Payloads {
    Payloads::delta(Encoded::plain(Arc::new(parameters(500_000, 3))))
}

fn report() -> Request {
    Request::Report {
        credentials: credentials(1),
        job: JobId(1),
        round: RoundId(4),
        client: ClientId(2),
        metadata: ReportMetadata::new(ModelVersion(3), 10),
        body: ReportBody::Memory(payloads()),
    }
}

/// Sends the report to a server with these turns; what came of it, and what the server saw.
async fn send(turns: Vec<Turn>) -> (Result<Response, TransportError>, Vec<Seen>) {
    let (address, serving) = serve(turns);
    let outcome = transport(address, 1000).send(report()).await;
    (outcome, serving.join().unwrap())
}

#[tokio::test]
async fn after_a_break_only_the_rest_is_sent() {
    let whole = payloads().pieces().concat();
    let digest = Digest::of(&whole).to_string();
    let length = whole.len();
    let (outcome, seen) = send(vec![
        turn(300_000, ""),
        kept(250_000),
        turn(1_000_000, ""),
        kept(1_250_000),
        turn(length - 1_250_000, ACCEPTED),
    ])
    .await;
    assert!(matches!(outcome, Ok(Response::Accepted)), "{outcome:?}");
    assert!(
        seen[0]
            .head
            .starts_with("put /api/v1/jobs/1/rounds/4/reports/2 ")
    );
    assert_eq!(seen[0].header("upload-offset"), None);
    for question in [&seen[1], &seen[3]] {
        assert!(
            question
                .head
                .starts_with("head /api/v1/jobs/1/rounds/4/reports/2 ")
        );
        assert_eq!(question.header("fedavg-worker"), Some("1"));
        assert_eq!(question.header("authorization"), Some("bearer token-1"));
    }
    for (rest, from) in [(&seen[2], 250_000), (&seen[4], 1_250_000)] {
        assert!(
            rest.head
                .starts_with("patch /api/v1/jobs/1/rounds/4/reports/2 ")
        );
        assert_eq!(
            rest.header("content-type"),
            Some("application/partial-upload")
        );
        assert_eq!(rest.header("upload-offset"), Some(&*from.to_string()));
        assert_eq!(rest.header("upload-complete"), Some("?1"));
        assert_eq!(
            rest.header("content-length"),
            Some(&*(length - from).to_string())
        );
        assert!(rest.header("fedavg-report").is_some());
        assert!(rest.body == whole[from..from + rest.body.len()]);
    }
    assert!(
        seen.iter()
            .all(|one| one.header("fedavg-digest") == Some(&digest))
    );
}

#[tokio::test]
async fn a_report_that_was_whole_before_the_break_is_asked_for_alone() {
    let complete = "HTTP/1.1 204 X\r\nconnection: close\r\nupload-complete: ?1\r\n\r\n";
    let length = payloads().pieces().concat().len();
    let (outcome, seen) = send(vec![turn(length, ""), turn(0, complete)]).await;
    assert!(matches!(outcome, Ok(Response::Accepted)), "{outcome:?}");
    assert_eq!(seen.len(), 2);
    // All of it was kept, and the end was not: the rest is empty.
    let (outcome, seen) = send(vec![turn(length, ""), kept(length), turn(0, ACCEPTED)]).await;
    assert!(matches!(outcome, Ok(Response::Accepted)), "{outcome:?}");
    let length = seen[2].header("content-length");
    assert!(length.is_none_or(|length| length == "0"), "{length:?}");
}

#[tokio::test]
async fn where_nothing_is_kept_the_break_is_the_callers_business() {
    let unknown = "HTTP/1.1 405 X\r\nconnection: close\r\n\r\n";
    for answer in [kept(0), turn(0, unknown), kept(999_999_999)] {
        let (outcome, seen) = send(vec![turn(300_000, ""), answer]).await;
        let error = outcome.expect_err("a break");
        assert!(error.is_transient(), "{error:?}");
        assert_eq!(seen.len(), 2);
    }
    // The coordinator noticed the break first.
    let truncated = problem(400, "truncated");
    let (outcome, _) = send(vec![turn(300_000, &truncated), kept(0)]).await;
    let Ok(Response::Refused(refusal)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(refusal.kind, RefusalKind::Truncated);
}

#[tokio::test]
async fn a_verdict_is_no_break_and_a_small_report_is_not_asked_for() {
    let (outcome, seen) = send(vec![turn(300_000, &problem(409, "late"))]).await;
    assert!(matches!(outcome, Ok(Response::Refused(_))), "{outcome:?}");
    assert_eq!(seen.len(), 1);
    let (address, serving) = serve(vec![turn(300_000, ""), turn(0, ACCEPTED)]);
    let transport = transport(address, 4 << 20);
    let outcome = transport.send(report()).await;
    assert!(outcome.is_err_and(|error| error.is_transient()));
    let outcome = transport.send(report()).await;
    assert!(matches!(outcome, Ok(Response::Accepted)), "{outcome:?}");
    assert_eq!(methods(&serving.join().unwrap()), ["put", "put"]);
}

fn methods(seen: &[Seen]) -> Vec<&str> {
    let mut methods = Vec::new();
    for one in seen {
        methods.push(one.head.split(' ').next().unwrap());
    }
    methods
}

#[tokio::test]
async fn the_rest_is_not_sent_for_ever_without_progress() {
    let mut turns = vec![turn(300_000, "")];
    for _ in 0..4 {
        turns.extend([kept(100), turn(10, "")]);
    }
    // The first of them is progress.
    let (outcome, seen) = send(turns).await;
    assert!(outcome.is_err_and(|error| error.is_transient()));
    assert_eq!(seen.len(), 9);
}

#[tokio::test]
async fn a_coordinator_that_can_not_be_asked_is_asked_by_the_next_try() {
    let length = payloads().pieces().concat().len();
    let (address, serving) = serve(vec![
        turn(300_000, ""),
        turn(0, ""),
        turn(0, ""),
        kept(200_000),
        turn(length - 200_000, ACCEPTED),
        // What went well once begins with the whole the next time.
        turn(length, ACCEPTED),
    ]);
    let transport = transport(address, 1000);
    for _ in 0..2 {
        let outcome = transport.send(report()).await;
        assert!(outcome.is_err_and(|error| error.is_transient()));
    }
    for _ in 0..2 {
        let outcome = transport.send(report()).await;
        assert!(matches!(outcome, Ok(Response::Accepted)), "{outcome:?}");
    }
    let seen = serving.join().unwrap();
    let methods = methods(&seen);
    assert_eq!(methods, ["put", "head", "head", "head", "patch", "put"]);
}
