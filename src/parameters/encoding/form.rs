//! Where everything is in the bytes of one payload.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use serde_json::json;

use super::{Encoding, GROUP};
use crate::parameters::{
    BlockError, DType, Layout, PayloadSpec, Role, Roles, Shape, VECTOR,
    safetensors::{LENGTH_BYTES, ROLES},
};

/// How many trainable values there are between two entries of a sparse payload's directory.
const STRIDE: usize = 1 << 16;

/// The form of a payload: which tensors of which layout, of which type, in which encoding. Its bytes, in order:
///
/// | encoding | bytes |
/// |---|---|
/// | f32, and types other than f32 | one tensor for each covered one of the layout, in its order |
/// | f16, bf16 | buffers (F32), then trainable tensors (F16, BF16) |
/// | int8 | `@scales` (F32), buffers (F32), then trainable tensors (I8) |
/// | top_k | `@values` (F32), `@indices` (U32), then buffers (F32) |
///
/// Each trainable tensor of int8 has a scale for each [`GROUP`] of its values; the last group of a tensor may be shorter. The
/// indices of top_k rise and count the trainable values alone, in the layout's order. The tensors in a body have the payload's
/// name and `/` in front; those of a model have nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    layout: Arc<Layout>,
    roles: Roles,
    dtype: DType,
    encoding: Encoding,
    /// What is covered, in the order of the layout.
    sections: Arc<[Section]>,
    /// Number of values of trainable tensors.
    trainable: usize,
    /// How many values a sparse payload has.
    entries: usize,
    /// For a sparse payload that has been taken: how many of its indices are below each multiple of `STRIDE`.
    directory: Vec<u32>,
    /// Bytes before the dense tensors: scales, or values and indices. Those of a sparse payload follow from `entries`.
    scales: u64,
    /// Bytes of the dense tensors.
    dense: u64,
}

/// Covered values that are next to each other and are stored in the same way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Section {
    pub values: Range<usize>,
    pub kind: Kind,
    /// Where its bytes begin, counted from the first dense tensor.
    start: u64,
    /// Of int8: its first scale. Of a sparse section: its first trainable value.
    first: usize,
}

/// How the values of a section are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Bf16,
    /// One tensor.
    Int8,
    Sparse,
    F64,
    U32,
    U64,
}

impl Kind {
    /// Bytes of a value; 0 for sparse ones, which have no place of their own.
    pub fn size(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 => 1,
            Self::F64 | Self::U64 => 8,
            Self::Sparse => 0,
        }
    }

    /// The type's name in a safetensors header.
    pub fn dtype(self) -> &'static str {
        match self {
            Self::F32 | Self::Sparse => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Int8 => "I8",
            Self::F64 => "F64",
            Self::U32 => "U32",
            Self::U64 => "U64",
        }
    }
}

/// Where the values of a range are: two stretches if the section has two parts, the second of them the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub kind: Kind,
    /// Scales of int8, values of a sparse payload; all values of others.
    pub first: Range<u64>,
    /// Integers of int8, indices of a sparse payload.
    pub second: Range<u64>,
    /// Of int8: how many values of the first group are before the range.
    pub skip: usize,
    /// Of a sparse payload: the trainable values of the range.
    pub trainable: Range<usize>,
}

impl Form {
    /// Tensors of these roles, in f32 values of this encoding. Of a sparse one, the most that its fraction allows.
    pub fn new(encoding: Encoding, layout: Arc<Layout>, roles: Roles) -> Self {
        Self::build(layout, roles, DType::F32, encoding)
    }

    /// A whole model as it is: the form of a file.
    pub fn file(layout: Arc<Layout>) -> Self {
        Self::new(Encoding::F32, layout, Roles::ALL)
    }

