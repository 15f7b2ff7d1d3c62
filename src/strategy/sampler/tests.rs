use std::collections::BTreeSet;

use super::*;
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    parameters::{PayloadSpec, Roles},
    report::DELTA,
    settings::TrainingSettings,
    strategy::{ClientInfo, Seeds},
};

const HALF: CohortSize = CohortSize {
    fraction: 0.5,
    over_selection: 0.0,
};

/// Clients with 10 examples each.
fn clients(count: u32) -> Vec<ClientInfo> {
    (0..count)
        .map(|id| ClientInfo::new(ClientId(id), 10))
        .collect()
}

fn sample_of(
    sampler: &dyn Sampler,
    clients: &[ClientInfo],
    quorum: usize,
    round: u64,
) -> Result<Cohort, StrategyError> {
    let training = TrainingSettings::default();
    let delta = PayloadSpec::model(DELTA, Roles::TRAINED);
    let mut context = RoundContext::new(RoundId(round), clients, &training, &delta);
    context.quorum = quorum;
    context.seeds = Seeds::derived(7);
    sampler.sample(&context)
}

fn sample(sampler: &dyn Sampler, count: u32, quorum: usize, round: u64) -> Cohort {
    sample_of(sampler, &clients(count), quorum, round).unwrap()
}

/// How often each client is chosen in a thousand rounds.
fn counts(sampler: &dyn Sampler, clients: &[ClientInfo]) -> Vec<u32> {
    let mut counts = vec![0; clients.len()];
    for round in 1..=1000 {
        for client in sample_of(sampler, clients, 1, round).unwrap().clients {
            counts[client.0 as usize] += 1;
        }
    }
    counts
}

#[test]
fn full_participation_takes_everybody_in_order() {
    let cohort = sample(&Uniform::default(), 5, 2, 1);
    let all: Vec<_> = (0..5).map(ClientId).collect();
    assert_eq!((cohort.clients, cohort.goal, cohort.quorum), (all, 5, 2));
}

#[test]
fn over_selection_chooses_more_than_the_goal() {
    let size = CohortSize {
        fraction: 0.1,
        over_selection: 0.3,
    };
    for sampler in [
        &Uniform::new(size) as &dyn Sampler,
        &BySize::new(size),
        &ByCapacity::new(size),
    ] {
        let cohort = sample(sampler, 100, 1, 1);
        assert_eq!((cohort.goal, cohort.clients.len()), (10, 13));
        assert!(cohort.clients.is_sorted_by(|a, b| a < b));
    }
}

#[test]
fn a_rounding_error_of_a_fraction_is_no_client() {
    for (fraction, over_selection, goal, chosen) in [
        (0.07, 0.0, 7, 7),
        (0.55, 0.0, 55, 55),
        (0.071, 0.0, 8, 8),
        (0.5, 0.1, 50, 55),
        (0.001, 0.0, 1, 1),
    ] {
        let sampler = Uniform::new(CohortSize {
            fraction,
            over_selection,
        });
        let cohort = sample(&sampler, 100, 1, 1);
        assert_eq!(
            (cohort.goal, cohort.clients.len()),
            (goal, chosen),
            "{fraction}"
        );
    }
}

#[test]
fn a_round_draws_its_own_cohort_and_always_the_same() {
    for sampler in [
        &Uniform::new(HALF) as &dyn Sampler,
        &BySize::new(HALF),
        &ByCapacity::new(HALF),
        &Poisson::new(0.5),
        &Poisson::new(0.5).secret(),
    ] {
        assert_eq!(sample(sampler, 50, 1, 3), sample(sampler, 50, 1, 3));
        assert_ne!(sample(sampler, 50, 1, 3), sample(sampler, 50, 1, 4));
    }
}

#[test]
fn every_client_is_chosen_about_as_often() {
    let cohorts = counts(&Uniform::new(HALF), &clients(10));
    // 500 expected, standard deviation 16.
    assert!(
        cohorts.iter().all(|count| (420..580).contains(count)),
        "{cohorts:?}"
    );
    let drawn = counts(&Poisson::new(0.5), &clients(10));
    assert!(
        drawn.iter().all(|count| (420..580).contains(count)),
        "{drawn:?}"
    );
}

