//! Makes encoded payloads out of values.

use std::{ops::Range, sync::Arc};

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::{
    Encoded, EncodedReader, Encoding, EncodingError, Form, GROUP, Memory, encode_top_k, form::Kind,
};
use crate::parameters::{BlockError, Parameters, safetensors::SafetensorsError};

/// How many values are encoded at once.
const BLOCK: usize = 64 * GROUP;

/// The covered values of a model or a delta, encoded. A sparse payload is made by [`encode_top_k`].
///
/// # Errors
///
/// [`EncodingError::Overflow`] names the first tensor with a value that is too large for the encoding, such as one above
/// 65504 for f16, and [`SafetensorsError::NotFinite`] the first with a NaN or an infinity. [`SafetensorsError::Layout`] if
/// the form is of another layout.
pub fn encode(form: &Form, parameters: &Arc<Parameters>) -> Result<Encoded, EncodingError> {
    form.layout().check_same(parameters.layout())?;
    if form.is_sparse() {
        return encode_top_k(form, &mut Parameters::clone(parameters));
    }
    if form.is_plain() {
        // Without a pass over all values: their receiver checks them.
        return Ok(EncodedReader::new(
            form.clone(),
            Memory::plain(parameters.clone()),
        ));
    }
    let bytes = form.bytes() as usize;
    // As words, so that f32 values in it are aligned.
    let mut words = vec![0u32; bytes.div_ceil(4)];
    let payload: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut words)[..bytes];
    for section in form.sections() {
        let mut start = section.values.start;
        while start < section.values.end {
            let range = start..section.values.end.min(start + BLOCK);
            encode_range(
                form,
                range.clone(),
                &parameters.values()[range.clone()],
                payload,
            )?;
            start = range.end;
        }
    }
    Ok(EncodedReader::new(
        form.clone(),
        Memory::words(words, bytes),
    ))
}

/// Encodes values that are stored in one way into their place of the payload.
fn encode_range(
    form: &Form,
    range: Range<usize>,
    values: &[f32],
    payload: &mut [u8],
) -> Result<(), EncodingError> {
    let encoder = RangeEncoder::new(form, range)?;
    let Some(places) = encoder.places() else {
        return Ok(());
    };
    // Scales are before the values.
    let (front, back) = payload.split_at_mut(places.values as usize);
    let scales = &mut front[places.scales as usize..][..places.scales_len];
    if encoder.encode(values, scales, &mut back[..places.values_len]) {
        return Ok(());
    }
    Err(encoder.unfit(values))
}

/// Encodes the values of a range that are stored in one way.
pub(crate) struct RangeEncoder<'a> {
    form: &'a Form,
    range: Range<usize>,
    encoding: Encoding,
    places: Option<RangePlaces>,
}

/// The places of a range's bytes in the payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangePlaces {
    /// Whether the bytes are those of the values as they are.
    pub is_plain: bool,
    pub values: u64,
    pub values_len: usize,
    /// Of int8.
    pub scales: u64,
    pub scales_len: usize,
}

impl<'a> RangeEncoder<'a> {
    /// For the longest part of a range, from its beginning, that is stored in one way.
    pub fn new(form: &'a Form, range: Range<usize>) -> Result<Self, BlockError> {
        // A range may go from a tensor that is encoded to one that is not, such as from weights to BatchNorm's
        // buffers.
        let end = form.uniform_end(range.start).min(range.end);
        let range = range.start..end;
        let mut encoder = Self {
            form,
            range: range.clone(),
            encoding: Encoding::F32,
            places: None,
        };
        let Some(places) = form.places(&range)? else {
            return Ok(encoder);
        };
        let (values, scales) = match places.kind {
            Kind::Int8 => (places.second, places.first),
            _ => (places.first, 0..0),
        };
        encoder.encoding = match places.kind {
            Kind::Int8 => Encoding::Int8,
            Kind::F16 => Encoding::F16,
            Kind::Bf16 => Encoding::Bf16,
            _ => Encoding::F32,
        };
        let is_cut = !range.len().is_multiple_of(GROUP) && end != form.uniform_end(range.start);
        // A scale is of its whole group: half a group would get a scale that the other half does not fit.
        if encoder.encoding == Encoding::Int8 && (places.skip > 0 || is_cut) {
            let detail = format!(
                "the block {range:?} cuts a group of {GROUP} values: in int8, blocks begin and end at a multiple of {GROUP} \
                 values of their tensor"
            );
            return Err(BlockError::Unwritable(detail.into()));
        }
        encoder.places = Some(RangePlaces {
            is_plain: encoder.encoding == Encoding::F32,
            values: values.start,
            values_len: (values.end - values.start) as usize,
            scales: scales.start,
            scales_len: (scales.end - scales.start) as usize,
        });
        Ok(encoder)
    }