    /// The form of a payload of a model with this layout.
    pub fn of(spec: &PayloadSpec, layout: &Arc<Layout>) -> Self {
        match spec.shape {
            Shape::Model(roles) => Self::build(layout.clone(), roles, spec.dtype, spec.encoding),
            Shape::Vector(len) => {
                let layout = Layout::vector(VECTOR, len);
                Self::build(layout, Roles::ALL, spec.dtype, Encoding::F32)
            }
        }
    }

    fn build(layout: Arc<Layout>, roles: Roles, dtype: DType, encoding: Encoding) -> Self {
        let kind_of = |role| match (dtype, encoding, role) {
            (DType::F64, ..) => Kind::F64,
            (DType::U32, ..) => Kind::U32,
            (DType::U64, ..) => Kind::U64,
            (DType::F32, Encoding::F16, Role::Trainable) => Kind::F16,
            (DType::F32, Encoding::Bf16, Role::Trainable) => Kind::Bf16,
            (DType::F32, Encoding::Int8, Role::Trainable) => Kind::Int8,
            (DType::F32, Encoding::TopK { .. }, Role::Trainable) => Kind::Sparse,
            (DType::F32, ..) => Kind::F32,
        };
        let mut sections: Vec<Section> = Vec::new();
        let (mut trainable, mut groups) = (0, 0);
        for spec in layout.tensors() {
            if !roles.contains(spec.role) {
                continue;
            }
            let (values, kind) = (spec.range(), kind_of(spec.role));
            let first = if kind == Kind::Int8 {
                groups
            } else {
                trainable
            };
            if spec.role == Role::Trainable {
                trainable += values.len();
                groups += values.len().div_ceil(GROUP);
            }
            if values.is_empty() {
                continue;
            }
            match sections.last_mut() {
                Some(last)
                    if last.kind == kind
                        && last.values.end == values.start
                        && kind != Kind::Int8 =>
                {
                    last.values.end = values.end;
                }
                _ => sections.push(Section {
                    values,
                    kind,
                    start: 0,
                    first,
                }),
            }
        }
        let mut form = Self {
            layout,
            roles,
            dtype,
            encoding,
            sections: Arc::new([]),
            trainable,
            entries: 0,
            directory: Vec::new(),
            scales: if sections.iter().any(|section| section.kind == Kind::Int8) {
                4 * groups as u64
            } else {
                0
            },
            dense: 0,
        };
        form.place(&mut sections);
        form.sections = sections.into();
        if let Encoding::TopK { fraction } = encoding
            && dtype == DType::F32
        {
            form.entries = most_entries(fraction, trainable);
        }
        form
    }

    /// Gives each section its place: narrow values come last, so that wider ones begin at multiples of their size.
    fn place(&mut self, sections: &mut [Section]) {
        for is_narrow in [false, true] {
            for section in sections.iter_mut() {
                let size = section.kind.size();
                if (size < 4 && size > 0) == is_narrow {
                    section.start = self.dense;
                    self.dense += size * section.values.len() as u64;
                }
            }
        }
    }

    /// The form of a sparse payload with this many entries and this directory.
    pub(super) fn sparse(mut self, entries: usize, directory: Vec<u32>) -> Self {
        self.entries = entries;
        self.directory = directory;
        self
    }

    /// The encoding of trainable values.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The type of the values.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The layout of the values, of which those of [`Form::roles`] are in the payload.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Which tensors of the layout are in the payload.
    pub fn roles(&self) -> Roles {
        self.roles
    }

    /// How many values a sparse payload has; 0 for others.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Number of values of covered trainable tensors.
    pub fn trainable(&self) -> usize {
        self.trainable
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.dtype == DType::F32 && !self.encoding.is_dense()
    }

    pub(super) fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Whether the payload is the values of the whole layout as they are.
    pub fn is_plain(&self) -> bool {
        match &*self.sections {
            [] => self.layout.is_empty() && self.dtype == DType::F32,
            [only] => only.kind == Kind::F32 && only.values == (0..self.layout.len()),
            _ => false,
        }
    }

    /// Bytes of the payload.
    pub fn bytes(&self) -> u64 {
        self.front() + self.dense
    }

