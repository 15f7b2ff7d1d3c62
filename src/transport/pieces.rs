//! A stored body as a stream of pieces, read on blocking threads, with a bound on the pieces that are in memory.

use std::{ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use crate::{
    Cause,
    parameters::{BlockError, Digesting, StoredBody},
};

/// A stream of safetensors bytes.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// Why a body did not come whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection broke, or the sender stopped.
    #[error("the body broke off: {0}")]
    Broken(#[source] Cause),
    /// It broke off, and what it was a part of is not there any more.
    #[error("the body broke off, and is another one by now")]
    Changed,
    /// The coordinator's stored copy is not what it was when it was written: to ask again is of no use.
    #[error("{0}")]
    Damaged(#[source] Cause),
    /// It is larger than what the coordinator receives.
    #[error(
        "the body has more than {limit} bytes, and that is the most; the coordinator's --max-body raises it"
    )]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// A model is larger than what the worker downloads.
    #[error(
        "the model has {bytes} bytes or more, and this worker downloads at most {limit}; its --max-model-bytes raises it"
    )]
    ModelTooLarge {
        /// As far as it is known.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// It is not what it should be.
    #[error("the body is malformed: {0}")]
    Malformed(#[source] Cause),
}

/// How many bytes of a stored body are read at once.
const PIECE: u64 = 256 * 1024;

/// The same, if many readers have pieces of that size already.
const SMALL_PIECE: u64 = 16 * 1024;

/// A range of a stored body as a stream, read piece by piece on blocking threads: one piece while the one before is on
/// its way, and none before the first is asked for. If the range is the whole body, the stream ends with
/// [`BodyError::Damaged`] instead of the last piece if the bytes are not the ones that were written.
pub fn stored_bytes(body: Arc<dyn StoredBody>, range: Range<u64>) -> ByteStream {
    bounded_bytes(
        body,
        range,
        Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
    )
}

/// As [`stored_bytes`], with a permit for each piece that is in memory, until its last byte has been taken. If there
/// is none, the stream goes on with small pieces, and reads nothing ahead: readers that stop can hold all permits, and
/// must not hold up the others.
pub(crate) fn bounded_bytes(
    body: Arc<dyn StoredBody>,
    range: Range<u64>,
    permits: Arc<Semaphore>,
) -> ByteStream {
    let is_whole = range == (0..body.length());
    let reader = PieceReader {
        body,
        permits,
        left: range,
        digest: is_whole.then(Digesting::default),
        ahead: None,
    };
    Box::pin(stream::unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Some((piece, reader))
    }))
}

/// Reads a range of a stored body piece by piece.
struct PieceReader {
    body: Arc<dyn StoredBody>,
    permits: Arc<Semaphore>,
    /// What no read has been begun for.
    left: Range<u64>,
    /// Of what has been read; none of a part of the body, and while a piece is on its way.
    digest: Option<Digesting>,
    /// The next piece, if it is being read already.
    ahead: Option<Reading>,
}

/// A piece on its way from the storage, and the digest up to its end.
type Reading = JoinHandle<Result<(Bytes, Option<Digesting>), BodyError>>;

impl PieceReader {
    /// The next piece; none after the last, and after one that could not be read.
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        let reading = match self.ahead.take() {
            Some(reading) => reading,
            None if self.left.is_empty() => return None,
            None => {
                let permit = self.permits.clone().try_acquire_owned().ok();
                let size = if permit.is_some() { PIECE } else { SMALL_PIECE };
                self.begin(size, permit)
            }
        };
        let read = match reading.await {
            Ok(read) => read.map(|(piece, digest)| {
                self.digest = digest;
                piece
            }),
            Err(error) => Err(BodyError::Broken(Cause::of(error))),
        };
        if read.is_err() {
            self.left = 0..0;
        } else if !self.left.is_empty()
            && let Ok(permit) = self.permits.clone().try_acquire_owned()
        {
            self.ahead = Some(self.begin(PIECE, Some(permit)));
        }
        Some(read)
    }

    /// Begins to read the first `size` bytes of what is left.
    fn begin(&mut self, size: u64, permit: Option<OwnedSemaphorePermit>) -> Reading {
        let body = self.body.clone();
        let start = self.left.start;
        let end = self.left.end.min(start.saturating_add(size));
        self.left.start = end;
        let (mut digest, is_last) = (self.digest.take(), self.left.is_empty());
        // A disk may be slow or hang: never on a thread of the runtime.
        tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; (end - start) as usize];
            let read = body.read(start, &mut bytes);
            read.map_err(|error| BodyError::Broken(Cause::of(error)))?;
            if let Some(digest) = &mut digest {
                digest.update(&bytes);
            }
            if is_last && let Some(digest) = digest.take() {
                // Before the last piece goes out: nobody takes a damaged model for a whole one, and blames the way.
                let same = body.compare(digest.finish());
                same.map_err(damaged)?;
            }
            let piece = Piece {
                bytes,
                _permit: permit,
            };
            Ok((Bytes::from_owner(piece), digest))
        })
    }
}

