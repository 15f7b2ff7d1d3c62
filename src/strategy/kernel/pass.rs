//! One pass over the sums, in arithmetic that the compiler makes vectors of.

use half::{bf16, f16};

use crate::parameters::{Block, GROUP, groups};

/// Adds one report, or as many as there are in one pass, to the sums.
pub(super) struct Pass<'a> {
    pub sums: &'a mut [f64],
    pub weights: &'a [f64],
    /// Either one, or as many as [`PASS`](super::PASS), all of one encoding.
    pub blocks: &'a [Block<'a>],
    /// Whether products are exact.
    pub exact: bool,
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        if self.exact {
            self.run::<true>()
        } else {
            self.run::<false>()
        }
    }
}

impl Pass<'_> {
    /// Whether the CPU's own conversion can do it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_exact_f16(&self) -> bool {
        self.exact && matches!(self.blocks, [Block::F16(_), ..])
    }

    #[inline(always)]
    pub fn run<const FUSED: bool>(self) {
        let (sums, w) = (self.sums, self.weights);
        match self.blocks {
            [Block::F32(a), Block::F32(b), Block::F32(c), Block::F32(d)] => {
                add_rows::<f32, 4, FUSED>(sums, w, [a, b, c, d]);
            }
            [Block::F16(a), Block::F16(b), Block::F16(c), Block::F16(d)] => {
                add_rows::<f16, 4, FUSED>(sums, w, [a, b, c, d]);
            }
            [
                Block::Bf16(a),
                Block::Bf16(b),
                Block::Bf16(c),
                Block::Bf16(d),
            ] => {
                add_rows::<bf16, 4, FUSED>(sums, w, [a, b, c, d]);
            }
            [Block::F32(a)] => add_rows::<f32, 1, FUSED>(sums, w, [a]),
            [Block::F16(a)] => add_rows::<f16, 1, FUSED>(sums, w, [a]),
            [Block::Bf16(a)] => add_rows::<bf16, 1, FUSED>(sums, w, [a]),
            [
                Block::Int8 {
                    values: a,
                    scales: x,
                    skip,
                },
                Block::Int8 {
                    values: b,
                    scales: y,
                    ..
                },
                Block::Int8 {
                    values: c,
                    scales: z,
                    ..
                },
                Block::Int8 {
                    values: d,
                    scales: s,
                    ..
                },
            ] => add_groups::<4, FUSED>(sums, w, [a, b, c, d], [x, y, z, s], *skip),
            [
                Block::Int8 {
                    values,
                    scales,
                    skip,
                },
            ] => add_groups::<1, FUSED>(sums, w, [values], [scales], *skip),
            // Sparse blocks, and types of which no job sends many.
            others => {
                for (block, weight) in others.iter().zip(w) {
                    add_other(sums, *weight, block);
                }
            }
        }
    }
}

/// A value that becomes an f64 without loss.
pub(super) trait Value: Copy {
    fn widen(self) -> f64;
}

impl Value for f32 {
    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }
}

impl Value for bf16 {
    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(f32::from_bits(u32::from(self.to_bits()) << 16))
    }
}

impl Value for f16 {
    /// Of finite values, in arithmetic that the compiler makes vectors of: the exponent is moved to f32's place and
    /// bias; if it was 0, the value is subnormal there, and one subtraction makes it normal here.
    #[inline(always)]
    fn widen(self) -> f64 {
        const BIAS: u32 = (127 - 15) << 23;
        let bits = u32::from(self.to_bits());
        let moved = (bits & 0x7fff) << 13;
        let normal = moved + BIAS;
        let subnormal = f32::from_bits(normal + (1 << 23)) - f32::from_bits(BIAS + (1 << 23));
        let size = match moved >> 23 {
            0 => subnormal.to_bits(),
            _ => normal,
        };
        f64::from(f32::from_bits(size | (bits & 0x8000) << 16))
    }
}

#[inline(always)]
fn accumulate<const FUSED: bool>(sum: f64, weight: f64, value: f64) -> f64 {
    if FUSED {
        weight.mul_add(value, sum)
    } else {
        sum + weight * value
    }
}

