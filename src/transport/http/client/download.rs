//! A model on its way from the coordinator. If it breaks off, the rest of it is asked for, so that a large model over a
//! bad line needs no second start; never is a part of another model put behind it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use headers::{ETag, HeaderMapExt, IfRange};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, StatusCode,
    body::Incoming,
    header::{CONTENT_LENGTH, HeaderName, RANGE},
};
use tokio::time::sleep;

use super::connection::{Answer, Call, Connection};
use crate::{
    Cause,
    report::RefusalKind,
    transport::{
        BodyError, ModelBody, TransportError,
        http::{api::DIGEST_HEADER, etag, inbound::Inbound, range},
    },
};

/// The longest pause before the rest is asked for again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The model in an answer to `call`, which is sent again for the rest of it.
pub(super) fn model(connection: &Connection, call: Call, answer: Answer) -> ModelBody {
    let length = parsed(&answer.headers, &CONTENT_LENGTH);
    let digest = parsed(&answer.headers, &HeaderName::from_static(DIGEST_HEADER));
    let download = Download {
        tag: etag::strong(&answer.headers),
        length,
        position: 0,
        tries: 0,
        body: answer.into_body(),
        connection: connection.clone(),
        call,
    };
    let bytes = stream::unfold(Some(download), |download| async move {
        let mut download = download?;
        match download.next().await.transpose()? {
            Ok(piece) => Some((Ok(piece), Some(download))),
            Err(error) => Some((Err(error), None)),
        }
    });
    ModelBody::Stream {
        bytes: Box::pin(bytes),
        length,
        digest,
    }
}

/// What a header says, if it is there and can be read.
pub(super) fn parsed<T: std::str::FromStr>(headers: &HeaderMap, name: &HeaderName) -> Option<T> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

struct Download {
    connection: Connection,
    call: Call,
    /// What the rest must be a part of; without it, there is no asking for the rest.
    tag: Option<ETag>,
    length: Option<u64>,
    /// How many bytes have come.
    position: u64,
    /// How often the rest was asked for since a byte has come.
    tries: u32,
    body: Inbound<Incoming>,
}

/// Why the rest did not come.
enum Failure {
    /// Asking again may help.
    Transient(BodyError),
    Final(BodyError),
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        let is_transient = error.is_transient();
        let broken = BodyError::Broken(Cause::of(error));
        if is_transient {
            Self::Transient(broken)
        } else {
            Self::Final(broken)
        }
    }
}

impl Download {
    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let broken = match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) if !piece.is_empty() => {
                        self.position += piece.len() as u64;
                        self.tries = 0;
                        return Ok(Some(piece));
                    }
                    _ => continue,
                },
                // Without a length, the end is the end: a chunked body that breaks off comes as an error.
                None if self.length.is_none_or(|length| self.position >= length) => {
                    return Ok(None);
                }
                None => BodyError::Broken(format!("it ended after {} bytes", self.position).into()),
                Some(Err(error)) => error,
            };
            self.resume(broken).await?;
        }
    }

    /// Asks for the rest until it begins to come.
    async fn resume(&mut self, mut reason: BodyError) -> Result<(), BodyError> {
        let Some(tag) = self.tag.clone() else {
            return Err(reason);
        };
        while self.tries < self.connection.config.resume_tries {
            let position = self.position;
            tracing::debug!(%reason, position, "a model broke off: asking for the rest");
            let pause = self.connection.config.resume_pause;
            let pause = pause.saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX));
            sleep(pause.min(LONGEST_PAUSE)).await;
            self.tries += 1;
            match self.rest(&tag).await {
                Ok(body) => {
                    self.body = body;
                    return Ok(());
                }
                Err(Failure::Transient(error)) => reason = error,
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(reason)
    }

    async fn rest(&mut self, tag: &ETag) -> Result<Inbound<Incoming>, Failure> {
        let call = self.call.again();
        let call = call
            .header(RANGE, format!("bytes={}-", self.position))
            .map(|call| call.typed_header(IfRange::etag(tag.clone())))?;
        let answer = self.connection.send(call).await?;
        match answer.status {
            StatusCode::PARTIAL_CONTENT => {}
            // All of it, or less than what has come already: it is another model.
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE => {
                return Err(Failure::Final(BodyError::Changed));
            }
            _ => {
                return Err(match answer.granted().await? {
                    // The coordinator has found out meanwhile why it broke off.
                    Err(refusal) if refusal.kind == RefusalKind::Storage => {
                        Failure::Final(BodyError::Damaged(refusal.detail.into()))
                    }
                    Err(refusal) if refusal.kind.is_transient() => {
                        Failure::Transient(BodyError::Broken(Cause::of(refusal)))
                    }
                    Err(refusal) => Failure::Final(BodyError::Broken(Cause::of(refusal))),
                    Ok(answer) => {
                        let detail = format!("answer {}", answer.status);
                        Failure::Final(BodyError::Broken(detail.into()))
                    }
                });
            }
        }
        // `If-Range` should have made this impossible, but a proxy may not know it.
        let found = answer.headers.typed_get::<ETag>();
        let is_other = found.is_some_and(|found| found != *tag);
        let Some((bytes, whole)) = range::received(&answer.headers) else {
            let detail = "a part without a Content-Range that is possible".to_string();
            return Err(Failure::Final(BodyError::Malformed(detail.into())));
        };
        let is_longer = whole.is_some_and(|whole| self.length.is_some_and(|known| known != whole));
        if is_other || is_longer {
            return Err(Failure::Final(BodyError::Changed));
        }
        // Bytes that were skipped or came once more would make a model that never was.
        if bytes.start != self.position {
            let detail = format!("bytes from {} on, not {}", bytes.start, self.position);
            return Err(Failure::Final(BodyError::Malformed(detail.into())));
        }
        self.length = self.length.or(whole);
        Ok(answer.into_body())
    }
}
