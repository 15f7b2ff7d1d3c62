//! What can be wrong with a job's strategy.

use serde_json::Value;
use thiserror::Error;

use super::PartKind;
use crate::spelling;

/// What is wrong with what a job asks for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("strategy.{key} {problem}")]
#[non_exhaustive]
pub struct CatalogueError {
    /// The key in the job's `[strategy]` table.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
    /// Whether a name is not known here: another program may have a part of that name.
    pub is_unknown: bool,
}

impl CatalogueError {
    pub(super) fn new(key: &str, problem: String) -> Self {
        Self {
            key: key.to_string(),
            problem,
            is_unknown: false,
        }
    }

    pub(super) fn unknown(key: &str, name: &str, known: &[&str]) -> Self {
        let problem = format!(
            "{name:?} is not known here{}; known are {}",
            spelling::hint(name, known.iter().copied()),
            known.join(", ")
        );
        Self {
            is_unknown: true,
            ..Self::new(key, problem)
        }
    }

    /// `others`: the parts that have such a parameter, such as `reducer krum`.
    pub(super) fn no_parameter(
        strategy: &str,
        key: &str,
        parameters: &[&str],
        others: &[String],
    ) -> Self {
        let mut known = parameters.to_vec();
        known.extend(PartKind::ALL.map(PartKind::key));
        let mut hint = spelling::hint(key, known.iter().copied());
        if !others.is_empty() {
            hint = format!(" (it is one of {})", others.join(", "));
        }
        let problem = format!(
            "is no parameter of strategy {strategy:?} with these parts{hint}; it has {}",
            known.join(", ")
        );
        Self::new(key, problem)
    }

    pub(super) fn not_a(key: &str, expected: &str, found: &Value) -> Self {
        let problem = match found {
            // What a TOML or a JSON reader makes of NaN and infinity, for which JSON has no form.
            Value::Null => format!("must be {expected}, and neither NaN nor infinite nor null"),
            other => format!("must be {expected}, not {other}"),
        };
        Self::new(key, problem)
    }
}
