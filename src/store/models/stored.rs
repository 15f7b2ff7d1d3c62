//! A published version, read from its files.

use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

use super::{files::BodyFile, state};
use crate::{
    parameters::{
        Block, BlockBuffer, BlockError, BlockReader, Form, Layout, Parameters, StoredBody,
    },
    store::{ModelForm, PublishedVersion, StoreError, StoredModel},
};

/// The names of a version's files.
pub(super) const MODEL: &str = "model.safetensors";
pub(super) const SENT: &str = "sent.safetensors";
pub(super) const FROZEN: &str = "frozen.safetensors";

/// Keeps its files open, so that it stays readable after its removal.
pub(super) struct FileModel {
    pub plain: Arc<BodyFile>,
    /// What workers get; the same file, if that is the whole model as it is.
    pub sent: Arc<BodyFile>,
    pub frozen: Option<Arc<BodyFile>>,
    pub states: Vec<FileState>,
    pub numbers: BTreeMap<String, f64>,
}

/// One tensor of the strategy's state.
pub(super) struct FileState {
    pub name: String,
    pub offered: bool,
    pub file: Arc<BodyFile>,
}

impl FileModel {
    /// A version in this folder, which an earlier process published.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`].
    pub fn open(
        folder: &Path,
        form: &ModelForm,
        published: &PublishedVersion,
    ) -> Result<Self, StoreError> {
        let open = |name: &str, form: Form, prefix: &str| {
            let mut files = published.files.iter();
            let file = files.find(|file| file.name == name);
            let file = file.ok_or_else(|| StoreError::Missing {
                what: folder.join(name).display().to_string(),
                problem: "the version was published without it".to_string(),
            })?;
            BodyFile::open(folder, form, prefix, file).map(Arc::new)
        };
        let plain = open(MODEL, Form::file(form.layout.clone()), "")?;
        let body = form.body();
        let mut sent = plain.clone();
        if !body.is_plain() {
            sent = open(SENT, body, "")?;
        }
        let mut frozen = None;
        if form.has_frozen() {
            frozen = Some(open(FROZEN, form.frozen(), "")?);
        }
        let mut states = Vec::with_capacity(form.states.len());
        for state in &form.states {
            let name = state::file_name(&state.name);
            let prefix = format!("{}/", state.name);
            states.push(FileState {
                name: state.name.clone(),
                offered: state.offered,
                file: open(&name, state.form(&form.layout), &prefix)?,
            });
        }
        Ok(Self {
            plain,
            sent,
            frozen,
            states,
            numbers: published.numbers.clone(),
        })
    }
}

impl BlockReader for FileModel {
    fn layout(&self) -> &Arc<Layout> {
        self.plain.reader().layout()
    }

    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError> {
        self.plain.reader().read(offset, block)
    }

    fn block<'a>(
        &'a self,
        range: Range<usize>,
        buffer: &'a mut BlockBuffer,
    ) -> Result<Block<'a>, BlockError> {
        self.plain.reader().block(range, buffer)
    }
}

impl StoredModel for FileModel {
    fn file(&self) -> Arc<dyn StoredBody> {
        self.plain.clone()
    }

    fn body(&self) -> Arc<dyn StoredBody> {
        self.sent.clone()
    }

    fn frozen(&self) -> Option<Arc<dyn StoredBody>> {
        let frozen = self.frozen.clone()?;
        Some(frozen)
    }

    fn payload(&self, name: &str) -> Option<Arc<dyn StoredBody>> {
        let state = self
            .states
            .iter()
            .find(|state| state.offered && state.name == name)?;
        Some(state.file.clone())
    }

    fn state(&self, name: &str) -> Option<&(dyn BlockReader + Send + Sync)> {
        let state = self.states.iter().find(|state| state.name == name)?;
        Some(state.file.reader())
    }

    fn numbers(&self) -> &BTreeMap<String, f64> {
        &self.numbers
    }

    fn published(&self) -> PublishedVersion {
        let mut files = vec![self.plain.published()];
        if !Arc::ptr_eq(&self.plain, &self.sent) {
            files.push(self.sent.published());
        }
        files.extend(self.frozen.iter().map(|file| file.published()));
        files.extend(self.states.iter().map(|state| state.file.published()));
        PublishedVersion {
            files,
            numbers: self.numbers.clone(),
        }
    }

    fn parameters(&self) -> Result<Arc<Parameters>, BlockError> {
        let mut parameters = Parameters::zeros(self.layout().clone());
        self.read(0, parameters.values_mut())?;
        Ok(Arc::new(parameters))
    }
}