#[test]
fn clients_with_more_data_or_faster_workers_come_more_often() {
    let one = CohortSize {
        fraction: 0.01,
        over_selection: 0.0,
    };
    let mut known = clients(4);
    for (client, examples) in known.iter_mut().zip([0, 10, 30, 60]) {
        client.examples = examples;
    }
    let found = counts(&BySize::new(one), &known);
    for (found, expected) in found.iter().zip([0, 100, 300, 600]) {
        assert!(found.abs_diff(expected) < 50, "{found} and not {expected}");
    }
    // Not measured yet: as one of mean speed, 20.
    for (client, capacity) in known
        .iter_mut()
        .zip([None, Some(10.0), Some(20.0), Some(30.0)])
    {
        client.capacity = capacity;
    }
    let found = counts(&ByCapacity::new(one), &known);
    for (found, expected) in found.iter().zip([250, 125, 250, 375]) {
        assert!(found.abs_diff(expected) < 50, "{found} and not {expected}");
    }
    // Nobody measured: all alike.
    let found = counts(&ByCapacity::new(one), &clients(4));
    assert!(
        found.iter().all(|count| count.abs_diff(250) < 50),
        "{found:?}"
    );
}

#[test]
fn a_client_without_weight_is_taken_if_all_others_are() {
    let mut known = clients(3);
    known[1].examples = 0;
    let cohort = sample_of(&BySize::default(), &known, 1, 1).unwrap();
    assert_eq!(cohort.clients.len(), 3);
}

/// The cohorts of the rounds that start from these versions.
fn passes(sampler: &RoundRobin, count: u32, quorum: usize, versions: u64) -> Vec<Vec<ClientId>> {
    let (clients, training) = (clients(count), TrainingSettings::default());
    let delta = PayloadSpec::model(DELTA, Roles::TRAINED);
    let mut found = Vec::new();
    for version in 0..versions {
        let mut context = RoundContext::new(RoundId(1), &clients, &training, &delta);
        context.quorum = quorum;
        context.version = ModelVersion(version);
        found.push(sampler.sample(&context).unwrap().clients);
    }
    found
}

#[test]
fn round_robin_has_each_client_once_in_a_pass() {
    for (count, fraction, rounds) in [(10, 0.3, 4), (10, 0.5, 2), (7, 1.0, 1), (100, 0.01, 100)] {
        let found = passes(&RoundRobin::new(fraction), count, 1, 3 * rounds as u64);
        for pass in found.chunks(rounds) {
            let mut all: Vec<_> = pass.concat();
            all.sort_unstable();
            assert!(all.iter().copied().eq((0..count).map(ClientId)), "{pass:?}");
            let sizes: BTreeSet<_> = pass.iter().map(Vec::len).collect();
            assert!(
                sizes.last().unwrap() - sizes.first().unwrap() <= 1,
                "{sizes:?}"
            );
        }
        assert!(rounds == 1 || found[..rounds] != found[rounds..2 * rounds]);
    }
}

#[test]
fn the_size_that_is_told_is_that_of_the_smallest_cohort() {
    for (count, fraction, quorum) in [(10, 0.3, 1), (40, 0.3, 1), (10, 0.4, 4), (7, 1.0, 1)] {
        let sampler = RoundRobin::new(fraction);
        let found = passes(&sampler, count, quorum, 20);
        let smallest = found.iter().map(Vec::len).min();
        assert_eq!(sampler.size(count as usize, None, quorum), smallest);
    }
    assert_eq!(RoundRobin::new(0.3).size(2, None, 3), None);
    assert_eq!(RoundRobin::new(0.3).size(40, None, 1), Some(10));
}

#[test]
fn round_robin_keeps_the_quorum() {
    let found = passes(&RoundRobin::new(0.4), 10, 4, 6);
    assert!(found.iter().all(|cohort| cohort.len() >= 4), "{found:?}");
}

#[test]
fn a_poisson_round_may_have_nobody_and_still_commit() {
    let sampler = Poisson::new(0.01);
    let cohorts: Vec<_> = (1..100)
        .map(|round| sample(&sampler, 5, 3, round))
        .collect();
    assert!(cohorts.iter().any(|cohort| cohort.clients.is_empty()));
    assert!(
        cohorts
            .iter()
            .all(|cohort| cohort.quorum == 0 && cohort.goal == cohort.clients.len())
    );
}

#[test]
fn fewer_clients_than_the_quorum_is_an_error() {
    for sampler in [
        &Uniform::default() as &dyn Sampler,
        &BySize::default(),
        &ByCapacity::default(),
        &RoundRobin::new(1.0),
    ] {
        for count in [0, 2] {
            let found = sample_of(sampler, &clients(count), 3, 1);
            assert!(matches!(found, Err(StrategyError::Plan(_))));
        }
    }
}
