//! The flags of a job's strategy, over what its file says.

use clap::Args;
use serde_json::Value;

use super::Failure;
use crate::{
    job::{Settings, StrategySpec},
    strategy::{Catalogue, PartKind, Preset},
};

/// What a job's strategy is to be.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Job")]
pub struct StrategyArgs {
    /// The algorithm: fedavg, fedprox, scaffold, fedadam or another one that "fedavg strategies" lists. If the job file has another
    /// one, the file's sampler, work, filter and weighting stay, with their parameters; of its objective, reducer and optimizer, what the two
    /// algorithms share [default: fedavg]
    #[arg(long, value_name = "NAME")]
    pub strategy: Option<String>,
    /// Set a parameter of the strategy (tau=1e-4), or choose another part (sampler=by_size); "fedavg strategies NAME" lists
    /// them. Can be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub strategy_set: Vec<(String, Value)>,
    /// The share of the clients that a round waits for, from 0 to 1 [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub fraction: Option<f64>,
    /// How many more clients train than the round waits for, as a share of those: 0.5 is half as many more; the slowest
    /// are not waited for [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub over_selection: Option<f64>,
    /// How much a client counts in the mean: as many as it has examples, all the same (uniform), or capped [default: the
    /// strategy's]
    #[arg(long, value_name = "NAME")]
    pub weighting: Option<String>,
}

impl StrategyArgs {
    /// Changes a strategy as the flags say. Returns the settings that do not count any more, since a flag names another strategy.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for a flag that the job file's own strategy does not have.
    pub(super) fn change(&self, strategy: &mut StrategySpec) -> Result<Settings, Failure> {
        self.check_once()?;
        let mut dropped = Settings::new();
        if let Some(name) = &self.strategy
            && name != strategy.name()
        {
            let change = Change::new(strategy, name, &Catalogue::default());
            (*strategy, dropped) = (change.to, change.dropped);
        }
        let short = [
            ("--fraction", "fraction", self.fraction.map(Value::from)),
            (
                "--over-selection",
                "over_selection",
                self.over_selection.map(Value::from),
            ),
            (
                "--weighting",
                "weighting",
                self.weighting.clone().map(Value::from),
            ),
        ];
        for (flag, key, value) in short {
            let Some(value) = value else { continue };
            // A strategy of an embedder's own has settings that no flag knows.
            if matches!(strategy, StrategySpec::Custom { .. }) {
                return Err(Failure::Usage(format!(
                    "{flag} is for presets such as fedavg, and the job file has a strategy of its own: --strategy-set changes its \
                     settings"
                )));
            }
            set(strategy.settings_mut(), key, value);
        }
        for (key, value) in &self.strategy_set {
            set(strategy.settings_mut(), key, value.clone());
        }
        Ok(dropped)
    }

    /// A parameter that two flags name: neither is more right than the other.
    fn check_once(&self) -> Result<(), Failure> {
        let short = [
            ("fraction", self.fraction.is_some()),
            ("over_selection", self.over_selection.is_some()),
            ("weighting", self.weighting.is_some()),
        ];
        let mut given: Vec<&str> = Vec::new();
        for (key, is_given) in short {
            if is_given {
                given.push(key);
            }
        }
        for (key, _) in &self.strategy_set {
            if given.contains(&key.as_str()) {
                return Err(Failure::Usage(format!(
                    "--strategy-set {key}: {key} is given by more than one flag; give it once"
                )));
            }
            given.push(key);
        }
        Ok(())
    }
}

/// Gives a setting the value of a flag, also if the job file has it in the table of a part (`reducer = { kind = "krum", f = 3 }`).
fn set(settings: &mut Settings, key: &str, value: Value) {
    for kind in PartKind::ALL {
        if let Some(Value::Object(table)) = settings.get_mut(kind.key()) {
            table.remove(key);
        }
    }
    settings.insert(key.to_string(), value);
}

/// Reads `KEY=VALUE`: a number, `true`, a quoted text or a list as in TOML, or else a word.
fn setting(text: &str) -> Result<(String, Value), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("expected KEY=VALUE, such as tau=1e-4".to_string());
    };
    let key = key.trim();
    if key.is_empty() {
        return Err("there is no key before the =".to_string());
    }
    let parsed = toml::from_str::<Settings>(&format!("value = {value}"));
    let read = parsed.ok().and_then(|mut table| table.remove("value"));
    let value = read.unwrap_or_else(|| Value::from(value.trim()));
    Ok((key.to_string(), value))
}

/// What becomes of a strategy's settings if another preset takes its place.
///
/// Who takes part, how much they train, which reports are left out and how much each counts is a matter of the clients: these four
/// parts stay. The
/// objective and the optimizer are the algorithm itself, and come from the new preset. Their parameters stay if both
/// strategies have the same part.
struct Change {
    to: StrategySpec,
    dropped: Settings,
}

impl Change {
    fn new(from: &StrategySpec, preset: &str, catalogue: &Catalogue) -> Self {
        let mut change = Self {
            to: StrategySpec::preset(preset),
            dropped: Settings::new(),
        };
        let is_preset = matches!(from, StrategySpec::Composed { .. });
        let old = find(catalogue, from.name());
        let new = find(catalogue, preset);
        for (key, value) in from.settings() {
            let settings = if is_preset && stays(key, from.settings(), old, new, catalogue) {
                change.to.settings_mut()
            } else {
                &mut change.dropped
            };
            settings.insert(key.clone(), value.clone());
        }
        change
    }
}

