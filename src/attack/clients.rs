//! Which clients attack: [`AttackingClients`].

use std::{collections::BTreeSet, fmt, str::FromStr};

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::AttackError;
use crate::{
    ids::{ClientId, RoundId},
    rng::{Purpose, keyed},
    words::plural,
};

/// What a list of clients begins with.
const LIST: &str = "clients=";

/// What counts as whole in `fraction * clients`: 0.29 * 100 is a little less than 29.
const ROUNDING: f64 = 1e-9;

/// Which clients of a job attack. As text: `0.2`, or `clients=2,7`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AttackingClients {
    /// This fraction of all clients, above 0 and at most 1, rounded down to whole clients. The job's seed draws them.
    Fraction(f64),
    /// These.
    Clients(Vec<ClientId>),
}

impl AttackingClients {
    /// The clients that attack in a job with this many clients and this seed, in rising order.
    ///
    /// # Errors
    ///
    /// [`AttackError::Clients`] for a fraction that is out of range or below one client, and for a client that the job does not
    /// have.
    pub fn choose(&self, clients: u32, seed: u64) -> Result<Vec<ClientId>, AttackError> {
        self.check()?;
        match self {
            Self::Fraction(fraction) => draw(*fraction, clients, seed),
            Self::Clients(listed) => {
                if let Some(unknown) = listed.iter().find(|client| client.0 >= clients) {
                    return Err(AttackError::Clients(format!(
                        "there is no client {unknown} to attack: the job has {}, numbered from 0",
                        plural(clients, "client")
                    )));
                }
                let distinct: BTreeSet<ClientId> = listed.iter().copied().collect();
                Ok(distinct.into_iter().collect())
            }
        }
    }

    /// Checks what can be wrong in any job.
    pub(super) fn check(&self) -> Result<(), AttackError> {
        match self {
            // Written so that NaN is refused, too.
            Self::Fraction(fraction) if !(*fraction > 0.0 && *fraction <= 1.0) => {
                Err(AttackError::Clients(format!(
                    "the fraction of attackers must be above 0 and at most 1, not {fraction}"
                )))
            }
            Self::Clients(listed) if listed.is_empty() => Err(AttackError::Clients(
                "the list of attackers names no client".to_string(),
            )),
            _ => Ok(()),
        }
    }
}

fn draw(fraction: f64, clients: u32, seed: u64) -> Result<Vec<ClientId>, AttackError> {
    let count = (fraction * f64::from(clients) + ROUNDING).floor() as usize;
    if count == 0 {
        return Err(AttackError::Clients(format!(
            "a fraction of {fraction} of {} is less than one attacker: give a larger fraction, or more clients",
            plural(clients, "client")
        )));
    }
    let mut all: Vec<ClientId> = (0..clients).map(ClientId).collect();
    // Rounds count from 1: no draw of a round has this key.
    all.shuffle(&mut keyed(seed, Purpose::Attack, RoundId(0), None));
    all.truncate(count);
    all.sort_unstable();
    Ok(all)
}

impl FromStr for AttackingClients {
    type Err = AttackError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = || {
            AttackError::Clients(format!(
                "{text:?} does not say who attacks: expected a fraction of the clients, such as 0.2, or a list, such as {LIST}2,7"
            ))
        };
        let found = match text.strip_prefix(LIST) {
            Some(list) => {
                let mut clients = Vec::new();
                for number in list.split(',') {
                    clients.push(number.trim().parse().map_err(|_| unreadable())?);
                }
                Self::Clients(clients)
            }
            None => Self::Fraction(text.parse().map_err(|_| unreadable())?),
        };
        found.check()?;
        Ok(found)
    }
}

impl fmt::Display for AttackingClients {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction(fraction) => write!(formatter, "{fraction}"),
            Self::Clients(listed) => {
                let numbers: Vec<_> = listed.iter().map(ClientId::to_string).collect();
                write!(formatter, "{LIST}{}", numbers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_rounded_down_and_the_seed_draws_who() {
        let count = |fraction, clients| {
            let chosen = AttackingClients::Fraction(fraction).choose(clients, 1);
            chosen.map(|chosen| chosen.len()).unwrap_or(0)
        };
        let counts = [
            count(0.2, 15),
            count(0.29, 100),
            count(0.3, 8),
            count(1.0, 3),
            count(0.1, 9),
        ];
        assert_eq!(counts, [3, 29, 2, 3, 0]);
        let who = |seed| AttackingClients::Fraction(0.5).choose(100, seed).unwrap();
        assert_eq!(who(1), who(1));
        assert_ne!(who(1), who(2));
        assert!(who(1).is_sorted());
        assert!(who(1).iter().any(|client| client.0 >= 50), "{:?}", who(1));
    }

    #[test]
    fn what_can_not_attack_is_refused_in_words() {
        let problem = |text: &str, clients| {
            let who: Result<AttackingClients, _> = text.parse();
            let chosen = who.and_then(|who| who.choose(clients, 1));
            chosen.unwrap_err().to_string()
        };
        for text in ["0", "-0.1", "1.5", "NaN", "inf"] {
            let said = problem(text, 10);
            assert!(said.contains("above 0 and at most 1, not"), "{said}");
        }
        for text in ["", "many", "clients=", "clients=1,x", "clients=-1"] {
            let said = problem(text, 10);
            assert!(said.contains("expected a fraction"), "{text}: {said}");
        }
        assert!(problem("0.1", 8).contains("0.1 of 8 clients is less than one attacker"));
        assert!(problem("clients=1,8", 8).contains("no client 8 to attack: the job has 8 clients"));
        // All of them may attack.
        assert_eq!(
            AttackingClients::Fraction(1.0).choose(2, 1).unwrap().len(),
            2
        );
    }

    #[test]
    fn text_and_display_are_inverses() {
        for text in ["0.2", "1", "clients=2,7"] {
            let who: AttackingClients = text.parse().unwrap();
            assert_eq!(who.to_string(), text);
        }
        let who: AttackingClients = "clients=7,2,7".parse().unwrap();
        assert_eq!(who.choose(8, 1).unwrap(), [ClientId(2), ClientId(7)]);
    }
}
