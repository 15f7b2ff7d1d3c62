//! A body that goes out: pieces in memory, sent without a copy, or a stream of them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    report::DELTA_PREFIX,
    transport::{BodyError, ModelBody, ReportBody, body, stored_bytes},
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
    Pieces([Bytes; 2]),
    Stream {
        bytes: body::ByteStream,
        left: Option<u64>,
    },
}

impl Outbound {
    pub(super) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self::new(Content::Pieces([bytes, Bytes::new()]))
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
}

impl From<ModelBody> for Outbound {
    fn from(model: ModelBody) -> Self {
        Self::new(match model {
            ModelBody::Stored(body) => match body.in_memory() {
                Some(model) => Content::Pieces(model.pieces("")),
                None => {
                    let length = body.length();
                    Content::Stream {
                        bytes: stored_bytes(body, 0..length),
                        left: Some(length),
                    }
                }
            },
            ModelBody::Stream { bytes, length, .. } => Content::Stream {
                bytes,
                left: length,
            },
        })
    }
}

impl From<ReportBody> for Outbound {
    fn from(report: ReportBody) -> Self {
        Self::new(match report {
            ReportBody::Memory(delta) => Content::Pieces(delta.pieces(DELTA_PREFIX)),
            ReportBody::Stream { bytes, length, .. } => Content::Stream {
                bytes,
                left: length,
            },
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
            Content::Pieces(pieces) => pieces
                .iter_mut()
                .find(|piece| !piece.is_empty())
                .map(|piece| Ok(piece.split_to(piece.len().min(SLICE)))),
            Content::Stream { bytes, left } => {
                let item = std::task::ready!(bytes.as_mut().poll_next(context));
                if let (Some(Ok(piece)), Some(left)) = (&item, left) {
                    *left = left.saturating_sub(piece.len() as u64);
                }
                item
            }
        };
        this.sent.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(slice.map(|slice| slice.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Pieces(pieces) => pieces.iter().all(Bytes::is_empty),
            Content::Stream { left, .. } => *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Pieces([first, second]) => {
                SizeHint::with_exact(first.len() as u64 + second.len() as u64)
            }
            Content::Stream { left, .. } => {
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