fn find<'a>(catalogue: &'a Catalogue, name: &str) -> Option<&'a Preset> {
    let mut presets = catalogue.presets().iter();
    presets.find(|preset| preset.name == name)
}

/// Whether a setting of the old strategy is one of the new one's, too.
fn stays(
    key: &str,
    settings: &Settings,
    old: Option<&Preset>,
    new: Option<&Preset>,
    catalogue: &Catalogue,
) -> bool {
    let mut is_of_a_known_part = false;
    for kind in PartKind::ALL {
        let usual = old.map(|preset| preset.part(kind));
        let given = settings.get(kind.key());
        // A name, or a table of the part's own.
        let named = given.map(|given| given.get("kind").unwrap_or(given));
        let part = named.and_then(Value::as_str).or(usual);
        let is_the_algorithm = matches!(
            kind,
            PartKind::Objective | PartKind::Reducer | PartKind::Optimizer
        );
        let is_shared = !is_the_algorithm || part == new.map(|preset| preset.part(kind));
        if key == kind.key() {
            return is_shared;
        }
        let infos = catalogue.parts(kind);
        let info = infos.iter().find(|info| Some(info.name.as_str()) == part);
        let mut parameters = info.iter().flat_map(|info| &info.parameters);
        if parameters.any(|parameter| parameter.name == key) {
            is_of_a_known_part = true;
            if is_shared {
                return true;
            }
        }
    }
    // Misspelt, or of a part that only the coordinator knows: what is wrong with it is said where all settings are checked.
    !is_of_a_known_part
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(kind: &str, settings: Value, to: &str) -> (Value, Value) {
        let from = StrategySpec::Composed {
            preset: kind.to_string(),
            settings: settings.as_object().unwrap().clone(),
        };
        let change = Change::new(&from, to, &Catalogue::default());
        assert_eq!(change.to.name(), to);
        (
            change.to.settings().clone().into(),
            change.dropped.clone().into(),
        )
    }

    #[test]
    fn a_flag_wins_over_the_file_and_is_given_once() {
        let mut flags = StrategyArgs {
            strategy_set: vec![("f".to_string(), json!(4))],
            ..StrategyArgs::default()
        };
        let settings = json!({"reducer": {"kind": "krum", "f": 3}, "fraction": 0.5});
        let mut strategy = StrategySpec::Composed {
            preset: "fedavg".to_string(),
            settings: settings.as_object().unwrap().clone(),
        };
        flags.change(&mut strategy).unwrap();
        strategy.complete(&Catalogue::default()).unwrap();
        assert_eq!(strategy.settings()["f"], 4.0);
        assert_eq!(strategy.settings()["reducer"], "krum");

        flags.strategy_set.push(("f".to_string(), json!(4)));
        let refused = flags.change(&mut strategy).unwrap_err().to_string();
        assert!(
            refused.contains("f is given by more than one flag"),
            "{refused}"
        );
        flags.strategy_set = vec![("fraction".to_string(), json!(0.1))];
        flags.fraction = Some(0.2);
        let refused = flags.change(&mut strategy).unwrap_err().to_string();
        assert!(refused.contains("fraction is given by more"), "{refused}");
    }

    #[test]
    fn who_takes_part_and_how_much_each_counts_stays() {
        let settings = json!({
            "sampler": "by_size", "fraction": 0.2, "over_selection": 0.5, "work": "time_budget", "seconds": 9,
            "weighting": "capped", "cap": 7,
        });
        for to in ["scaffold", "fedadam", "diloco", "unheard_of"] {
            let found = changed("fedprox", settings.clone(), to);
            assert_eq!(found, (settings.clone(), json!({})), "{to}");
        }
        let settings = json!({"fraction": 0.2});
        let found = changed("fedavg", settings.clone(), "fedavgm");
        assert_eq!(found, (settings, json!({})));
    }

    #[test]
    fn what_belongs_to_another_objective_or_optimizer_is_dropped() {
        let found = changed(
            "fedadam",
            json!({"tau": 1.0, "server_lr": 0.1, "fraction": 0.2}),
            "fedyogi",
        );
        let dropped = json!({"tau": 1.0, "server_lr": 0.1});
        assert_eq!(found, (json!({"fraction": 0.2}), dropped));
        let found = changed(
            "fedprox",
            json!({"mu": 1.0, "optimizer": "adam", "server_lr": 0.1}),
            "scaffold",
        );
        let dropped = json!({"mu": 1.0, "optimizer": "adam", "server_lr": 0.1});
        assert_eq!(found, (json!({}), dropped));
    }

    #[test]
    fn what_both_strategies_have_stays() {
        // Both have the optimizer sgd.
        let found = changed("fedprox", json!({"mu": 1.0, "server_lr": 0.5}), "scaffold");
        assert_eq!(found, (json!({"server_lr": 0.5}), json!({"mu": 1.0})));
        let settings = json!({"optimizer": "adam", "tau": 1.0});
        let found = changed("fedavg", settings.clone(), "fedadam");
        assert_eq!(found, (settings, json!({})));
    }

    #[test]
    fn what_is_of_no_known_part_stays_to_be_judged_with_all_settings() {
        let settings = json!({"sampler": "own", "depth": 3});
        let found = changed("fedavg", settings.clone(), "fedadam");
        assert_eq!(found, (settings, json!({})));
        let custom = StrategySpec::custom("own", json!({"a": 1}).as_object().unwrap().clone());
        let change = Change::new(&custom, "fedavg", &Catalogue::default());
        assert_eq!(change.to, StrategySpec::preset("fedavg"));
        assert_eq!(change.dropped["a"], 1);
    }
}