    /// The values that it encodes.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The places of their bytes; none if the form does not have them.
    pub fn places(&self) -> Option<RangePlaces> {
        self.places
    }

    /// Encodes the values of the range. Whether every encoded value is finite.
    pub fn encode(&self, values: &[f32], scales: &mut [u8], out: &mut [u8]) -> bool {
        encode_block(self.encoding, values, scales, out)
    }

    /// Why a value can't be encoded: the first that is not finite once it is.
    pub fn unfit(&self, values: &[f32]) -> EncodingError {
        let name = self
            .form
            .layout()
            .name_at(self.range.start, values, |value| {
                !fits(self.encoding, value)
            });
        // Looked for only now: the fast pass before says whether there is one, and not which.
        let unfit = values.iter().find(|value| !fits(self.encoding, **value));
        match unfit {
            Some(value) if value.is_finite() => EncodingError::Overflow {
                name,
                value: format!("{value:.2e}"),
                encoding: self.encoding.to_string(),
                largest: largest(self.encoding),
            },
            _ => SafetensorsError::NotFinite { name }.into(),
        }
    }
}

/// Encodes a block that begins at a multiple of [`GROUP`] values: its bytes, and for int8 the bytes of its scales.
/// Whether every encoded value is finite.
pub fn encode_block(encoding: Encoding, block: &[f32], scales: &mut [u8], out: &mut [u8]) -> bool {
    match encoding {
        Encoding::F32 => {
            out.copy_from_slice(bytemuck::cast_slice(block));
            block
                .iter()
                // `&` and not `&&`: without an early exit, the loop is made of vector instructions.
                .fold(true, |all, value| all & value.is_finite())
        }
        Encoding::F16 => {
            let out: &mut [f16] = bytemuck::cast_slice_mut(out);
            out.convert_from_f32_slice(block);
            out.iter().fold(true, |all, value| all & value.is_finite())
        }
        Encoding::Bf16 => {
            let out: &mut [bf16] = bytemuck::cast_slice_mut(out);
            out.convert_from_f32_slice(block);
            out.iter().fold(true, |all, value| all & value.is_finite())
        }
        Encoding::Int8 => {
            let out: &mut [i8] = bytemuck::cast_slice_mut(out);
            let groups = block.chunks(GROUP).zip(out.chunks_mut(GROUP));
            let mut all = true;
            for ((values, out), bytes) in groups.zip(scales.chunks_exact_mut(4)) {
                let scale = quantize(values, out);
                all &= scale.is_finite();
                bytes.copy_from_slice(&scale.to_le_bytes());
            }
            all
        }
        // Which values are sent depends on all of them: there is no block of it.
        Encoding::TopK { .. } => false,
    }
}

fn fits(encoding: Encoding, value: f32) -> bool {
    match encoding {
        Encoding::F16 => f16::from_f32(value).is_finite(),
        Encoding::Bf16 => bf16::from_f32(value).is_finite(),
        _ => value.is_finite(),
    }
}

/// The largest value of an encoding, in digits.
fn largest(encoding: Encoding) -> String {
    match encoding {
        Encoding::F16 => f16::MAX.to_string(),
        Encoding::Bf16 => format!("{:.2e}", bf16::MAX),
        _ => format!("{:.2e}", f32::MAX),
    }
}

/// One group of int8; its scale comes back, which is not finite if a value is not.
fn quantize(values: &[f32], out: &mut [i8]) -> f32 {
    // `f32::max` passes over NaN, so that bits are compared instead: those of a NaN are above all others.
    let largest = values.iter().fold(0, |largest: u32, value| {
        largest.max(value.to_bits() & 0x7fff_ffff)
    });
    let scale = rounded_up(f32::from_bits(largest) / 127.0);
    // A group of zeros, or of values so small that their scale is 0: a division by it would give NaN.
    if scale > 0.0 {
        for (out, value) in out.iter_mut().zip(values) {
            *out = (value / scale).round_ties_even() as i8;
        }
    } else {
        out.fill(0);
    }
    scale
}

/// The next number of at most 16 significant bits, so that its product with an int8 is exact in f32.
fn rounded_up(scale: f32) -> f32 {
    f32::from_bits((scale.to_bits().saturating_add(0xff)) & !0xff)
}
