//! Sends requests to one coordinator over connections that are kept, each within its time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use headers::{Header, HeaderMapExt};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::sleep;

use super::{Address, AddressError, connector::Connector, no_answer::no_answer};
use crate::{
    Cause,
    parameters::{Digest, Payloads},
    protocol::Token,
    report::Refusal,
    transport::{
        BodyError, TransportError,
        http::{
            api::DIGEST_HEADER,
            inbound::{Inbound, Pace},
            outbound::Outbound,
            problem::Problem,
            server::LEAST_BUFFER,
            tls::ClientTls,
        },
    },
};

/// A body of more bytes takes a while to read through.
const LARGE: u64 = 1 << 20;

/// The limits of a client. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// How long connecting may take, and TLS's handshake after it.
    pub connect_timeout: Duration,
    /// How long the coordinator may take to answer once it has the request; a poll's wait comes on top.
    pub answer_timeout: Duration,
    /// A body that makes no progress for so long is broken off, in either direction. There is no limit on the whole.
    pub stall_timeout: Duration,
    /// The largest JSON document that is read, in bytes.
    pub max_json: usize,
    /// How long an idle connection is kept; less than the coordinator keeps it.
    pub idle_timeout: Duration,
    /// The most bytes of a connection that are read before they are taken, at least 8 KiB.
    pub read_buffer: usize,
    /// How often, in a row and without any progress, the rest of a model that broke off is asked for, or of a report that broke
    /// off is sent.
    pub resume_tries: u32,
    /// A report of at least this many bytes goes on where its upload broke off, if the coordinator has kept its part; a smaller
    /// one begins again.
    pub resume_from: u64,
    /// How long to wait before that; each time in a row twice as long as the time before, up to 5 s.
    pub resume_pause: Duration,
    /// How TLS is spoken with a coordinator whose address begins with `https://`: by default, who has a certificate of an
    /// authority that browsers trust is trusted. Else it does not count.
    pub tls: ClientTls,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            max_json: 256 << 20,
            // The coordinator closes after 30 s. A request that is sent while it does would be lost.
            idle_timeout: Duration::from_secs(20),
            read_buffer: 128 << 10,
            resume_tries: 8,
            resume_from: 4 << 20,
            resume_pause: Duration::from_millis(200),
            tls: ClientTls::default(),
        }
    }
}

/// The way to one coordinator.
#[derive(Clone)]
pub(super) struct Connection {
    address: Arc<Address>,
    client: Client<Connector, Outbound>,
    /// Whether a request was ever answered.
    was_reached: Arc<AtomicBool>,
    pub config: Arc<ClientConfig>,
}

/// A request before it is sent.
pub(super) struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Outbound,
    /// What the answer may take beyond the usual.
    extra: Duration,
    has_parameters: bool,
}

impl Call {
    pub(super) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: HeaderMap::new(),
            body: Outbound::empty(),
            extra: Duration::ZERO,
            has_parameters: false,
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(super) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// The same without its body.
    pub(super) fn again(&self) -> Self {
        Self {
            headers: self.headers.clone(),
            extra: self.extra,
            ..Self::new(self.method.clone(), self.path.clone())
        }
    }

    pub(super) fn token(self, token: Option<&Token>) -> Result<Self, TransportError> {
        match token {
            Some(token) => self.header(AUTHORIZATION, format!("Bearer {}", token.0)),
            None => Ok(self),
        }
    }

    pub(super) fn header(
        mut self,
        name: HeaderName,
        value: impl TryInto<HeaderValue>,
    ) -> Result<Self, TransportError> {
        let value = value.try_into().map_err(|_| {
            TransportError::Protocol(format!("the header {name} can't have that value").into())
        })?;
        self.headers.insert(name, value);
        Ok(self)
    }

    pub(super) fn typed_header(mut self, header: impl Header) -> Self {
        self.headers.typed_insert(header);
        self
    }

    /// Parameters, which may take their time, and the digest of the whole body.
    pub(super) fn parameters(
        mut self,
        media_type: &'static str,
        body: Outbound,
        digest: Option<Digest>,
    ) -> Result<Self, TransportError> {
        self.has_parameters = true;
        let call = self.body(media_type, body);
        match digest {
            Some(digest) => call.header(HeaderName::from_static(DIGEST_HEADER), digest.to_string()),
            None => Ok(call),
        }
    }

    fn body(mut self, media_type: &'static str, body: Outbound) -> Self {
        let value = HeaderValue::from_static(media_type);
        self.headers.insert(CONTENT_TYPE, value);
        self.body = body;
        self
    }

