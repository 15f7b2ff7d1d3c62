//! A body that comes in: [`Inbound`] never waits for ever on a sender that stalls, [`Lingering`] hears a refused sender out for a
//! while.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::{
    Cause,
    transport::{BodyError, body::ByteStream},
};

/// How long, and for how many bytes, a sender is heard that was answered before its end. Closing at once would reset
/// the connection, and many clients would then lose the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linger {
    pub time: Duration,
    pub bytes: u64,
}

/// A body of which each piece comes within `stall`, or it ends with [`BodyError::Broken`].
pub(super) struct Inbound<B> {
    body: Option<B>,
    stall: Duration,
    /// Runs while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B> Inbound<B> {
    pub(super) fn new(body: B, stall: Duration) -> Self {
        Self {
            body: Some(body),
            stall,
            timer: None,
            waiting: false,
        }
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
        Poll::Ready(BodyError::Broken(text.into()))
    }
}

impl Inbound<Incoming> {
    /// The pieces alone.
    pub(super) fn into_stream(self) -> ByteStream {
        Box::pin(self.into_data_stream())
    }
}

impl<B> Body for Inbound<B>
where
    B: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Unpin,
{
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
        let item = item.map(|frame| frame.map_err(|error| BodyError::Broken(Cause::of(error))));
        if !matches!(item, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(item)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), B::size_hint)
    }
}

/// A body that, dropped before its end, is read on and thrown away, within limits.
pub(super) struct Lingering {
    body: Option<Incoming>,
    linger: Linger,
}

impl Lingering {
    pub(super) fn new(body: Incoming, linger: Linger) -> Self {
        Self {
            body: Some(body),
            linger,
        }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let item = ready!(Pin::new(body).poll_frame(context));
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

impl Drop for Lingering {
    fn drop(&mut self) {
        let linger = self.linger;
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
