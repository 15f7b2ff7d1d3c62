//! The flags for how far the times and energies count that workers report.

use clap::Args;

use crate::coordinator::ClaimLimits;

/// How far the times and energies count that workers report.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits of what workers report")]
pub struct ClaimArgs {
    /// How many times as fast, or as slow, as the job's median worker a worker counts at most if data is dealt, clients are drawn or
    /// work is measured out by speed; 1: all count the same
    #[arg(long, value_name = "X", default_value = "8", value_parser = at_least_1)]
    pub speed_spread: f64,
    /// The most watts of a worker's device; an energy above that does not count
    #[arg(long, value_name = "WATTS", default_value = "10000", value_parser = at_least_1)]
    pub max_watts: f64,
}

impl ClaimArgs {
    pub(super) fn limits(&self) -> ClaimLimits {
        ClaimLimits {
            speed_spread: self.speed_spread,
            watts: self.max_watts,
        }
    }
}

/// The largest number that is taken.
const MOST: f64 = 1e9;

fn at_least_1(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (1.0..=MOST).contains(&number) => Ok(number),
        _ => Err(format!("not a number from 1 to {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_at_least_1() {
        assert_eq!(at_least_1("1"), Ok(1.0));
        for text in ["0.5", "nan", "inf", "1e10", "-2", "x"] {
            assert!(at_least_1(text).is_err(), "{text}");
        }
    }
}
