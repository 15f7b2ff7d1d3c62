//! The stretches of a body after its header, and the place of each among the stored bytes.

use std::{collections::HashMap, ops::Range};

use ::safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::{
    BodyForm, BodySink, EncodingError,
    check::{Check, Elements},
    expected::info,
    form::{Directory, Entry},
};
use crate::parameters::{
    LayoutError, Role,
    safetensors::{SafetensorsError, is_batch_counter},
};

/// Takes the bytes after a header, segment by segment.
#[derive(Debug)]
pub(super) struct Segments {
    form: BodyForm,
    /// In the order of the body, without gaps.
    segments: Vec<Segment>,
    /// The index of the segment that the next byte belongs to.
    current: usize,
    /// How many bytes have been taken.
    position: u64,
    /// How many bytes the header announces.
    total: u64,
    elements: Elements,
    /// One for each payload; only sparse ones use theirs.
    directories: Vec<Directory>,
}

/// The bytes of one tensor.
#[derive(Debug)]
struct Segment {
    bytes: Range<u64>,
    /// `None`: passed over.
    target: Option<Target>,
}

/// What becomes of a segment.
#[derive(Debug)]
struct Target {
    /// The offset of its first byte among the stored bytes.
    start: u64,
    /// The index of its payload.
    part: usize,
    check: Check,
    /// The tensor's name in the body, with the payload's prefix.
    name: String,
}

impl Segments {
    /// The segments of a body with this header, which must have all tensors of the form, with its types and shapes.
    ///
    /// # Errors
    ///
    /// [`EncodingError::Malformed`] names the first tensor that is missing, unexpected, or of another type or shape.
    pub fn new(form: BodyForm, header: &Metadata) -> Result<Self, EncodingError> {
        let bases = form.bases();
        // Taken out one by one: what is left at the end is missing, and what is not in it is unexpected or comes
        // twice.
        let mut missing = entries_by_name(&form);
        let mut segments = Vec::new();
        for name in header.offset_keys() {
            let info = info(header, &name)?;
            let bytes = info.data_offsets.0 as u64..info.data_offsets.1 as u64;
            let mut target = None;
            if let Some((part, entry)) = missing.remove(&name) {
                check_type_and_shape(&name, info, &entry)?;
                target = Some(Target {
                    start: bases[part] + entry.bytes.start,
                    part,
                    check: Check::of(&entry),
                    name,
                });
            // An error and not ignored: the sender trained something that would silently be dropped.
            } else if !is_passed_over(&form, &name, info) {
                return Err(LayoutError::Unexpected { name }.into());
            }
            segments.push(Segment { bytes, target });
        }
        // The first by name, so that the message does not depend on the order of a hash map.
        if let Some(name) = missing.into_keys().min() {
            return Err(LayoutError::Missing { name }.into());
        }
        let mut directories = Vec::new();
        directories.resize_with(form.parts().len(), Directory::default);
        Ok(Self {
            form,
            segments,
            current: 0,
            position: 0,
            total: header.data_len() as u64,
            elements: Elements::default(),
            directories,
        })
    }

    /// The form of the body. Of sparse payloads it has no directory.
    pub fn form(&self) -> &BodyForm {
        &self.form
    }

    /// Takes the next bytes, checks them and hands them on.
    pub fn push(&mut self, mut piece: &[u8], sink: &mut dyn BodySink) -> Result<(), EncodingError> {
        // Ends with the piece and not with the last segment: empty tensors at the end have no byte to wait for.
        while !piece.is_empty() {
            let Some(segment) = self.segments.get(self.current) else {
                return Err(SafetensorsError::TooLong.into());
            };
            // A piece has any length: it can end inside of an element, or reach over many tensors.
            let left = segment.bytes.end - self.position;
            let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (bytes, rest) = piece.split_at(count);
            if let Some(target) = &segment.target {
                let len = self.form.parts()[target.part].form.trainable();
                let directory = &mut self.directories[target.part];
                // Before it is written: a NaN in a report never reaches the disk.
                if !self.elements.check(target.check, bytes, len, directory) {
                    return Err(target.check.failure(&target.name).into());
                }
                sink.write(target.start + (self.position - segment.bytes.start), bytes)?;
            }
            piece = rest;
            self.position += count as u64;
            if self.position == segment.bytes.end {
                self.current += 1;
            }
        }
        Ok(())
    }

    /// The places of the next bytes among the stored ones; none if they are passed over, or if there are no more.
    pub fn next_stored(&self) -> Option<Range<u64>> {
        let rest = &self.segments[self.current..];
        // Empty tensors have no byte.
        let segment = rest.iter().find(|next| next.bytes.end > self.position)?;
        let target = segment.target.as_ref()?;
        let start = target.start + (self.position - segment.bytes.start);
        Some(start..start + (segment.bytes.end - self.position))
    }

    /// The form of the body, with the directories of sparse payloads, once all of it has been taken.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Truncated`] if it has not.
    pub fn finish(self) -> Result<BodyForm, SafetensorsError> {
        // A sender that stops at the border of a tensor has left nothing half done, and is found out here alone.
        if self.position < self.total {
            let missing = self.total - self.position;
            return Err(SafetensorsError::Truncated { missing });
        }
        let mut parts = self.form.parts().to_vec();
        for (part, directory) in parts.iter_mut().zip(self.directories) {
            if part.form.is_sparse() {
                let entries = part.form.entries();
                part.form = part.form.clone().sparse(entries, directory.finish());
            }
        }
        Ok(BodyForm::new(parts))
    }
}

/// Each tensor that a body of this form must have, by its name in the body, with the index of its payload.
fn entries_by_name(form: &BodyForm) -> HashMap<String, (usize, Entry)> {
    let mut entries = HashMap::new();
    for (index, part) in form.parts().iter().enumerate() {
        let prefix = part.prefix();
        for entry in part.form.tensors() {
            entries.insert(format!("{prefix}{}", entry.name), (index, entry));
        }
    }
    entries
}

fn check_type_and_shape(
    name: &str,
    info: &TensorInfo,
    entry: &Entry,
) -> Result<(), SafetensorsError> {
    let name = name.to_string();
    let found = format!("{:?}", info.dtype);
    if found != entry.dtype {
        let expected = entry.dtype.to_string();
        return Err(SafetensorsError::Dtype {
            name,
            found,
            expected,
        });
    }
    if info.shape != entry.shape {
        let (expected, found) = (entry.shape.clone(), info.shape.clone());
        return Err(LayoutError::Shape {
            name,
            expected,
            found,
        }
        .into());
    }
    Ok(())
}

/// Whether a body may have this tensor though no payload's form has it: PyTorch's counter of batches, or a frozen tensor of the
/// layout that the form leaves out.
fn is_passed_over(form: &BodyForm, full_name: &str, info: &TensorInfo) -> bool {
    if is_batch_counter(full_name) && info.dtype == Dtype::I64 {
        return true;
    }
    for part in form.parts() {
        let Some(name) = full_name.strip_prefix(&part.prefix()) else {
            continue;
        };
        let Some(spec) = part.form.layout().find(name) else {
            continue;
        };
        if spec.role == Role::Frozen && !part.form.roles().contains(Role::Frozen) {
            return true;
        }
    }
    false
}
