use serde_json::json;

use super::*;
use crate::strategy::{FederatedStrategy, weighting::Examples};

fn table(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn problem(preset: &str, asked: Value) -> String {
    let made = Catalogue::default().make(preset, &table(asked));
    made.unwrap_err().to_string()
}

#[test]
fn every_preset_is_made_and_has_a_paper() {
    let catalogue = Catalogue::default();
    for preset in catalogue.presets() {
        catalogue.make(preset.name, &Map::new()).unwrap();
        assert!(preset.paper.contains("https://"), "{}", preset.name);
        for parameter in catalogue.parameters(preset.name, &Map::new()).unwrap() {
            assert!(!parameter.about.is_empty(), "{}", parameter.name);
        }
    }
    for kind in PartKind::ALL {
        for part in catalogue.parts(kind) {
            let asked = table(json!({ kind.key(): part.name }));
            catalogue.make("fedavg", &asked).unwrap();
        }
    }
}

#[test]
fn parts_of_any_kind_go_together() {
    let asked = json!({"sampler": "poisson", "probability": 0.5, "objective": "scaffold", "weighting": "capped", "cap": 5});
    let made = Catalogue::default().make("fedyogi", &table(asked)).unwrap();
    let names: Vec<_> = made
        .state()
        .tensors
        .into_iter()
        .map(|tensor| tensor.name)
        .collect();
    assert_eq!(names, ["m", "v", "control"]);
}

#[test]
fn what_is_not_right_names_its_key() {
    for (preset, asked, expected) in [
        (
            "fedadm",
            json!({}),
            "strategy.kind \"fedadm\" is not known here (did you mean fedadam?); known are fedavg, fedavgm, ",
        ),
        (
            "fedavg",
            json!({"sampler": "best"}),
            "strategy.sampler \"best\" is not known here; known are by_capacity, by_size, poisson, round_robin, uniform",
        ),
        (
            "fedavg",
            json!({"sampler": "bysize"}),
            "strategy.sampler \"bysize\" is not known here (did you mean by_size?); known are by_capacity, ",
        ),
        (
            "fedadam",
            json!({"tua": 1}),
            "strategy.tua is no parameter of strategy \"fedadam\" with these parts (did you mean tau?); it has fraction, ",
        ),
        (
            "fedavg",
            json!({"smapler": "by_size"}),
            "strategy.smapler is no parameter of strategy \"fedavg\" with these parts (did you mean sampler?); it has ",
        ),
        (
            "fedavg",
            json!({"sampler": 3}),
            "strategy.sampler must be the name of a part, not 3",
        ),
        (
            "fedavg",
            json!({"tau": 3}),
            "strategy.tau is no parameter of strategy \"fedavg\" with these parts (it is one of optimizer adagrad, optimizer adam, \
             optimizer yogi); it has fraction, over_selection, server_lr, sampler, work, filter, weighting, objective, reducer, \
             optimizer",
        ),
        (
            "fedadam",
            json!({"tau": 0}),
            "strategy.tau must be a number above 0, not 0",
        ),
        (
            "fedadam",
            json!({"tau": "x"}),
            "strategy.tau must be a number above 0, not \"x\"",
        ),
        (
            "fedadam",
            json!({"beta1": 1}),
            "strategy.beta1 must be a number of at least 0 and below 1, not 1",
        ),
        (
            "fedavg",
            json!({"fraction": 0}),
            "strategy.fraction must be a number above 0 and at most 1, not 0",
        ),
        (
            "fedavg",
            json!({"fraction": 1.5}),
            "strategy.fraction must be a number above 0 and at most 1, not 1.5",
        ),
        (
            "fedavg",
            json!({"fraction": f64::NAN}),
            "strategy.fraction must be a number above 0 and at most 1, and neither NaN nor infinite nor null",
        ),
        (
            "krum",
            json!({"f": 1.5}),
            "strategy.f must be a whole number of at least 0, not 1.5",
        ),
        (
            "krum",
            json!({"f": 1e10}),
            "strategy.f must be a whole number of at most 4294967295, not 10000000000",
        ),
        (
            "fedavg",
            json!({"reducer": {"f": 1}}),
            "strategy.reducer is a table without `kind`, which names the part",
        ),
        (
            "multi_krum",
            json!({"selct": 3}),
            "strategy.selct is no parameter of strategy \"multi_krum\" with these parts (did you mean select?); it has ",
        ),
        (
            "fedavg",
            json!({"f": 3}),
            "strategy.f is no parameter of strategy \"fedavg\" with these parts (it is one of reducer bulyan, reducer krum, reducer \
             multi_krum, reducer trimmed_mean); it has ",
        ),
        (
            "poisson",
            json!({}),
            "strategy.kind \"poisson\" is not known here",
        ),
        (
            "fedavg",
            json!({"sampler": "poisson", "secret": 1}),
            "strategy.secret must be true or false, not 1",
        ),
        (
            "fedprox",
            json!({"mu": -1}),
            "strategy.mu must be a number of at least 0, not -1",
        ),
    ] {
        let found = problem(preset, asked);
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn a_complete_strategy_says_everything_and_is_itself() {
    let catalogue = Catalogue::default();
    let asked = table(json!({"tau": 1, "fraction": 0.5}));
    let complete = catalogue.complete("fedadam", &asked).unwrap();
    let expected = json!({
        "sampler": "uniform", "work": "same", "filter": "none", "weighting": "examples", "objective": "plain", "reducer": "mean", "optimizer": "adam",
        "fraction": 0.5, "over_selection": 0.0, "server_lr": 0.01, "tau": 1.0, "beta1": 0.9, "beta2": 0.99,
    });
    assert_eq!(Value::from(complete.clone()), expected);
    assert_eq!(catalogue.complete("fedadam", &complete).unwrap(), complete);
    // Another optimizer has its own rate, and not that of the preset.
    let sgd = catalogue
        .complete("fedadam", &table(json!({"optimizer": "sgd"})))
        .unwrap();
    assert_eq!(sgd["server_lr"], 1.0);
}

#[test]
fn a_part_of_ones_own_is_found_and_its_panic_is_an_error() {
    let info = PartInfo::new("odd", "panics if asked to").parameter(Parameter::new(
        "panic",
        ParameterKind::Flag,
        None,
    ));
    let catalogue = Catalogue::default().with_weighting(info, |values| {
        assert!(!values.flag("panic"), "on purpose");
        Ok(Examples)
    });
    catalogue
        .make("fedavg", &table(json!({"weighting": "odd"})))
        .unwrap();
    let asked = table(json!({"weighting": "odd", "panic": true}));
    let error = catalogue.make("fedavg", &asked).unwrap_err();
    assert!(error.to_string().contains("on purpose"), "{error}");
    assert!(!error.is_unknown);
}
