//! A published version, read from its files.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::files::BodyFile;
use crate::{
    parameters::{Block, BlockBuffer, BlockError, BlockReader, Layout, Parameters, StoredBody},
    store::StoredModel,
};

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

    fn parameters(&self) -> Result<Arc<Parameters>, BlockError> {
        let mut parameters = Parameters::zeros(self.layout().clone());
        self.read(0, parameters.values_mut())?;
        Ok(Arc::new(parameters))
    }
}
