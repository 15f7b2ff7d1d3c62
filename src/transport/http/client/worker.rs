//! A worker's end.

use std::fmt;

use super::{
    AddressError, ClientConfig,
    connection::{Call, Connection, digest_of},
    requests::exchange,
    upload::{self, BrokenUploads, Report},
};
use crate::{
    Cause,
    ids::CoordinatorId,
    protocol::Health,
    transport::{ReportBody, Request, Response, Transport, TransportError},
};

/// The transport to a coordinator over HTTP. Clones share their connections.
#[derive(Clone)]
pub struct HttpTransport {
    connection: Connection,
    broken: BrokenUploads,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpTransport")
    }
}

impl HttpTransport {
    /// A transport to the coordinator at `https://HOST:PORT` or `http://HOST:PORT`. Nothing is sent before the first request.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if that is no such address.
    pub fn new(address: &str, config: ClientConfig) -> Result<Self, AddressError> {
        Ok(Self {
            connection: Connection::new(address, config)?,
            broken: BrokenUploads::default(),
        })
    }
}

impl Transport for HttpTransport {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        // Taken beforehand: it is in the head, which goes out before the body.
        let digest = match &request {
            Request::Report { body, .. } => match body {
                ReportBody::Memory(payloads) => digest_of(payloads.clone()).await,
                ReportBody::Stream { digest, .. } => *digest,
                ReportBody::Rest { digest, .. } => Some(*digest),
            },
            _ => None,
        };
        match request {
            Request::Report {
                credentials,
                job,
                round,
                client,
                metadata,
                body: ReportBody::Memory(payloads),
            } if payloads.bytes() >= self.connection.config.resume_from
                && let Some(digest) = digest =>
            {
                let report = Report {
                    credentials,
                    job,
                    round,
                    client,
                    metadata,
                    payloads,
                };
                upload::send(&self.connection, &self.broken, &report, digest).await
            }
            other => exchange(&self.connection, other, digest).await,
        }
    }

    async fn coordinator(&self) -> Result<Option<CoordinatorId>, TransportError> {
        let answer = self.connection.send(Call::get("/health")).await?;
        match answer.granted().await? {
            Ok(answer) => Ok(Some(answer.json::<Health>().await?.coordinator)),
            // Health is for everybody.
            Err(refusal) => Err(TransportError::Protocol(Cause::of(refusal))),
        }
    }
}
