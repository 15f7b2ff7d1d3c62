//! Global models in memory: for simulations and tests, and for embedders who keep models elsewhere.

use std::{ops::Range, sync::Arc};

use super::{ModelStore, ModelWriter, StoreError, StoredModel};
use crate::{
    ids::{JobId, ModelVersion},
    parameters::{
        Block, BlockBuffer, BlockError, BlockReader, BlockWriter, Encoded, Encoding, Layout,
        MemoryBody, Parameters, StoredBody, encode,
    },
    strategy::StrategyState,
};

/// Keeps each version for as long as somebody holds it; there is nothing to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryModels;

impl ModelStore for MemoryModels {
    fn begin(
        &self,
        _job: JobId,
        _version: ModelVersion,
        layout: &Arc<Layout>,
        encoding: Encoding,
    ) -> Result<Box<dyn ModelWriter>, StoreError> {
        Ok(Box::new(Writer {
            parameters: Parameters::zeros(layout.clone()),
            encoding,
        }))
    }

    fn remove(&self, _job: JobId, _version: Option<ModelVersion>) {}
}

struct Writer {
    parameters: Parameters,
    encoding: Encoding,
}

impl BlockWriter for Writer {
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError> {
        self.parameters.write(offset, block)
    }
}

impl ModelWriter for Writer {
    fn publish(
        self: Box<Self>,
        _state: &StrategyState,
    ) -> Result<Arc<dyn StoredModel>, StoreError> {
        let parameters = Arc::new(self.parameters);
        let file = MemoryBody::new(Encoded::plain(parameters.clone()));
        let body = match self.encoding {
            Encoding::F32 => file.clone(),
            encoding => {
                let encoded = encode(encoding, &parameters);
                MemoryBody::new(encoded.map_err(|error| StoreError::Encoding(error.to_string()))?)
            }
        };
        Ok(Arc::new(Model {
            parameters,
            file,
            body,
        }))
    }
}

struct Model {
    parameters: Arc<Parameters>,
    file: Arc<MemoryBody>,
    body: Arc<MemoryBody>,
}

impl BlockReader for Model {
    fn layout(&self) -> &Arc<Layout> {
        self.parameters.layout()
    }

    fn read(&self, offset: usize, block: &mut [f32]) -> Result<(), BlockError> {
        self.parameters.read(offset, block)
    }

    fn block<'a>(
        &'a self,
        range: Range<usize>,
        buffer: &'a mut BlockBuffer,
    ) -> Result<Block<'a>, BlockError> {
        self.parameters.block(range, buffer)
    }
}

impl StoredModel for Model {
    fn file(&self) -> Arc<dyn StoredBody> {
        self.file.clone()
    }

    fn body(&self) -> Arc<dyn StoredBody> {
        self.body.clone()
    }

    fn parameters(&self) -> Result<Arc<Parameters>, BlockError> {
        Ok(self.parameters.clone())
    }
}
