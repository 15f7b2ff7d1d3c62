use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{ModelVersion, RoundId},
    parameters::{BlockError, Encoded, Encoding, Layout, Parameters, encode},
    report::{DELTA, Executor, Report, ReportMetadata, Serial},
};

/// As many threads as pieces of work, in whatever order the system runs them.
struct Threads(usize);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            (0..count).for_each(|index| drop(scope.spawn(move || work(index))))
        });
    }
}

fn report(client: u32, delta: Arc<dyn BlockReader + Send + Sync>) -> Report {
    let metadata = ReportMetadata {
        base_version: ModelVersion(0),
        examples: 1,
        steps: 1,
        metrics: BTreeMap::new(),
        ..ReportMetadata::default()
    };
    Report::new(
        ClientId(client),
        RoundId(1),
        metadata,
        vec![(DELTA.to_string(), delta)],
    )
}

/// A value that looks random and is the same everywhere.
fn noise(seed: usize, index: usize) -> f32 {
    let mixed = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (index as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 40) as f32 / 8_388_608.0 - 1.0
}

fn parameters(layout: &Arc<Layout>, seed: usize) -> Parameters {
    let values = (0..layout.len()).map(|index| noise(seed, index)).collect();
    Parameters::new(layout.clone(), values).unwrap()
}

fn layout(len: usize) -> Arc<Layout> {
    let third = len / 3;
    Layout::new([
        ("a".to_string(), vec![third], Role::Trainable),
        ("b".to_string(), vec![third], Role::Frozen),
        ("c".to_string(), vec![len - 2 * third], Role::Buffer),
    ])
    .unwrap()
}

fn fold(layout: &Arc<Layout>, weights: &[f64], executor: &dyn Executor) -> Parameters {
    let global = parameters(layout, 0);
    let reports: Vec<_> = (0..weights.len())
        .map(|client| report(client as u32, Arc::new(parameters(layout, client + 1))))
        .collect();
    let mut next = Parameters::zeros(layout.clone());
    let reports = Reports::new(layout, &reports, executor).unwrap();
    weighted_mean(&global, &reports, DELTA, weights, &mut next).unwrap();
    next
}

