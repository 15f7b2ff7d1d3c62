//! The additions of the fold, for each encoding, as wide as this CPU's vectors are.
//!
//! To each sum, `weight * delta` is added for one report after the other: multiply, then add, each rounded to f64. Up to
//! four reports go in one pass over the sums, which saves loads and stores; the order of additions to one sum, and with
//! it every bit, is that of one report at a time. A weight of at most 29 significant bits, as any number of examples
//! below 5e8 is, times a delta (24 bits) is exact in f64, so that multiplying and adding in one instruction gives the same
//! bits, and is done if the CPU can.

use half::{bf16, f16};

use crate::parameters::{Block, GROUP, groups};

/// Reports added in one pass.
pub(super) const PASS: usize = 4;

/// `sums += weight * block` for each of at most [`PASS`] reports in turn. The blocks are as long as `sums`.
pub(super) fn add(sums: &mut [f64], weights: &[f64], blocks: &[Block<'_>]) {
    let exact = weights.iter().all(|weight| is_short(*weight));
    let alike = blocks
        .windows(2)
        .all(|pair| std::mem::discriminant(&pair[0]) == std::mem::discriminant(&pair[1]));
    let at_once = if blocks.len() == PASS && alike {
        PASS
    } else {
        1
    };
    for (weights, blocks) in weights.chunks(at_once).zip(blocks.chunks(at_once)) {
        dispatch(Pass {
            sums: &mut *sums,
            weights,
            blocks,
            exact,
        });
    }
}

/// `values += sums / total`, each value rounded once.
pub(super) fn apply(values: &mut [f32], sums: &[f64], total: f64) {
    let step = Apply {
        values,
        sums,
        total,
    };
    #[cfg(target_arch = "x86_64")]
    {
        use pulp::x86::{V3, V4};
        if let Some(simd) = V4::try_new() {
            return simd.vectorize(step);
        }
        if let Some(simd) = V3::try_new() {
            return simd.vectorize(step);
        }
    }
    step.run();
}

struct Apply<'a> {
    values: &'a mut [f32],
    sums: &'a [f64],
    total: f64,
}

impl Apply<'_> {
    #[inline(always)]
    fn run(self) {
        for (value, sum) in self.values.iter_mut().zip(self.sums) {
            *value = (f64::from(*value) + sum / self.total) as f32;
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.run();
    }
}

/// Whether at most 29 bits of the mantissa are used.
fn is_short(weight: f64) -> bool {
    weight.to_bits() & ((1 << 24) - 1) == 0
}

struct Pass<'a> {
    sums: &'a mut [f64],
    weights: &'a [f64],
    /// Either one, or as many as [`PASS`], all of one encoding.
    blocks: &'a [Block<'a>],
    /// Whether products are exact.
    exact: bool,
}

