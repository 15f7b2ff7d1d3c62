//! A worker's end.

use std::fmt;

use hyper::{Method, StatusCode, header::HeaderName};

use super::{
    AddressError, ClientConfig,
    connection::{Answer, Call, Connection, digest_of},
    download,
};
use crate::{
    Cause,
    ids::CoordinatorId,
    parameters::Digest,
    protocol::{Alive, Failure, Health, Heartbeat, Poll, ShareEvaluation},
    transport::{
        Credentials, ReportBody, Request, Response, Transport, TransportError,
        http::{
            api::{REPORT_HEADER, WORKER_HEADER, ascii_json},
            outbound::Outbound,
        },
    },
};

/// The transport to a coordinator over HTTP. Clones share their connections.
#[derive(Clone)]
pub struct HttpTransport(Connection);

impl fmt::Debug for HttpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpTransport")
    }
}

impl HttpTransport {
    /// A transport to the coordinator at `http://HOST:PORT`. Nothing is sent before the first request.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if that is no such address.
    pub fn new(address: &str, config: ClientConfig) -> Result<Self, AddressError> {
        Connection::new(address, config).map(Self)
    }
}

/// How the success of a request reads.
enum Success {
    Registered,
    Alive,
    Polled,
    Job,
    Partition,
    /// With what asks for the rest of it.
    Model(Box<Call>),
    Accepted,
}

impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        // Taken beforehand: it is in the head, which goes out before the body.
        let digest = match &request {
            Request::Report { body, .. } => match body {
                ReportBody::Memory(payloads) => digest_of(payloads.clone()).await,
                ReportBody::Stream { digest, .. } => *digest,
            },
            _ => None,
        };
        let (call, success) = call(request, digest)?;
        match self.0.send(call).await?.granted().await? {
            Ok(answer) => read(&self.0, answer, success).await,
            Err(refusal) => Ok(Response::Refused(refusal)),
        }
    }

    async fn coordinator(&self) -> Result<Option<CoordinatorId>, TransportError> {
        let answer = self.0.send(Call::get("/health")).await?;
        match answer.granted().await? {
            Ok(answer) => Ok(Some(answer.json::<Health>().await?.coordinator)),
            // Health is for everybody.
            Err(refusal) => Err(TransportError::Protocol(Cause::of(refusal))),
        }
    }
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
            let call = Call::put(format!("/jobs/{job}/rounds/{round}/reports/{client}"));
            let call = by(&credentials, call)?
                .header(HeaderName::from_static(REPORT_HEADER), metadata)?
                .parameters(Outbound::from(body), digest)?;
            (call, Success::Accepted)
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
            client,
            evaluation,
        } => {
            let call = Call::put(format!("/jobs/{job}/models/{version}/evaluations/{client}"));
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
        Success::Alive => {
            let Alive { unwanted } = answer.json().await?;
            Response::Alive { unwanted }
        }
        Success::Polled if is_empty => Response::Idle,
        Success::Polled => Response::Task(answer.json().await?),
        Success::Job => Response::Job(answer.json().await?),
        Success::Partition => Response::Partition(answer.json().await?),
        Success::Model(call) => Response::Model(download::model(connection, *call, answer)),
        Success::Accepted => Response::Accepted,
    })
}
