//! The numbers that an attack is made of.

use std::{collections::BTreeMap, ops::RangeInclusive};

/// A parameter of an attack: a finite number.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttackParameter {
    /// Its name.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// The least and the most that it can be.
    pub range: RangeInclusive<f64>,
    /// Its value if it is not given. Without a default, an attack sees whether it is given.
    pub default: Option<f64>,
}

impl AttackParameter {
    /// A number in this range.
    pub fn new(name: impl Into<String>, range: RangeInclusive<f64>, default: f64) -> Self {
        Self {
            name: name.into(),
            about: String::new(),
            range,
            default: Some(default),
        }
    }

    /// A number of at least this.
    pub fn at_least(name: impl Into<String>, least: f64, default: f64) -> Self {
        Self::new(name, least..=f64::MAX, default)
    }

    /// The same with a description.
    pub fn about(mut self, about: impl Into<String>) -> Self {
        self.about = about.into();
        self
    }

    /// The same without a default: an attack can ask whether it was given.
    pub fn optional(mut self) -> Self {
        self.default = None;
        self
    }

    /// Its values in words: "a number from 0 to 1".
    pub fn range_in_words(&self) -> String {
        let (least, most) = (*self.range.start(), *self.range.end());
        match (least == f64::MIN, most == f64::MAX) {
            (true, true) => "a number".to_string(),
            (false, true) => format!("a number of at least {least}"),
            (true, false) => format!("a number of at most {most}"),
            (false, false) => format!("a number from {least} to {most}"),
        }
    }

    /// Checks a value.
    pub(super) fn check(&self, value: f64) -> Result<(), String> {
        // The range's ends are finite, so that NaN and infinity are not in it.
        if self.range.contains(&value) {
            return Ok(());
        }
        Err(format!("must be {}, not {value}", self.range_in_words()))
    }
}

/// The values of an attack's parameters, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct AttackValues(BTreeMap<String, f64>);

impl AttackValues {
    pub(super) fn new(values: BTreeMap<String, f64>) -> Self {
        Self(values)
    }

    pub(super) fn into_inner(self) -> BTreeMap<String, f64> {
        self.0
    }

    /// A number.
    ///
    /// # Panics
    ///
    /// If the attack did not declare such a parameter with a default.
    pub fn number(&self, name: &str) -> f64 {
        let found = self.given(name);
        found.unwrap_or_else(|| panic!("the attack declares no number {name:?} with a default"))
    }

    /// A number, if it is given or has a default.
    pub fn given(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// A whole number.
    ///
    /// # Errors
    ///
    /// In words, if it is not whole, or more than 32 bits can have.
    ///
    /// # Panics
    ///
    /// As [`AttackValues::number`].
    pub fn whole(&self, name: &str) -> Result<u32, String> {
        let number = self.number(name);
        let whole = number as u32;
        if f64::from(whole) == number {
            return Ok(whole);
        }
        Err(format!("{name} must be a whole number, not {number}"))
    }
}
