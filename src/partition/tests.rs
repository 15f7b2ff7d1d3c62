use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng};

use super::*;

const PROPORTIONAL: PartitionSpec = PartitionSpec::Proportional { by: Capacity::Gpus };

/// Capacities from nearly nothing to nearly everything.
fn any_capacity() -> impl Strategy<Value = f64> {
    prop_oneof![0.1_f64..5.0, Just(f64::MIN_POSITIVE), Just(1e300)]
}

fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn deal(spec: &str, labels: &[u16], clients: usize, seed: u64) -> Vec<Vec<u32>> {
    let spec: PartitionSpec = spec.parse().unwrap();
    partition(&spec, Examples::labelled(labels), clients, None, rng(seed)).unwrap()
}

/// Ten labels, evenly, in a mixed-up order that a partitioner cannot profit from.
fn ten_labels(examples: usize) -> Vec<u16> {
    let mut rng = rng(99);
    (0..examples).map(|_| rng.random_range(0..10)).collect()
}

fn labels_seen(list: &[u32], labels: &[u16]) -> BTreeSet<u16> {
    list.iter().map(|&index| labels[index as usize]).collect()
}

/// The mean over clients of how far the client's label frequencies are from the data's: 0 is none, 1 is all.
fn label_skew(lists: &[Vec<u32>], labels: &[u16]) -> f64 {
    let frequencies = |list: &mut dyn Iterator<Item = u16>| {
        let mut counts = [0.0_f64; 10];
        let mut all = 0.0;
        for label in list {
            counts[label as usize] += 1.0;
            all += 1.0;
        }
        counts.map(|count| count / all)
    };
    let global = frequencies(&mut labels.iter().copied());
    let distance = |list: &Vec<u32>| {
        let own = frequencies(&mut list.iter().map(|&index| labels[index as usize]));
        own.iter()
            .zip(global)
            .map(|(a, b)| (a - b).abs())
            .sum::<f64>()
            / 2.0
    };
    lists.iter().map(distance).sum::<f64>() / lists.len() as f64
}

fn size_ratio(lists: &[Vec<u32>]) -> f64 {
    let sizes = lists.iter().map(Vec::len);
    sizes.clone().max().unwrap() as f64 / sizes.min().unwrap() as f64
}

fn any_spec() -> impl Strategy<Value = PartitionSpec> {
    let alpha = prop_oneof![Just(1e-9), 0.01_f64..2.0, Just(1e9)];
    prop_oneof![
        Just(PartitionSpec::Iid),
        Just(PROPORTIONAL),
        alpha
            .clone()
            .prop_map(|alpha| PartitionSpec::Dirichlet { alpha }),
        (alpha.clone(), 1_u32..4)
            .prop_map(|(alpha, min)| PartitionSpec::BalancedDirichlet { alpha, min }),
        alpha.prop_map(|alpha| PartitionSpec::QuantitySkew { alpha }),
        (1_u32..6).prop_map(|labels_per_client| PartitionSpec::Shard { labels_per_client }),
    ]
}

proptest! {
    #[test]
    fn every_partitioner_keeps_its_contract(
        spec in any_spec(),
        labels in prop::collection::vec(0_u16..8, 1..400),
        clients in 1_usize..60,
        capacities in prop::collection::vec(any_capacity(), 60),
        seed: u64,
    ) {
        let partitioner = spec.partitioner(Some(&capacities[..clients])).unwrap();
        conformance::deals_every_example_once(&*partitioner, Examples::labelled(&labels), clients, seed);
    }

    #[test]
    fn a_client_of_shards_sees_as_many_labels_as_asked(
        clients in 5_usize..50,
        labels_per_client in 2_u32..6,
        seed: u64,
    ) {
        let labels = ten_labels(5000);
        let lists = deal(&format!("shard:{labels_per_client}"), &labels, clients, seed);
        for list in &lists {
            prop_assert_eq!(labels_seen(list, &labels).len(), labels_per_client as usize);
        }
    }
}

proptest! {
    #[test]
    fn proportional_sizes_follow_the_capacities(
        capacities in prop::collection::vec(0.01_f64..1000.0, 1..60),
        examples in 60_usize..100_000,
    ) {
        let sizes = Proportional::new(&capacities).unwrap().sizes(examples).unwrap();
        prop_assert_eq!(sizes.iter().sum::<usize>(), examples);
        let sum: f64 = capacities.iter().sum();
        let exact = |capacity: &f64| examples as f64 * capacity / sum;
        prop_assert!(sizes.iter().all(|size| *size >= 1), "{sizes:?}");
        // If each client has its least by itself, no example is moved.
        if capacities.iter().all(|capacity| exact(capacity) >= 1.0) {
            for (size, capacity) in sizes.iter().zip(&capacities) {
                let off = (*size as f64 - exact(capacity)).abs();
                prop_assert!(off < 1.001, "{size} for {}", exact(capacity));
            }
        }
    }
}

