//! One version of a model while its values are written.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use super::{
    files::NewFile,
    state,
    stored::{FROZEN, FileModel, FileState, MODEL, SENT},
    unfinished::Unfinished,
};
use crate::{
    parameters::{
        BlockBuffer, BlockError, BlockWriter, EncodingError, Form, RangeEncoder, checked,
    },
    store::{ModelForm, ModelWriter, StateForm, StoreError, StoredModel},
};

pub(super) struct Writer {
    plain: Target,
    /// What workers get of the model, if that is not the file itself.
    sent: Option<Target>,
    frozen: Option<Target>,
    states: Vec<(StateForm, Target)>,
    len: usize,
    /// Behind its files: they close before it is removed.
    next: Unfinished,
}

/// One file that takes values in its own form.
struct Target {
    file: NewFile,
    buffer: BlockBuffer,
    scales: BlockBuffer,
    /// The first value that has no form in the encoding: its place, and its tensor.
    unfit: Option<(usize, EncodingError)>,
}

impl Writer {
    pub fn begin(next: Unfinished, form: &ModelForm) -> Result<Self, StoreError> {
        // A sparse form leaves values out, which a model can't do without.
        if !form.encoding.is_dense() {
            let detail = format!("a model can't be sent as {}", form.encoding);
            return Err(StoreError::Encoding(detail));
        }
        let file = Form::file(form.layout.clone());
        let plain = Target::create(&next, MODEL, file, "")?;
        let mut sent = None;
        let body = form.body();
        // f32 is the file itself: a second copy of gigabytes would be the same bytes.
        if !body.is_plain() {
            sent = Some(Target::create(&next, SENT, body, "")?);
        }
        let mut frozen = None;
        if form.has_frozen() {
            let form = form.frozen();
            frozen = Some(Target::create(&next, FROZEN, form, "")?);
        }
        let mut states = Vec::with_capacity(form.states.len());
        for state in &form.states {
            let name = state::file_name(&state.name);
            // As in a payload, so that a state can be sent to clients as it is.
            let prefix = format!("{}/", state.name);
            let target = Target::create(&next, &name, state.form(&form.layout), &prefix)?;
            states.push((state.clone(), target));
        }
        Ok(Self {
            plain,
            sent,
            frozen,
            states,
            len: form.layout.len(),
            next,
        })
    }
}

impl Target {
    fn create(next: &Unfinished, name: &str, form: Form, prefix: &str) -> Result<Self, StoreError> {
        let file = NewFile::create(next.folder(), next.path.join(name), form, prefix)?;
        Ok(Self {
            file,
            buffer: BlockBuffer::default(),
            scales: BlockBuffer::default(),
            unfit: None,
        })
    }

    /// Writes those of the values that its form has.
    fn write(
        &mut self,
        next: &Unfinished,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError> {
        let folder = next.folder();
        let form = self.file.form().clone();
        let end = offset + values.len();
        let mut start = offset;
        while start < end {
            let encoder = RangeEncoder::new(&form, start..end)?;
            let range = encoder.range();
            let part = &values[range.start - offset..range.end - offset];
            start = range.end;
            // Values of a role that this form does not have.
            let Some(places) = encoder.places() else {
                continue;
            };
            // No encoding: the block's own bytes, without a copy.
            if places.is_plain {
                self.file
                    .write(folder, places.values, bytemuck::cast_slice(part))?;
                continue;
            }
            let bytes = self.buffer.bytes(places.values_len);
            let scales = self.scales.bytes(places.scales_len);
            // Noted and not returned: the place that is named must be the first of the model, and later blocks may be
            // before it.
            if !encoder.encode(part, scales, bytes) {
                note_unfit(&mut self.unfit, range.start, encoder.unfit(part));
            }
            self.file.write(folder, places.values, bytes)?;
            self.file.write(folder, places.scales, scales)?;
        }
        Ok(())
    }
}

/// Keeps the first place only: blocks come in any order, and the message must not depend on it.
fn note_unfit(unfit: &mut Option<(usize, EncodingError)>, place: usize, tensor: EncodingError) {
    match unfit {
        Some((first, _)) if *first <= place => {}
        _ => *unfit = Some((place, tensor)),
    }
}

impl BlockWriter for Writer {
    fn write(&mut self, offset: usize, block: &[f32]) -> Result<(), BlockError> {
        // Before any file is written to: otherwise some would have the block, and some not.
        checked(offset, block.len(), self.len)?;
        if let Some(sent) = &mut self.sent {
            sent.write(&self.next, offset, block)?;
        }
        if let Some(frozen) = &mut self.frozen {
            frozen.write(&self.next, offset, block)?;
        }
        self.plain.write(&self.next, offset, block)
    }
}

impl ModelWriter for Writer {
    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError> {
        checked(offset, values.len(), self.len)?;
        let len = self.states.len();
        let range = state..state + 1;
        let state = self.states.get_mut(state);
        let (_, target) = state.ok_or(BlockError::OutOfRange { range, len })?;
        target.write(&self.next, offset, values)
    }

    fn publish(
        self: Box<Self>,
        numbers: &BTreeMap<String, f64>,
    ) -> Result<Arc<dyn StoredModel>, StoreError> {
        let Self {
            plain,
            sent,
            frozen,
            states,
            next,
            ..
        } = *self;
        // A version that can't be sent in the job's encoding is of no use to any worker.
        if let Some((_, error)) = sent.as_ref().and_then(|sent| sent.unfit.clone()) {
            return Err(StoreError::Encoding(error.to_string()));
        }
        state::write(next.folder(), &next.path, numbers)?;
        let (has_sent, has_frozen) = (sent.is_some(), frozen.is_some());
        let mut files = vec![plain.file];
        files.extend(sent.map(|sent| sent.file));
        files.extend(frozen.map(|frozen| frozen.file));
        let mut forms = Vec::with_capacity(states.len());
        for (state, target) in states {
            forms.push(state);
            files.push(target.file);
        }
        // All together, so that the disk can bring them out at once.
        let finished = NewFile::finish_all(files)?;
        let place = next.publish()?;
        // As many files as there were, in the same order.
        let mut placed = VecDeque::with_capacity(finished.len());
        for file in finished {
            placed.push_back(Arc::new(file.place(&place)));
        }
        let plain = taken(placed.pop_front())?;
        let mut sent = plain.clone();
        if has_sent {
            sent = taken(placed.pop_front())?;
        }
        let mut frozen = None;
        if has_frozen {
            frozen = Some(taken(placed.pop_front())?);
        }
        let mut states = Vec::with_capacity(forms.len());
        for state in forms {
            states.push(FileState {
                name: state.name,
                offered: state.offered,
                file: taken(placed.pop_front())?,
            });
        }
        Ok(Arc::new(FileModel {
            plain,
            sent,
            frozen,
            states,
            numbers: numbers.clone(),
        }))
    }
}

fn taken<T>(file: Option<T>) -> Result<T, StoreError> {
    file.ok_or(StoreError::Incomplete { missing: 0, len: 0 })
}
