//! Which partition a job asks for, as data and as text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    BalancedDirichlet, Dirichlet, Iid, PartitionError, Partitioner, Proportional, QuantitySkew,
    Shard,
};

/// Which partition a job asks for.
///
/// In TOML and JSON it is tagged by `kind`, as in `{ kind = "dirichlet", alpha = 0.5 }`. A job may also have the text of a
/// command line, as in `"dirichlet:0.5"`; an answer never does.
// The derived functions are the tagged form; the traits, which take both spellings, are in `spelling.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(
    remote = "Self",
    tag = "kind",
    rename_all = "snake_case",
    deny_unknown_fields
)]
#[non_exhaustive]
pub enum PartitionSpec {
    /// Every client gets a random sample of the same size.
    #[default]
    #[serde(deserialize_with = "no_fields")]
    Iid,
    /// Each label is spread unevenly over the clients.
    Dirichlet {
        /// Concentration, positive: 0.1 is very uneven, 100 nearly even.
        #[cfg_attr(feature = "http", schema(exclusive_minimum = 0))]
        alpha: f64,
    },
    /// Each label is spread unevenly over the clients that have not yet got their even part: NIID-Bench's `noniid-labeldir`.
    BalancedDirichlet {
        /// Concentration, positive: 0.1 is very uneven, 100 nearly even.
        #[cfg_attr(feature = "http", schema(exclusive_minimum = 0))]
        alpha: f64,
        /// The fewest examples of a client, at least 1.
        #[serde(default = "ten")]
        #[cfg_attr(feature = "http", schema(minimum = 1, default = 10))]
        min: u32,
    },
    /// Each client sees only a few labels.
    Shard {
        /// How many different labels a client sees, at least 1.
        #[cfg_attr(feature = "http", schema(minimum = 1))]
        labels_per_client: u32,
    },
    /// Clients of uneven size, each a random sample.
    QuantitySkew {
        /// Concentration, positive: 0.1 is very uneven, 100 nearly even.
        #[cfg_attr(feature = "http", schema(exclusive_minimum = 0))]
        alpha: f64,
    },
    /// Clients' sizes follow what their workers can do.
    Proportional {
        /// What counts as a worker's capacity; its GPUs if left out.
        #[serde(default, skip_serializing_if = "Capacity::is_default")]
        by: Capacity,
    },
    /// The data is the workers' own: one client per worker, nothing is dealt.
    #[serde(deserialize_with = "no_fields")]
    Local,
}

fn ten() -> u32 {
    10
}

/// Refuses fields, which serde would pass over in a tagged variant that has none.
fn no_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoFields {}

    NoFields::deserialize(deserializer).map(|NoFields {}| ())
}

/// What a worker can do, for a `proportional` partition: `gpus` is the number of its GPUs, and none counts as one; `measured`
/// is the examples that it was seen to train in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Capacity {
    /// The number of its GPUs; none counts as one.
    #[default]
    Gpus,
    /// The examples that it was seen to train in a second. Before every worker has been measured, as [`Capacity::Gpus`];
    /// between rounds the data is dealt again if that makes them shorter, so that no two runs need be the same.
    Measured,
}

impl Capacity {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl PartitionSpec {
    /// Checks the parameters; this needs no dataset.
    pub fn validate(&self) -> Result<(), PartitionError> {
        match *self {
            Self::BalancedDirichlet { min: 0, .. } => Err(PartitionError::NoLeast),
            Self::Dirichlet { alpha }
            | Self::BalancedDirichlet { alpha, .. }
            | Self::QuantitySkew { alpha } => super::deal::check_alpha(alpha),
            Self::Shard {
                labels_per_client: 0,
            } => Err(PartitionError::NoLabelsPerClient),
            Self::Shard { .. } | Self::Iid | Self::Proportional { .. } | Self::Local => Ok(()),
        }
    }

    /// Whether dealing needs the examples' labels. A coordinator that has none refuses such a job.
    pub fn needs_labels(&self) -> bool {
        matches!(
            self,
            Self::Dirichlet { .. } | Self::BalancedDirichlet { .. } | Self::Shard { .. }
        )
    }

    /// Whether the data is the workers' own.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local)
    }

    /// Whether the sizes of clients follow measured speeds, and change between rounds.
    pub fn is_measured(&self) -> bool {
        matches!(
            self,
            Self::Proportional {
                by: Capacity::Measured
            }
        )
    }

