//! Downloads that break off, from a server that does as it is told.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use super::{HERE, credentials, fake::parameters};
use crate::{
    ids::{JobId, ModelVersion},
    parameters::{Digest, Encoding, Parameters, safetensors},
    transport::{
        BodyError, Operator, Request, Response, Transport,
        http::{ClientConfig, HttpTransport, OperatorClient},
    },
};

const TAG: &str = "\"1-3-f32-00000000\"";

/// Answers each connection with the next of these bytes, and closes it. Gives the requests back.
fn serve(answers: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let answer = |answer: Vec<u8>| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = String::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            while !request.ends_with("\r\n\r\n") {
                assert!(lines.read_line(&mut request).unwrap() > 0);
            }
            stream.write_all(&answer).unwrap();
            request.to_lowercase()
        };
        answers.into_iter().map(answer).collect()
    });
    (address, serving)
}

fn model() -> (Arc<Parameters>, Vec<u8>) {
    let model = parameters(100_000, 3);
    let file = safetensors::encode(&model);
    (Arc::new(model), file)
}

/// The whole model, of which these bytes come.
fn whole(file: &[u8], tag: &str, come: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\netag: {tag}\r\nfedavg-model-version: 3\r\nfedavg-digest: {}\r\n\r\n",
        file.len(),
        Digest::of(file)
    );
    [head.as_bytes(), &file[..come]].concat()
}

/// The model from a byte on, of which these bytes come.
fn rest(file: &[u8], tag: &str, from: usize, come: usize) -> Vec<u8> {
    let length = file.len();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\ncontent-length: {}\r\netag: {tag}\r\ncontent-range: bytes {from}-{}/{length}\r\n\r\n",
        length - from,
        length - 1
    );
    [head.as_bytes(), &file[from..from + come]].concat()
}

fn problem(status: &str, code: &str) -> Vec<u8> {
    let body = format!("{{\"code\":\"{code}\"}}");
    format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn config() -> ClientConfig {
    ClientConfig {
        resume_tries: 3,
        resume_pause: Duration::from_millis(1),
        ..ClientConfig::default()
    }
}

async fn download(address: SocketAddr) -> Result<Arc<Parameters>, BodyError> {
    let worker = HttpTransport::new(&address.to_string(), config()).unwrap();
    let request = Request::Model {
        credentials: credentials(1),
        job: JobId(1),
        version: ModelVersion(3),
        payload: None,
    };
    match worker.send(request).await.unwrap() {
        Response::Model(body) => body.collect(Encoding::F32, None).await,
        other => panic!("not a model: {other:?}"),
    }
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_broke() {
    let (model, file) = model();
    let answers = || {
        vec![
            whole(&file, TAG, 1000),
            rest(&file, TAG, 1000, 200_000),
            Vec::new(),
            problem("503", "busy"),
            rest(&file, TAG, 201_000, file.len() - 201_000),
        ]
    };
    let check = |requests: Vec<String>| {
        assert!(!requests[0].contains("range"), "{}", requests[0]);
        for (request, from) in requests[1..].iter().zip([1000, 201_000, 201_000, 201_000]) {
            assert!(
                request.starts_with("get /api/v1/jobs/1/models/"),
                "{request}"
            );
            assert!(
                request.contains(&format!("\r\nrange: bytes={from}-\r\n")),
                "{request}"
            );
            assert!(
                request.contains(&format!("\r\nif-range: {TAG}\r\n")),
                "{request}"
            );
        }
    };
    let (address, serving) = serve(answers());
    assert_eq!(download(address).await.unwrap(), model);
    let requests = serving.join().unwrap();
    assert!(requests[4].contains("authorization: bearer token-1"));
    check(requests);

    let (address, serving) = serve(answers());
    let operator = OperatorClient::new(&address.to_string(), None, config()).unwrap();
    let mut written = Vec::new();
    let downloaded = operator.download(&HERE, JobId(1), None, &mut written).await;
    assert_eq!(downloaded.unwrap(), (ModelVersion(3), file.len() as u64));
    assert!(written == file);
    check(serving.join().unwrap());
}

#[tokio::test]
async fn another_model_is_not_put_behind_the_first_part() {
    let (_, file) = model();
    let nothing = format!(
        "HTTP/1.1 416 X\r\ncontent-length: 0\r\ncontent-range: bytes */{}\r\n\r\n",
        500
    );
    let longer = [&file[..], &[0]].concat();
    for second in [
        whole(&file, "\"other\"", file.len()),
        rest(&file, "\"other\"", 1000, 5000),
        rest(&longer, TAG, 1000, 5000),
        nothing.into_bytes(),
    ] {
        let (address, serving) = serve(vec![whole(&file, TAG, 1000), second]);
        assert_eq!(download(address).await.unwrap_err(), BodyError::Changed);
        assert_eq!(serving.join().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_wrong_part_is_an_error() {
    let (_, file) = model();
    let second = rest(&file, TAG, 999, 5000);
    let (address, serving) = serve(vec![whole(&file, TAG, 1000), second]);
    let error = download(address).await.unwrap_err();
    assert!(matches!(error, BodyError::Malformed(_)), "{error:?}");
    serving.join().unwrap();
}

#[tokio::test]
async fn the_rest_is_not_asked_for_for_ever() {
    let (_, file) = model();
    let (address, serving) = serve(vec![
        whole(&file, TAG, 1000),
        rest(&file, TAG, 1000, 0),
        Vec::new(),
        problem("503", "busy"),
    ]);
    let error = download(address).await.unwrap_err();
    assert!(matches!(error, BodyError::Broken(_)), "{error:?}");
    assert_eq!(serving.join().unwrap().len(), 4);
}

#[tokio::test]
async fn a_refusal_that_stays_ends_the_download() {
    let (_, file) = model();
    for (status, code) in [("410", "gone"), ("401", "unauthorized")] {
        let answers = vec![whole(&file, TAG, 1000), problem(status, code)];
        let (address, serving) = serve(answers);
        let error = download(address).await.unwrap_err();
        assert!(
            matches!(&error, BodyError::Broken(cause) if cause.to_string().contains(code)),
            "{error:?}"
        );
        serving.join().unwrap();
    }
}

#[tokio::test]
async fn without_a_strong_tag_the_rest_can_not_be_told_from_another_model() {
    let (_, file) = model();
    for tag in [format!("W/{TAG}"), "nonsense".to_string()] {
        let (address, serving) = serve(vec![whole(&file, &tag, 1000)]);
        let error = download(address).await.unwrap_err();
        assert!(matches!(error, BodyError::Broken(_)), "{error:?}");
        serving.join().unwrap();
    }
}
