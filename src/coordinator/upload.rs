//! One report on its way from a worker into the spool.

use std::sync::{Arc, atomic::Ordering};

use futures_util::StreamExt;

use super::{Coordinator, handler::refusal_of};
use crate::{
    ids::{ClientId, JobId, RequestId, RoundId},
    parameters::{Layout, Parameters, safetensors::SafetensorsError},
    report::{Refusal, RefusalKind, ReportMetadata, SpoolError, SpoolKey},
    round::{self, Event},
    transport::{BodyError, ReportBody, Response},
};

/// Reports of more bytes are checked on a blocking thread.
const LARGE: usize = 1 << 20;

/// An admitted report whose body is being read. Dropped before its end, it tells the machine that the upload broke off.
pub(super) struct Upload {
    coordinator: Coordinator,
    job: JobId,
    round: RoundId,
    client: ClientId,
    upload: RequestId,
    layout: Arc<Layout>,
    open: bool,
}

impl Upload {
    pub fn new(
        coordinator: Coordinator,
        job: JobId,
        round: RoundId,
        client: ClientId,
        upload: RequestId,
        layout: Arc<Layout>,
    ) -> Self {
        Self {
            coordinator,
            job,
            round,
            client,
            upload,
            layout,
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
            ReportBody::Memory(delta) => self.store(metadata, delta).await,
            ReportBody::Stream { bytes, length } => {
                let result = self.receive(metadata, bytes, length).await;
                self.count(&result);
                result
            }
        };
        self.close(stored)
    }

    async fn store(&self, metadata: ReportMetadata, delta: Arc<Parameters>) -> Result<(), Refusal> {
        let (spool, key, layout) = (
            self.coordinator.0.spool.clone(),
            self.key(),
            self.layout.clone(),
        );
        let put = move || spool.put(key, &layout, metadata, delta).map_err(refuse);
        let result = match self.layout.bytes() > LARGE {
            true => tokio::task::spawn_blocking(put)
                .await
                .unwrap_or_else(|error| {
                    Err(Refusal::new(
                        RefusalKind::Busy,
                        format!("the report could not be stored: {error}"),
                    ))
                }),
            false => put(),
        };
        self.count(&result);
        result
    }

    async fn receive(
        &self,
        metadata: ReportMetadata,
        mut bytes: crate::transport::ByteStream,
        length: Option<u64>,
    ) -> Result<(), Refusal> {
        let limit = self.layout.bytes() as u64 + self.coordinator.0.config.report_overhead;
        let too_large = || {
            let detail = format!("a report of this model has at most {limit} bytes");
            Err(Refusal::new(RefusalKind::TooLarge, detail))
        };
        if length.is_some_and(|length| length > limit) {
            return too_large();
        }
        let mut writer = self
            .coordinator
            .0
            .spool
            .begin(self.key(), &self.layout)
            .map_err(refuse)?;
        let mut received = 0;
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|error| match error {
                BodyError::TooLarge { .. } => {
                    Refusal::new(RefusalKind::TooLarge, error.to_string())
                }
                _ => Refusal::new(RefusalKind::Truncated, error.to_string()),
            })?;
            received += piece.len() as u64;
            if received > limit {
                return too_large();
            }
            writer.push(&piece).map_err(refuse)?;
        }
        writer.finish(metadata).map_err(refuse)
    }

    fn count(&self, result: &Result<(), Refusal>) {
        if result.is_ok()
            && let Ok(job) = self.coordinator.state().job(self.job)
        {
            job.bytes
                .fetch_add(self.layout.bytes() as u64, Ordering::Relaxed);
        }
    }

    fn key(&self) -> SpoolKey {
        SpoolKey {
            job: self.job,
            round: self.round,
            client: self.client,
            upload: self.upload,
        }
    }

    fn close(&mut self, stored: Result<(), Refusal>) -> Result<Response, Refusal> {
        self.open = false;
        let is_stored = stored.is_ok();
        let (upload, client, round) = (self.upload, self.client, self.round);
        let mut state = self.coordinator.state();
        let request = state.next_request();
        let event = Event::ReportStored {
            request,
            upload,
            client,
            round,
            stored,
        };
        let answer = self.coordinator.drive(&mut state, self.job, event);
        drop(state);
        if let Some(round::Response::Accepted) = answer {
            return Ok(Response::Accepted);
        }
        if is_stored {
            // Its round has closed, and was perhaps discarded before the report was there.
            self.coordinator.0.spool.forget(self.key());
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

fn refuse(error: SpoolError) -> Refusal {
    let kind = match &error {
        SpoolError::Full { .. } => RefusalKind::Busy,
        SpoolError::Malformed(SafetensorsError::Truncated { .. }) => RefusalKind::Truncated,
        SpoolError::Malformed(_) | SpoolError::Missing { .. } => RefusalKind::Malformed,
    };
    Refusal::new(kind, error.to_string())
}
