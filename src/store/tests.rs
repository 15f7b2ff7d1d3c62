//! Files against memory, and against disks that fail.

mod fold;
mod folder;
mod journal;
mod log;
mod models;
mod partials;
#[cfg(feature = "sqlite")]
mod power;
mod reopened;
mod spool;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;

use super::{DataFolder, FileSpool, FileSpoolConfig, ModelForm};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RequestId, RoundId},
    parameters::{
        BodyForm, Digest, Encoding, Form, Layout, Parameters, Payloads, Role, Roles, encode,
    },
    report::{DELTA, ReportMetadata, Spool, SpoolError, SpoolKey},
};

const JOB: JobId = JobId(1);
const ROUND: RoundId = RoundId(1);

struct Disk {
    folder: Arc<DataFolder>,
    root: TempDir,
}

impl Disk {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(root.path()).unwrap();
        Self { folder, root }
    }

    fn spool(&self, config: FileSpoolConfig) -> FileSpool {
        FileSpool::new(self.folder.clone(), config)
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    /// How many bytes can still be written; `None`: any number.
    fn leave_room(&self, bytes: Option<u64>) {
        *self.folder.room.lock().unwrap() = bytes;
    }
}

/// All files and folders below a folder, by their path from there, in order.
fn below(folder: &Path) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            found.push(path.strip_prefix(folder).unwrap().display().to_string());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

fn layout(values: usize) -> Arc<Layout> {
    let frozen = values / 3;
    let tensors = [
        ("a", values - frozen - 7, Role::Trainable),
        ("b", frozen, Role::Frozen),
        ("c", 7, Role::Buffer),
    ];
    Layout::new(tensors.map(|(name, len, role)| (name.to_string(), vec![len], role))).unwrap()
}

fn parameters(layout: &Arc<Layout>, seed: u32) -> Arc<Parameters> {
    let value = |index: u32| {
        let mixed = (index + 1)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(seed * 40_503);
        ((mixed >> 8) as f32 / (1 << 24) as f32 - 0.5) / (1 + seed) as f32
    };
    let values = (0..layout.len() as u32).map(value).collect();
    Arc::new(Parameters::new(layout.clone(), values).unwrap())
}

fn delta(layout: &Arc<Layout>, encoding: Encoding, client: u32) -> Payloads {
    let form = Form::new(encoding, layout.clone(), Roles::TRAINED);
    Payloads::delta(encode(&form, &parameters(layout, client)).unwrap())
}

fn report_form(layout: &Arc<Layout>, encoding: Encoding) -> Arc<BodyForm> {
    let form = Form::new(encoding, layout.clone(), Roles::TRAINED);
    Arc::new(BodyForm::one(DELTA, form))
}

/// A model without a state.
fn form(layout: &Arc<Layout>, encoding: Encoding) -> ModelForm {
    ModelForm::new(layout.clone(), encoding)
}

fn key(client: u32) -> SpoolKey {
    SpoolKey {
        job: JOB,
        round: ROUND,
        client: ClientId(client),
        upload: upload_of(client),
    }
}

fn upload_of(client: u32) -> RequestId {
    RequestId(100 + u64::from(client))
}

fn accepted(clients: u32) -> Vec<(ClientId, RequestId)> {
    let accepted = |client| (ClientId(client), upload_of(client));
    (0..clients).map(accepted).collect()
}

fn metadata() -> ReportMetadata {
    ReportMetadata {
        base_version: ModelVersion(0),
        examples: 3,
        steps: 1,
        metrics: BTreeMap::from([("train_loss".to_string(), 0.25)]),
        ..ReportMetadata::default()
    }
}

fn upload(spool: &dyn Spool, client: u32, delta: &Payloads) -> Result<(), SpoolError> {
    let form = delta.find(DELTA).unwrap().form();
    let form = report_form(form.layout(), form.encoding());
    let mut writer = spool.begin(key(client), &form)?;
    let body = delta.pieces().concat();
    for piece in body.chunks(50_000) {
        writer.push(piece)?;
    }
    writer.finish(metadata(), Some(Digest::of(&body)))
}
