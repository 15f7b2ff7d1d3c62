//! Half precision with the CPU's own conversion: sixteen values at a time with AVX-512, eight with F16C.
//!
//! Arithmetic on the bits gives the same values and takes about twice the time of the rest of the fold, since compilers
//! make no use of the conversion by themselves. Only exact products come here: they are added in one instruction.

use std::arch::x86_64::{
    __m256, __m256d, __m512d, _mm256_castps256_ps128, _mm256_cvtph_ps, _mm256_cvtps_pd,
    _mm256_extractf128_ps, _mm256_fmadd_pd, _mm256_set1_pd,
};

use fearless_simd::Avx2;
use half::f16;
use pulp::{NullaryFnOnce, x86::V4};

use super::pass::{Pass, add_rows};
use crate::parameters::Block;

/// A pass over f16 with AVX-512.
pub(super) struct Wide<'a> {
    pub simd: V4,
    pub pass: Pass<'a>,
}

impl NullaryFnOnce for Wide<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let (sums, weights) = (self.pass.sums, self.pass.weights);
        match self.pass.blocks {
            [Block::F16(a), Block::F16(b), Block::F16(c), Block::F16(d)] => {
                add_wide(self.simd, sums, weights, [a, b, c, d]);
            }
            [Block::F16(a)] => add_wide(self.simd, sums, weights, [a]),
            _ => {}
        }
    }
}

#[inline(always)]
fn add_wide<const N: usize>(simd: V4, sums: &mut [f64], weights: &[f64], rows: [&[f16]; N]) {
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
    // The values that fill no vector. The products are exact, so it does not matter that this is another instruction.
    let tail = rows.map(|row| &row[16 * whole..]);
    add_rows::<f16, N, true>(rest, weights, tail);
}

/// A pass over f16 with AVX2 and F16C.
pub(super) fn add_narrow(simd: Avx2, pass: Pass<'_>) {
    let (sums, weights) = (pass.sums, pass.weights);
    match (pass.blocks, weights) {
        ([Block::F16(a), Block::F16(b), Block::F16(c), Block::F16(d)], &[w, x, y, z]) => {
            add_four(simd, sums, [w, x, y, z], [a, b, c, d]);
        }
        ([Block::F16(a)], &[w]) => add_one(simd, sums, [w], [a]),
        _ => {}
    }
}

/// The same for four reports and for one: a kernel can't be generic.
macro_rules! add_narrow {
    ($sums:ident, $weights:ident, $rows:ident, $count:literal) => {{
        let len = $sums.len();
        let rows = $rows.map(|row| &row[..len]);
        let factors = $weights.map(|weight| _mm256_set1_pd(weight));
        let (chunks, rest) = $sums.as_chunks_mut::<8>();
        let whole = chunks.len();
        let halves = rows.map(|row| &row.as_chunks::<8>().0[..whole]);
        for (index, chunk) in chunks.iter_mut().enumerate() {
            let mut sums: [__m256d; 2] = bytemuck::cast(*chunk);
            for report in 0..$count {
                let values = _mm256_cvtph_ps(bytemuck::cast(halves[report][index]));
                let low = _mm256_cvtps_pd(_mm256_castps256_ps128(values));
                let high = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(values));
                sums[0] = _mm256_fmadd_pd(factors[report], low, sums[0]);
                sums[1] = _mm256_fmadd_pd(factors[report], high, sums[1]);
            }
            *chunk = bytemuck::cast(sums);
        }
        let tail = rows.map(|row| &row[8 * whole..]);
        add_rows::<f16, $count, true>(rest, &$weights, tail);
    }};
}

fearless_simd::kernel!(
    fn add_four(_simd: Avx2, sums: &mut [f64], weights: [f64; 4], rows: [&[f16]; 4]) {
        add_narrow!(sums, weights, rows, 4);
    }
);

fearless_simd::kernel!(
    fn add_one(_simd: Avx2, sums: &mut [f64], weights: [f64; 1], rows: [&[f16]; 1]) {
        add_narrow!(sums, weights, rows, 1);
    }
);
