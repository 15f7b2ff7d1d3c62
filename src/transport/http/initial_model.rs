//! The initial model that comes with a submission: decoded on blocking threads, a batch at a time, within limits.
//!
//! The sender may stop at any time. The request then ends, and what has been decoded is dropped.

use std::collections::VecDeque;

use axum::body::Bytes;
use futures_util::{FutureExt, TryStreamExt};

use super::problem::Problem;
use crate::{
    Cause,
    parameters::{
        Digest, Digesting, HeaderError, HeaderLimits, Parameters,
        safetensors::{Decoder, SafetensorsError},
    },
    report::RefusalKind,
    transport::{BodyError, ByteStream},
};

/// Bytes that are decoded at once.
const BATCH: usize = 256 << 10;

/// Reads a model of any layout whose file has at most `limit` bytes.
///
/// # Errors
///
/// What is wrong with the body, as the answer.
pub(super) async fn read_initial_model(
    mut bytes: ByteStream,
    limit: u64,
    header: HeaderLimits,
    announced: Option<Digest>,
) -> Result<Parameters, Problem> {
    let decoder = Decoder::any().with_limit(limit).with_header_limits(header);
    let mut reading = Reading {
        decoder,
        digest: Digesting::default(),
    };
    while let Some(first) = bytes.try_next().await? {
        let mut size = first.len();
        let mut batch = VecDeque::from([first]);
        // Takes the pieces that have arrived, and does not wait for more.
        while size < BATCH
            && let Some(Some(piece)) = bytes.try_next().now_or_never().transpose()?
        {
            size += piece.len();
            batch.push_back(piece);
        }
        reading = blocking(move || reading.take(batch)).await?;
    }
    blocking(move || reading.finish(announced)).await
}

/// Runs work on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SafetensorsError> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(refuse),
        Err(error) => Err(Problem::new(RefusalKind::Busy, error.to_string())),
    }
}

struct Reading {
    decoder: Decoder,
    digest: Digesting,
}

impl Reading {
    fn take(mut self, mut batch: VecDeque<Bytes>) -> Result<Self, SafetensorsError> {
        // Each piece is freed once it is decoded.
        while let Some(piece) = batch.pop_front() {
            self.digest.update(&piece);
            self.decoder.push(&piece)?;
        }
        Ok(self)
    }

    fn finish(self, announced: Option<Digest>) -> Result<Parameters, SafetensorsError> {
        let initial = self.decoder.finish()?;
        let found = self.digest.finish();
        match announced.filter(|announced| *announced != found) {
            Some(announced) => Err(SafetensorsError::Digest { announced, found }),
            None => Ok(initial),
        }
    }
}

/// The answer to a body that is not taken; of a limit, with what raises it.
fn refuse(error: SafetensorsError) -> Problem {
    let raised_by = match &error {
        SafetensorsError::Header(HeaderError::TooLong { .. }) => "--max-header",
        SafetensorsError::Header(HeaderError::Tensors { .. }) => "--max-tensors",
        SafetensorsError::Header(HeaderError::Name { .. }) => "--max-tensor-name",
        _ => return BodyError::Malformed(Cause::of(error)).into(),
    };
    let detail = format!("the initial model: {error}; the coordinator's {raised_by} raises it");
    Problem::new(RefusalKind::TooLarge, detail)
}
