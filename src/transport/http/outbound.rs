//! A body that goes out: pieces in memory, sent without a copy, or a stream of them.

use std::{
    collections::VecDeque,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::{
    parameters::{Encoded, StoredBody},
    transport::{BodyError, ByteStream, ReportBody, pieces::bounded_bytes},
};

/// Large pieces go out in slices of this many bytes, so that progress shows.
const SLICE: usize = 256 * 1024;

/// A body that goes out.
pub(super) struct Outbound {
    content: Content,
    /// Counts the slices taken from it.
    sent: Arc<AtomicU64>,
}

enum Content {
    Nothing,
    Pieces(VecDeque<Bytes>),
    Stream {
        bytes: ByteStream,
        left: Option<u64>,
    },
}

impl Outbound {
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// No body, and nothing said of its length: it is that of a body that is not sent.
    pub(super) fn nothing() -> Self {
        Self::new(Content::Nothing)
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::new(Content::Pieces(VecDeque::from([bytes])))
    }

    fn new(content: Content) -> Self {
        Self {
            content,
            sent: Arc::default(),
        }
    }

    /// Rises as the body is taken.
    pub(super) fn progress(&self) -> Arc<AtomicU64> {
        self.sent.clone()
    }

    /// The bytes in these pieces that a range selects.
    fn part(pieces: impl IntoIterator<Item = Bytes>, range: &Range<u64>) -> Self {
        let mut start = 0;
        let mut selected = VecDeque::new();
        for piece in pieces {
            let end = start + piece.len() as u64;
            let first = range.start.clamp(start, end) - start;
            let after = range.end.clamp(start, end) - start;
            selected.push_back(piece.slice(first as usize..after as usize));
            start = end;
        }
        Self::new(Content::Pieces(selected))
    }

    /// A range of a stored model. One in memory is not copied; one that isn't is read as it is taken, with a permit for
    /// each piece.
    pub(super) fn stored(
        body: Arc<dyn StoredBody>,
        range: Range<u64>,
        permits: &Arc<Semaphore>,
    ) -> Self {
        match body.in_pieces() {
            Some(pieces) => Self::part(pieces, &range),
            None => Self::new(Content::Stream {
                left: Some(range.end - range.start),
                bytes: bounded_bytes(body, range, permits.clone()),
            }),
        }
    }

    /// The bytes of these pieces from this one on.
    pub(super) fn rest(pieces: Vec<Bytes>, offset: u64) -> Self {
        Self::part(pieces, &(offset..u64::MAX))
    }

    /// How many bytes there are, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.size_hint().exact()
    }

    /// The bytes in slices.
    pub(super) fn into_stream(self) -> ByteStream {
        Box::pin(self.into_data_stream())
    }

    pub(super) fn model(model: &Encoded) -> Self {
        Self::new(Content::Pieces(VecDeque::from(model.pieces(""))))
    }

    pub(super) fn stream(bytes: ByteStream, length: Option<u64>) -> Self {
        Self::new(Content::Stream {
            bytes,
            left: length,
        })
    }
}

impl From<ReportBody> for Outbound {
    fn from(report: ReportBody) -> Self {
        Self::new(match report {
            ReportBody::Memory(payloads) => Content::Pieces(payloads.pieces().into()),
            ReportBody::Stream { bytes, length, .. } | ReportBody::Rest { bytes, length, .. } => {
                Content::Stream {
                    bytes,
                    left: length,
                }
            }
        })
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let slice = match &mut this.content {
            Content::Nothing => None,
            Content::Pieces(pieces) => {
                // `part` leaves the pieces empty that are outside of the range.
                while pieces.front().is_some_and(Bytes::is_empty) {
                    pieces.pop_front();
                }
                let piece = pieces.front_mut();
                piece.map(|piece| Ok(piece.split_to(piece.len().min(SLICE))))
            }
            Content::Stream { bytes, left } => {
                let item = std::task::ready!(bytes.as_mut().poll_next(context));
                if let (Some(Ok(piece)), Some(left)) = (&item, left) {
                    *left = left.saturating_sub(piece.len() as u64);
                }
                item
            }
        };
        // Slices are counted and not bytes: the sender only looks whether the number has changed.
        this.sent.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(slice.map(|slice| slice.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Nothing => true,
            Content::Pieces(pieces) => pieces.iter().all(Bytes::is_empty),
            Content::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing => SizeHint::default(),
            Content::Pieces(pieces) => {
                let length = pieces.iter().map(|piece| piece.len() as u64).sum();
                SizeHint::with_exact(length)
            }
            Content::Stream { left, .. } => {
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    #[tokio::test]
    async fn any_part_of_the_pieces_is_that_of_the_whole() {
        let pieces = [
            Bytes::from_static(b"header"),
            Bytes::from(vec![7; 2 * SLICE]),
        ];
        let whole = pieces.concat();
        let end = whole.len();
        for range in [
            0..end,
            0..1,
            5..7,
            6..end,
            7..end - 1,
            2..4,
            end - 1..end,
            3..3,
        ] {
            let part = Outbound::part(pieces.clone(), &(range.start as u64..range.end as u64));
            assert_eq!(part.size_hint().exact(), Some(range.len() as u64));
            assert_eq!(part.is_end_stream(), range.is_empty());
            let found: Vec<_> = part.into_data_stream().collect().await;
            let found: Vec<u8> = found.into_iter().flat_map(Result::unwrap).collect();
            assert!(found == whole[range.clone()], "{range:?}");
        }
    }
}