    /// Bytes before the dense tensors.
    fn front(&self) -> u64 {
        if self.is_sparse() {
            8 * self.entries as u64
        } else {
            self.scales
        }
    }

    /// The tensors of the payload as a safetensors header has them: name without prefix, type, shape and place, in any order.
    pub(super) fn tensors(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let front = |name: &str, kind: Kind, len: usize, bytes: Range<u64>| Entry {
            name: name.to_string(),
            kind,
            dtype: if name == INDICES { "U32" } else { "F32" },
            shape: vec![len],
            bytes,
            is_front: true,
        };
        if self.is_sparse() {
            let half = 4 * self.entries as u64;
            entries.push(front(VALUES, Kind::F32, self.entries, 0..half));
            entries.push(front(INDICES, Kind::U32, self.entries, half..2 * half));
        }
        if self.scales > 0 {
            entries.push(front(
                SCALES,
                Kind::F32,
                self.scales as usize / 4,
                0..self.scales,
            ));
        }
        for spec in self.layout.tensors() {
            if !self.roles.contains(spec.role) {
                continue;
            }
            let (kind, start) = match self.section_of(&spec.range()) {
                Some(section) => (section.kind, self.byte_of(section, spec.range().start)),
                None => (self.kind_of_nothing(), self.front() + self.dense),
            };
            if kind != Kind::Sparse {
                entries.push(Entry {
                    name: spec.name.clone(),
                    kind,
                    dtype: kind.dtype(),
                    shape: spec.shape.clone(),
                    bytes: start..start + kind.size() * spec.range().len() as u64,
                    is_front: false,
                });
            }
        }
        entries.sort_by_key(|entry| (entry.bytes.start, entry.bytes.end));
        entries
    }

    /// The type that a tensor without values is said to have.
    fn kind_of_nothing(&self) -> Kind {
        match self.dtype {
            DType::F64 => Kind::F64,
            DType::U32 => Kind::U32,
            DType::U64 => Kind::U64,
            DType::F32 => Kind::F32,
        }
    }

    fn section_of(&self, values: &Range<usize>) -> Option<&Section> {
        if values.is_empty() {
            return None;
        }
        let index = self
            .sections
            .partition_point(|section| section.values.end <= values.start);
        self.sections
            .get(index)
            .filter(|section| section.values.start <= values.start)
    }

    fn byte_of(&self, section: &Section, value: usize) -> u64 {
        self.front() + section.start + section.kind.size() * (value - section.values.start) as u64
    }

    /// The bytes of a safetensors file before this payload, if it is the only one. `prefix` goes in front of each name.
    pub fn header(&self, prefix: &str) -> Vec<u8> {
        header(&[(prefix, self)])
    }

    /// The most bytes that a body of this form may have, with whatever an honest header has beside the names.
    pub fn longest_body(&self) -> u64 {
        self.bytes() + self.layout.header_limit() as u64
    }

    /// Where one block that begins at this value must end at the latest.
    pub(super) fn uniform_end(&self, offset: usize) -> usize {
        let index = self
            .sections
            .partition_point(|section| section.values.end <= offset);
        match self.sections.get(index) {
            Some(section) if section.values.start <= offset => section.values.end,
            Some(section) => section.values.start,
            None => self.layout.len(),
        }
    }

