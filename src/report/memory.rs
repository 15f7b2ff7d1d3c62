//! Reports in memory: for simulations, tests, and coordinators without a disk.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{PartialKey, Report, ReportMetadata, Spool, SpoolError, SpoolKey, SpoolWriter};
use crate::{
    ids::{ClientId, JobId, RequestId, RoundId},
    parameters::{
        Block, BlockBuffer, BlockReader, BodyDecoder, BodyForm, Digest, MemorySink, Payloads,
        safetensors::{SafetensorsError, check_finite},
    },
};

/// Reports in memory, with a limit on their bytes.
#[derive(Clone)]
pub struct MemorySpool(Arc<Inner>);

impl fmt::Debug for MemorySpool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemorySpool")
            .finish_non_exhaustive()
    }
}

struct Inner {
    limit: u64,
    used: AtomicU64,
    stored: Mutex<BTreeMap<SpoolKey, Stored>>,
}

struct Stored {
    metadata: ReportMetadata,
    payloads: Payloads,
    _space: Space,
}

/// Bytes set aside; dropped, they are free again.
struct Space {
    spool: Arc<Inner>,
    bytes: u64,
}

impl Drop for Space {
    fn drop(&mut self) {
        self.spool.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl MemorySpool {
    /// A spool that takes at most `limit` bytes of parameters at once.
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Inner {
            limit,
            used: AtomicU64::new(0),
            stored: Mutex::default(),
        }))
    }

    /// Bytes of reports that are stored or being uploaded.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    fn reserve(&self, needed: u64) -> Result<Space, SpoolError> {
        let limit = self.0.limit;
        self.0
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                // In one step: two uploads that look at the same room must not both take it.
                used.checked_add(needed).filter(|sum| *sum <= limit)
            })
            .map_err(|_| SpoolError::Full { needed, limit })?;
        Ok(Space {
            spool: self.0.clone(),
            bytes: needed,
        })
    }

    fn stored(&self) -> MutexGuard<'_, BTreeMap<SpoolKey, Stored>> {
        self.0.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spool for MemorySpool {
    fn begin(
        &self,
        key: SpoolKey,
        form: &Arc<BodyForm>,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        Ok(Box::new(MemoryWriter {
            spool: self.clone(),
            key,
            // For the whole report, before its first byte: a round must not end with all its reports half received.
            space: self.reserve(form.stored_bytes())?,
            decoder: BodyDecoder::new(form.clone()),
            sink: MemorySink::default(),
        }))
    }

    fn put(
        &self,
        key: SpoolKey,
        form: &Arc<BodyForm>,
        metadata: ReportMetadata,
        payloads: Payloads,
    ) -> Result<(), SpoolError> {
        // An upload is checked by its decoder, and this way has none: the contract asks for the same refusals.
        check(&payloads, form)?;
        let stored = Stored {
            metadata,
            _space: self.reserve(payloads.bytes())?,
            payloads,
        };
        self.stored().insert(key, stored);
        Ok(())
    }

    fn is_memory(&self) -> bool {
        true
    }

    fn reports(
        &self,
        job: JobId,
        round: RoundId,
        accepted: &[(ClientId, RequestId)],
    ) -> Result<Vec<Report>, SpoolError> {
        SpoolKey::accepted_reports(&self.stored(), job, round, accepted, |client, found| {
            let mut payloads: Vec<(String, Arc<dyn BlockReader + Send + Sync>)> = Vec::new();
            for (name, encoded) in found.payloads.iter() {
                payloads.push((name.to_string(), Arc::new(encoded.clone())));
            }
            Report::new(client, round, found.metadata.clone(), payloads)
        })
    }

    fn retain(
        &self,
        keeps: &dyn Fn(SpoolKey) -> bool,
        _resumes: &dyn Fn(PartialKey) -> bool,
    ) -> Result<(), SpoolError> {
        self.stored().retain(|key, _| keeps(*key));
        Ok(())
    }

    fn forget(&self, key: SpoolKey) {
        let gone = self.stored().remove(&key);
        // What is dropped may be gigabytes: outside of the lock.
        drop(gone);
    }

    fn discard(&self, job: JobId, round: RoundId) {
        // Dropped outside of the lock, as in `forget`.
        let gone: Vec<Stored> = {
            let mut stored = self.stored();
            let keys: Vec<_> = stored
                .range(SpoolKey::of_round(job, round))
                .map(|(key, _)| *key)
                .collect();
            keys.iter().filter_map(|key| stored.remove(key)).collect()
        };
        drop(gone);
    }
}

