//! One report on its way from a worker into the spool.
//!
//! The body is read piece by piece and handed to the spool in batches, on blocking threads, while the next batch comes.
//! How many uploads there are at once, and how many batches wait for the spool, is bounded: beyond that nothing is read,
//! so that senders wait, and no sender is refused because of the others. If the body breaks off, the spool may keep its part,
//! from which another request goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{
    driver::refusal_of,
    handle::Coordinator,
    under_way::Signals,
    upload_refusals::{Announced, broken, failed, is_final, refuse, too_large},
};
use crate::{
    ids::WorkerId,
    parameters::{BodyForm, Payloads},
    report::{
        PartialKey, Refusal, RefusalKind, ReportMetadata, Spool, SpoolError, SpoolKey, SpoolWriter,
    },
    round::{self, Event},
    transport::{ByteStream, ReportBody, Response},
};

/// Bytes that are handed to the spool at once.
pub(super) const BATCH: usize = 256 * 1024;

/// Reports of more bytes are checked on a blocking thread, and all that may wait for a disk.
const LARGE: u64 = 1 << 20;

/// An admitted report whose body is being read. Dropped before its end, it tells the machine that the upload broke off.
pub(super) struct Upload {
    coordinator: Coordinator,
    key: SpoolKey,
    worker: WorkerId,
    form: Arc<BodyForm>,
    signals: Signals,
    open: bool,
    /// Set once the whole body has come.
    finishing: AtomicBool,
    /// Set if the report that is being stored is not needed any more: the thread that stores it then forgets it.
    abandoned: Arc<AtomicBool>,
}

/// How long a sender is waited for while its upload keeps its place. One that sends a few bytes now and then uses it up, and then
/// has a place only for what has come: it must not keep one by never being silent for long.
struct Patience {
    limit: Duration,
    waited: Duration,
    came: usize,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.waited)
    }

    fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// Notes bytes. With each batch of them, the sender has its time again.
    fn came(&mut self, bytes: usize) {
        self.came += bytes;
        if self.came >= BATCH {
            *self = Self::new(self.limit);
        }
    }
}

type Written = (Box<dyn SpoolWriter>, Result<(), SpoolError>);

impl Upload {
    pub fn new(
        coordinator: Coordinator,
        key: SpoolKey,
        worker: WorkerId,
        form: Arc<BodyForm>,
        signals: Signals,
    ) -> Self {
        Self {
            coordinator,
            key,
            worker,
            form,
            signals,
            open: true,
            finishing: AtomicBool::new(false),
            abandoned: Arc::default(),
        }
    }

