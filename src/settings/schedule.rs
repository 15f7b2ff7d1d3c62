//! A learning rate that changes with the model's version.
//!
//! The coordinator evaluates it when it plans a round and sends the result, so workers need not know of it. It counts
//! committed versions, not attempts: a round that is tried again has the same rate.

use std::{f64::consts::PI, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::SettingError;

/// How the clients' learning rate changes with the version of the global model that a round starts from. In the first
/// `warmup` rounds it rises in equal steps: in round `i` of them, counted from 1, it is `i / (warmup + 1)` of `training.lr`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// `training.lr` in each round.
    Constant {
        /// Rounds in which it rises.
        #[serde(default)]
        warmup: u32,
    },
    /// `training.lr * factor^k`, and `k` grows by one after each `every` rounds that follow the warm-up, as
    /// `torch.optim.lr_scheduler.StepLR` has it.
    Step {
        /// Rounds of each rate, at least 1.
        #[cfg_attr(feature = "http", schema(minimum = 1))]
        every: u32,
        /// What a rate is multiplied with for the next one, above 0.
        #[cfg_attr(feature = "http", schema(exclusive_minimum = 0))]
        factor: f64,
        /// Rounds in which it rises.
        #[serde(default)]
        warmup: u32,
    },
    /// Half a cosine from `training.lr` at the end of the warm-up down to `min`, which is the rate of the round after the last
    /// one and of all later ones, as `torch.optim.lr_scheduler.CosineAnnealingLR` has it.
    Cosine {
        /// The lowest rate, at most `training.lr`.
        #[serde(default)]
        #[cfg_attr(feature = "http", schema(minimum = 0))]
        min: f64,
        /// Rounds in which it rises.
        #[serde(default)]
        warmup: u32,
        /// How many rounds it is made for, the warm-up among them. The job's, if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[cfg_attr(feature = "http", schema(minimum = 1))]
        rounds: Option<u32>,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant { warmup: 0 }
    }
}

impl Schedule {
    /// Whether it is `training.lr` in each round.
    pub fn is_constant(&self) -> bool {
        *self == Self::default()
    }

    /// The learning rate of the round that starts from `version`, in a job of `of_job` rounds whose `training.lr` is `lr`.
    pub fn lr_at(&self, version: u64, of_job: u32, lr: f64) -> f64 {
        let warmup = u64::from(self.warmup());
        if version < warmup {
            return lr * (version + 1) as f64 / (warmup + 1) as f64;
        }
        let past = version - warmup;
        match *self {
            Self::Constant { .. } => lr,
            Self::Step { every, factor, .. } => {
                let times = past / u64::from(every.max(1));
                // More would be 0 for a factor below 1 anyway, and powers of i32 are exact where they can be.
                lr * factor.powi(i32::try_from(times).unwrap_or(i32::MAX))
            }
            Self::Cosine { min, rounds, .. } => {
                let rounds = u64::from(rounds.unwrap_or(of_job));
                let length = rounds.saturating_sub(warmup).max(1);
                let share = past.min(length) as f64 / length as f64;
                min + (lr - min) * (1.0 + (PI * share).cos()) / 2.0
            }
        }
    }

    /// Rounds in which the rate rises.
    pub fn warmup(&self) -> u32 {
        match *self {
            Self::Constant { warmup } | Self::Step { warmup, .. } | Self::Cosine { warmup, .. } => {
                warmup
            }
        }
    }

    /// The same with a warm-up of this many rounds.
    pub fn with_warmup(mut self, rounds: u32) -> Self {
        match &mut self {
            Self::Constant { warmup } | Self::Step { warmup, .. } | Self::Cosine { warmup, .. } => {
                *warmup = rounds;
            }
        }
        self
    }

    /// The same for a job that has another number of rounds than `of_job`: its rates stay those of a job of `of_job` rounds.
    pub fn made_for(mut self, of_job: u32) -> Self {
        if let Self::Cosine { rounds, .. } = &mut self {
            rounds.get_or_insert(of_job);
        }
        self
    }

    /// Checks that every number is in its range, for a job of this `training.lr`.
    ///
    /// # Errors
    ///
    /// [`SettingError`] names the first that is not.
    pub fn check(&self, lr: f64) -> Result<(), SettingError> {
        match *self {
            Self::Constant { .. } => Ok(()),
            Self::Step { every: 0, .. } => {
                Err(SettingError::new("every", "must be at least 1, not 0"))
            }
            Self::Step { factor, .. } if !(factor > 0.0 && factor.is_finite()) => {
                let problem = format!("must be a finite number above 0, not {factor}");
                Err(SettingError::new("factor", problem))
            }
            Self::Step { .. } => Ok(()),
            Self::Cosine { min, .. } if !(0.0..=lr).contains(&min) => {
                let problem = format!("must be from 0 to training.lr, which is {lr}, not {min}");
                Err(SettingError::new("min", problem))
            }
            Self::Cosine {
                rounds: Some(0), ..
            } => Err(SettingError::new("rounds", "must be at least 1, not 0")),
            Self::Cosine { .. } => Ok(()),
        }
    }
}