    pub(super) fn json<T: Serialize>(self, value: &T) -> Result<Self, TransportError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| TransportError::Protocol(Cause::of(error)))?;
        Ok(self.body("application/json", Outbound::whole(bytes.into())))
    }

    /// The answer may take this much longer.
    pub(super) fn extra(mut self, extra: Duration) -> Self {
        self.extra = extra;
        self
    }

    /// How long to wait without any progress.
    fn patience(&self, config: &ClientConfig) -> Duration {
        let usual = if self.has_parameters {
            config.answer_timeout.max(config.stall_timeout)
        } else {
            config.answer_timeout
        };
        usual.saturating_add(self.extra)
    }
}

impl Connection {
    pub(super) fn new(address: &str, config: ClientConfig) -> Result<Self, AddressError> {
        let address = Arc::new(Address::parse(address)?);
        let tls = address.is_tls().then(|| config.tls.config()).transpose();
        let tls = tls.map_err(|error| address.unusable(&error.to_string()))?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(config.connect_timeout));
        // A poll waits in silence. Probes notice a coordinator whose machine is gone.
        connector.set_keepalive(Some(config.stall_timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .http1_max_buf_size(config.read_buffer.max(LEAST_BUFFER))
            .build(Connector::new(connector, tls, config.connect_timeout));
        Ok(Self {
            address,
            client,
            was_reached: Arc::default(),
            config: Arc::new(config),
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, call: Call) -> Result<Answer, TransportError> {
        let uri = self.address.uri(&call.path);
        let uri = uri.map_err(|error| TransportError::Protocol(Cause::of(error)))?;
        let patience = call.patience(&self.config);
        let progress = call.body.progress();
        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = uri;
        *request.headers_mut() = call.headers;
        let response = self.client.request(request);
        tokio::pin!(response);
        let mut seen = progress.load(Ordering::Relaxed);
        loop {
            // While the body goes out, each slice of it restarts the wait.
            tokio::select! {
                response = &mut response => {
                    let response = response.map_err(|error| {
                        let was_reached = self.was_reached.load(Ordering::Relaxed);
                        no_answer(self.address.authority(), was_reached, error)
                    })?;
                    self.was_reached.store(true, Ordering::Relaxed);
                    return Ok(Answer::new(response, &self.config));
                }
                () = sleep(patience) => {
                    let sent = progress.load(Ordering::Relaxed);
                    if sent == seen {
                        return Err(TransportError::TimedOut(patience.as_secs()));
                    }
                    seen = sent;
                }
            }
        }
    }
}

/// The digest of a body in memory; that of a large one is taken on a blocking thread.
pub(super) async fn digest_of(payloads: Payloads) -> Option<Digest> {
    if payloads.bytes() <= LARGE {
        return Some(payloads.digest());
    }
    tokio::task::spawn_blocking(move || payloads.digest())
        .await
        .ok()
}

/// An answer whose body has not been read.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Inbound<Incoming>,
    max_json: usize,
}

impl Answer {
    fn new(response: Response<Incoming>, config: &ClientConfig) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            // Events come when they come: a coordinator has no least rate.
            body: Inbound::new(
                body,
                Pace {
                    stall: config.stall_timeout,
                    least_rate: 0,
                    grace: Duration::ZERO,
                },
            ),
            max_json: config.max_json,
        }
    }

    /// The body as it comes.
    pub(super) fn into_body(self) -> Inbound<Incoming> {
        self.body
    }

    /// The answer if it is a success; else the refusal.
    pub(super) async fn granted(self) -> Result<Result<Self, Refusal>, TransportError> {
        if self.status.is_success() {
            Ok(Ok(self))
        } else {
            self.refusal().await.map(Err)
        }
    }

    async fn refusal(self) -> Result<Refusal, TransportError> {
        let status = self.status;
        let bytes = self.read().await?;
        let problem = serde_json::from_slice::<Problem>(&bytes);
        if let Some(refusal) = problem.as_ref().ok().and_then(Problem::refusal) {
            return Ok(refusal);
        }
        let detail = problem.map(|problem| problem.detail).unwrap_or_default();
        let text = format!("{status} {detail}").trim_end().to_string();
        Err(match status {
            // A proxy in between says so: the coordinator's own answers have a problem document.
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => TransportError::Unreachable(text.into()),
            _ => TransportError::Protocol(text.into()),
        })
    }

    /// The whole body, as JSON.
    pub(super) async fn json<T: DeserializeOwned>(self) -> Result<T, TransportError> {
        let bytes = self.read().await?;
        serde_json::from_slice(&bytes).map_err(|error| TransportError::Protocol(Cause::of(error)))
    }

    async fn read(self) -> Result<Bytes, TransportError> {
        let limited = Limited::new(self.body, self.max_json).collect().await;
        limited
            .map(|collected| collected.to_bytes())
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    TransportError::Protocol("the answer is too large".into())
                } else {
                    match error.downcast::<BodyError>() {
                        Ok(error) => TransportError::Unreachable(Cause::of(error)),
                        Err(error) => TransportError::Unreachable(error.to_string().into()),
                    }
                }
            })
    }
}
