//! A little is enough: a change that hides among the honest ones.

use super::{Attack, AttackRound, Needs};
use crate::worker::{LocalUpdate, TrainError};

/// A little is enough: Baruch et al. 2019 (<https://arxiv.org/abs/1902.06156>). All attackers send `mean - z * deviation` of their own
/// honest changes, value by value; the deviation is that of the population. With `n` clients, `m` attackers and `s = floor(n / 2 + 1) - m`
/// honest clients that are to support them, `z` is the largest for which the normal distribution's `Phi(z)` is at most
/// `(n - m - s) / (n - m)`.
///
/// The paper's attackers are nearly half of all clients. A quarter or fewer have a `z` near 0 by that formula, and send about their mean:
/// give `z` then. The paper's experiments have 1.5 and 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Alie {
    /// How many standard deviations away; none for the paper's formula.
    pub z: Option<f64>,
}

impl Alie {
    /// With the paper's formula for `z`.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this `z`.
    pub fn with_z(z: f64) -> Self {
        Self { z: Some(z) }
    }

    fn z(&self, clients: u32, attackers: u32) -> Result<f64, String> {
        if let Some(z) = self.z {
            return Ok(z);
        }
        largest_z(clients, attackers).ok_or_else(|| {
            format!("attack alie: its formula gives no z for {attackers} attackers of {clients} clients; give z, such as 1.5")
        })
    }
}

impl Attack for Alie {
    fn needs(&self) -> Needs {
        Needs::default().with_colluders()
    }

    fn check(&self, clients: u32, attackers: u32) -> Result<(), String> {
        if attackers < 2 {
            return Err(format!(
                "attack alie: one attacker has no deviation to hide in, and would send its honest change; give a larger fraction of the {clients} \
                 clients, or more clients"
            ));
        }
        self.z(clients, attackers).map(drop)
    }

    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        let z = self.z(round.clients, round.attackers);
        let z = z.map_err(TrainError::Task)?;
        round.send(update, |place, _| {
            let (mean, deviation) = round.moments(place);
            mean - z * deviation
        });
        Ok(())
    }
}

/// The paper's `z`; none if it is not finite.
fn largest_z(clients: u32, attackers: u32) -> Option<f64> {
    let (n, m) = (i64::from(clients), i64::from(attackers));
    let supporters = n / 2 + 1 - m;
    let honest = n - m;
    let share = (honest - supporters) as f64 / honest as f64;
    (share > 0.0 && share < 1.0).then(|| quantile(share))
}

/// Where the normal distribution's function has this value, which is above 0 and below 1.
fn quantile(share: f64) -> f64 {
    // Beyond, the function differs from 0 and 1 by less than the share of one client of 2^32.
    let (mut below, mut above) = (-8.0, 8.0);
    // Each step halves the interval, until its ends are neighbours.
    for _ in 0..64 {
        let middle = (below + above) / 2.0;
        if normal_distribution(middle) < share {
            below = middle;
        } else {
            above = middle;
        }
    }
    below
}

/// The normal distribution's function, by its series `1/2 + phi(x) (x + x^3/3 + x^5/(3*5) + ...)`.
fn normal_distribution(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    let mut odd = 1.0;
    while term.abs() > f64::EPSILON * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    0.5 + density * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_is_the_papers_and_what_has_none_is_refused() {
        // 24 of 50: 24 of 26 honest clients stay on the other side. From a table of the normal distribution.
        let z = largest_z(50, 24).unwrap();
        assert!((z - 1.4260768).abs() < 1e-6, "{z}");
        let z = largest_z(20, 5).unwrap();
        assert!((z - 0.2533471).abs() < 1e-6, "{z}");
        // A majority needs no supporters; with two clients, one supporter is all.
        for (clients, attackers) in [(10, 6), (10, 10), (2, 1)] {
            assert_eq!(largest_z(clients, attackers), None);
        }
        let refused = Alie::new().check(10, 6).unwrap_err();
        assert!(
            refused.contains("6 attackers of 10 clients; give z"),
            "{refused}"
        );
        assert_eq!(Alie::with_z(1.5).check(10, 6), Ok(()));
        let refused = Alie::with_z(1.5).check(8, 1).unwrap_err();
        assert!(refused.contains("one attacker"), "{refused}");
    }

    #[test]
    fn the_normal_distribution_is_that_of_tables() {
        for (x, expected) in [
            (0.0, 0.5),
            (1.0, 0.841_344_746_068_543),
            (-1.96, 0.024_997_895_148_220_435),
            (6.0, 0.999_999_999_013_412_3),
        ] {
            assert!((normal_distribution(x) - expected).abs() < 1e-14, "{x}");
        }
    }
}