/// As on a command line: `constant`, `step:EVERY:FACTOR`, `cosine` or `cosine:MIN`.
impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = format!(
            "unknown schedule {text:?}: one of constant, step:EVERY:FACTOR (as in step:10:0.5), cosine, cosine:MIN"
        );
        let parts: Vec<_> = text.split(':').collect();
        let parsed = match parts[..] {
            ["constant"] => Some(Self::default()),
            ["step", every, factor] => {
                every
                    .parse()
                    .ok()
                    .zip(factor.parse().ok())
                    .map(|(every, factor)| Self::Step {
                        every,
                        factor,
                        warmup: 0,
                    })
            }
            ["cosine"] => Some(cosine(0.0)),
            ["cosine", min] => min.parse().ok().map(cosine),
            _ => None,
        };
        parsed.ok_or(unknown)
    }
}

/// A cosine down to `min` over the job's rounds.
fn cosine(min: f64) -> Schedule {
    Schedule::Cosine {
        min,
        warmup: 0,
        rounds: None,
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant { .. } => formatter.write_str("constant"),
            Self::Step { every, factor, .. } => write!(formatter, "step:{every}:{factor}"),
            Self::Cosine { min: 0.0, .. } => formatter.write_str("cosine"),
            Self::Cosine { min, .. } => write!(formatter, "cosine:{min}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, rounds: u32, lr: f64) -> Vec<f64> {
        (0..u64::from(rounds))
            .map(|version| schedule.lr_at(version, rounds, lr))
            .collect()
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
        }
    }

    #[test]
    fn a_constant_rate_is_the_same_bits() {
        assert_eq!(rates(Schedule::default(), 3, 0.1), [0.1; 3]);
    }

    #[test]
    fn steps_are_pytorchs() {
        // torch.optim.lr_scheduler.StepLR(step_size=2, gamma=0.1), lr 1.
        let schedule: Schedule = "step:2:0.1".parse().unwrap();
        close(&rates(schedule, 5, 1.0), &[1.0, 1.0, 0.1, 0.1, 0.01]);
        let warmed = schedule.with_warmup(1);
        close(&rates(warmed, 5, 1.0), &[0.5, 1.0, 1.0, 0.1, 0.1]);
    }

    #[test]
    fn a_cosine_is_pytorchs() {
        // torch.optim.lr_scheduler.CosineAnnealingLR(T_max=4, eta_min=0.2), lr 1: 0.2 + 0.4 * (1 + cos(pi * t / 4)).
        let schedule: Schedule = "cosine:0.2".parse().unwrap();
        let expected = [1.0, 0.882_842_712_474_619, 0.6, 0.317_157_287_525_381];
        close(&rates(schedule, 4, 1.0), &expected);
        for version in [4, 99] {
            assert!((schedule.lr_at(version, 4, 1.0) - 0.2).abs() < 1e-12);
        }
        // A job that was cut short, or goes on longer, keeps the rates.
        close(&rates(schedule.made_for(4), 2, 1.0), &expected[..2]);
        close(&rates(schedule.made_for(4), 4, 1.0), &expected);
        let warmed = schedule.with_warmup(2);
        let expected = [
            1.0 / 3.0,
            2.0 / 3.0,
            1.0,
            0.882_842_712_474_619,
            0.6,
            0.317_157_287_525_381,
        ];
        close(&rates(warmed, 6, 1.0), &expected);
        // More warm-up than rounds: it only rises.
        close(&rates(schedule.with_warmup(9), 3, 1.0), &[0.1, 0.2, 0.3]);
    }

    #[test]
    fn text_json_and_display_agree() {
        for (text, json) in [
            ("constant", r#"{"kind":"constant","warmup":0}"#),
            (
                "step:10:0.5",
                r#"{"kind":"step","every":10,"factor":0.5,"warmup":0}"#,
            ),
            ("cosine", r#"{"kind":"cosine","min":0.0,"warmup":0}"#),
            ("cosine:0.01", r#"{"kind":"cosine","min":0.01,"warmup":0}"#),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), text);
            assert_eq!(serde_json::to_string(&schedule).unwrap(), json);
            assert_eq!(serde_json::from_str::<Schedule>(json).unwrap(), schedule);
        }
        for text in [
            "",
            "linear",
            "step",
            "step:1",
            "step:x:1",
            "cosine:a",
            "cosine:1:2",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
        let misspelt = r#"{"kind":"cosine","minimum":0.1}"#;
        assert!(serde_json::from_str::<Schedule>(misspelt).is_err());
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let field = |text: &str| {
            let schedule: Schedule = text.parse().unwrap();
            schedule.check(0.1).map_err(|error| error.field)
        };
        assert_eq!(field("step:0:0.5"), Err("every"));
        assert_eq!(field("step:1:0"), Err("factor"));
        assert_eq!(field("step:1:NaN"), Err("factor"));
        assert_eq!(field("cosine:0.2"), Err("min"));
        assert_eq!(field("cosine:NaN"), Err("min"));
        assert_eq!(field("cosine:0.1"), Ok(()));
        let none = cosine(0.0).made_for(0).check(0.1).unwrap_err();
        assert_eq!(none.to_string(), "rounds must be at least 1, not 0");
    }
}
