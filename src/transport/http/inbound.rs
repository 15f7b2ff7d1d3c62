//! A body that comes in: it never waits for ever on a sender that stalls, and hears a refused sender out for a while.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::transport::{BodyError, body::ByteStream};

/// How long, and for how many bytes, a sender is heard that was answered before its end. Closing at once would reset
/// the connection, and many clients would then lose the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linger {
    pub time: Duration,
    pub bytes: u64,
}

/// A body of which each piece comes within `stall`, or it ends with [`BodyError::Broken`].
pub(super) struct Inbound {
    body: Option<Incoming>,
    stall: Duration,
    /// Runs while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    linger: Option<Linger>,
}

impl Inbound {
    pub(super) fn new(body: Incoming, stall: Duration) -> Self {
        Self {
            body: Some(body),
            stall,
            timer: None,
            waiting: false,
            linger: None,
        }
    }

    /// Dropped before its end, the rest is read and thrown away, within these limits.
    pub(super) fn with_linger(mut self, linger: Linger) -> Self {
        self.linger = Some(linger);
        self
    }

    /// The pieces alone.
    pub(super) fn into_stream(self) -> ByteStream {
        Box::pin(self.into_data_stream())
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        let stall = self.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + stall);
        }
        ready!(timer.as_mut().poll(context));
        let text = format!("nothing came for {} s", stall.as_secs_f64());
        Poll::Ready(BodyError::Broken(text))
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let item = match Pin::new(body).poll_frame(context) {
            Poll::Ready(item) => item,
            Poll::Pending => {
                let stalled = ready!(self.poll_stalled(context));
                self.body = None;
                return Poll::Ready(Some(Err(stalled)));
            }
        };
        self.waiting = false;
        let item = item.map(|frame| frame.map_err(|error| BodyError::Broken(chain(&error))));
        if !matches!(item, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(item)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let Some(linger) = self.linger else { return };
        let rest = self.body.take().filter(|body| !body.is_end_stream());
        let (Some(rest), Ok(runtime)) = (rest, tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(timeout(linger.time, discard(rest, linger.bytes)));
    }
}

async fn discard(mut body: Incoming, limit: u64) {
    let mut left = limit;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(rest) = left.checked_sub(length) else {
            return;
        };
        left = rest;
    }
}

/// An error and its causes in one line, since what is of interest is mostly the innermost.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