    /// Reads the body into the spool and gives the verdict.
    pub async fn take(
        mut self,
        metadata: ReportMetadata,
        body: ReportBody,
    ) -> Result<Response, Refusal> {
        let (end, left) = (self.signals.end.clone(), self.signals.left.clone());
        let stored = tokio::select! {
            stored = self.read(metadata, body) => stored,
            () = end.notified() => {
                // The machine has the reason for its refusal.
                Err(Refusal::new(RefusalKind::Late, "the report is not needed any more"))
            }
            () = self.left_while_reading(&left) => {
                let detail = "the upload broke off: its sender asks to go on";
                Err(Refusal::new(RefusalKind::Truncated, detail))
            }
        };
        if let Ok(bytes) = stored
            && let Ok(job) = self.coordinator.state().job(self.key.job)
        {
            job.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        self.close(stored.map(drop))
    }

    /// Done once the sender has left, unless the whole body has come by then: that is stored, and its sender learns it when it asks.
    async fn left_while_reading(&self, left: &Notify) {
        left.notified().await;
        if self.finishing.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
    }

    async fn read(&self, metadata: ReportMetadata, body: ReportBody) -> Result<u64, Refusal> {
        match body {
            ReportBody::Memory(payloads) => self.store(metadata, payloads).await,
            ReportBody::Stream {
                bytes,
                length,
                digest,
            } => {
                let announced = Announced {
                    length,
                    digest,
                    offset: 0,
                };
                self.receive(metadata, bytes, announced).await
            }
            ReportBody::Rest {
                bytes,
                length,
                digest,
                offset,
            } => {
                let announced = Announced {
                    length,
                    digest: Some(digest),
                    offset,
                };
                self.receive(metadata, bytes, announced).await
            }
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

    /// Bytes of the whole body, once all of it has been received.
    async fn receive(
        &self,
        metadata: ReportMetadata,
        mut bytes: ByteStream,
        announced: Announced,
    ) -> Result<u64, Refusal> {
        let shared = &self.coordinator.0;
        // The layout tells how long a report can be: one that announces more is refused before a byte is read.
        let limit = self.form.bytes() + shared.config.uploads.overhead;
        if announced.offset == 0 {
            announced.check(limit)?;
        }
        // The semaphores are never closed.
        let mut turn = shared.uploads.acquire().await.ok();
        let mut idle = Idle {
            coordinator: &self.coordinator,
            writer: Some(self.begin(announced).await?),
        };
        // The length of a rest is checked only now: if its offset is wrong, the refusal must say that.
        announced.check(limit)?;
        let mut writing: Option<JoinHandle<Written>> = None;
        let mut received = announced.offset;
        let mut patience = Patience::new(shared.config.uploads.idle);
        loop {
            let since = Instant::now();
            let first = match timeout(patience.left(), bytes.next()).await {
                Ok(first) => first,
                Err(_) => {
                    // A slow sender must not keep a place that a fast one could use.
                    turn = None;
                    bytes.next().await
                }
            };
            patience.waited(since.elapsed());
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
            patience.came(size);
            // A chunked body has not said its length.
            if received > limit {
                return Err(too_large(received, limit));
            }
            // The spool takes the pieces in order: one batch is written at a time, while the next one comes.
            if let Some(writing) = writing.take() {
                idle.writer = Some(written(writing).await?);
            }
            if let Some(writer) = idle.writer.take() {
                writing = Some(tokio::task::spawn_blocking(move || {
                    let written = push(writer, &batch);
                    // Together: the room is free when the bytes are.
                    drop((batch, permit));
                    written
                }));
            }
        }
        if let Some(writing) = writing.take() {
            idle.writer = Some(written(writing).await?);
        }
        if let Some(writer) = idle.writer.take() {
            self.finishing.store(true, Ordering::SeqCst);
            let (spool, key) = (shared.spool.clone(), self.key);
            let abandoned = self.abandoned.clone();
            let finished = blocking(move || {
                writer.finish(metadata, announced.digest)?;
                forget_if(&abandoned, &*spool, key);
                Ok(())
            });
            finished.await?.map_err(refuse)?;
        }
        Ok(received)
    }

    /// Begins to store a body, or goes on.
    async fn begin(&self, announced: Announced) -> Result<Box<dyn SpoolWriter>, Refusal> {
        let (spool, key) = (self.coordinator.0.spool.clone(), self.key);
        let (form, offset) = (self.form.clone(), announced.offset);
        let partial = announced.digest.map(|digest| PartialKey {
            job: key.job,
            round: key.round,
            client: key.client,
            worker: self.worker,
            digest,
        });
        let is_large = announced.length.unwrap_or(self.form.bytes()) >= self.resume_from();
        // On a blocking thread: a spool sets space aside here, and may wait for its disk.
        let begun = blocking(move || match partial {
            Some(partial) if offset > 0 => spool.resume(key.upload, partial, &form, offset),
            Some(partial) if is_large => spool.begin_resumable(key.upload, partial, &form),
            _ => spool.begin(key, &form),
        });
        begun.await?.map_err(refuse)
    }

    /// Uploads of at least this many bytes can go on after a break.
    fn resume_from(&self) -> u64 {
        self.coordinator.0.config.uploads.resume_from
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
            // What other workers have sent of it is of no use any more.
            if self.form.bytes() >= self.resume_from() {
                let spool = self.coordinator.0.spool.clone();
                self.coordinator
                    .later(move || spool.drop_partials(job, round, client));
            }
            return Ok(Response::Accepted);
        }
        // Without an answer the coordinator stops, and the next one goes on with the part.
        let is_final =
            matches!(&answer, Some(round::Response::Refused(refusal)) if is_final(refusal));
        let refusal = refusal_of(answer);
        // What is stored, or is being stored at this moment, is of no use: its round has perhaps been discarded already.
        self.abandoned.store(true, Ordering::SeqCst);
        let (spool, key) = (self.coordinator.0.spool.clone(), self.key);
        self.coordinator.later(move || {
            spool.forget(key);
            if is_final {
                spool.drop_partials(job, round, client);
            }
        });
        Err(refusal)
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

/// A writer between two batches. If the upload breaks off, it is dropped on a thread that may wait for the disk.
struct Idle<'a> {
    coordinator: &'a Coordinator,
    writer: Option<Box<dyn SpoolWriter>>,
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.coordinator.later(move || drop(writer));
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
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(failed)
}
