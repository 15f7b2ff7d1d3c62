//! What every answer has: the number of its request, and headers that tell browsers to do nothing with it.

use std::{
    fmt,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use tracing::Instrument;

/// The number of a request, in its answer.
const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("fedavg-request-id");

/// The number of a request: the process' own random part, and a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transport::http) struct RequestId(u64);

/// So that numbers of two processes differ.
static PROCESS: LazyLock<u32> =
    LazyLock::new(|| getrandom::u32().unwrap_or_else(|_| std::process::id()));
static LAST: AtomicU64 = AtomicU64::new(0);

tokio::task_local! {
    static CURRENT: RequestId;
}

impl RequestId {
    fn next() -> Self {
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// That of the request that is being answered.
    pub(in crate::transport::http) fn current() -> Option<Self> {
        CURRENT.try_with(|id| *id).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}-{}", *PROCESS, self.0)
    }
}

/// Has a request answered, with a number of its own in problems, in log lines and in the answer's header. A number that the
/// client sends is not looked at. A request that has a number already is answered as it is.
pub(in crate::transport::http) async fn dress<F>(
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response<Body>
where
    F: Future<Output = Response<Body>>,
{
    if request.extensions().get::<RequestId>().is_some() {
        return answer(request).await;
    }
    let id = RequestId::next();
    request.extensions_mut().insert(id);
    let span = tracing::info_span!("request", %id);
    let answered = CURRENT.scope(id, answer(request));
    let mut response = answered.instrument(span).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(id.to_string()) {
        headers.insert(REQUEST_ID_HEADER, value);
    }
    protect(headers);
    response
}

/// Nothing that a coordinator sends is a page: no browser shall guess a type, run, frame or keep it.
fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // A route with an entity tag says itself what may be kept.
    let is_kept = headers.contains_key(header::CACHE_CONTROL) || headers.contains_key(header::ETAG);
    if !is_kept {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}
