//! Where everything stands in the bytes of an encoded model or delta.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use serde_json::json;

use super::{Encoding, GROUP};
use crate::parameters::{
    BlockError, Layout, Role,
    safetensors::{LENGTH_BYTES, ROLES},
};

/// How many values there are between two entries of a sparse payload's directory.
const STRIDE: usize = 1 << 16;

/// The form of a payload: which encoding, over which layout. Its tensors, in the payload's order:
///
/// | encoding | tensors |
/// |---|---|
/// | f32, f16, bf16 | one for each of the layout, in its order |
/// | int8 | `@scales` (F32, one for each group of [`GROUP`] values of the whole layout), then one I8 tensor for each of the layout |
/// | top_k | `@values` (F32), then `@indices` (U32, rising, counted from the layout's beginning) |
///
/// In a report, each name has `delta/` in front.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    encoding: Encoding,
    layout: Arc<Layout>,
    /// How many values a sparse payload has.
    entries: usize,
    /// For a sparse payload that has been taken: how many of its indices are below each multiple of `STRIDE`.
    directory: Vec<u32>,
}

impl Form {
    /// The form of a whole payload; of a sparse one with as many entries as its fraction allows.
    pub fn new(encoding: Encoding, layout: Arc<Layout>) -> Self {
        let entries = match encoding {
            Encoding::TopK { fraction } => most_entries(fraction, layout.len()),
            _ => 0,
        };
        Self {
            encoding,
            layout,
            entries,
            directory: Vec::new(),
        }
    }

    /// The form of a sparse payload with this many entries and this directory.
    pub(super) fn sparse(mut self, entries: usize, directory: Vec<u32>) -> Self {
        self.entries = entries;
        self.directory = directory;
        self
    }

    /// The encoding.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The layout of the values.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// How many values a sparse payload has; 0 for others.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Bytes of the payload.
    pub fn bytes(&self) -> u64 {
        let values = self.layout.len() as u64;
        match self.encoding {
            Encoding::F32 => 4 * values,
            Encoding::F16 | Encoding::Bf16 => 2 * values,
            Encoding::Int8 => self.scales_bytes() + values,
            Encoding::TopK { .. } => 8 * self.entries as u64,
        }
    }

    /// Bytes of the scales of an int8 payload, which its values stand behind.
    pub(super) fn scales_bytes(&self) -> u64 {
        4 * self.layout.len().div_ceil(GROUP) as u64
    }

    /// The bytes of a safetensors file before the payload. `prefix` goes in front of each name: empty for a model,
    /// `delta/` for that payload of a report.
    pub fn header(&self, prefix: &str) -> Vec<u8> {
        let roles: BTreeMap<_, _> = self
            .layout
            .tensors()
            .iter()
            .filter(|spec| spec.role != Role::Trainable)
            .map(|spec| (format!("{prefix}{}", spec.name), spec.role))
            .collect();
        let roles = json!(roles).to_string();
        // Written by hand in the payload's order, since a JSON map of the library would lose it.
        let mut text = format!(
            "{{\"__metadata__\":{}",
            json!({ "format": "pt", ROLES: roles })
        );
        let mut add = |name: &str, dtype: &str, shape: &[usize], bytes: Range<u64>| {
            let name = json!(format!("{prefix}{name}"));
            let info =
                json!({ "dtype": dtype, "shape": shape, "data_offsets": [bytes.start, bytes.end] });
            text.push_str(&format!(",{name}:{info}"));
        };
        let (start, dtype, size) = match self.encoding {
            Encoding::F32 => (0, "F32", 4),
            Encoding::F16 => (0, "F16", 2),
            Encoding::Bf16 => (0, "BF16", 2),
            Encoding::Int8 => {
                let scales = self.scales_bytes();
                add(SCALES, "F32", &[scales as usize / 4], 0..scales);
                (scales, "I8", 1)
            }
            Encoding::TopK { .. } => {
                let half = 4 * self.entries as u64;
                add(VALUES, "F32", &[self.entries], 0..half);
                add(INDICES, "U32", &[self.entries], half..2 * half);
                (0, "", 0)
            }
        };
        if self.encoding.is_dense() {
            for spec in self.layout.tensors() {
                let range = spec.range();
                let bytes = start + size * range.start as u64..start + size * range.end as u64;
                add(&spec.name, dtype, &spec.shape, bytes);
            }
        }
        text.push('}');
        while text.len() % LENGTH_BYTES != 0 {
            text.push(' ');
        }
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// The most bytes that a body of this form may have, with whatever an honest header has beside the names.
    pub fn longest_body(&self) -> u64 {
        self.bytes() + self.layout.header_limit() as u64
    }

    /// Where the values of a range stand in the payload; two stretches where the encoding has two parts.
    pub(super) fn places(&self, range: &Range<usize>) -> Result<[Range<u64>; 2], BlockError> {
        let (start, end) = (range.start as u64, range.end as u64);
        if end > self.layout.len() as u64 {
            return Err(BlockError::OutOfRange {
                range: range.clone(),
                len: self.layout.len(),
            });
        }
        Ok(match self.encoding {
            Encoding::F32 => [4 * start..4 * end, 0..0],
            Encoding::F16 | Encoding::Bf16 => [2 * start..2 * end, 0..0],
            Encoding::Int8 => {
                let group = GROUP as u64;
                let scales = 4 * (start / group)..4 * end.div_ceil(group);
                let base = self.scales_bytes();
                [scales, base + start..base + end]
            }
            Encoding::TopK { .. } => {
                let last = self.entries as u32;
                let below = |stride: usize| self.directory.get(stride).copied().unwrap_or(last);
                let first = u64::from(below(range.start / STRIDE));
                let end = u64::from(below(range.end.div_ceil(STRIDE)));
                let base = 4 * self.entries as u64;
                [4 * first..4 * end, base + 4 * first..base + 4 * end]
            }
        })
    }
}

/// The tensor of an int8 payload's scales, and those of a sparse payload.
pub(super) const SCALES: &str = "@scales";
pub(super) const VALUES: &str = "@values";
pub(super) const INDICES: &str = "@indices";

/// How many of so many values a fraction is: at least one, where there is one.
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
    /// Takes the next index, where it is above the one before and below `len`.
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
