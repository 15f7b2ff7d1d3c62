use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

use proptest::prelude::*;

use super::*;
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{
        BlockReader, BlockWriter, Encoded, Encoding, FOLD_BLOCK, Form, Layout, Parameters, Roles,
        encode,
    },
    report::{DELTA, Executor, Report, ReportError, ReportMetadata, Serial},
    settings::TrainingSettings,
    strategy::{RoundPlan, StateValues, Version},
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

fn report(client: u32, payloads: &[(&str, Arc<dyn BlockReader + Send + Sync>)]) -> Report {
    let payloads = payloads
        .iter()
        .map(|(name, reader)| (name.to_string(), reader.clone()));
    let metadata = ReportMetadata::default();
    Report::new(ClientId(client), RoundId(1), metadata, payloads.collect())
}

fn delta(client: u32, delta: impl BlockReader + Send + 'static) -> Report {
    report(client, &[(DELTA, Arc::new(delta))])
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

/// A trainable, a frozen and a buffer tensor.
fn layout(len: usize) -> Arc<Layout> {
    let third = len / 3;
    Layout::new([
        ("a".to_string(), vec![third], Role::Trainable),
        ("b".to_string(), vec![third], Role::Frozen),
        ("c".to_string(), vec![len - 2 * third], Role::Buffer),
    ])
    .unwrap()
}

/// A model and one state tensor in memory.
struct Memory {
    model: Parameters,
    state: Parameters,
}

impl VersionSink for Memory {
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.model.write(offset, values)
    }

    fn write_state(&mut self, _: usize, offset: usize, values: &[f32]) -> Result<(), BlockError> {
        self.state.write(offset, values)
    }
}

/// A round of these reports on a global model, with the state tensor "s".
struct Round<'a> {
    layout: &'a Arc<Layout>,
    reports: &'a [Report],
    executor: &'a dyn Executor,
    cancelled: AtomicBool,
}

impl<'a> Round<'a> {
    fn new(layout: &'a Arc<Layout>, reports: &'a [Report], executor: &'a dyn Executor) -> Self {
        Self {
            layout,
            reports,
            executor,
            cancelled: AtomicBool::new(false),
        }
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&AggregateContext<'_>, &mut NextVersion<'_>) -> Result<T, StrategyError>,
    ) -> Result<(T, Memory, BTreeMap<String, f64>), StrategyError> {
        let (global, state) = (parameters(self.layout, 0), parameters(self.layout, 999));
        let numbers = BTreeMap::from([("step".to_string(), 3.0)]);
        let states = [StateValues {
            name: "s",
            roles: Roles::TRAINABLE,
            values: &state,
        }];
        let version = Version {
            number: ModelVersion(0),
            model: &global,
            states: &states,
            numbers: &numbers,
        };
        let clients = self.reports.iter().map(|report| report.client);
        let plan = RoundPlan::new(clients, TrainingSettings::default());
        let context =
            AggregateContext::new(RoundId(1), &plan, self.reports, version, self.executor)?
                .cancelled_by(&self.cancelled);
        let zeros = || Parameters::zeros(self.layout.clone());
        let mut memory = Memory {
            model: zeros(),
            state: zeros(),
        };
        let mut next = NextVersion::new(context, &mut memory);
        let result = work(&context, &mut next)?;
        let numbers = next.finish()?;
        Ok((result, memory, numbers))
    }

    fn mean(&self, inputs: &Inputs) -> Result<Parameters, StrategyError> {
        let folded = self.with(|_, next| next.fold(inputs, &|rows, out| out.add_mean(rows, DELTA)));
        Ok(folded?.1.model)
    }
}

fn weighted(weights: &[f64]) -> Inputs {
    Inputs::new(DELTA, (0..).map(ClientId).zip(weights.iter().copied()))
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
    let value = |index: usize| {
        if frozen.contains(&index) {
            noise(0, index)
        } else {
            (f64::from(noise(0, index)) + mean(index)) as f32
        }
    };
    (0..layout.len()).map(value).collect()
}

fn deltas(layout: &Arc<Layout>, count: usize) -> Vec<Report> {
    (0..count)
        .map(|client| delta(client as u32, parameters(layout, client + 1)))
        .collect()
}

