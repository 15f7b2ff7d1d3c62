//! Global models in memory: for simulations and tests, and for embedders who keep models elsewhere.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::{ModelForm, ModelStore, ModelWriter, StoreError, StoredModel};
use crate::{
    ids::{JobId, ModelVersion},
    parameters::{
        Block, BlockBuffer, BlockError, BlockReader, BlockWriter, Encoded, Form, Layout,
        MemoryBody, Parameters, StoredBody, encode,
    },
};

/// Keeps each version for as long as it is held; there is nothing to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryModels;

impl ModelStore for MemoryModels {
    fn begin(
        &self,
        _job: JobId,
        _version: ModelVersion,
        form: &ModelForm,
    ) -> Result<Box<dyn ModelWriter>, StoreError> {
        let mut states = Vec::with_capacity(form.states.len());
        for _ in &form.states {
            states.push(Parameters::zeros(form.layout.clone()));
        }
        Ok(Box::new(Writer {
            parameters: Parameters::zeros(form.layout.clone()),
            states,
            form: form.clone(),
        }))
    }

    fn remove(&self, _job: JobId, _version: Option<ModelVersion>) {}
}

struct Writer {
    form: ModelForm,
    parameters: Parameters,
    states: Vec<Parameters>,
}

impl BlockWriter for Writer {
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError> {
        self.parameters.write(offset, block)
    }
}

impl ModelWriter for Writer {
    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError> {
        let len = self.states.len();
        let range = state..state + 1;
        let state = self.states.get_mut(state);
        state
            .ok_or(BlockError::OutOfRange { range, len })?
            .write(offset, values)
    }

    fn publish(
        self: Box<Self>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<Arc<dyn StoredModel>, StoreError> {
        let Self {
            form,
            parameters,
            states,
        } = *self;
        let parameters = Arc::new(parameters);
        // The parameters themselves, not a copy: the model is in memory once.
        let file = MemoryBody::new(Encoded::plain(parameters.clone()));
        let body = form.body();
        // Encoded once for all workers, not for each download.
        let body = if body.is_plain() {
            file.clone()
        } else {
            encoded_body(&body, &parameters)?
        };
        let frozen = if form.has_frozen() {
            Some(encoded_body(&form.frozen(), &parameters)?)
        } else {
            None
        };
        let mut kept = Vec::with_capacity(states.len());
        for (state, values) in form.states.iter().zip(states) {
            let encoded = encode(&state.form(&form.layout), &Arc::new(values));
            let encoded = encoded.map_err(|error| StoreError::Encoding(error.to_string()))?;
            kept.push(State {
                name: state.name.clone(),
                offered: state.offered,
                body: MemoryBody::named(&state.name, encoded.clone()),
                encoded,
            });
        }
        Ok(Arc::new(Model {
            parameters,
            file,
            body,
            frozen,
            states: kept,
            numbers: numbers.clone(),
        }))
    }
}

fn encoded_body(form: &Form, parameters: &Arc<Parameters>) -> Result<Arc<MemoryBody>, StoreError> {
    let encoded = encode(form, parameters);
    let encoded = encoded.map_err(|error| StoreError::Encoding(error.to_string()))?;
    Ok(MemoryBody::new(encoded))
}

struct Model {
    parameters: Arc<Parameters>,
    file: Arc<MemoryBody>,
    body: Arc<MemoryBody>,
    frozen: Option<Arc<MemoryBody>>,
    states: Vec<State>,
    numbers: BTreeMap<String, f64>,
}

/// One tensor of the strategy's state.
struct State {
    name: String,
    offered: bool,
    encoded: Encoded,
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

    fn frozen(&self) -> Option<Arc<dyn StoredBody>> {
        let frozen = self.frozen.clone()?;
        Some(frozen)
    }

    fn payload(&self, name: &str) -> Option<Arc<dyn StoredBody>> {
        let state = self
            .states
            .iter()
            .find(|state| state.offered && state.name == name)?;
        Some(state.body.clone())
    }

    fn state(&self, name: &str) -> Option<&(dyn BlockReader + Send + Sync)> {
        let state = self.states.iter().find(|state| state.name == name)?;
        Some(&state.encoded)
    }

    fn numbers(&self) -> &BTreeMap<String, f64> {
        &self.numbers
    }

    fn parameters(&self) -> Result<Arc<Parameters>, BlockError> {
        Ok(self.parameters.clone())
    }
}