    /// Where the values of a range are in the payload; none if they are not covered.
    pub(super) fn places(&self, range: &Range<usize>) -> Result<Option<Places>, BlockError> {
        let len = self.layout.len();
        if range.end > len || range.end > self.uniform_end(range.start).max(range.start) {
            let range = range.clone();
            return Err(BlockError::OutOfRange { range, len });
        }
        let index = self
            .sections
            .partition_point(|section| section.values.end <= range.start);
        let section = self.sections.get(index);
        let Some(section) = section.filter(|section| section.values.start <= range.start) else {
            return Ok(None);
        };
        let offset = range.start - section.values.start;
        let end = offset + range.len();
        let mut places = Places {
            kind: section.kind,
            first: self.byte_of(section, range.start)..self.byte_of(section, range.end),
            second: 0..0,
            skip: 0,
            trainable: 0..0,
        };
        match section.kind {
            Kind::Int8 => {
                places.second = std::mem::replace(&mut places.first, 0..0);
                let first = (section.first + offset / GROUP) as u64;
                let last = (section.first + end.div_ceil(GROUP)) as u64;
                places.first = 4 * first..4 * last;
                places.skip = offset % GROUP;
            }
            Kind::Sparse => {
                let trainable = section.first + offset..section.first + end;
                let last = self.entries as u32;
                let below = |stride: usize| self.directory.get(stride).copied().unwrap_or(last);
                let first = u64::from(below(trainable.start / STRIDE));
                let end = u64::from(below(trainable.end.div_ceil(STRIDE))).max(first);
                let base = 4 * self.entries as u64;
                places.first = 4 * first..4 * end;
                places.second = base + 4 * first..base + 4 * end;
                places.trainable = trainable;
            }
            _ => {}
        }
        Ok(Some(places))
    }
}

/// Whether a place among the trainable values is one at which the directory of a sparse payload is exact.
pub(super) fn is_stride(place: usize) -> bool {
    place.is_multiple_of(STRIDE)
}

/// One tensor of a payload, as a header has it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: String,
    pub kind: Kind,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    /// Counted from the payload's beginning.
    pub bytes: Range<u64>,
    /// Whether it is one of the tensors whose names begin with `@`.
    pub is_front: bool,
}

/// The bytes of a safetensors file before its payloads, which follow each other without gaps.
pub(super) fn header(parts: &[(&str, &Form)]) -> Vec<u8> {
    let mut roles = BTreeMap::new();
    for (prefix, form) in parts {
        for spec in form.layout.tensors() {
            if spec.role != Role::Trainable && form.roles.contains(spec.role) {
                roles.insert(format!("{prefix}{}", spec.name), spec.role);
            }
        }
    }
    let roles = json!(roles).to_string();
    // Written by hand in the payload's order, since a JSON map of the library would lose it.
    let mut text = format!(
        "{{\"__metadata__\":{}",
        json!({ "format": "pt", ROLES: roles })
    );
    let mut base = 0;
    for (prefix, form) in parts {
        for entry in form.tensors() {
            let name = json!(format!("{prefix}{}", entry.name));
            let offsets = [base + entry.bytes.start, base + entry.bytes.end];
            let info =
                json!({ "dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets });
            text.push_str(&format!(",{name}:{info}"));
        }
        base += form.bytes();
    }
    text.push('}');
    while !text.len().is_multiple_of(LENGTH_BYTES) {
        text.push(' ');
    }
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The tensor of an int8 payload's scales, and those of a sparse payload.
pub(super) const SCALES: &str = "@scales";
pub(super) const VALUES: &str = "@values";
pub(super) const INDICES: &str = "@indices";

/// How many of so many values a fraction is: at least one, if there is one.
fn most_entries(fraction: f64, values: usize) -> usize {
    ((fraction * values as f64).ceil() as usize).clamp(usize::from(values > 0), values)
}

/// Counts the indices of a sparse payload as they pass.
#[derive(Debug, Default)]
pub(super) struct Directory {
    counts: Vec<u32>,
    taken: u32,
    next: u64,
}

impl Directory {
    /// Takes the next index, if it is above the one before and below `len`.
    pub fn take(&mut self, index: u32, len: usize) -> bool {
        if u64::from(index) < self.next || index as usize >= len {
            return false;
        }
        while self.counts.len() * STRIDE <= index as usize {
            self.counts.push(self.taken);
        }
        self.taken += 1;
        self.next = u64::from(index) + 1;
        true
    }

    pub fn finish(self) -> Vec<u32> {
        self.counts
    }
}
