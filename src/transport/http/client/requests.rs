//! A worker's requests as HTTP: the call of each, and how its answer reads.

use std::time::Duration;

use hyper::{
    Method, StatusCode,
    header::{self, HeaderName},
};
use tokio::time::sleep;

use super::{
    connection::{Answer, Call, Connection},
    download,
};
use crate::{
    Cause,
    job::EvalSplit,
    parameters::Digest,
    protocol::{Alive, Failure, Heartbeat, Poll, Rotated, ShareEvaluation},
    report::RefusalKind,
    transport::{
        Credentials, ReportBody, Request, Response, TransportError,
        http::{
            api::{
                DIGEST_HEADER, PARTIAL_UPLOAD, REPORT_HEADER, SAFETENSORS, UPLOAD_COMPLETE_HEADER,
                UPLOAD_OFFSET_HEADER, WORKER_HEADER, ascii_json,
            },
            outbound::Outbound,
        },
    },
};

/// A worker waits no longer than this because it is told to.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Sends one request. `digest`: of its whole body, if it has one.
pub(super) async fn exchange(
    connection: &Connection,
    request: Request,
    digest: Option<Digest>,
) -> Result<Response, TransportError> {
    let (call, success) = call(request, digest)?;
    let answer = connection.send(call).await?;
    let wait = told_to_wait(&answer);
    match answer.granted().await? {
        Ok(answer) => read(connection, answer, success).await,
        Err(refusal) => {
            // Here, since a refusal has no room for it: whoever asks again does not ask too early.
            if refusal.kind == RefusalKind::TooMany {
                sleep(wait).await;
            }
            Ok(Response::Refused(refusal))
        }
    }
}

/// How long the coordinator asks to wait, at most [`LONGEST_WAIT`].
fn told_to_wait(answer: &Answer) -> Duration {
    let seconds = answer.headers.get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_WAIT)
}

/// How the success of a request reads.
enum Success {
    Registered,
    Rotated,
    Alive,
    Polled,
    Job,
    Partition,
    /// With what asks for the rest of it.
    Model(Box<Call>),
    UploadOffset,
    Accepted,
}

