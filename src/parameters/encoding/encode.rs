//! Makes encoded payloads out of values.

use std::sync::Arc;

use half::{bf16, f16, slice::HalfFloatSliceExt};

use super::{Encoded, EncodedReader, Encoding, EncodingError, Form, GROUP, Memory};
use crate::parameters::{Parameters, safetensors::SafetensorsError};

/// How many values are encoded at once.
const BLOCK: usize = 64 * GROUP;

/// The values of a model or a delta, encoded. A sparse payload is made by [`encode_top_k`].
///
/// # Errors
///
/// [`SafetensorsError::NotFinite`] names the first tensor with a value that is not finite once it is encoded: one
/// above 65504 has no form in f16.
pub fn encode(encoding: Encoding, parameters: &Arc<Parameters>) -> Result<Encoded, EncodingError> {
    let layout = parameters.layout();
    match encoding {
        Encoding::F32 => return Ok(Encoded::plain(parameters.clone())),
        Encoding::TopK { .. } => {
            return encode_top_k(encoding, &mut Parameters::clone(parameters));
        }
        _ => {}
    }
    let form = Form::new(encoding, layout.clone());
    let bytes = form.bytes() as usize;
    let mut words = vec![0u32; bytes.div_ceil(4)];
    let payload: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut words)[..bytes];
    let (scales, values) = payload.split_at_mut(match encoding {
        Encoding::Int8 => form.scales_bytes() as usize,
        _ => 0,
    });
    let size = values.len() / layout.len().max(1);
    for (index, block) in parameters.values().chunks(BLOCK).enumerate() {
        let start = index * BLOCK;
        let out = &mut values[size * start..size * (start + block.len())];
        let groups = start / GROUP..(start + block.len()).div_ceil(GROUP);
        let scales = match encoding {
            Encoding::Int8 => &mut scales[4 * groups.start..4 * groups.end],
            _ => &mut [],
        };
        if !encode_block(encoding, block, scales, out) {
            let name = layout.name_at(start, block, |value| !fits(encoding, value));
            return Err(SafetensorsError::NotFinite { name }.into());
        }
    }
    Ok(EncodedReader::new(form, Memory::words(words, bytes)))
}

/// Encodes a block that begins at a multiple of [`GROUP`] values: its bytes, and for int8 the bytes of its scales.
/// Whether every encoded value is finite.
pub fn encode_block(encoding: Encoding, block: &[f32], scales: &mut [u8], out: &mut [u8]) -> bool {
    match encoding {
        Encoding::F32 => {
            out.copy_from_slice(bytemuck::cast_slice(block));
            block
                .iter()
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

/// One group of int8; its scale comes back, which is not finite where a value is not.
fn quantize(values: &[f32], out: &mut [i8]) -> f32 {
    // `f32::max` passes over NaN, so that bits are compared instead: those of a NaN are above all others.
    let largest = values.iter().fold(0, |largest: u32, value| {
        largest.max(value.to_bits() & 0x7fff_ffff)
    });
    let scale = rounded_up(f32::from_bits(largest) / 127.0);
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

/// Takes the values that are largest in absolute value out of `values`, as many as the encoding's fraction says; what
/// is left there is what the client keeps for its next delta. Of equal ones the first are taken; zeros never are.
///
/// # Errors
///
/// [`SafetensorsError::NotFinite`], and [`EncodingError::TooLong`] for a model whose indices don't fit 32 bits.
pub fn encode_top_k(encoding: Encoding, values: &mut Parameters) -> Result<Encoded, EncodingError> {
    let layout = values.layout().clone();
    let form = Form::new(encoding, layout.clone());
    if u32::try_from(layout.len()).is_err() {
        return Err(EncodingError::TooLong);
    }
    let values = values.values_mut();
    let not_finite = |value: f32| !value.is_finite();
    if values
        .iter()
        .fold(false, |any, value| any | not_finite(*value))
    {
        let name = layout.name_at(0, values, not_finite);
        return Err(SafetensorsError::NotFinite { name }.into());
    }
    let size = |value: &f32| value.to_bits() & 0x7fff_ffff;
    let most = form.entries();
    // The size of the last one that is taken; how many of exactly that size are taken follows from those above it.
    let threshold = match most < values.len() && most > 0 {
        true => {
            let mut sizes: Vec<u32> = values.iter().map(size).collect();
            let (_, threshold, _) = sizes.select_nth_unstable_by(most - 1, |a, b| b.cmp(a));
            *threshold
        }
        false => 0,
    };
    let above = values
        .iter()
        .filter(|value| size(value) > threshold)
        .count();
    let mut equal = most - above;
    let (mut found, mut indices) = (Vec::with_capacity(most), Vec::with_capacity(most));
    for (index, value) in values.iter_mut().enumerate() {
        let size = size(value);
        if size < threshold || size == 0 || (size == threshold && equal == 0) {
            continue;
        }
        if size == threshold {
            equal -= 1;
        }
        found.push(value.to_bits());
        indices.push(index as u32);
        *value = 0.0;
    }
    let mut directory = super::form::Directory::default();
    for index in &indices {
        directory.take(*index, layout.len());
    }
    let entries = indices.len();
    found.extend_from_slice(&indices);
    let form = form.sparse(entries, directory.finish());
    Ok(EncodedReader::new(form, Memory::words(found, 8 * entries)))
}
