//! The additions of the fold, for each encoding, as wide as this CPU's vectors are.
//!
//! To each sum, `weight * delta` is added for one report after the other: multiply, then add, each rounded to f64. Up to
//! four reports go in one pass over the sums, which saves loads and stores; the order of additions to one sum, and with
//! it every bit, is that of one report at a time. A weight of at most 29 significant bits, as any number of examples
//! below 5e8 is, times a delta (24 bits) is exact in f64, so that multiplying and adding in one instruction gives the same
//! bits, and is done if the CPU can.

#[cfg(target_arch = "x86_64")]
mod halves;
pub(super) mod order;
mod pass;
pub(super) mod products;

use pass::Pass;

use crate::parameters::Block;

/// Reports added in one pass.
pub(super) const PASS: usize = 4;

/// `sums += weight * block` for each of at most [`PASS`] reports in turn. The blocks are as long as `sums`.
pub(super) fn add(sums: &mut [f64], weights: &[f64], blocks: &[Block<'_>]) {
    // Only then do a fused and a separate multiplication give the same bits, so that CPUs with and without one agree.
    let exact = weights.iter().all(|weight| is_short(*weight));
    // A pass of four has one loop, compiled for one type. Mixed types are rare, and go one by one.
    let alike = blocks
        .windows(2)
        .all(|pair| std::mem::discriminant(&pair[0]) == std::mem::discriminant(&pair[1]));
    // There are kernels for four reports of one encoding and for one report, and nothing between: each would be one
    // more copy of every loop. What remains of a round is added one by one, with the same bits.
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
        // Found out while running, so that one program is fast on every CPU. The bits are the same on all of them.
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
            // Divided here, once, and not each weight before: that would round once more per report.
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

/// Set to do without AVX-512, for benchmarks of CPUs that lack it.
#[cfg(feature = "testing")]
pub(super) static NARROW: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

#[cfg(all(target_arch = "x86_64", feature = "testing"))]
fn is_narrow() -> bool {
    NARROW.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(all(target_arch = "x86_64", not(feature = "testing")))]
const fn is_narrow() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn dispatch(pass: Pass<'_>) {
    if is_narrow() {
        return dispatch_narrow(pass);
    }
    if let Some(simd) = pulp::x86::V4::try_new() {
        if pass.is_exact_f16() {
            return simd.vectorize(halves::Wide { simd, pass });
        }
        return simd.vectorize(pass);
    }
    dispatch_narrow(pass);
}

/// As [`dispatch`], without AVX-512.
#[cfg(target_arch = "x86_64")]
fn dispatch_narrow(pass: Pass<'_>) {
    if pass.is_exact_f16()
        && let Some(simd) = fearless_simd::Level::new().as_avx2()
    {
        return halves::add_narrow(simd, pass);
    }
    match pulp::x86::V3::try_new() {
        Some(simd) => simd.vectorize(pass),
        // Without the instruction, `mul_add` is a call of the C library for each value.
        None => pass.run::<false>(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(pass: Pass<'_>) {
    // Every such CPU has the fused instruction; of other targets that is not known.
    if pass.exact && cfg!(target_arch = "aarch64") {
        pass.run::<true>()
    } else {
        pass.run::<false>()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::parameters::{
        BlockBuffer, BlockReader, Encoded, Encoding, Form, GROUP, Layout, Parameters, Role, Roles,
        encode,
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
        #[cfg(target_arch = "x86_64")]
        results.push(("without AVX-512", with(&dispatch_narrow)));
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