/// What a body that is not the one that was written comes to.
pub(crate) fn damaged(error: BlockError) -> BodyError {
    BodyError::Damaged(match error {
        BlockError::Unreadable(cause) => cause,
        other => Cause::of(other),
    })
}

/// Bytes that count as long as somebody holds them.
struct Piece {
    bytes: Vec<u8>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::StreamExt;

    use super::*;
    use crate::parameters::{Digest, Encoding};

    /// A body whose byte at an offset is the lowest of the offset's bits; the byte at `hole` can't be read.
    struct Counting {
        length: u64,
        hole: u64,
        reads: AtomicU64,
    }

    impl Counting {
        fn new(length: u64, hole: u64) -> Arc<Self> {
            let reads = AtomicU64::new(0);
            Arc::new(Self {
                length,
                hole,
                reads,
            })
        }
    }

    impl StoredBody for Counting {
        fn encoding(&self) -> Encoding {
            Encoding::F32
        }

        fn length(&self) -> u64 {
            self.length
        }

        fn digest(&self) -> Digest {
            Digest::of(&[])
        }

        fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            if (offset..offset + bytes.len() as u64).contains(&self.hole) {
                return Err(BlockError::Unreadable("a hole".into()));
            }
            for (byte, place) in bytes.iter_mut().zip(offset..) {
                *byte = place as u8;
            }
            Ok(())
        }
    }

    const LENGTH: u64 = 5 * PIECE + 17;

    #[tokio::test]
    async fn a_range_comes_whole_and_in_order_however_few_pieces_there_may_be() {
        for permits in [1, 2, 9] {
            let semaphore = Arc::new(Semaphore::new(permits));
            for range in [0..LENGTH, 3..PIECE + 3, 7..8, 5..5] {
                let body = Counting::new(LENGTH, u64::MAX);
                let mut stream = bounded_bytes(body, range.clone(), semaphore.clone());
                let mut found = Vec::new();
                while let Some(piece) = stream.next().await {
                    found.extend_from_slice(&piece.unwrap());
                }
                let expected: Vec<u8> = range.map(|place| place as u8).collect();
                assert!(found == expected, "{permits} permits");
            }
            assert_eq!(semaphore.available_permits(), permits);
        }
    }

    #[tokio::test]
    async fn readers_that_stop_hold_nobody_up_and_nothing_is_read_unasked() {
        let semaphore = Arc::new(Semaphore::new(2));
        let bodies = [0, 1].map(|_| Counting::new(LENGTH, u64::MAX));
        let streams = bodies.clone().map(|body| {
            let body: Arc<dyn StoredBody> = body;
            bounded_bytes(body, 0..LENGTH, semaphore.clone())
        });
        let [mut stopped, mut honest] = streams;
        assert_eq!(bodies[0].reads.load(Ordering::SeqCst), 0);
        // One piece out and one read ahead: all permits, for good.
        let held = stopped.next().await.unwrap().unwrap();
        assert_eq!(held.len() as u64, PIECE);
        let mut found = 0;
        while let Some(piece) = honest.next().await {
            let piece = piece.unwrap();
            assert!(piece.len() as u64 <= SMALL_PIECE);
            found += piece.len() as u64;
        }
        assert_eq!(found, LENGTH);
        assert_eq!(bodies[0].reads.load(Ordering::SeqCst), 2);
        drop((held, stopped));
        assert_eq!(semaphore.available_permits(), 2);
    }

    #[tokio::test]
    async fn a_body_that_has_changed_is_never_sent_to_its_end() {
        /// A body that was written with other bytes.
        struct Changed(Arc<Counting>);

        impl StoredBody for Changed {
            fn encoding(&self) -> Encoding {
                Encoding::F32
            }

            fn length(&self) -> u64 {
                self.0.length
            }

            fn digest(&self) -> Digest {
                Digest::of(b"other bytes")
            }

            fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
                self.0.read(offset, bytes)
            }

            fn compare(&self, found: Digest) -> Result<(), BlockError> {
                let bytes: Vec<u8> = (0..LENGTH).map(|place| place as u8).collect();
                assert_eq!(found, Digest::of(&bytes), "the digest of what was read");
                Err(BlockError::Unreadable("it has changed".into()))
            }
        }

        let body = Arc::new(Changed(Counting::new(LENGTH, u64::MAX)));
        let pieces: Vec<_> = stored_bytes(body.clone(), 0..LENGTH).collect().await;
        let (last, before) = pieces.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok));
        let sent: usize = before.iter().flatten().map(Bytes::len).sum();
        assert!((sent as u64) < LENGTH);
        assert!(
            matches!(last, Err(BodyError::Damaged(cause)) if cause.to_string().contains("it has changed")),
            "{last:?}"
        );
        // Of a part, nobody can tell.
        let part: Vec<_> = stored_bytes(body, 1..LENGTH).collect().await;
        assert!(part.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn storage_that_fails_ends_the_stream() {
        let body = Counting::new(LENGTH, 2 * PIECE + 1);
        let pieces: Vec<_> = stored_bytes(body, 0..LENGTH).collect().await;
        assert_eq!(pieces.len(), 3);
        assert!(matches!(pieces[2], Err(BodyError::Broken(_))));
    }
}
