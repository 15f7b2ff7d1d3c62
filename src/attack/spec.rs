//! Which attack a simulation has, as data and as text: [`AttackSpec`].

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{AttackError, AttackingClients};

/// An attack by its name, who attacks, and the parameters that are not at their defaults. As text: `alie:0.2`, or
/// `alie:clients=2,7`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttackSpec {
    /// The attack's name in [`Attacks`](super::Attacks).
    pub kind: String,
    /// Which clients attack: `fraction`, or `clients`.
    #[serde(flatten)]
    pub who: AttackingClients,
    /// Its parameters, by name.
    #[serde(default)]
    pub settings: BTreeMap<String, f64>,
}

impl AttackSpec {
    /// An attack of these clients with the default of each parameter.
    pub fn new(kind: impl Into<String>, who: AttackingClients) -> Self {
        Self {
            kind: kind.into(),
            who,
            settings: BTreeMap::new(),
        }
    }

    /// The same with this parameter.
    pub fn with(mut self, key: impl Into<String>, value: f64) -> Self {
        self.settings.insert(key.into(), value);
        self
    }
}

impl FromStr for AttackSpec {
    type Err = AttackError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((kind, who)) = text.split_once(':') else {
            return Err(AttackError::Clients(format!(
                "{text:?} does not say who attacks: expected KIND:FRACTION, such as alie:0.2, or KIND:clients=2,7"
            )));
        };
        Ok(Self::new(kind, who.parse()?))
    }
}

/// The name, and each parameter with its value.
impl fmt::Display for AttackSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.kind)?;
        for (key, value) in &self.settings {
            // Without an exponent, 1e300 would be a line of zeros.
            if value.abs() >= 1e9 {
                write!(formatter, " {key} {value:e}")?;
            } else {
                write!(formatter, " {key} {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    #[test]
    fn an_attack_is_read_as_text_and_as_json() {
        let spec: AttackSpec = "alie:0.2".parse().unwrap();
        let spec = spec.with("z", 1.5);
        assert_eq!(spec.to_string(), "alie z 1.5");
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"alie","fraction":0.2,"settings":{"z":1.5}}"#
        );
        assert_eq!(serde_json::from_str::<AttackSpec>(&text).unwrap(), spec);

        let listed: AttackSpec = "lazy:clients=0,3".parse().unwrap();
        assert_eq!(
            listed.who,
            AttackingClients::Clients(vec![ClientId(0), ClientId(3)])
        );
        let text = r#"{"kind":"lazy","clients":[0,3]}"#;
        assert_eq!(serde_json::from_str::<AttackSpec>(text).unwrap(), listed);
        let error = "alie".parse::<AttackSpec>().unwrap_err().to_string();
        assert!(error.contains("expected KIND:FRACTION"), "{error}");
    }
}