#[cfg(target_arch = "x86_64")]
fn dispatch(pass: Pass<'_>) {
    use pulp::x86::{V3, V4};
    if let Some(simd) = V4::try_new() {
        if let ([Block::F16(_), ..], true) = (pass.blocks, pass.exact) {
            return simd.vectorize(wide::HalfPass { simd, pass });
        }
        return simd.vectorize(pass);
    }
    match V3::try_new() {
        Some(simd) => simd.vectorize(pass),
        None => pass.run::<false>(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(pass: Pass<'_>) {
    if pass.exact && cfg!(target_arch = "aarch64") {
        pass.run::<true>()
    } else {
        pass.run::<false>()
    }
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
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
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
            others => {
                for (block, weight) in others.iter().zip(w) {
                    add_other(sums, *weight, block);
                }
            }
        }
    }
}

/// A value that becomes an f64 without loss.
trait Value: Copy {
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
fn add_rows<T: Value, const N: usize, const FUSED: bool>(
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

/// Half precision with the CPU's own conversion, sixteen values at a time.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{__m256, __m512d};

    use half::f16;
    use pulp::{NullaryFnOnce, x86::V4};

    use super::{Block, Pass, add_rows};

    pub(super) struct HalfPass<'a> {
        pub simd: V4,
        pub pass: Pass<'a>,
    }

    impl NullaryFnOnce for HalfPass<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let (sums, weights) = (self.pass.sums, self.pass.weights);
            match self.pass.blocks {
                [Block::F16(a), Block::F16(b), Block::F16(c), Block::F16(d)] => {
                    add_halves(self.simd, sums, weights, [a, b, c, d]);
                }
                [Block::F16(a)] => add_halves(self.simd, sums, weights, [a]),
                _ => {}
            }
        }
    }

    #[inline(always)]
    fn add_halves<const N: usize>(simd: V4, sums: &mut [f64], weights: &[f64], rows: [&[f16]; N]) {
        let len = sums.len();
        let rows = rows.map(|row| &row[..len]);
        let factors: [__m512d; N] =
            std::array::from_fn(|report| simd.avx512f._mm512_set1_pd(weights[report]));
        let (chunks, rest) = sums.as_chunks_mut::<16>();
        let whole = chunks.len();
        let halves = rows.map(|row| &row.as_chunks::<16>().0[..whole]);
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let mut sums: [__m512d; 2] = bytemuck::cast(*chunk);
            for report in 0..N {
                let values = simd
                    .avx512f
                    ._mm512_cvtph_ps(bytemuck::cast(halves[report][index]));
                let values: [__m256; 2] = bytemuck::cast(values);
                for (sum, values) in sums.iter_mut().zip(values) {
                    let values = simd.avx512f._mm512_cvtps_pd(values);
                    *sum = simd.avx512f._mm512_fmadd_pd(factors[report], values, *sum);
                }
            }
            *chunk = bytemuck::cast(sums);
        }
        let tail = rows.map(|row| &row[16 * whole..]);
        add_rows::<f16, N, true>(rest, weights, tail);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::parameters::{
        BlockBuffer, BlockReader, Encoded, Encoding, Form, Layout, Parameters, Role, Roles, encode,
    };

    const LEN: usize = 3 * GROUP + 37;

    fn encoded(encoding: Encoding, seed: usize) -> Encoded {
        let layout = Layout::new([("w".to_string(), vec![LEN], Role::Trainable)]).unwrap();
        let value = |index: usize| {
            let size = 2f32.powi(-((index * 5 % 33) as i32));
            size * (((index * 31 + seed * 17) % 101) as f32 - 50.0) / 50.0
        };
        let values = (0..LEN).map(value).collect();
        let form = Form::new(encoding, layout.clone(), Roles::TRAINED);
        encode(&form, &Arc::new(Parameters::new(layout, values).unwrap())).unwrap()
    }

    /// Every kernel that this CPU can run, on the same blocks.
    fn kernels(
        weights: &[f64],
        blocks: &[Block<'_>],
        exact: bool,
    ) -> Vec<(&'static str, Vec<f64>)> {
        let with = |run: &dyn Fn(Pass<'_>)| {
            let mut sums = vec![0.25; LEN];
            run(Pass {
                sums: &mut sums,
                weights,
                blocks,
                exact,
            });
            sums
        };
        let mut results = vec![
            ("plain", with(&|pass| pass.run::<false>())),
            ("best", with(&dispatch)),
        ];
        if exact {
            results.push(("fused", with(&|pass| pass.run::<true>())));
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            results.push(("v3", with(&|pass| simd.vectorize(pass))));
        }
        results
    }

    #[test]
    fn every_kernel_gives_the_same_bits() {
        for encoding in [
            Encoding::F32,
            Encoding::F16,
            Encoding::Bf16,
            Encoding::Int8,
            Encoding::TopK { fraction: 0.1 },
        ] {
            let deltas = [0, 1, 2, 3].map(|seed| encoded(encoding, seed));
            let mut buffers: [BlockBuffer; PASS] = Default::default();
            let blocks: Vec<_> = deltas
                .iter()
                .zip(&mut buffers)
                .map(|(delta, buffer)| delta.block(0..LEN, buffer).unwrap())
                .collect();
            for (weights, exact) in [
                ([1.0, 536_870_911.0, 3.0, 50_000.0], true),
                ([0.1, 1.0 / 3.0, 2.5, 1e-9], false),
            ] {
                assert_eq!(weights.into_iter().all(is_short), exact);
                for count in [1, PASS] {
                    let results = kernels(&weights[..count], &blocks[..count], exact);
                    let (_, first) = &results[0];
                    for (name, sums) in &results {
                        let same = sums.iter().zip(first);
                        let same =
                            same.fold(true, |all, (a, b)| all & (a.to_bits() == b.to_bits()));
                        assert!(same, "{encoding} {name}");
                    }
                }
            }
        }
    }
}