#[inline(always)]
pub(super) fn add_rows<T: Value, const N: usize, const FUSED: bool>(
    sums: &mut [f64],
    weights: &[f64],
    rows: [&[T]; N],
) {
    let len = sums.len();
    // As long as the sums, said where the compiler sees it.
    let rows = rows.map(|row| &row[..len]);
    let weights: [f64; N] = std::array::from_fn(|report| weights[report]);
    for (index, sum) in sums.iter_mut().enumerate() {
        let mut value = *sum;
        for report in 0..N {
            value = accumulate::<FUSED>(value, weights[report], rows[report][index].widen());
        }
        *sum = value;
    }
}

/// A scale has 16 significant bits and an integer 7, so that their product, the delta, has 23: a weight times a scale and
/// then times the integer gives the bits of the weight times the delta, if products are exact.
#[inline(always)]
fn add_groups<const N: usize, const FUSED: bool>(
    sums: &mut [f64],
    weights: &[f64],
    rows: [&[i8]; N],
    scales: [&[f32]; N],
    skip: usize,
) {
    for (group, range) in groups(sums.len(), skip).enumerate() {
        let sums = &mut sums[range.clone()];
        let rows = rows.map(|row| &row[range.clone()]);
        let scales = scales.map(|scales| f64::from(scales[group]));
        if FUSED {
            // One product for each group instead of one for each value: only exact products can be taken in this
            // order.
            let factors: [f64; N] = std::array::from_fn(|report| weights[report] * scales[report]);
            add_integers(sums, factors, rows, |sum, factor, value| {
                accumulate::<FUSED>(sum, factor, value)
            });
        } else {
            // The weight comes last: a product with it may round.
            let pairs: [(f64, f64); N] =
                std::array::from_fn(|report| (weights[report], scales[report]));
            add_integers(sums, pairs, rows, |sum, (weight, scale), value| {
                sum + weight * (scale * value)
            });
        }
    }
}

#[inline(always)]
fn add_integers<F: Copy, const N: usize>(
    sums: &mut [f64],
    factors: [F; N],
    rows: [&[i8]; N],
    accumulate: impl Fn(f64, F, f64) -> f64,
) {
    // Whole groups, nearly all, have a length that the compiler knows.
    if let Ok(sums) = <&mut [f64; GROUP]>::try_from(&mut *sums) {
        let mut whole = [&[0; GROUP]; N];
        for (whole, row) in whole.iter_mut().zip(rows) {
            let Some(row) = row.first_chunk() else { return };
            *whole = row;
        }
        for (index, sum) in sums.iter_mut().enumerate() {
            let mut value = *sum;
            for report in 0..N {
                let integer = f64::from(whole[report][index]);
                value = accumulate(value, factors[report], integer);
            }
            *sum = value;
        }
        return;
    }
    for (index, sum) in sums.iter_mut().enumerate() {
        for report in 0..N {
            *sum = accumulate(*sum, factors[report], f64::from(rows[report][index]));
        }
    }
}

/// Sparse values, of which those that are not there would add zero, which changes no sum; and the types that no job of
/// many clients sends at speed.
#[inline(always)]
fn add_other(sums: &mut [f64], weight: f64, block: &Block<'_>) {
    match block {
        Block::Sparse {
            indices,
            values,
            start,
        } => {
            for (index, value) in indices.iter().zip(*values) {
                sums[*index as usize - start] += weight * f64::from(*value);
            }
        }
        Block::F64(values) => {
            for (sum, value) in sums.iter_mut().zip(*values) {
                *sum += weight * value;
            }
        }
        Block::U32(values) => {
            for (sum, value) in sums.iter_mut().zip(*values) {
                *sum += weight * f64::from(*value);
            }
        }
        Block::U64(values) => {
            for (sum, value) in sums.iter_mut().zip(*values) {
                *sum += weight * *value as f64;
            }
        }
        _ => {}
    }
}
