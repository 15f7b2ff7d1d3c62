//! One report on its way from a worker into the spool.
//!
//! The body is read piece by piece and handed to the spool in batches, on blocking threads, while the next batch comes.
//! How many uploads there are at once, and how many batches wait for the spool, is bounded: beyond that nothing is read,
//! so that senders wait, and no sender is refused because of the others.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use super::{driver::refusal_of, handle::Coordinator};
use crate::{
    parameters::{BodyForm, Digest, Payloads, safetensors::SafetensorsError},
    report::{Refusal, RefusalKind, ReportMetadata, Spool, SpoolError, SpoolKey, SpoolWriter},
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
    /// Notified when nobody needs the report any more.
    end: Arc<Notify>,
    open: bool,
    /// Set if the report that is being stored is not needed any more: the thread that stores it then forgets it.
    abandoned: Arc<AtomicBool>,
}

type Written = (Box<dyn SpoolWriter>, Result<(), SpoolError>);

impl Upload {
    pub fn new(
        coordinator: Coordinator,
        key: SpoolKey,
        form: Arc<BodyForm>,
        end: Arc<Notify>,
    ) -> Self {
        Self {
            coordinator,
            key,
            form,
            end,
            open: true,
            abandoned: Arc::default(),
        }
    }

    /// Reads the body into the spool and gives the verdict.
    pub async fn take(
        mut self,
        metadata: ReportMetadata,
        body: ReportBody,
    ) -> Result<Response, Refusal> {
        let end = self.end.clone();
        let stored = tokio::select! {
            stored = self.read(metadata, body) => stored,
            () = end.notified() => {
                // The machine has the reason for its refusal.
                Err(Refusal::new(RefusalKind::Late, "the report is not needed any more"))
            }
        };
        if let Ok(bytes) = stored
            && let Ok(job) = self.coordinator.state().job(self.key.job)
        {
            job.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.close(stored.map(drop))
    }

    async fn read(&self, metadata: ReportMetadata, body: ReportBody) -> Result<u64, Refusal> {
        match body {
            ReportBody::Memory(payloads) => self.store(metadata, payloads).await,
            ReportBody::Stream {
                bytes,
                length,
                digest,
            } => self.receive(metadata, bytes, length, digest).await,
        }
    }

    /// Bytes of what was stored.
    async fn store(&self, metadata: ReportMetadata, payloads: Payloads) -> Result<u64, Refusal> {
        let bytes = payloads.bytes();
        let (spool, key) = (self.coordinator.0.spool.clone(), self.key);
        let form = self.form.clone();
        let abandoned = self.abandoned.clone();
        let put = move || {
            spool.put(key, &form, metadata, payloads)?;
            forget_if(&abandoned, &*spool, key);
            Ok(())
        };
        if bytes <= LARGE && self.coordinator.0.spool.is_memory() {
            put()
        } else {
            blocking(put).await?
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
        // The layout tells how long a report can be: one that announces more is refused before a byte is read.
        let limit = self.form.bytes() + self.coordinator.0.config.uploads.overhead;
        if let Some(length) = length.filter(|length| *length > limit) {
            return Err(too_large(length, limit));
        }
        let shared = &self.coordinator.0;
        // The semaphores are never closed.
        let mut turn = shared.uploads.acquire().await.ok();
        let (spool, key) = (shared.spool.clone(), self.key);
        let form = self.form.clone();
        // On a blocking thread: a spool sets space aside here, and may wait for its disk.
        let begun = blocking(move || spool.begin(key, &form)).await?;
        let mut writer = Some(begun.map_err(refuse)?);
        let mut writing: Option<JoinHandle<Written>> = None;
        let mut received = 0;
        loop {
            let first = match timeout(shared.config.uploads.idle, bytes.next()).await {
                Ok(first) => first,
                Err(_) => {
                    // A slow sender must not keep a place that a fast one could use.
                    turn = None;
                    bytes.next().await
                }
            };
            let Some(first) = first else {
                break;
            };
            if turn.is_none() {
                turn = shared.uploads.acquire().await.ok();
            }
            // Taken once there are bytes to hold: a sender that is silent takes no room from the others.
            let permit = shared.batches.clone().acquire_owned().await;
            let mut batch = vec![first.map_err(broken)?];
            let mut size = batch[0].len();
            // Takes the pieces that have arrived. It does not wait for more: other uploads may need the room.
            while size < BATCH
                && let Some(Some(piece)) = bytes.next().now_or_never()
            {
                let piece = piece.map_err(broken)?;
                size += piece.len();
                batch.push(piece);
            }
            received += size as u64;
            // A chunked body has not said its length.
            if received > limit {
                return Err(too_large(received, limit));
            }
            // The spool takes the pieces in order: one batch is written at a time, while the next one comes.
            if let Some(writing) = writing.take() {
                writer = Some(written(writing).await?);
            }
            if let Some(writer) = writer.take() {
                writing = Some(tokio::task::spawn_blocking(move || {
                    let written = push(writer, &batch);
                    // Together: the room is free when the bytes are.
                    drop((batch, permit));
                    written
                }));
            }
        }
        if let Some(writing) = writing.take() {
            writer = Some(written(writing).await?);
        }
        if let Some(writer) = writer {
            let (spool, abandoned) = (shared.spool.clone(), self.abandoned.clone());
            let finish = move || {
                writer.finish(metadata, digest)?;
                forget_if(&abandoned, &*spool, key);
                Ok(())
            };
            blocking(finish).await?.map_err(refuse)?;
        }
        Ok(received)
    }

    fn close(&mut self, stored: Result<(), Refusal>) -> Result<Response, Refusal> {
        // First, so that dropping this does not tell the machine once more.
        self.open = false;
        let SpoolKey {
            job,
            round,
            client,
            upload,
        } = self.key;
        let mut state = self.coordinator.state();
        if let Ok(job) = state.job_mut(job) {
            job.uploads.remove(&upload);
        }
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
        // What is stored, or is being stored at this moment, is of no use: its round has perhaps been discarded already.
        self.abandoned.store(true, Ordering::SeqCst);
        let (spool, key) = (self.coordinator.0.spool.clone(), self.key);
        self.coordinator.later(move || spool.forget(key));
        Err(refusal_of(answer))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // The future is dropped when the connection breaks. Without this, the machine would take the upload for one
        // under way, and refuse the next try as a duplicate.
        if self.open {
            let _ = self.close(Err(Refusal::new(
                RefusalKind::Truncated,
                "the upload broke off",
            )));
        }
    }
}

/// Forgets what has just been stored if it is not needed any more. The other side sets the flag first and then forgets the
/// report, too: one of the two comes after the storing.
fn forget_if(abandoned: &AtomicBool, spool: &dyn Spool, key: SpoolKey) {
    if abandoned.load(Ordering::SeqCst) {
        spool.forget(key);
    }
}

fn too_large(bytes: u64, limit: u64) -> Refusal {
    let detail = format!(
        "the report has {bytes} bytes or more, and {limit} is the most for this job; the coordinator's --report-overhead raises it"
    );
    Refusal::new(RefusalKind::TooLarge, detail)
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

/// Runs work that may wait for a disk on a thread of its own.
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
        // Broken on its way: the same report may be sent again.
        SpoolError::Malformed(
            SafetensorsError::Truncated { .. } | SafetensorsError::Digest { .. },
        ) => RefusalKind::Truncated,
        SpoolError::Malformed(_) | SpoolError::Missing { .. } => RefusalKind::Malformed,
    };
    Refusal::new(kind, error.to_string())
}
