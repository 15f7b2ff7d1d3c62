//! Reads ahead of rustls, which asks the operating system for 4 KiB at a time: a record has up to 16.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is read at once.
const AHEAD: usize = 64 << 10;

/// A stream whose reads are made larger while much comes. A connection that waits for small messages has no buffer.
#[derive(Debug)]
pub(in crate::transport::http) struct ReadAhead<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What is in the buffer and has not been taken.
    start: usize,
    end: usize,
    /// The last read got all that it asked for, so that more is there, most likely.
    is_full: bool,
}

impl<S> ReadAhead<S> {
    pub(in crate::transport::http) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            is_full: false,
        }
    }

    pub(in crate::transport::http) fn get_ref(&self) -> &S {
        &self.stream
    }

    fn take(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = buffer.remaining().min(self.end - self.start);
        buffer.put_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.start < this.end {
            this.take(buffer);
            return Poll::Ready(Ok(()));
        }
        if !this.is_full {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.is_full = buffer.filled().len() > before && buffer.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        if this.buffer.is_empty() {
            this.buffer = vec![0; AHEAD];
        }
        let mut ahead = ReadBuf::new(&mut this.buffer);
        match Pin::new(&mut this.stream).poll_read(context, &mut ahead) {
            Poll::Ready(Ok(())) => {
                (this.start, this.end) = (0, ahead.filled().len());
                this.take(buffer);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                // Nothing more for now. Most connections wait at most times, and must not keep this much.
                this.buffer = Vec::new();
                this.is_full = false;
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn everything_comes_in_order_and_who_waits_has_no_buffer() {
        let (mut sender, receiver) = duplex(10_000);
        let mut receiver = ReadAhead::new(receiver);
        let sent: Vec<u8> = (0..1_000_000u32).map(|value| (value % 251) as u8).collect();
        let copy = sent.clone();
        let sending = tokio::spawn(async move {
            sender.write_all(&copy).await.unwrap();
            sender
        });
        let (mut received, mut read_ahead) = (Vec::new(), false);
        while received.len() < sent.len() {
            let mut piece = [0; 4096];
            let count = receiver.read(&mut piece).await.unwrap();
            received.extend_from_slice(&piece[..count]);
            read_ahead |= !receiver.buffer.is_empty();
        }
        assert!(received == sent && read_ahead);
        let mut sender = sending.await.unwrap();
        sender.write_all(&[1]).await.unwrap();
        assert_eq!(receiver.read_u8().await.unwrap(), 1);
        assert!(receiver.read_u8().now_or_never().is_none());
        assert!(receiver.buffer.is_empty());
        drop(sender);
        assert!(receiver.read_u8().await.is_err());
    }
}