    /// Builds the partitioner. `capacities` has one positive number per client and is needed by `proportional` alone.
    pub fn partitioner(
        &self,
        capacities: Option<&[f64]>,
    ) -> Result<Box<dyn Partitioner>, PartitionError> {
        Ok(match *self {
            Self::Iid => Box::new(Iid),
            Self::Dirichlet { alpha } => Box::new(Dirichlet::new(alpha)?),
            Self::BalancedDirichlet { alpha, min } => Box::new(BalancedDirichlet::new(alpha, min)?),
            Self::Shard { labels_per_client } => Box::new(Shard::new(labels_per_client)?),
            Self::QuantitySkew { alpha } => Box::new(QuantitySkew::new(alpha)?),
            Self::Proportional { .. } => Box::new(Proportional::new(
                capacities.ok_or(PartitionError::CapacitiesUnknown)?,
            )?),
            Self::Local => return Err(PartitionError::Local),
        })
    }
}

impl FromStr for PartitionSpec {
    type Err = PartitionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, parameter) = match text.split_once(':') {
            Some((kind, parameter)) => (kind, Some(parameter)),
            None => (text, None),
        };
        let spec = match (kind, parameter) {
            ("iid", None) => Self::Iid,
            ("dirichlet", Some(parameters)) => dirichlet(text, parameters)?,
            ("shard", Some(labels)) => Self::Shard {
                labels_per_client: labels.parse().map_err(|_| unknown(text))?,
            },
            ("quantity_skew", Some(alpha)) => Self::QuantitySkew {
                alpha: alpha.parse().map_err(|_| unknown(text))?,
            },
            ("proportional", None) => Self::Proportional { by: Capacity::Gpus },
            ("proportional", Some("measured")) => Self::Proportional {
                by: Capacity::Measured,
            },
            ("local", None) => Self::Local,
            _ => return Err(unknown(text)),
        };
        // `parse` takes `inf` and `NaN` for a number.
        spec.validate()?;
        Ok(spec)
    }
}

/// Reads `ALPHA`, `ALPHA:balanced` or `ALPHA:balanced:MIN`.
fn dirichlet(text: &str, parameters: &str) -> Result<PartitionSpec, PartitionError> {
    let parts: Vec<_> = parameters.split(':').collect();
    let (alpha, min) = match parts[..] {
        [alpha] => (alpha, None),
        [alpha, "balanced"] => (alpha, Some(ten())),
        [alpha, "balanced", min] => (alpha, Some(min.parse().map_err(|_| unknown(text))?)),
        _ => return Err(unknown(text)),
    };
    let alpha = alpha.parse().map_err(|_| unknown(text))?;
    Ok(match min {
        Some(min) => PartitionSpec::BalancedDirichlet { alpha, min },
        None => PartitionSpec::Dirichlet { alpha },
    })
}

fn unknown(text: &str) -> PartitionError {
    PartitionError::Unknown {
        text: text.to_owned(),
    }
}

