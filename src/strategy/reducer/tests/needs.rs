//! How many reports rules need, and what is said if there are fewer.

use super::*;
use crate::settings::RoundLimits;

#[test]
fn a_round_without_clients_changes_nothing_if_the_sampler_may_draw_none() {
    for reducer in &reducers() {
        let asked = json!({ "reducer": reducer, "sampler": "poisson", "probability": 1e-9 });
        let strategy = Catalogue::default().make("fedavg", asked.as_object().unwrap());
        let strategy = strategy.unwrap();
        let refused = strategy
            .check_limits(&RoundLimits::default(), Some(15))
            .is_err();
        let needs_reports = matches!(
            reducer.as_str(),
            "trimmed_mean" | "krum" | "multi_krum" | "bulyan"
        );
        assert_eq!(refused, needs_reports, "{reducer}");
        // The refusal of the others names this one.
        let krum = json!({ "reducer": "krum", "sampler": "poisson" });
        let krum = Catalogue::default().make("fedavg", krum.as_object().unwrap());
        let refusal = krum.unwrap().check_limits(&RoundLimits::default(), None);
        let is_named = refusal.unwrap_err().contains(reducer.as_str());
        assert_eq!(is_named, !refused && reducer != "mean", "{reducer}");
        if refused {
            continue;
        }
        let model = Parameters::new(layout(3), vec![1.0, -2.0, 3.0]).unwrap();
        let clients = (0..15)
            .map(|client| ClientInfo::new(ClientId(client), 1))
            .collect();
        let training = TrainingSettings::default();
        let mut rounds = MemoryRounds::new(Arc::new(strategy), model, clients, training).unwrap();
        let plan = rounds.plan(RoundId(1)).unwrap();
        assert!(plan.members.is_empty() && plan.quorum == 0, "{reducer}");
        rounds.aggregate(RoundId(1), &plan, &[], &Serial).unwrap();
        assert_eq!(rounds.model().values(), [1.0, -2.0, 3.0], "{reducer}");
    }
}

#[test]
fn a_quorum_counts_what_remains_but_not_against_a_selection() {
    let plan = |reducer: &str| {
        let asked = json!({ "reducer": reducer });
        let strategy = Catalogue::default().make("fedavg", asked.as_object().unwrap());
        let clients = (0..15)
            .map(|client| ClientInfo::new(ClientId(client), 1))
            .collect();
        let model = Parameters::zeros(layout(3));
        let training = TrainingSettings::default();
        let rounds = MemoryRounds::new(Arc::new(strategy.unwrap()), model, clients, training);
        let plan = rounds.unwrap().plan(RoundId(1)).unwrap();
        (plan.quorum, plan.least_folded)
    };
    assert_eq!(plan("krum"), (9, Some(1)));
    assert_eq!(plan("multi_krum"), (9, Some(6)));
    assert_eq!(plan("bulyan"), (15, Some(9)));
    assert_eq!(plan("trimmed_mean"), (7, None));
    assert_eq!(plan("zeroing"), (1, None));
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let check = |asked: Value, clients, goal, quorum| {
        let strategy = Catalogue::default().make("fedavg", asked.as_object().unwrap());
        let limits = RoundLimits {
            goal,
            min_updates: quorum,
            ..RoundLimits::default()
        };
        strategy.unwrap().check_limits(&limits, clients)
    };
    assert_eq!(
        check(
            json!({ "reducer": { "kind": "krum", "f": 3 } }),
            Some(9),
            None,
            1
        ),
        Ok(())
    );
    // The default fits, for any cohort: f is what it can tolerate.
    assert_eq!(
        check(json!({ "reducer": "bulyan" }), Some(5), None, 1),
        Ok(())
    );
    for (asked, clients, goal, quorum, reason) in [
        (
            json!({ "reducer": { "kind": "krum", "f": 3 } }),
            Some(8),
            None,
            1,
            "at least 9 reports with f = 3, and a round asks 8 clients",
        ),
        (
            json!({ "reducer": "bulyan", "f": 3 }),
            Some(20),
            None,
            14,
            "at least 15 reports with f = 3, and limits.min_updates",
        ),
        (
            json!({ "reducer": "bulyan", "f": 3 }),
            None,
            None,
            14,
            "at least 15 reports with f = 3, and limits.min_updates",
        ),
        (
            json!({ "reducer": "bulyan", "f": 3 }),
            Some(20),
            Some(14),
            1,
            "at least 15 reports with f = 3, and limits.goal (--goal) is 14",
        ),
        (
            json!({ "reducer": "krum", "fraction": 0.5, "f": 3 }),
            Some(16),
            None,
            1,
            "a round asks 8",
        ),
        (
            json!({ "reducer": "geometric_median" }),
            Some(3000),
            None,
            1,
            "at most 2048 reports, and a round asks 3000 clients",
        ),
        (
            json!({ "reducer": "krum", "sampler": "poisson" }),
            Some(20),
            None,
            1,
            "the sampler may draw fewer clients: choose another sampler, or median, geometric_median",
        ),
        (
            json!({ "reducer": "krum", "f": 4 }),
            Some(10),
            None,
            1,
            "at least 11 reports with f = 4, and a round asks 10 clients: set f = 3 at most, or have at least 11 clients in a round",
        ),
        (
            json!({ "reducer": "krum", "over_selection": 1 }),
            Some(40),
            Some(10),
            1,
            "at least 11 reports with f = 4, and limits.goal (--goal) is 10: set f = 3 at most, or give a goal of at least 11",
        ),
        (
            json!({ "reducer": "bulyan", "f": 3 }),
            Some(20),
            None,
            14,
            "is 14: set f = 2 at most, or leave it out, or give at least 15",
        ),
        (
            json!({ "reducer": "krum", "sampler": "round_robin", "fraction": 0.3 }),
            Some(10),
            None,
            1,
            "at least 3 reports, and a round asks 2 clients: ",
        ),
        (
            json!({ "reducer": "multi_krum", "select": 16, "f": 2 }),
            Some(15),
            None,
            1,
            "at least 16 reports with select = 16, and a round asks 15 clients: set select = 13 at most, or have",
        ),
        (
            json!({ "reducer": "multi_krum", "select": 16 }),
            Some(15),
            None,
            1,
            "at least 16 reports",
        ),
        (
            json!({ "reducer": "krum" }),
            Some(2),
            None,
            1,
            "at least 3 reports",
        ),
    ] {
        let refused = check(asked.clone(), clients, goal, quorum).unwrap_err();
        assert!(refused.contains(reason), "{asked}: {refused}");
    }
    for (asked, reason) in [
        (
            json!({ "reducer": "krum", "f": 1.5 }),
            "f must be a whole number",
        ),
        (json!({ "reducer": { "f": 1 } }), "without `kind`"),
        (
            json!({ "reducer": "median", "objective": "scaffold" }),
            "median does not go with objective scaffold: SCAFFOLD",
        ),
        (
            json!({ "reducer": "krum", "objective": "feddyn" }),
            "FedDyn",
        ),
        (
            json!({ "reducer": "krum", "objective": "fednova" }),
            "FedNova",
        ),
        (
            json!({ "reducer": "krum", "objective": "qfedavg" }),
            "q-FedAvg",
        ),
        (
            json!({ "reducer": "geometric_median", "iterations": 1e9 }),
            "at most 1000",
        ),
        (
            json!({ "reducer": { "kind": "krum", "f": 1 }, "f": 2 }),
            "another one beside it",
        ),
        (json!({ "reducer": "kurm" }), "known are"),
    ] {
        let refused = Catalogue::default().make("fedavg", asked.as_object().unwrap());
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
}