/// `digest`: of the body, if it has one.
fn call(request: Request, digest: Option<Digest>) -> Result<(Call, Success), TransportError> {
    Ok(match request {
        Request::Register {
            join_token,
            registration,
        } => {
            let call = Call::post("/workers").token(join_token.as_ref())?;
            (call.json(&registration)?, Success::Registered)
        }
        Request::Heartbeat { credentials, busy } => {
            let path = format!("/workers/{}/heartbeat", credentials.worker);
            let call = by(&credentials, Call::post(path))?;
            (call.json(&Heartbeat { busy })?, Success::Alive)
        }
        Request::Leave { credentials } => {
            let path = format!("/workers/{}", credentials.worker);
            let call = by(&credentials, Call::new(Method::DELETE, path))?;
            (call, Success::Accepted)
        }
        Request::Rotate { credentials } => {
            let path = format!("/workers/{}/token", credentials.worker);
            (by(&credentials, Call::post(path))?, Success::Rotated)
        }
        Request::Poll {
            credentials,
            busy,
            wait,
        } => {
            let path = format!("/workers/{}/poll", credentials.worker);
            // The coordinator shortens it to its own limit.
            let wait_ms = Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            let call = by(&credentials, Call::post(path))?.extra(wait);
            (call.json(&Poll { busy, wait_ms })?, Success::Polled)
        }
        Request::Job { credentials, job } => {
            let call = Call::get(format!("/jobs/{job}/description"));
            (by(&credentials, call)?, Success::Job)
        }
        Request::Partition {
            credentials,
            job,
            client,
        } => {
            let call = Call::get(format!("/jobs/{job}/partitions/{client}"));
            (by(&credentials, call)?, Success::Partition)
        }
        Request::Model {
            credentials,
            job,
            version,
            payload,
        } => {
            let path = format!("/jobs/{job}/models/{version}");
            let call = Call::get(match payload {
                Some(name) => format!("{path}/payloads/{name}"),
                None => path,
            });
            let call = by(&credentials, call)?;
            (call.again(), Success::Model(Box::new(call)))
        }
        Request::Report {
            credentials,
            job,
            round,
            client,
            mut metadata,
            body,
        } => {
            // JSON has no form for NaN and infinity: the report would be refused for a number that is there for people.
            metadata.metrics.retain(|_, value| value.is_finite());
            let metadata = ascii_json(&metadata)
                .map_err(|error| TransportError::Protocol(Cause::of(error)))?;
            let path = format!("/jobs/{job}/rounds/{round}/reports/{client}");
            // `PATCH`, so that a coordinator that does not know it does not take the rest for the whole.
            let (call, media_type) = match &body {
                ReportBody::Rest { offset, .. } => {
                    let call = Call::new(Method::PATCH, path)
                        .header(HeaderName::from_static(UPLOAD_OFFSET_HEADER), *offset)?
                        .header(HeaderName::from_static(UPLOAD_COMPLETE_HEADER), "?1")?;
                    (call, PARTIAL_UPLOAD)
                }
                _ => (Call::put(path), SAFETENSORS),
            };
            let call = by(&credentials, call)?
                .header(HeaderName::from_static(REPORT_HEADER), metadata)?
                .parameters(media_type, Outbound::from(body), digest)?;
            (call, Success::Accepted)
        }
        Request::UploadOffset {
            credentials,
            job,
            round,
            client,
            digest,
        } => {
            let path = format!("/jobs/{job}/rounds/{round}/reports/{client}");
            let call = Call::new(Method::HEAD, path)
                .header(HeaderName::from_static(DIGEST_HEADER), digest.to_string())?;
            (by(&credentials, call)?, Success::UploadOffset)
        }
        Request::TaskFailed {
            credentials,
            job,
            round,
            client,
            reason,
        } => {
            let call = Call::post(format!("/jobs/{job}/rounds/{round}/failures/{client}"));
            let call = by(&credentials, call)?.json(&Failure { reason })?;
            (call, Success::Accepted)
        }
        Request::Evaluation {
            credentials,
            job,
            version,
            split,
            client,
            evaluation,
        } => {
            let mut path = format!("/jobs/{job}/models/{version}/evaluations/{client}");
            // Coordinators of earlier versions know the test split alone.
            if split != EvalSplit::Test {
                path.push_str(&format!("?split={split}"));
            }
            let call = Call::put(path);
            let call = by(&credentials, call)?.json(&ShareEvaluation::from(evaluation))?;
            (call, Success::Accepted)
        }
    })
}

fn by(credentials: &Credentials, call: Call) -> Result<Call, TransportError> {
    call.token(Some(&credentials.token))?.header(
        HeaderName::from_static(WORKER_HEADER),
        credentials.worker.to_string(),
    )
}

async fn read(
    connection: &Connection,
    answer: Answer,
    success: Success,
) -> Result<Response, TransportError> {
    let is_empty = answer.status == StatusCode::NO_CONTENT;
    Ok(match success {
        Success::Registered => Response::Registered(answer.json().await?),
        Success::Rotated => {
            let Rotated { token } = answer.json().await?;
            Response::Rotated(token)
        }
        Success::Alive => {
            let Alive { unwanted } = answer.json().await?;
            Response::Alive { unwanted }
        }
        Success::Polled if is_empty => Response::Idle,
        Success::Polled => Response::Task(answer.json().await?),
        Success::Job => Response::Job(answer.json().await?),
        Success::Partition => Response::Partition(answer.json().await?),
        Success::Model(call) => Response::Model(download::model(connection, *call, answer)),
        Success::UploadOffset => upload_offset(&answer)?,
        Success::Accepted => Response::Accepted,
    })
}

/// What the head of an answer says of a broken upload.
fn upload_offset(answer: &Answer) -> Result<Response, TransportError> {
    let complete = answer.headers.get(UPLOAD_COMPLETE_HEADER);
    if complete.is_some_and(|complete| complete == "?1") {
        return Ok(Response::Accepted);
    }
    let offset = download::parsed(
        &answer.headers,
        &HeaderName::from_static(UPLOAD_OFFSET_HEADER),
    );
    match offset {
        Some(offset) => Ok(Response::UploadOffset(offset)),
        None => Err(TransportError::Protocol(
            "an answer without Upload-Offset".into(),
        )),
    }
}
