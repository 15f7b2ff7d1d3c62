//! An operator's end: what the command line asks.

use std::fmt;

use futures_util::TryStreamExt;
use hyper::header::HeaderName;
use serde::de::DeserializeOwned;

use super::{
    AddressError, ClientConfig,
    connection::{Answer as Granted, Call, Connection, digest_of},
    download::{self, parsed},
    events::EventStream,
};
use crate::{
    Cause,
    ids::{JobId, ModelVersion, RoundId, TokenId, WorkerId},
    parameters::{Encoded, Payloads},
    protocol::{
        AuditEntry, CreatedToken, Health, JobSummary, NewToken, OwnAccess, RoundRecord, Scope,
        Token, TokenSummary, WorkerSummary,
    },
    report::{Refusal, RefusalKind},
    transport::{
        Answer, Caller, Events, ModelBody, Operator, OperatorError, Page, Submission,
        TransportError,
        http::{
            api::{JOB_HEADER, KEY_HEADER, SAFETENSORS, VERSION_HEADER, ascii_json},
            link::next_page,
            outbound::Outbound,
        },
    },
};

/// A client of a coordinator's operator routes: an [`Operator`] from afar. Clones share their connections.
///
/// It shows its caller's token or, if the caller has none, the one that it was made with.
#[derive(Clone)]
pub struct OperatorClient {
    connection: Connection,
    token: Option<Token>,
}

impl fmt::Debug for OperatorClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OperatorClient")
    }
}

impl OperatorClient {
    /// A client of the coordinator at `https://HOST:PORT` or `http://HOST:PORT`, which shows this join token.
    ///
    /// # Errors
    ///
    /// [`AddressError`] if that is no such address.
    pub fn new(
        address: &str,
        token: Option<Token>,
        config: ClientConfig,
    ) -> Result<Self, AddressError> {
        let connection = Connection::new(address, config)?;
        Ok(Self { connection, token })
    }

    fn signed(&self, caller: &Caller, call: Call) -> Result<Call, TransportError> {
        call.token(caller.token.as_ref().or(self.token.as_ref()))
    }

    async fn send(&self, caller: &Caller, call: Call) -> Result<Granted, OperatorError> {
        let call = self.signed(caller, call)?;
        let answer = self.connection.send(call).await?;
        Ok(answer.granted().await??)
    }

    async fn json<T: DeserializeOwned>(
        &self,
        caller: &Caller,
        call: Call,
    ) -> Result<T, OperatorError> {
        Ok(self.send(caller, call).await?.json().await?)
    }

    /// A part of a list. A coordinator that knows no pages answers with the whole list, and names no next page.
    async fn page<T: DeserializeOwned, N>(
        &self,
        caller: &Caller,
        call: Call,
        number: impl Fn(u64) -> N,
    ) -> Result<Page<T, N>, OperatorError> {
        let answer = self.send(caller, call).await?;
        let next = next_page(&answer.headers).map(number);
        Ok(Page::new(answer.json().await?, next))
    }
}

impl Operator for OperatorClient {
    fn authorize<'a>(&'a self, caller: &'a Caller, needed: Scope) -> Answer<'a, ()> {
        Box::pin(async move {
            let OwnAccess { by, scope } = self.own_access(caller).await?;
            if scope >= needed {
                return Ok(());
            }
            let detail = format!("the token {by:?} has the scope {scope}, and this needs {needed}");
            Err(Refusal::new(RefusalKind::Forbidden, detail).into())
        })
    }

    fn own_access<'a>(&'a self, caller: &'a Caller) -> Answer<'a, OwnAccess> {
        Box::pin(self.json(caller, Call::get("/access")))
    }

