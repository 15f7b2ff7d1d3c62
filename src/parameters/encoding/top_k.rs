//! Sparse payloads: the values that are largest in absolute value, and their places.

use std::ops::Range;

use super::{
    Encoded, EncodedReader, EncodingError, Form, Memory,
    form::{Directory, Kind},
};
use crate::parameters::{Parameters, safetensors::check_finite};

/// Takes the trainable values that are largest in absolute value out of `values`, as many as the form's fraction says, and all
/// buffers; what is left there is what the client keeps for its next delta. Of equal ones the first are taken; zeros never are.
///
/// # Errors
///
/// [`SafetensorsError::NotFinite`](crate::parameters::safetensors::SafetensorsError::NotFinite), and
/// [`EncodingError::TooLong`] for a model whose indices don't fit 32 bits.
pub fn encode_top_k(form: &Form, values: &mut Parameters) -> Result<Encoded, EncodingError> {
    form.layout().check_same(values.layout())?;
    // Indices travel as u32. A larger one would be cut off and name another value.
    if u32::try_from(form.trainable()).is_err() {
        return Err(EncodingError::TooLong);
    }
    let layout = values.layout().clone();
    // Sizes are compared as bits, in which a NaN is larger than all numbers: it would be sent first.
    check_finite(&layout, values.values())?;
    let values = values.values_mut();
    let taken = take_largest(form, values, Cut::of(form, values));
    let entries = taken.indices.len();
    let mut words = taken.values;
    words.extend_from_slice(&taken.indices);
    // Whole: BatchNorm's running values are no deltas that could be caught up later.
    take_buffers(form, values, &mut words);
    let form = form.clone().sparse(entries, taken.directory.finish());
    let bytes = form.bytes() as usize;
    Ok(EncodedReader::new(form, Memory::words(words, bytes)))
}

/// What divides the values that are taken from those that are left.
struct Cut {
    /// All values of a larger size are taken.
    size: u32,
    /// How many values of exactly this size are taken, too.
    equal: usize,
}

impl Cut {
    fn of(form: &Form, values: &[f32]) -> Self {
        let most = form.entries();
        let mut sizes: Vec<u32> = Vec::with_capacity(form.trainable());
        for section in sparse_sections(form) {
            for value in &values[section] {
                sizes.push(size_of_value(*value));
            }
        }
        let mut size = 0;
        if most < sizes.len() && most > 0 {
            // Selecting is linear in the number of values; sorting them would take several times as long.
            let (_, last, _) = sizes.select_nth_unstable_by(most - 1, |a, b| b.cmp(a));
            size = *last;
        }
        // Of equal sizes as many as there is room for, so that the payload has the length that its form announces.
        let above = sizes.iter().filter(|other| **other > size).count();
        Self {
            size,
            equal: most - above,
        }
    }
}

/// The entries of a sparse payload.
struct Taken {
    /// The bits of each value.
    values: Vec<u32>,
    indices: Vec<u32>,
    directory: Directory,
}

/// Takes the trainable values above the cut, and leaves zeros in their places.
fn take_largest(form: &Form, values: &mut [f32], mut cut: Cut) -> Taken {
    let most = form.entries();
    let mut taken = Taken {
        values: Vec::with_capacity(most),
        indices: Vec::with_capacity(most),
        directory: Directory::default(),
    };
    let mut index = 0u32;
    for section in sparse_sections(form) {
        for value in &mut values[section] {
            let size = size_of_value(*value);
            let is_taken = size > cut.size || (size == cut.size && cut.equal > 0);
            // A zero that is sent changes nothing, and costs eight bytes.
            if is_taken && size > 0 {
                if size == cut.size {
                    cut.equal -= 1;
                }
                taken.values.push(value.to_bits());
                taken.indices.push(index);
                taken.directory.take(index, form.trainable());
                *value = 0.0;
            }
            index += 1;
        }
    }
    taken
}

/// Appends the buffers, dense and as they are. Nothing of them is left for later.
fn take_buffers(form: &Form, values: &mut [f32], words: &mut Vec<u32>) {
    for section in form.sections() {
        if section.kind == Kind::F32 {
            let dense = &mut values[section.values.clone()];
            words.extend(dense.iter().map(|value| value.to_bits()));
            // Buffers go out whole, so nothing of them is left for the next delta.
            dense.fill(0.0);
        }
    }
}

fn sparse_sections(form: &Form) -> impl Iterator<Item = Range<usize>> + '_ {
    let sections = form.sections().iter();
    let sparse = sections.filter(|section| section.kind == Kind::Sparse);
    sparse.map(|section| section.values.clone())
}

/// A number that grows with the absolute value: the bits of a float without its sign are in the order of its size.
fn size_of_value(value: f32) -> u32 {
    value.to_bits() & 0x7fff_ffff
}
