//! The covered values of a layout, cut into sections that are stored in one way.

use std::ops::Range;

use super::Kind;
use crate::parameters::{DType, Encoding, GROUP, Layout, Role, Roles, TensorSpec};

/// Covered values that are next to each other and are stored in the same way.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Section {
    pub values: Range<usize>,
    pub kind: Kind,
    /// The offset of its first byte, counted from the first dense tensor.
    pub start: u64,
    /// Of int8: the index of its first scale. Of others: the index of its first value among the trainable ones.
    pub first: usize,
}

/// All sections of a payload, and what was counted on the way.
#[derive(Debug, Default)]
pub(crate) struct Sections {
    /// In the order of the layout.
    pub sections: Vec<Section>,
    /// Number of trainable values.
    pub trainable: usize,
    /// Number of scales, if the trainable values are int8.
    pub groups: usize,
    /// Bytes of the dense tensors.
    pub dense: u64,
}

impl Sections {
    /// The sections of the tensors of these roles.
    pub fn new(layout: &Layout, roles: Roles, dtype: DType, encoding: Encoding) -> Self {
        let mut sections = Self::default();
        for spec in layout.tensors() {
            if roles.contains(spec.role) {
                sections.add(spec, Kind::of(dtype, encoding, spec.role));
            }
        }
        sections.place();
        sections
    }

    /// Adds a tensor, to the last section if it continues that.
    fn add(&mut self, spec: &TensorSpec, kind: Kind) {
        let values = spec.range();
        let first = if kind == Kind::Int8 {
            self.groups
        } else {
            self.trainable
        };
        if spec.role == Role::Trainable {
            self.trainable += values.len();
            self.groups += values.len().div_ceil(GROUP);
        }
        if values.is_empty() {
            return;
        }
        if let Some(last) = self.sections.last_mut()
            && last.kind == kind
            && last.values.end == values.start
            // Each tensor of int8 begins a group of its own.
            && kind != Kind::Int8
        {
            last.values.end = values.end;
            return;
        }
        self.sections.push(Section {
            values,
            kind,
            start: 0,
            first,
        });
    }

    /// Gives each section its place. Values of one or two bytes come last, so that wider ones begin at multiples of their size.
    fn place(&mut self) {
        for places_narrow in [false, true] {
            for section in &mut self.sections {
                let size = section.kind.size();
                let is_narrow = size == 1 || size == 2;
                if is_narrow == places_narrow {
                    section.start = self.dense;
                    self.dense += size * section.values.len() as u64;
                }
            }
        }
    }
}