#[test]
fn the_smallest_cases_are_dealt() {
    for spec in ["iid", "dirichlet:0.1", "shard:1", "quantity_skew:0.1"] {
        assert_eq!(deal(spec, &[0], 1, 1), [[0]], "{spec}");
        let one_each = deal(spec, &[0, 1, 2], 3, 1);
        assert!(one_each.iter().all(|list| list.len() == 1), "{spec}");
    }
}

#[test]
fn seeds_differ_and_repeat() {
    let labels = ten_labels(1000);
    for spec in ["iid", "dirichlet:0.5", "shard:2", "quantity_skew:0.5"] {
        assert_eq!(deal(spec, &labels, 10, 1), deal(spec, &labels, 10, 1));
        assert_ne!(deal(spec, &labels, 10, 1), deal(spec, &labels, 10, 2));
    }
}

/// Workers of different builds must agree on who holds what, so the lists of a seed may not change unnoticed. A change
/// here is a breaking change of the wire protocol.
#[test]
fn the_lists_of_a_seed_are_fixed() {
    let labels = [0, 1, 0, 1, 2, 2, 0, 1, 2, 0, 1, 2];
    assert_eq!(deal("iid", &labels, 3, 7), IID_OF_SEED_7);
    assert_eq!(deal("shard:1", &labels, 3, 7), SHARD_OF_SEED_7);
    assert_eq!(deal("dirichlet:0.5", &labels, 3, 7), DIRICHLET_OF_SEED_7);
}

#[test]
fn iid_is_even_in_size_and_labels() {
    let labels = ten_labels(5003);
    let lists = deal("iid", &labels, 10, 3);
    assert!(lists.iter().all(|list| matches!(list.len(), 500 | 501)));
    assert!(label_skew(&lists, &labels) < 0.1);
}

#[test]
fn a_smaller_alpha_skews_labels_more() {
    let labels = ten_labels(5000);
    let skew = |spec: &str| label_skew(&deal(spec, &labels, 10, 5), &labels);
    let (strong, middle, weak) = (
        skew("dirichlet:0.05"),
        skew("dirichlet:0.5"),
        skew("dirichlet:100"),
    );
    assert!(
        strong > middle + 0.1 && middle > weak + 0.1,
        "{strong} {middle} {weak}"
    );
    assert!(weak < 0.1, "{weak}");
}

#[test]
fn dirichlet_keeps_its_smallest_size_even_where_a_draw_cannot() {
    let labels = ten_labels(1000);
    for (clients, least) in [(10, 10), (100, 10), (300, 3), (1000, 1)] {
        let lists = deal("dirichlet:0.01", &labels, clients, 1);
        let smallest = lists.iter().map(Vec::len).min().unwrap();
        assert!(smallest >= least, "{clients} clients: {smallest}");
    }
}

#[test]
fn a_smaller_alpha_skews_sizes_more_and_leaves_labels_alone() {
    let labels = ten_labels(20_000);
    let ratio = |spec: &str| size_ratio(&deal(spec, &labels, 10, 5));
    let (strong, weak) = (ratio("quantity_skew:0.5"), ratio("quantity_skew:1000"));
    assert!(strong > 3.0 && weak < 1.3, "{strong} {weak}");
    assert!(label_skew(&deal("quantity_skew:1000", &labels, 10, 5), &labels) < 0.1);
}

#[test]
fn shards_of_even_labels_are_the_same_size() {
    let labels: Vec<u16> = (0..6000).map(|index| index % 10).collect();
    let lists = deal("shard:2", &labels, 100, 11);
    assert!(lists.iter().all(|list| list.len() == 60));
    // Random pairs, not always the same neighbours.
    let pairs: BTreeSet<BTreeSet<u16>> = lists
        .iter()
        .map(|list| labels_seen(list, &labels))
        .collect();
    assert!(pairs.len() > 20, "{} different pairs", pairs.len());
}

#[test]
fn proportional_follows_capacities() {
    let sizes = |capacities: &[f64], examples| {
        let examples = Examples::unlabelled(examples);
        let dealt = partition(
            &PROPORTIONAL,
            examples,
            capacities.len(),
            Some(capacities),
            rng(1),
        );
        dealt.unwrap().iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&[1.0, 1.0, 2.0, 4.0], 8000), [1000, 1000, 2000, 4000]);
    // Any unit will do.
    assert_eq!(
        sizes(&[1e300, 1e300, 2e300, 4e300], 8000),
        [1000, 1000, 2000, 4000]
    );
    assert_eq!(sizes(&[0.3, 0.7], 10), [3, 7]);
    // The slow ones get their one from the largest.
    assert_eq!(sizes(&[1e-9, 5.0, 1e-9, 6.0], 10), [1, 4, 1, 4]);
}

#[test]
fn other_capacities_move_the_cuts_and_leave_most_examples_where_they_are() {
    let deal = |capacities: &[f64]| {
        let examples = Examples::unlabelled(1000);
        partition(&PROPORTIONAL, examples, 2, Some(capacities), rng(3)).unwrap()
    };
    let (before, after) = (deal(&[1.0, 1.0]), deal(&[3.0, 2.0]));
    let kept: BTreeSet<_> = before[0].iter().collect();
    assert!(kept.is_subset(&after[0].iter().collect()));
    assert_eq!((after[0].len(), after[1].len()), (600, 400));
}

