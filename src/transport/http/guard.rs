//! A connection that gives up on a reader that stalls: a write that makes no progress for too long is an error.
//!
//! Reads are paced here, and not guarded otherwise. A connection without a request waits for one, under the limit for heads, and bodies have
//! their own limit ([`super::inbound`]).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::callers::Received;

/// How fast a reader must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// The longest that a write may make no progress.
    pub stall: Duration,
    /// The fewest bytes a second over the time that writes wait. 0: any.
    pub least_rate: u64,
    /// That rate is measured over as much of that time, again and again.
    pub grace: Duration,
}

/// A stream with a limit on how long a write may make no progress, and on how slow it may be.
pub(super) struct Guarded<S> {
    stream: S,
    drain: Drain,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when a write waits.
    waiting: Option<Instant>,
    /// How long writes have waited, and what they wrote, since the rate was measured last.
    waited: Duration,
    written: u64,
    /// How many bytes a second are read, over all connections of an address.
    received: Option<Arc<Received>>,
    /// Until when nothing is read.
    pause: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, drain: Drain) -> Self {
        Self {
            stream,
            drain,
            timer: None,
            waiting: None,
            waited: Duration::ZERO,
            written: 0,
            received: None,
            pause: None,
        }
    }

    /// The same, read no faster than that.
    pub(super) fn paced(mut self, received: Option<Arc<Received>>) -> Self {
        self.received = received;
        self
    }

    /// As [`Self::watch`], and an error if the reader is too slow.
    fn watch_write(
        &mut self,
        result: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.watch(result, context))?;
        self.written += count as u64;
        if self.waited > self.drain.grace {
            let least = self.drain.least_rate as f64 * self.waited.as_secs_f64();
            if (self.written as f64) < least {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.waited = Duration::ZERO;
            self.written = 0;
        }
        Poll::Ready(Ok(count))
    }

    fn watch<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            if let Some(since) = self.waiting.take() {
                self.waited += since.elapsed();
            }
            return result;
        }
        let stall = self.drain.stall;
        // Made at the first wait, since many connections never have one, and reset at the others.
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        // Only when a wait begins. Reset at each poll, the limit would never be reached.
        if self.waiting.is_none() {
            let now = Instant::now();
            self.waiting = Some(now);
            timer.as_mut().reset(now + stall);
        }
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if let Some(received) = &self.received {
            let wait = received.note(buffer.filled().len() - before);
            if !wait.is_zero() {
                self.pause = Some(Box::pin(sleep(wait)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch_write(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.watch_write(result, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(result, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(result, context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// The error that ends endless writes to a reader that takes this many bytes each time, after a pause.
    async fn written_to(drain: Drain, take: usize, pause: Duration) -> io::Error {
        let (writer, mut reader) = tokio::io::duplex(64);
        let reads = tokio::spawn(async move {
            let mut bytes = vec![0; take.max(1)];
            if take == 0 {
                return std::future::pending().await;
            }
            loop {
                sleep(pause).await;
                if reader.read(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
            }
        });
        let mut guarded = Guarded::new(writer, drain);
        let error = loop {
            let write =
                poll_fn(|context| Pin::new(&mut guarded).poll_write(context, &[0; 64])).await;
            if let Err(error) = write {
                break error;
            }
        };
        reads.abort();
        error
    }

    #[tokio::test]
    async fn a_reader_that_stalls_ends_the_write() {
        let drain = Drain {
            stall: Duration::from_millis(20),
            least_rate: 0,
            grace: Duration::from_secs(10),
        };
        let error = written_to(drain, 0, Duration::ZERO).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_reader_below_the_least_rate_ends_the_write() {
        let mut drain = Drain {
            stall: Duration::from_secs(60),
            least_rate: 1 << 20,
            grace: Duration::from_millis(20),
        };
        let pause = Duration::from_millis(2);
        let error = written_to(drain, 1, pause).await;
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Without a least rate it goes on.
        drain.least_rate = 0;
        let patient = tokio::time::timeout(100 * pause, written_to(drain, 1, pause));
        assert!(patient.await.is_err());
    }
}
