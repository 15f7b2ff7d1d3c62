//! An operator's end: what the command line asks.

use std::{fmt, io, io::Write, sync::Arc};

use futures_util::TryStreamExt;
use hyper::header::HeaderName;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{
    AddressError, ClientConfig, EventStream,
    connection::{Answer, Call, Connection, digest_of},
    download::{self, parsed},
};
use crate::{
    ids::{JobId, ModelVersion},
    job::JobSpec,
    parameters::{Digesting, Encoded, Parameters, Payloads, safetensors::SafetensorsError},
    report::Refusal,
    telemetry::{Health, JobSummary, RoundRecord, WorkerSummary},
    transport::{
        BodyError, ModelBody, Token, TransportError,
        http::{
            api::{JOB_HEADER, VERSION_HEADER, ascii_json},
            outbound::Outbound,
        },
    },
};

/// A client of a coordinator's operator routes. Clones share their connections.
#[derive(Clone)]
pub struct OperatorClient {
    connection: Connection,
    token: Option<Token>,
}

/// Why an operator got no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The coordinator says no, and why.
    #[error("{0}")]
    Refused(Refusal),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// What was read could not be written.
    #[error("the model can't be written")]
    Write(#[source] io::Error),
}

impl fmt::Debug for OperatorClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OperatorClient")
    }
}

impl OperatorClient {
    /// A client of the coordinator at `http://HOST:PORT`, which shows this join token.
    ///
    /// # Errors
    ///
    /// [`AddressError`] where that is no such address.
    pub fn new(
        address: &str,
        token: Option<Token>,
        config: ClientConfig,
    ) -> Result<Self, AddressError> {
        let connection = Connection::new(address, config)?;
        Ok(Self { connection, token })
    }

    /// Queues a job, which starts from `initial` where it is given.
    ///
    /// # Errors
    ///
    /// [`OperatorError::Refused`] and [`OperatorError::Transport`], here and below.
    pub async fn submit(
        &self,
        spec: &JobSpec,
        initial: Option<Arc<Parameters>>,
    ) -> Result<JobSummary, OperatorError> {
        let call = Call::post("/jobs");
        let call = match initial {
            None => call.json(spec)?,
            Some(parameters) => {
                let spec = ascii_json(spec)
                    .map_err(|error| TransportError::Protocol(error.to_string()))?;
                let initial = Encoded::plain(parameters);
                let body = Outbound::model(&initial);
                call.header(HeaderName::from_static(JOB_HEADER), spec)?
                    .upload(body, digest_of(Payloads::model(initial)).await)?
            }
        };
        self.json(call).await
    }

    /// The jobs that are remembered.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn jobs(&self) -> Result<Vec<JobSummary>, OperatorError> {
        self.json(Call::get("/jobs")).await
    }

    /// One job.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn job(&self, job: JobId) -> Result<JobSummary, OperatorError> {
        self.json(Call::get(format!("/jobs/{job}"))).await
    }

    /// The records of a job's rounds that have ended.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn rounds(&self, job: JobId) -> Result<Vec<RoundRecord>, OperatorError> {
        self.json(Call::get(format!("/jobs/{job}/rounds"))).await
    }

    /// Ends a job.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn cancel(&self, job: JobId) -> Result<JobSummary, OperatorError> {
        self.json(Call::post(format!("/jobs/{job}/cancel"))).await
    }

    /// The job's events after the one with this number: those that are there, then new ones as they come. The stream
    /// ends after the job's last event, or when the coordinator stops.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn events(&self, job: JobId, after: u64) -> Result<EventStream, OperatorError> {
        let call = Call::get(format!("/jobs/{job}/events?after={after}"));
        let answer = self.send(call).await?;
        let limit = self.connection.config.max_json;
        Ok(EventStream::new(answer.into_body().into_stream(), limit))
    }

    /// The workers, live and gone.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn workers(&self) -> Result<Vec<WorkerSummary>, OperatorError> {
        self.json(Call::get("/workers")).await
    }

    /// A global model, of this version or the latest, as a stream.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn model(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Result<(ModelVersion, ModelBody), OperatorError> {
        let name = version.map_or("latest".to_string(), |version| version.to_string());
        let call = Call::get(format!("/jobs/{job}/models/{name}"));
        let call = call.token(self.token.as_ref())?;
        let answer = self.connection.send(call.again()).await?;
        let answer = answer.granted().await?.map_err(OperatorError::Refused)?;
        let version = parsed(&answer.headers, &HeaderName::from_static(VERSION_HEADER))
            .ok_or_else(|| TransportError::Protocol("a model without a version".to_string()))?;
        Ok((version, download::model(&self.connection, call, answer)))
    }

    /// Writes a global model, of this version or the latest, as the safetensors file that it is. Returns its version
    /// and its length in bytes. What is written before an error is not a model.
    ///
    /// # Errors
    ///
    /// As above, and [`OperatorError::Write`].
    pub async fn download(
        &self,
        job: JobId,
        version: Option<ModelVersion>,
        file: &mut (impl Write + Send),
    ) -> Result<(ModelVersion, u64), OperatorError> {
        let (version, body) = self.model(job, version).await?;
        let ModelBody::Stream {
            mut bytes,
            digest: announced,
            ..
        } = body
        else {
            return Err(TransportError::Protocol("not a stream".to_string()).into());
        };
        let broken = |error: BodyError| TransportError::Body(error.to_string());
        let (mut length, mut digest) = (0, Digesting::default());
        while let Some(piece) = bytes.try_next().await.map_err(broken)? {
            digest.update(&piece);
            file.write_all(&piece).map_err(OperatorError::Write)?;
            length += piece.len() as u64;
        }
        let found = digest.finish();
        if let Some(announced) = announced.filter(|announced| *announced != found) {
            let mismatch = SafetensorsError::Digest { announced, found };
            return Err(TransportError::Body(mismatch.to_string()).into());
        }
        file.flush().map_err(OperatorError::Write)?;
        Ok((version, length))
    }

    /// Whether the coordinator is well. Needs no token.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn health(&self) -> Result<Health, OperatorError> {
        self.json(Call::get("/health")).await
    }

    async fn send(&self, call: Call) -> Result<Answer, OperatorError> {
        let call = call.token(self.token.as_ref())?;
        let answer = self.connection.send(call).await?;
        answer.granted().await?.map_err(OperatorError::Refused)
    }

    async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, OperatorError> {
        Ok(self.send(call).await?.json().await?)
    }
}