fn same_bits(left: &[f32], right: &[f32]) -> bool {
    left.iter()
        .map(|value| value.to_bits())
        .eq(right.iter().map(|value| value.to_bits()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_fold_is_the_f64_reference_to_the_bit_on_any_number_of_threads(
        len in prop_oneof![Just(1usize), 3..100usize, FOLD_BLOCK - 2..FOLD_BLOCK + 2, 9 * FOLD_BLOCK..9 * FOLD_BLOCK + 3],
        weights in prop::collection::vec(1u32..1000, 1..11),
    ) {
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let layout = layout(len);
        let reports = deltas(&layout, weights.len());
        let expected = reference(&layout, &weights);
        for executor in [&Serial as &dyn Executor, &Threads(2), &Threads(3)] {
            let round = Round::new(&layout, &reports, executor);
            prop_assert!(same_bits(round.mean(&weighted(&weights)).unwrap().values(), &expected));
        }
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
    /// kernels if the CPU has them, others don't.
    #[test]
    fn every_encoding_folds_to_the_bits_of_its_decoded_values(
        len in prop_oneof![3..700usize, FOLD_BLOCK - 2..FOLD_BLOCK + 300],
        weights in prop::collection::vec(prop_oneof![(1u32..500_000_000).prop_map(f64::from), 0.1f64..3.0], 1..7),
    ) {
        let layout = layout(len);
        for encoding in ENCODINGS {
            let encoded: Vec<Encoded> = (0..weights.len())
                .map(|client| {
                    // Values of many sizes, subnormal ones of half precision among them.
                    let mut delta = parameters(&layout, client + 1);
                    for (index, value) in delta.values_mut().iter_mut().enumerate() {
                        *value *= 2f32.powi(-((index * 7 % 31) as i32));
                    }
                    let form = Form::new(encoding, layout.clone(), Roles::TRAINED);
                    encode(&form, &Arc::new(delta)).unwrap()
                })
                .collect();
            let plain: Vec<_> = encoded.iter().map(|delta| delta.decode().unwrap()).collect();
            let total: f64 = weights.iter().sum();
            let global = parameters(&layout, 0);
            let frozen = layout.find("b").unwrap().range();
            let expected: Vec<f32> = (0..len).map(|index| {
                let terms = weights.iter().zip(&plain);
                let sum = terms.fold(0.0, |sum, (weight, delta)| sum + weight * f64::from(delta.values()[index]));
                if frozen.contains(&index) {
                    global.values()[index]
                } else {
                    (f64::from(global.values()[index]) + sum / total) as f32
                }
            }).collect();
            let reports: Vec<_> = encoded.into_iter().enumerate()
                .map(|(client, encoded)| delta(client as u32, encoded))
                .collect();
            for executor in [&Serial as &dyn Executor, &Threads(3)] {
                let next = Round::new(&layout, &reports, executor).mean(&weighted(&weights)).unwrap();
                prop_assert!(same_bits(next.values(), &expected), "{encoding}");
            }
        }
    }
}

#[test]
fn inputs_that_make_no_mean_are_errors() {
    let layout = layout(3);
    let reports = [delta(0, Parameters::zeros(layout.clone()))];
    let round = Round::new(&layout, &reports, &Serial);
    let one = |weight| weighted(&[weight]);
    let cases = [
        one(0.0),
        one(f64::NAN),
        one(1.0).over(0.0),
        one(1.0).over(f64::INFINITY),
        one(1.0).with_buffers([]),
        weighted(&[1.0, 1.0]),
        Inputs::new(DELTA, [(ClientId(0), 1.0), (ClientId(0), 1.0)]),
    ];
    for inputs in cases {
        let result = round.mean(&inputs).map(drop);
        assert!(
            matches!(result, Err(StrategyError::Aggregate(_))),
            "{inputs:?}: {result:?}"
        );
    }
    let missing = round.mean(&Inputs::new("control", [(ClientId(0), 1.0)]));
    assert!(matches!(
        missing,
        Err(StrategyError::Report(ReportError::NoPayload { .. }))
    ));
}

#[test]
fn coefficients_have_signs_a_denominator_of_their_own_and_differ_for_buffers() {
    let layout = layout(9);
    let reports = deltas(&layout, 2);
    let inputs = weighted(&[3.0, -1.0]).over(4.0).with_buffers([1.0, 1.0]);
    let next = Round::new(&layout, &reports, &Serial)
        .mean(&inputs)
        .unwrap();
    let value = |index: usize, a: f64, b: f64, by: f64| {
        let (one, two) = (f64::from(noise(1, index)), f64::from(noise(2, index)));
        (f64::from(noise(0, index)) + (a * one + b * two) / by) as f32
    };
    assert_eq!(next.tensor("a").unwrap()[1], value(1, 3.0, -1.0, 4.0));
    assert_eq!(next.tensor("b").unwrap()[1], noise(0, 4));
    assert_eq!(next.tensor("c").unwrap()[1], value(7, 1.0, 1.0, 2.0));
}

#[test]
fn without_any_report_the_model_stays_and_the_state_moves() {
    let layout = layout(9);
    let round = Round::new(&layout, &[], &Serial);
    let folded = round.with(|_, next| {
        next.fold(&weighted(&[]), &|rows, out| {
            out.add_mean(rows, DELTA);
            assert!(rows.mean(DELTA).iter().all(|value| *value == 0.0));
            for value in out.state("s") {
                *value *= 2.0;
            }
        })
    });
    let (_, memory, _) = folded.unwrap();
    assert_eq!(memory.model, parameters(&layout, 0));
    assert_eq!(memory.state.values()[1], 2.0 * noise(999, 1));
}

#[test]
fn state_is_read_and_written_beside_the_model() {
    let layout = layout(3 * FOLD_BLOCK);
    let reports = deltas(&layout, 3);
    for executor in [&Serial as &dyn Executor, &Threads(4)] {
        let round = Round::new(&layout, &reports, executor);
        let folded = round.with(|context, next| {
            next.set("step", context.number("step").unwrap() + 1.0);
            next.fold(&weighted(&[1.0, 1.0, 2.0]), &|rows, out| {
                let mean = rows.mean(DELTA);
                let (model, [state]) = out.tensors(["s"]);
                if rows.role() == Role::Buffer {
                    assert!(state.is_empty() && rows.state("s").is_empty());
                    return;
                }
                for index in 0..rows.len() {
                    assert_eq!(rows.state("s")[index], state[index]);
                    state[index] = 0.5 * state[index] + mean[index] as f32;
                    model[index] = rows.global()[index] + state[index];
                }
            })
        });
        let (_, memory, numbers) = folded.unwrap();
        assert_eq!(numbers["step"], 4.0);
        for index in [0, 1, FOLD_BLOCK - 1] {
            let terms = [(1, 1.0), (2, 1.0), (3, 2.0)];
            let sum = terms.iter().fold(0.0, |sum, (seed, by)| {
                sum + by * f64::from(noise(*seed, index))
            });
            let state = 0.5 * noise(999, index) + (sum / 4.0) as f32;
            assert_eq!(memory.state.values()[index], state);
            assert_eq!(memory.model.values()[index], noise(0, index) + state);
        }
        let buffer = layout.find("c").unwrap().range().start;
        assert_eq!(memory.model.values()[buffer], noise(0, buffer));
    }
}

#[test]
fn exactly_one_fold_makes_a_version() {
    let layout = layout(9);
    let reports = deltas(&layout, 1);
    let round = Round::new(&layout, &reports, &Serial);
    let fold = |next: &mut NextVersion<'_>| next.fold(&weighted(&[1.0]), &|_, _| {});
    let none = round.with(|_, _| Ok(())).map(drop);
    assert_eq!(none, Err(StrategyError::Folds { calls: 0 }));
    let two = round
        .with(|_, next| fold(next).and_then(|()| fold(next)))
        .map(drop);
    assert_eq!(two, Err(StrategyError::Folds { calls: 2 }));
    let two_in_silence = round.with(|_, next| {
        let _ = (fold(next), fold(next));
        Ok(())
    });
    assert_eq!(
        two_in_silence.map(drop),
        Err(StrategyError::Folds { calls: 2 })
    );
}

#[test]
fn numbers_are_those_of_the_state_and_finite() {
    let layout = layout(9);
    let reports = deltas(&layout, 1);
    for (name, value) in [("other", 1.0), ("step", f64::NAN)] {
        let set = Round::new(&layout, &reports, &Serial).with(|_, next| {
            next.set(name, value);
            next.fold(&weighted(&[1.0]), &|_, _| {})
        });
        assert!(
            matches!(set.map(drop), Err(StrategyError::State(_))),
            "{name}"
        );
    }
}

#[test]
fn a_panic_in_a_block_is_an_error_with_its_message() {
    let layout = layout(4 * FOLD_BLOCK);
    let reports = deltas(&layout, 1);
    for executor in [&Serial as &dyn Executor, &Threads(3)] {
        let round = Round::new(&layout, &reports, executor);
        let folded =
            round.with(|_, next| next.fold(&weighted(&[1.0]), &|_, out| out.state("m").fill(0.0)));
        let text = "the strategy's state has no tensor \"m\"".to_string();
        assert_eq!(folded.map(drop), Err(StrategyError::Panicked(text)));
        let scanned = round
            .with(|context, _| context.scan(&weighted(&[1.0]), 1, &|_, _| panic!("block {}", 7)));
        assert_eq!(
            scanned.map(drop),
            Err(StrategyError::Panicked("block 7".to_string()))
        );
    }
}

#[test]
fn a_scan_has_the_same_bits_on_any_number_of_threads() {
    let layout = layout(7 * FOLD_BLOCK + 11);
    let reports = deltas(&layout, 3);
    let norms = |executor: &dyn Executor| {
        let round = Round::new(&layout, &reports, executor);
        let scanned = round.with(|context, next| {
            next.fold(&weighted(&[1.0; 3]), &|_, _| {})?;
            context.scan(&weighted(&[1.0; 3]), 3, &|rows, sums| {
                let mut values = vec![0.0; rows.len()];
                for (row, sum) in sums.iter_mut().enumerate() {
                    rows.read(DELTA, row, &mut values);
                    for value in &values {
                        *sum += f64::from(*value) * f64::from(*value);
                    }
                }
            })
        });
        scanned.unwrap().0
    };
    let alone = norms(&Serial);
    assert_eq!(norms(&Threads(2)), alone);
    assert_eq!(norms(&Threads(5)), alone);
    let frozen = layout.find("b").unwrap().range();
    for (seed, norm) in (1..).zip(&alone) {
        let kept = (0..layout.len()).filter(|index| !frozen.contains(index));
        let expected: f64 = kept
            .map(|index| f64::from(noise(seed, index)).powi(2))
            .sum();
        assert!(
            (norm / expected - 1.0).abs() < 1e-9,
            "{norm}, not {expected}"
        );
    }
}

#[test]
fn order_statistics_are_those_of_each_value() {
    let layout = layout(2 * FOLD_BLOCK);
    for clients in [1, 2, 5, 6] {
        let reports = deltas(&layout, clients);
        let round = Round::new(&layout, &reports, &Threads(2));
        let trim = (clients - 1) / 2;
        let folded = round.with(|_, next| {
            next.fold(&weighted(&vec![1.0; clients]), &|rows, out| {
                let (mut median, mut mean) = (vec![0.0; rows.len()], vec![0.0; rows.len()]);
                rows.median(DELTA, &mut median);
                rows.trimmed_mean(DELTA, trim, &mut mean);
                for (index, value) in out.model().iter_mut().enumerate() {
                    // With as many trimmed as can be, both are the same.
                    assert!((median[index] - mean[index]).abs() < 1e-12);
                    *value = median[index] as f32;
                }
            })
        });
        let (_, memory, _) = folded.unwrap();
        for index in [0, 77, layout.len() - 1] {
            let mut column: Vec<f32> = (1..=clients).map(|seed| noise(seed, index)).collect();
            column.sort_by(f32::total_cmp);
            let (low, high) = (column[(clients - 1) / 2], column[clients / 2]);
            let median = f64::midpoint(f64::from(low), f64::from(high)) as f32;
            assert_eq!(
                memory.model.values()[index],
                median,
                "{clients} clients, value {index}"
            );
        }
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
            Err(BlockError::Unreadable("broken".into()))
        } else {
            Ok(())
        }
    }
}

#[test]
fn an_unreadable_block_names_its_client() {
    let layout = layout(20 * FOLD_BLOCK);
    let good = Parameters::zeros(layout.clone());
    let reports = [
        delta(0, good),
        delta(4, Broken(layout.clone(), 17 * FOLD_BLOCK)),
    ];
    let inputs = Inputs::new(DELTA, [(ClientId(0), 1.0), (ClientId(4), 1.0)]);
    let expected = ReportError::Block {
        client: ClientId(4),
        source: BlockError::Unreadable("broken".into()),
    };
    let round = Round::new(&layout, &reports, &Serial);
    let result = round.mean(&inputs).map(drop);
    assert_eq!(result, Err(StrategyError::Report(expected.clone())));
    let read =
        round.with(|_, next| next.fold(&inputs, &|rows, out| rows.read(DELTA, 1, out.model())));
    assert_eq!(read.map(drop), Err(StrategyError::Report(expected)));
}

#[test]
fn a_cancelled_round_gives_up() {
    let layout = layout(20 * FOLD_BLOCK);
    let reports = deltas(&layout, 1);
    let round = Round::new(&layout, &reports, &Serial);
    let folded = round.with(|_, next| {
        next.fold(&weighted(&[1.0]), &|_, _| {
            round
                .cancelled
                .store(true, std::sync::atomic::Ordering::Relaxed);
        })
    });
    assert_eq!(folded.map(drop), Err(StrategyError::Cancelled));
}

#[test]
fn values_that_no_model_may_have_end_the_round() {
    let layout = layout(30);
    let reports = deltas(&layout, 1);
    let round = Round::new(&layout, &reports, &Serial);
    let inputs = weighted(&[1.0]);
    let error = |change: &(dyn Fn(&mut Out<'_>) + Sync)| {
        let folded = round.with(|_, next| {
            next.fold(&inputs, &|rows, out| {
                if rows.role() == Role::Trainable {
                    change(out);
                }
            })
        });
        folded.err().unwrap()
    };
    for value in [f32::INFINITY, f32::NAN] {
        let diverged = StrategyError::Diverged {
            tensor: "a".to_string(),
            index: 5,
            value: value.to_string(),
        };
        assert_eq!(error(&|out| out.model()[5] = value), diverged);
        let of_state = error(&|out| out.state("s")[5] = value);
        assert!(matches!(of_state, StrategyError::State(_)), "{of_state}");
    }
}
