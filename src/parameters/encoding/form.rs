//! Which tensors a payload has, how each is stored, and the place of each in its bytes.
//!
//! It must never hold values.

mod directory;
mod header;
mod kind;
mod places;
mod sections;
mod tensors;

use std::{ops::Range, sync::Arc};

pub(super) use directory::{Directory, is_stride};
pub(super) use header::header_of;
pub(super) use kind::Kind;
pub(super) use sections::Section;
use sections::Sections;
pub(super) use tensors::{Entry, INDICES, SCALES, VALUES};

use super::Encoding;
use crate::parameters::{DType, Layout, PayloadSpec, Roles, Shape, VECTOR};

/// The form of a payload: which tensors of which layout, of which type, in which encoding. Its bytes, in order:
///
/// | encoding | bytes |
/// |---|---|
/// | f32, and types other than f32 | one tensor for each covered one of the layout, in its order |
/// | f16, bf16 | buffers (F32), then trainable tensors (F16, BF16) |
/// | int8 | `@scales` (F32), buffers (F32), then trainable tensors (I8) |
/// | top_k | `@values` (F32), `@indices` (U32), then buffers (F32) |
///
/// Each trainable tensor of int8 has a scale for each [`GROUP`](crate::parameters::GROUP) of its values; the last group of a tensor may be shorter. The
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
        let sections = Sections::new(&layout, roles, dtype, encoding);
        let is_f32 = dtype == DType::F32;
        let entries = match encoding {
            Encoding::TopK { fraction } if is_f32 => most_entries(fraction, sections.trainable),
            _ => 0,
        };
        let scales = if is_f32 && encoding == Encoding::Int8 {
            4 * sections.groups as u64
        } else {
            0
        };
        Self {
            layout,
            roles,
            dtype,
            encoding,
            trainable: sections.trainable,
            entries,
            directory: Vec::new(),
            scales,
            dense: sections.dense,
            sections: sections.sections.into(),
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

    /// The first section that ends after this value: the one that has it, or the next one.
    fn section_from(&self, value: usize) -> Option<&Section> {
        let index = self
            .sections
            .partition_point(|section| section.values.end <= value);
        self.sections.get(index)
    }

    /// The section that has these values; none if there are no values.
    fn section_of(&self, values: &Range<usize>) -> Option<&Section> {
        if values.is_empty() {
            return None;
        }
        self.section_from(values.start)
            .filter(|section| section.values.start <= values.start)
    }

    /// The offset in the payload of a value of a section.
    fn byte_of(&self, section: &Section, value: usize) -> u64 {
        self.front() + section.start + section.kind.size() * (value - section.values.start) as u64
    }

    /// The most bytes that a body of this form may have, with all that an honest header has beside the names.
    pub fn longest_body(&self) -> u64 {
        self.bytes() + self.layout.header_limit() as u64
    }
}

/// How many values a fraction of this many is: at least one, if there is one.
fn most_entries(fraction: f64, values: usize) -> usize {
    ((fraction * values as f64).ceil() as usize).clamp(usize::from(values > 0), values)
}