#[test]
fn impossible_partitions_are_refused_with_their_reason() {
    let labels = ten_labels(100);
    let run = |spec: PartitionSpec, examples, clients, capacities: Option<&[f64]>| {
        partition(&spec, examples, clients, capacities, rng(1)).unwrap_err()
    };
    let labelled = Examples::labelled(&labels);
    let shard = |labels_per_client| PartitionSpec::Shard { labels_per_client };

    assert_eq!(
        run(PartitionSpec::Iid, labelled, 0, None),
        PartitionError::NoClients
    );
    assert_eq!(
        run(PartitionSpec::Iid, labelled, 101, None),
        PartitionError::TooFewExamples {
            examples: 100,
            clients: 101
        }
    );
    assert_eq!(
        run(PartitionSpec::Iid, Examples::unlabelled(0), 1, None),
        PartitionError::TooFewExamples {
            examples: 0,
            clients: 1
        }
    );
    assert_eq!(
        run(PartitionSpec::Local, labelled, 2, None),
        PartitionError::Local
    );
    assert_eq!(
        run(PROPORTIONAL, labelled, 2, None),
        PartitionError::CapacitiesUnknown
    );
    assert_eq!(
        run(PROPORTIONAL, labelled, 2, Some(&[1.0])),
        PartitionError::Capacities {
            given: 1,
            clients: 2
        }
    );
    for capacity in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        let capacities = [1.0, capacity];
        let error = run(PROPORTIONAL, labelled, 2, Some(&capacities));
        assert!(
            matches!(error, PartitionError::Capacity { client: 1, .. }),
            "{error}"
        );
    }
    assert_eq!(
        run(shard(2), labelled, 3, None),
        PartitionError::LabelsLeftOver {
            clients: 3,
            labels_per_client: 2,
            labels: 10,
            least: 4
        }
    );
    assert_eq!(
        run(shard(11), labelled, 3, None),
        PartitionError::TooManyLabelsPerClient {
            labels_per_client: 11,
            labels: 10
        }
    );
    for spec in [shard(2), PartitionSpec::Dirichlet { alpha: 1.0 }] {
        assert!(spec.needs_labels());
        assert!(matches!(
            run(spec, Examples::unlabelled(100), 3, None),
            PartitionError::LabelsUnknown { .. }
        ));
    }
    // A specification built in code, not parsed, is checked too.
    for alpha in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
        for spec in [
            PartitionSpec::Dirichlet { alpha },
            PartitionSpec::QuantitySkew { alpha },
        ] {
            assert!(matches!(
                run(spec, labelled, 3, None),
                PartitionError::Alpha { .. }
            ));
        }
    }
    assert_eq!(
        run(shard(0), labelled, 3, None),
        PartitionError::NoLabelsPerClient
    );
}

const IID_OF_SEED_7: [&[u32]; 3] = [&[0, 2, 5, 11], &[1, 6, 9, 10], &[3, 4, 7, 8]];
const SHARD_OF_SEED_7: [&[u32]; 3] = [&[4, 5, 8, 11], &[1, 3, 7, 10], &[0, 2, 6, 9]];
const DIRICHLET_OF_SEED_7: [&[u32]; 3] = [&[0, 3, 7, 9], &[4, 5, 8, 10], &[1, 2, 6, 11]];

#[test]
fn what_can_not_be_dealt_is_refused_before_it_is_dealt() {
    let labels: Vec<u16> = (0..1000).map(|index| index % 10).collect();
    let refused = |text: &str, clients: usize| {
        let spec: PartitionSpec = text.parse().unwrap();
        check(&spec, Examples::labelled(&labels), clients).err()
    };
    for text in [
        "iid",
        "dirichlet:0.5",
        "shard:2",
        "quantity_skew:1",
        "proportional",
    ] {
        assert_eq!(refused(text, 1000), None, "{text}");
        for clients in [1001, 3_000_000_000] {
            let examples = 1000;
            let few = PartitionError::TooFewExamples { examples, clients };
            assert_eq!(refused(text, clients), Some(few), "{text}");
        }
    }
    let labels_per_client = 11;
    let many = PartitionError::TooManyLabelsPerClient {
        labels_per_client,
        labels: 10,
    };
    assert_eq!(refused("shard:11", 5), Some(many));
    assert!(matches!(
        refused("shard:2", 4),
        Some(PartitionError::LabelsLeftOver { least: 3, .. })
    ));
}

#[test]
fn dealing_that_is_cancelled_ends() {
    let labels = ten_labels(1000);
    let cancelled = AtomicBool::new(false);
    for text in ["dirichlet:0.5", "shard:2"] {
        let deal = || {
            let examples = Examples::labelled(&labels).until(&cancelled);
            partition(&text.parse().unwrap(), examples, 10, None, rng(1))
        };
        cancelled.store(false, Ordering::Relaxed);
        assert!(deal().is_ok(), "{text}");
        cancelled.store(true, Ordering::Relaxed);
        assert_eq!(deal(), Err(PartitionError::Cancelled), "{text}");
    }
}