impl fmt::Display for PartitionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iid => f.write_str("iid"),
            Self::Dirichlet { alpha } => write!(f, "dirichlet:{alpha}"),
            Self::BalancedDirichlet { alpha, min } if *min == ten() => {
                write!(f, "dirichlet:{alpha}:balanced")
            }
            Self::BalancedDirichlet { alpha, min } => {
                write!(f, "dirichlet:{alpha}:balanced:{min}")
            }
            Self::Shard { labels_per_client } => write!(f, "shard:{labels_per_client}"),
            Self::QuantitySkew { alpha } => write!(f, "quantity_skew:{alpha}"),
            Self::Proportional { by: Capacity::Gpus } => f.write_str("proportional"),
            Self::Proportional {
                by: Capacity::Measured,
            } => f.write_str("proportional:measured"),
            Self::Local => f.write_str("local"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_display_are_inverses() {
        for text in [
            "iid",
            "dirichlet:0.5",
            "dirichlet:0.5:balanced",
            "dirichlet:0.5:balanced:3",
            "shard:2",
            "quantity_skew:0.1",
            "proportional",
            "proportional:measured",
            "local",
        ] {
            let spec: PartitionSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "noniid",
            "iid:1",
            "dirichlet",
            "dirichlet:",
            "dirichlet:x",
            "dirichlet:1:",
            "dirichlet:1:even",
            "dirichlet:1:balanced:",
            "dirichlet:1:balanced:-1",
            "dirichlet:1:balanced:2:3",
            "shard:-1",
            "shard:1.5",
            "local:1",
            "proportional:",
            "proportional:gpu",
        ] {
            assert!(
                matches!(
                    text.parse::<PartitionSpec>(),
                    Err(PartitionError::Unknown { .. })
                ),
                "{text}"
            );
        }
        for alpha in ["NaN", "inf", "0", "-0.5"] {
            for text in [
                format!("dirichlet:{alpha}"),
                format!("dirichlet:{alpha}:balanced"),
                format!("quantity_skew:{alpha}"),
            ] {
                assert!(
                    matches!(
                        text.parse::<PartitionSpec>(),
                        Err(PartitionError::Alpha { .. })
                    ),
                    "{text}"
                );
            }
        }
        assert_eq!(
            "shard:0".parse::<PartitionSpec>(),
            Err(PartitionError::NoLabelsPerClient)
        );
        assert_eq!(
            "dirichlet:1:balanced:0".parse::<PartitionSpec>(),
            Err(PartitionError::NoLeast)
        );
    }

    #[test]
    fn a_job_file_may_spell_it_as_the_command_line_does() {
        let read = |text: &str| serde_json::from_str::<PartitionSpec>(text);
        let dirichlet = PartitionSpec::Dirichlet { alpha: 0.5 };
        assert_eq!(read(r#""dirichlet:0.5""#).unwrap(), dirichlet);
        let tagged = r#"{"alpha": 0.5, "kind": "dirichlet"}"#;
        assert_eq!(read(tagged).unwrap(), dirichlet);
        let problem = read(r#""noniid""#).unwrap_err().to_string();
        assert!(problem.contains("one of iid, dirichlet:ALPHA"), "{problem}");
        let problem = read("3").unwrap_err().to_string();
        assert!(problem.contains("dirichlet:0.5"), "{problem}");
        assert!(read(r#"{"kind": "iid", "alpha": 1}"#).is_err());
    }

    #[test]
    fn json_is_tagged_by_kind() {
        let spec = PartitionSpec::Dirichlet { alpha: 0.5 };
        let json = r#"{"kind":"dirichlet","alpha":0.5}"#;
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        assert_eq!(serde_json::from_str::<PartitionSpec>(json).unwrap(), spec);
        let shard: PartitionSpec =
            serde_json::from_str(r#"{"kind":"shard","labels_per_client":2}"#).unwrap();
        assert_eq!(
            shard,
            PartitionSpec::Shard {
                labels_per_client: 2
            }
        );
        let balanced: PartitionSpec = "dirichlet:0.5:balanced".parse().unwrap();
        let json = r#"{"kind":"balanced_dirichlet","alpha":0.5,"min":10}"#;
        assert_eq!(serde_json::to_string(&balanced).unwrap(), json);
        let least = r#"{"kind":"balanced_dirichlet","alpha":0.5}"#;
        for text in [json, least, r#""dirichlet:0.5:balanced""#] {
            let read: PartitionSpec = serde_json::from_str(text).unwrap();
            assert_eq!(read, balanced);
        }
        // What was written before there was a choice.
        let gpus = PartitionSpec::Proportional { by: Capacity::Gpus };
        let json = r#"{"kind":"proportional"}"#;
        assert_eq!(serde_json::from_str::<PartitionSpec>(json).unwrap(), gpus);
        assert_eq!(serde_json::to_string(&gpus).unwrap(), json);
        let measured: PartitionSpec = "proportional:measured".parse().unwrap();
        let json = r#"{"kind":"proportional","by":"measured"}"#;
        assert_eq!(serde_json::to_string(&measured).unwrap(), json);
        let read = |json| serde_json::from_str::<PartitionSpec>(json);
        assert_eq!(read(json).unwrap(), measured);
        assert!(read(r#"{"kind":"proportional","by":"cores"}"#).is_err());
        assert!(read(r#"{"kind":"proportional","bye":"measured"}"#).is_err());
        // A misspelt parameter must not silently fall back to something else.
        assert!(
            serde_json::from_str::<PartitionSpec>(r#"{"kind":"dirichlet","alfa":0.5}"#).is_err()
        );
        assert!(
            serde_json::from_str::<PartitionSpec>(r#"{"kind":"dirichlet","alpha":0.5,"beta":1}"#)
                .is_err()
        );
    }
}