/// Whether payloads in memory are ones that an upload could have brought.
fn check(payloads: &Payloads, form: &BodyForm) -> Result<(), SpoolError> {
    if payloads.iter().len() != form.parts().len() {
        let (found, expected) = (payloads.iter().len(), form.parts().len());
        return malformed(format!(
            "the report has {found} payloads, and the plan expects {expected}"
        ));
    }
    for part in form.parts() {
        let name = &part.name;
        let Some(found) = payloads.find(name) else {
            return malformed(format!("the report has no payload {name:?}"));
        };
        let (is, should) = (found.form(), &part.form);
        if (is.encoding(), is.dtype()) != (should.encoding(), should.dtype()) {
            return malformed(format!(
                "payload {name:?} is encoded in {} of {:?}, and the plan expects {} of {:?}",
                is.encoding(),
                is.dtype(),
                should.encoding(),
                should.dtype()
            ));
        }
        should.layout().check_same(found.layout())?;
        if is.roles() != should.roles() && !is.is_plain() {
            return malformed(format!(
                "payload {name:?} has tensors of other roles than the plan expects"
            ));
        }
        if is.entries() > should.entries() {
            let (found, limit) = (is.entries(), should.entries());
            return Err(SafetensorsError::Entries { found, limit }.into());
        }
        // Encoded values were checked as they were encoded; plain ones are the trainer's own memory.
        if is.is_plain()
            && let Ok(Block::F32(values)) =
                found.block(0..is.layout().len(), &mut BlockBuffer::default())
        {
            check_finite(is.layout(), values)?;
        }
    }
    Ok(())
}

fn malformed<T>(detail: String) -> Result<T, SpoolError> {
    Err(SafetensorsError::Malformed(detail).into())
}

struct MemoryWriter {
    spool: MemorySpool,
    key: SpoolKey,
    space: Space,
    decoder: BodyDecoder,
    sink: MemorySink,
}

impl SpoolWriter for MemoryWriter {
    fn push(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        Ok(self.decoder.push(piece, &mut self.sink)?)
    }

    fn finish(
        self: Box<Self>,
        metadata: ReportMetadata,
        digest: Option<Digest>,
    ) -> Result<(), SpoolError> {
        let stored = Stored {
            metadata,
            payloads: self.sink.finish(self.decoder.finish(digest)?),
            // The space goes over to the stored report, and is free again when that is forgotten.
            _space: self.space,
        };
        self.spool.stored().insert(self.key, stored);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::ModelVersion,
        parameters::{
            Encoded, Encoding, Form, Layout, Parameters, Role, Roles, safetensors::header,
        },
        report::{DELTA, DELTA_PREFIX, Serial},
    };

    fn metadata() -> ReportMetadata {
        ReportMetadata {
            base_version: ModelVersion(0),
            examples: 3,
            steps: 1,
            metrics: BTreeMap::new(),
            ..ReportMetadata::default()
        }
    }

    fn key(client: u32) -> SpoolKey {
        SpoolKey {
            job: JobId(1),
            round: RoundId(1),
            client: ClientId(client),
            upload: RequestId(9),
        }
    }

    fn layout() -> Arc<Layout> {
        Layout::new([("w".to_string(), vec![4], Role::Trainable)]).unwrap()
    }

    fn form() -> Arc<BodyForm> {
        let form = Form::new(Encoding::F32, layout(), Roles::TRAINED);
        Arc::new(BodyForm::one(DELTA, form))
    }

    fn zeros() -> Payloads {
        Payloads::delta(Encoded::plain(Arc::new(Parameters::zeros(layout()))))
    }

    #[test]
    fn the_memory_spool_conforms() {
        crate::report::conformance::everything(&MemorySpool::new(1 << 30), &Serial);
    }

    #[test]
    fn an_upload_is_read_back_in_client_order() {
        let (spool, layout) = (MemorySpool::new(1 << 20), layout());
        for client in [2u32, 0] {
            let mut writer = spool.begin(key(client), &form()).unwrap();
            writer.push(&header(&layout, DELTA_PREFIX)).unwrap();
            writer
                .push(bytemuck::cast_slice(&[client as f32; 4]))
                .unwrap();
            writer.finish(metadata(), None).unwrap();
        }
        let reports = spool
            .reports(
                JobId(1),
                RoundId(1),
                &[(ClientId(0), RequestId(9)), (ClientId(2), RequestId(9))],
            )
            .unwrap();
        let mut block = [0.0; 4];
        reports[1]
            .payload(DELTA)
            .unwrap()
            .read(0, &mut block)
            .unwrap();
        assert_eq!((reports[0].client, block), (ClientId(0), [2.0; 4]));
        assert!(reports[0].payload("control").is_err());
        let missing = spool
            .reports(JobId(1), RoundId(1), &[(ClientId(1), RequestId(9))])
            .err();
        assert_eq!(
            missing,
            Some(SpoolError::Missing {
                client: ClientId(1)
            })
        );
    }

    #[test]
    fn the_limit_counts_uploads_under_way_and_space_comes_back() {
        let spool = MemorySpool::new(40);
        let first = spool.begin(key(0), &form()).unwrap();
        spool.put(key(1), &form(), metadata(), zeros()).unwrap();
        let full = spool.begin(key(2), &form()).err();
        assert_eq!(
            full,
            Some(SpoolError::Full {
                needed: 16,
                limit: 40
            })
        );
        drop(first);
        assert_eq!(spool.used(), 16);
        assert!(spool.begin(key(2), &form()).is_ok());
        spool.put(key(3), &form(), metadata(), zeros()).unwrap();
        spool.forget(key(3));
        assert_eq!(spool.used(), 16);
        spool.discard(JobId(1), RoundId(1));
        assert_eq!(spool.used(), 0);
    }
}
