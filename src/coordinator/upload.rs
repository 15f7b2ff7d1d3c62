//! One report on its way from a worker into the spool.
//!
//! The body is read piece by piece and handed to the spool in batches, on blocking threads, while the next batch comes.
//! How many uploads there are at once, and how many batches wait for the spool, is bounded: beyond that nothing is read,
//! so that senders wait, and nobody is refused for the others' sake.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::task::JoinHandle;

use super::{Coordinator, handler::refusal_of};
use crate::{
    parameters::{BodyForm, Digest, Payloads, safetensors::SafetensorsError},
    report::{Refusal, RefusalKind, ReportMetadata, SpoolError, SpoolKey, SpoolWriter},
    round::{self, Event},
    transport::{BodyError, ByteStream, ReportBody, Response},
};

/// Bytes that are handed to the spool at once.
pub(super) const BATCH: usize = 256 * 1024;

/// Reports of more bytes are checked on a blocking thread, and all that may wait for a disk.
const LARGE: u64 = 1 << 20;

/// An admitted report whose body is being read. Dropped before its end, it tells the machine that the upload broke off.
pub(super) struct Upload {
    coordinator: Coordinator,
    key: SpoolKey,
    form: Arc<BodyForm>,
    open: bool,
}

type Written = (Box<dyn SpoolWriter>, Result<(), SpoolError>);

impl Upload {
    pub fn new(coordinator: Coordinator, key: SpoolKey, form: Arc<BodyForm>) -> Self {
        Self {
            coordinator,
            key,
            form,
            open: true,
        }
    }

    /// Reads the body into the spool and gives the verdict.
    pub async fn take(
        mut self,
        metadata: ReportMetadata,
        body: ReportBody,
    ) -> Result<Response, Refusal> {
        let stored = match body {
            ReportBody::Memory(payloads) => self.store(metadata, payloads).await,
            ReportBody::Stream {
                bytes,
                length,
                digest,
            } => self.receive(metadata, bytes, length, digest).await,
        };
        if let Ok(bytes) = stored
            && let Ok(job) = self.coordinator.state().job(self.key.job)
        {
            job.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.close(stored.map(drop))
    }

    /// Bytes of what was stored.
    async fn store(&self, metadata: ReportMetadata, payloads: Payloads) -> Result<u64, Refusal> {
        let bytes = payloads.bytes();
        let (spool, key) = (self.coordinator.0.spool.clone(), self.key);
        let form = self.form.clone();
        let put = move || spool.put(key, &form, metadata, payloads);
        match bytes <= LARGE && self.coordinator.0.spool.is_memory() {
            true => put(),
            false => blocking(put).await?,
        }
        .map_err(refuse)?;
        Ok(bytes)
    }

    /// Bytes of what was received.
    async fn receive(
        &self,
        metadata: ReportMetadata,
        mut bytes: ByteStream,
        length: Option<u64>,
        digest: Option<Digest>,
    ) -> Result<u64, Refusal> {
        let limit = self.form.bytes() + self.coordinator.0.config.report_overhead;
        let too_large = || {
            let detail = format!("a report of this job has at most {limit} bytes");
            Refusal::new(RefusalKind::TooLarge, detail)
        };
        if length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let shared = &self.coordinator.0;
        // The semaphores are never closed.
        let _turn = shared.uploads.acquire().await;
        let (spool, key) = (shared.spool.clone(), self.key);
        let form = self.form.clone();
        let begun = blocking(move || spool.begin(key, &form)).await?;
        let mut writer = Some(begun.map_err(refuse)?);
        let mut writing: Option<JoinHandle<Written>> = None;
        let mut received = 0;
        while let Some(first) = bytes.next().await {
            let permit = shared.batches.clone().acquire_owned().await;
            let mut batch = vec![first.map_err(broken)?];
            let mut size = batch[0].len();
            // What is there already comes along; what isn't is not waited for while others may need the room.
            while size < BATCH
                && let Some(Some(piece)) = bytes.next().now_or_never()
            {
                let piece = piece.map_err(broken)?;
                size += piece.len();
                batch.push(piece);
            }
            received += size as u64;
            if received > limit {
                return Err(too_large());
            }
            if let Some(writing) = writing.take() {
                writer = Some(written(writing).await?);
            }
            if let Some(writer) = writer.take() {
                writing = Some(tokio::task::spawn_blocking(move || {
                    let written = push(writer, &batch);
                    drop((batch, permit));
                    written
                }));
            }
        }
        if let Some(writing) = writing.take() {
            writer = Some(written(writing).await?);
        }
        if let Some(writer) = writer {
            let stored = blocking(move || writer.finish(metadata, digest)).await?;
            stored.map_err(refuse)?;
        }
        Ok(received)
    }

    fn close(&mut self, stored: Result<(), Refusal>) -> Result<Response, Refusal> {
        self.open = false;
        let is_stored = stored.is_ok();
        let SpoolKey {
            job,
            round,
            client,
            upload,
        } = self.key;
        let mut state = self.coordinator.state();
        let request = state.next_request();
        let event = Event::ReportStored {
            request,
            upload,
            client,
            round,
            stored,
        };
        let answer = self.coordinator.drive(&mut state, job, event);
        drop(state);
        if let Some(round::Response::Accepted) = answer {
            return Ok(Response::Accepted);
        }
        if is_stored {
            // Its round has closed, and was perhaps discarded before the report was there.
            let (spool, key) = (self.coordinator.0.spool.clone(), self.key);
            self.coordinator.later(move || spool.forget(key));
        }
        Err(refusal_of(answer))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.open {
            let _ = self.close(Err(Refusal::new(
                RefusalKind::Truncated,
                "the upload broke off",
            )));
        }
    }
}

fn push(mut writer: Box<dyn SpoolWriter>, batch: &[Bytes]) -> Written {
    let result = batch.iter().try_for_each(|piece| writer.push(piece));
    (writer, result)
}

async fn written(writing: JoinHandle<Written>) -> Result<Box<dyn SpoolWriter>, Refusal> {
    let (writer, result) = writing.await.map_err(failed)?;
    result.map_err(refuse)?;
    Ok(writer)
}

/// Runs work that may wait for a disk where it holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(failed)
}

fn failed(error: tokio::task::JoinError) -> Refusal {
    let detail = format!("the report could not be stored: {error}");
    Refusal::new(RefusalKind::Storage, detail)
}

fn broken(error: BodyError) -> Refusal {
    let kind = match error {
        BodyError::TooLarge { .. } => RefusalKind::TooLarge,
        _ => RefusalKind::Truncated,
    };
    Refusal::new(kind, error.to_string())
}

fn refuse(error: SpoolError) -> Refusal {
    let kind = match &error {
        SpoolError::Full { .. } => RefusalKind::Busy,
        SpoolError::Storage(_) => RefusalKind::Storage,
        SpoolError::Malformed(SafetensorsError::Truncated { .. }) => RefusalKind::Truncated,
        SpoolError::Malformed(_) | SpoolError::Missing { .. } => RefusalKind::Malformed,
    };
    Refusal::new(kind, error.to_string())
}
