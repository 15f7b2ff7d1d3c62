//! A published version, read from its files.

use std::{ops::Range, sync::Arc};

use super::files::BodyFile;
use crate::{
    parameters::{Block, BlockBuffer, BlockError, BlockReader, Layout, Parameters, StoredBody},
    store::StoredModel,
};

/// Keeps its files open, so that it stays readable after its removal.
pub(super) struct FileModel {
    plain: Arc<BodyFile>,
    /// The same, where the job's encoding is f32.
    sent: Arc<BodyFile>,
}

impl FileModel {
    pub fn new(plain: Arc<BodyFile>, sent: Arc<BodyFile>) -> Self {
        Self { plain, sent }
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

    fn parameters(&self) -> Result<Arc<Parameters>, BlockError> {
        let mut parameters = Parameters::zeros(self.layout().clone());
        self.read(0, parameters.values_mut())?;
        Ok(Arc::new(parameters))
    }
}
