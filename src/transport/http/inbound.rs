//! A body that comes in: [`Inbound`] never waits forever for a sender that stalls, [`Lingering`] hears a refused sender out
//! for a while.

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
    transport::{BodyError, ByteStream},
};

/// How long, and for how many bytes, a sender is heard that was answered before its end. Closing at once would reset
/// the connection, and many clients would then lose the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linger {
    pub time: Duration,
    pub bytes: u64,
}

/// How fast a sender must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The longest that nothing may come.
    pub stall: Duration,
    /// The fewest bytes a second, over all the time that was spent waiting for the sender.
    pub least_rate: u64,
    /// For how long of that time the rate is not looked at.
    pub grace: Duration,
}

/// A body whose sender keeps a pace, or it ends with [`BodyError::Broken`]. Only the time counts in which somebody waits
/// for the sender: who is slow because the receiver is, is not to blame.
pub(super) struct Inbound<B> {
    body: Option<B>,
    pace: Pace,
    /// Runs while nothing comes.
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when nothing has come, if somebody waits.
    waiting: Option<Instant>,
    waited: Duration,
    received: u64,
}

impl<B> Inbound<B> {
    pub(super) fn new(body: B, pace: Pace) -> Self {
        Self {
            body: Some(body),
            pace,
            timer: None,
            waiting: None,
            waited: Duration::ZERO,
            received: 0,
        }
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        let stall = self.pace.stall;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        // Only when a wait begins. Reset at each poll, the limit would never be reached.
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            timer.as_mut().reset(now + stall);
        }
        ready!(timer.as_mut().poll(context));
        let text = format!("nothing came for {} s", stall.as_secs_f64());
        Poll::Ready(BodyError::Broken(text.into()))
    }
}

impl<B> Inbound<B> {
    /// Takes note of a piece; an error if the sender is too slow.
    fn note(&mut self, length: usize) -> Result<(), BodyError> {
        self.received += length as u64;
        // The piece was there before anybody waited for it: no time to count.
        let Some(since) = self.waiting.take() else {
            return Ok(());
        };
        self.waited += since.elapsed();
        let waited = self.waited.as_secs_f64();
        let rate = self.received as f64 / waited;
        if self.waited > self.pace.grace && rate < self.pace.least_rate as f64 {
            let least = self.pace.least_rate;
            let text = format!("{rate:.0} bytes a second came, and {least} is the least");
            return Err(BodyError::Broken(text.into()));
        }
        Ok(())
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
        let mut item = item.map(|frame| frame.map_err(|error| BodyError::Broken(Cause::of(error))));
        if let Some(Ok(frame)) = &item
            && let Err(slow) = self.note(frame.data_ref().map_or(0, Bytes::len))
        {
            item = Some(Err(slow));
        }
        // A body may not be polled after its end or an error.
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
        // Without a runtime, the process is about to end, and nobody waits for the answer.
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

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::StreamBody;

    use super::*;

    const GRACE: Duration = Duration::from_millis(20);
    const PIECES: usize = 40;

    /// A body of one byte after the other, each after this time.
    fn body(each: Duration) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        StreamBody::new(Box::pin(stream::unfold(0, move |sent| async move {
            if !each.is_zero() {
                sleep(each).await;
            }
            let piece = Ok(Frame::data(Bytes::from_static(b"x")));
            (sent < PIECES).then_some((piece, sent + 1))
        })))
    }

    fn inbound<B>(body: B, least_rate: u64) -> Inbound<B> {
        let pace = Pace {
            stall: Duration::from_secs(30),
            least_rate,
            grace: GRACE,
        };
        Inbound::new(body, pace)
    }

    #[tokio::test]
    async fn a_sender_below_the_least_rate_is_cut_off() {
        let slow = inbound(body(Duration::from_millis(2)), 1 << 20);
        let pieces: Vec<_> = slow.into_data_stream().collect().await;
        assert!(pieces.len() < PIECES, "{}", pieces.len());
        let last = pieces.last().unwrap().as_ref().unwrap_err().to_string();
        assert!(last.contains("bytes a second came"), "{last}");
        let any = inbound(body(Duration::from_millis(2)), 0);
        assert_eq!(any.into_data_stream().count().await, PIECES);
    }

    #[tokio::test]
    async fn a_receiver_that_is_slow_is_not_the_senders_fault() {
        let ready = inbound(body(Duration::ZERO), 1 << 20);
        let mut pieces = ready.into_data_stream();
        let mut count = 0;
        while let Some(piece) = pieces.next().await {
            piece.unwrap();
            // Longer in all than the grace, and never while somebody waits.
            std::thread::sleep(Duration::from_millis(1));
            count += 1;
        }
        assert_eq!(count, PIECES);
    }
}
