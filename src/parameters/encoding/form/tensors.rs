//! The tensors of a payload, as a safetensors header has them.

use std::ops::Range;

use super::{Form, Kind};

/// The tensor of an int8 payload's scales.
pub(crate) const SCALES: &str = "@scales";
/// The tensor of a sparse payload's values.
pub(crate) const VALUES: &str = "@values";
/// The tensor of a sparse payload's indices.
pub(crate) const INDICES: &str = "@indices";

/// One tensor of a payload, as a header has it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub name: String,
    pub kind: Kind,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    /// Counted from the payload's beginning.
    pub bytes: Range<u64>,
    /// Whether it is one of the tensors whose names begin with `@`.
    pub is_front: bool,
}

impl Entry {
    /// One of the tensors that an encoding adds: a list.
    fn front(name: &str, kind: Kind, len: usize, start: u64) -> Self {
        Self {
            name: name.to_string(),
            kind,
            dtype: kind.dtype(),
            shape: vec![len],
            bytes: start..start + kind.size() * len as u64,
            is_front: true,
        }
    }
}

impl Form {
    /// The tensors of the payload in the order of their bytes, with names without a prefix.
    pub(crate) fn tensors(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        if self.is_sparse() {
            let values = Entry::front(VALUES, Kind::F32, self.entries, 0);
            let end = values.bytes.end;
            entries.push(values);
            entries.push(Entry::front(INDICES, Kind::U32, self.entries, end));
        }
        if self.scales > 0 {
            let scales = self.scales as usize / size_of::<f32>();
            entries.push(Entry::front(SCALES, Kind::F32, scales, 0));
        }
        for spec in self.layout.tensors() {
            if !self.roles.contains(spec.role) {
                continue;
            }
            let values = spec.range();
            let (kind, start) = match self.section_of(&values) {
                Some(section) => (section.kind, self.byte_of(section, values.start)),
                None => (Kind::of_nothing(self.dtype), self.front() + self.dense),
            };
            if kind == Kind::Sparse {
                // Its values are among those of `@values`.
                continue;
            }
            entries.push(Entry {
                name: spec.name.clone(),
                kind,
                dtype: kind.dtype(),
                shape: spec.shape.clone(),
                bytes: start..start + kind.size() * values.len() as u64,
                is_front: false,
            });
        }
        entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
        entries
    }
}