    fn submit_once<'a>(
        &'a self,
        caller: &'a Caller,
        submission: Submission,
    ) -> Answer<'a, JobSummary> {
        Box::pin(async move {
            let Submission { spec, initial, key } = submission;
            let mut call = Call::post("/jobs");
            if let Some(key) = key {
                call = call.header(HeaderName::from_static(KEY_HEADER), key.as_str())?;
            }
            let call = match initial {
                None => call.json(&spec)?,
                Some(parameters) => {
                    let spec = ascii_json(&spec)
                        .map_err(|error| TransportError::Protocol(Cause::of(error)))?;
                    let initial = Encoded::plain(parameters);
                    let body = Outbound::model(&initial);
                    call.header(HeaderName::from_static(JOB_HEADER), spec)?
                        .parameters(SAFETENSORS, body, digest_of(Payloads::model(initial)).await)?
                }
            };
            self.json(caller, call).await
        })
    }

    fn jobs_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: JobId,
        limit: usize,
    ) -> Answer<'a, Page<JobSummary, JobId>> {
        let call = Call::get(format!("/jobs?after={after}&limit={limit}"));
        Box::pin(self.page(caller, call, JobId))
    }

    fn job<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        Box::pin(self.json(caller, Call::get(format!("/jobs/{job}"))))
    }

    fn rounds_page<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        after: RoundId,
        limit: usize,
    ) -> Answer<'a, Page<RoundRecord, RoundId>> {
        let call = Call::get(format!("/jobs/{job}/rounds?after={after}&limit={limit}"));
        Box::pin(self.page(caller, call, RoundId))
    }

    fn cancel<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        Box::pin(self.json(caller, Call::post(format!("/jobs/{job}/cancel"))))
    }

    fn pause<'a>(&'a self, caller: &'a Caller, job: JobId, paused: bool) -> Answer<'a, JobSummary> {
        let what = if paused { "pause" } else { "resume" };
        Box::pin(self.json(caller, Call::post(format!("/jobs/{job}/{what}"))))
    }

    fn delete<'a>(&'a self, caller: &'a Caller, job: JobId) -> Answer<'a, JobSummary> {
        Box::pin(self.json(caller, Call::delete(format!("/jobs/{job}"))))
    }

    fn events<'a>(&'a self, caller: &'a Caller, job: JobId, after: u64) -> Answer<'a, Events> {
        Box::pin(async move {
            let call = Call::get(format!("/jobs/{job}/events?after={after}"));
            let answer = self.send(caller, call).await?;
            let limit = self.connection.config.max_json;
            let events = EventStream::new(answer.into_body().into_stream(), limit);
            let events: Events = Box::pin(events.map_err(OperatorError::Transport));
            Ok(events)
        })
    }

    fn workers_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: WorkerId,
        limit: usize,
    ) -> Answer<'a, Page<WorkerSummary, WorkerId>> {
        let call = Call::get(format!("/workers?after={after}&limit={limit}"));
        Box::pin(self.page(caller, call, WorkerId))
    }

    fn model_body<'a>(
        &'a self,
        caller: &'a Caller,
        job: JobId,
        version: Option<ModelVersion>,
    ) -> Answer<'a, (ModelVersion, ModelBody)> {
        Box::pin(async move {
            let name = version.map_or("latest".to_string(), |version| version.to_string());
            let call = Call::get(format!("/jobs/{job}/models/{name}"));
            let call = self.signed(caller, call)?;
            let answer = self.connection.send(call.again()).await?;
            let answer = answer.granted().await??;
            let version = parsed(&answer.headers, &HeaderName::from_static(VERSION_HEADER))
                .ok_or_else(|| TransportError::Protocol("a model without a version".into()))?;
            Ok((version, download::model(&self.connection, call, answer)))
        })
    }

    fn create_token<'a>(&'a self, caller: &'a Caller, new: NewToken) -> Answer<'a, CreatedToken> {
        Box::pin(async move {
            let call = Call::post("/tokens").json(&new)?;
            self.json(caller, call).await
        })
    }

    fn tokens<'a>(&'a self, caller: &'a Caller) -> Answer<'a, Vec<TokenSummary>> {
        Box::pin(self.json(caller, Call::get("/tokens")))
    }

    fn revoke_token<'a>(&'a self, caller: &'a Caller, token: TokenId) -> Answer<'a, TokenSummary> {
        Box::pin(self.json(caller, Call::delete(format!("/tokens/{token}"))))
    }

    fn revoke_worker<'a>(
        &'a self,
        caller: &'a Caller,
        worker: WorkerId,
    ) -> Answer<'a, WorkerSummary> {
        let call = Call::post(format!("/workers/{worker}/revoke"));
        Box::pin(self.json(caller, call))
    }

    fn approve_worker<'a>(
        &'a self,
        caller: &'a Caller,
        worker: WorkerId,
    ) -> Answer<'a, WorkerSummary> {
        let call = Call::post(format!("/workers/{worker}/approve"));
        Box::pin(self.json(caller, call))
    }

    fn audit_page<'a>(
        &'a self,
        caller: &'a Caller,
        after: u64,
        limit: usize,
    ) -> Answer<'a, Page<AuditEntry, u64>> {
        let call = Call::get(format!("/audit?after={after}&limit={limit}"));
        Box::pin(self.page(caller, call, |number| number))
    }

    fn health<'a>(&'a self) -> Answer<'a, Health> {
        Box::pin(async move {
            let answer = self.connection.send(Call::get("/health")).await?;
            Ok(answer.granted().await??.json().await?)
        })
    }
}