/// The reference: one value at a time, in f64.
fn reference(layout: &Arc<Layout>, weights: &[f64]) -> Vec<f32> {
    let total: f64 = weights.iter().sum();
    let mean = |index: usize| {
        let terms = weights.iter().enumerate();
        terms.fold(0.0, |sum, (client, weight)| {
            sum + weight * f64::from(noise(client + 1, index))
        }) / total
    };
    let frozen = layout.find("b").unwrap().range();
    (0..layout.len())
        .map(|index| match frozen.contains(&index) {
            true => noise(0, index),
            false => (f64::from(noise(0, index)) + mean(index)) as f32,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_fold_is_the_f64_reference_to_the_bit_on_any_number_of_threads(
        len in prop_oneof![Just(1usize), 3..100usize, BLOCK - 2..BLOCK + 2, 9 * BLOCK..9 * BLOCK + 3],
        weights in prop::collection::vec(1u32..1000, 1..11),
    ) {
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let layout = layout(len);
        let expected = reference(&layout, &weights);
        let alone = fold(&layout, &weights, &Serial);
        prop_assert!(alone.values().iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
        prop_assert_eq!(&fold(&layout, &weights, &Threads(2)), &alone);
        prop_assert_eq!(&fold(&layout, &weights, &Threads(3)), &alone);
    }
}

const ENCODINGS: [Encoding; 5] = [
    Encoding::F32,
    Encoding::F16,
    Encoding::Bf16,
    Encoding::Int8,
    Encoding::TopK { fraction: 0.05 },
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// The reference decodes to f32 and adds one value at a time. Weights of 29 bits and fewer go through fused
    /// kernels where the CPU has them, others don't.
    #[test]
    fn every_encoding_folds_to_the_bits_of_its_decoded_values(
        len in prop_oneof![3..700usize, BLOCK - 2..BLOCK + 300],
        weights in prop::collection::vec(prop_oneof![(1u32..500_000_000).prop_map(f64::from), 0.1f64..3.0], 1..7),
        mixed in any::<bool>(),
    ) {
        let layout = layout(len);
        for (place, encoding) in ENCODINGS.into_iter().enumerate() {
            let encoded: Vec<Encoded> = (0..weights.len())
                .map(|client| {
                    // Values of many sizes, subnormal ones of half precision among them.
                    let mut delta = parameters(&layout, client + 1);
                    for (index, value) in delta.values_mut().iter_mut().enumerate() {
                        *value *= 2f32.powi(-((index * 7 % 31) as i32));
                    }
                    let encoding = match mixed {
                        true => ENCODINGS[(place + client) % ENCODINGS.len()],
                        false => encoding,
                    };
                    encode(encoding, &Arc::new(delta)).unwrap()
                })
                .collect();
            let plain: Vec<_> = encoded.iter().map(|delta| delta.decode().unwrap()).collect();
            let total: f64 = weights.iter().sum();
            let global = parameters(&layout, 0);
            let expected: Vec<f32> = (0..len).map(|index| {
                let terms = weights.iter().zip(&plain);
                let sum = terms.fold(0.0, |sum, (weight, delta)| sum + weight * f64::from(delta.values()[index]));
                match layout.find("b").unwrap().range().contains(&index) {
                    true => global.values()[index],
                    false => (f64::from(global.values()[index]) + sum / total) as f32,
                }
            }).collect();
            let reports: Vec<_> = encoded.into_iter().enumerate()
                .map(|(client, delta)| report(client as u32, Arc::new(delta)))
                .collect();
            for executor in [&Serial as &dyn Executor, &Threads(3)] {
                let reports = Reports::new(&layout, &reports, executor).unwrap();
                let mut next = Parameters::zeros(layout.clone());
                weighted_mean(&global, &reports, DELTA, &weights, &mut next).unwrap();
                let same = next.values().iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                prop_assert!(same, "{encoding}, mixed {mixed}");
            }
        }
    }
}

#[test]
fn weights_that_make_no_mean_are_errors() {
    let layout = layout(3);
    let reports = [report(0, Arc::new(Parameters::zeros(layout.clone())))];
    let reports = Reports::new(&layout, &reports, &Serial).unwrap();
    for weights in [&[0.0][..], &[-1.0], &[f64::NAN], &[1.0, 1.0], &[]] {
        let mut next = Parameters::zeros(layout.clone());
        let result = weighted_mean(
            &Parameters::zeros(layout.clone()),
            &reports,
            DELTA,
            weights,
            &mut next,
        );
        assert!(
            matches!(result, Err(StrategyError::Aggregate(_))),
            "{weights:?}"
        );
    }
}

/// Fails from one offset on, as a broken disk would.
struct Broken(Arc<Layout>, usize);

impl BlockReader for Broken {
    fn layout(&self) -> &Arc<Layout> {
        &self.0
    }

    fn read(&self, offset: usize, _block: &mut [f32]) -> Result<(), BlockError> {
        if offset >= self.1 {
            Err(BlockError::Unreadable("broken".to_string()))
        } else {
            Ok(())
        }
    }
}

#[test]
fn an_unreadable_block_names_its_client() {
    let layout = layout(20 * BLOCK);
    let reports = [
        report(0, Arc::new(Parameters::zeros(layout.clone()))),
        report(4, Arc::new(Broken(layout.clone(), 17 * BLOCK))),
    ];
    let reports = Reports::new(&layout, &reports, &Serial).unwrap();
    let mut next = Parameters::zeros(layout.clone());
    let result = weighted_mean(
        &Parameters::zeros(layout.clone()),
        &reports,
        DELTA,
        &[1.0, 1.0],
        &mut next,
    );
    let expected = ReportError::Block {
        client: ClientId(4),
        source: BlockError::Unreadable("broken".to_string()),
    };
    assert_eq!(result, Err(StrategyError::Report(expected)));
}
