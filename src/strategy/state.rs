//! What a strategy keeps between rounds. It belongs to a model version: it is read by block with the version, written by block
//! with the next one, and published with it in one atomic step. A round that fails leaves no trace in it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    parameters::{DType, Layout, Parameters, PayloadSpec, Roles},
    report::DELTA,
};

use super::StrategyError;

/// The state of a strategy: which tensors and which numbers, and what they begin with.
///
/// ```
/// use fedavg::strategy::{StateSpec, StateTensor};
///
/// let adam = StateSpec::default()
///     .tensor(StateTensor::new("m"))
///     .tensor(StateTensor::new("v").filled(1e-6))
///     .number("step", 0.0);
/// assert_eq!(adam.tensors.len(), 2);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct StateSpec {
    /// Tensors of the model's shape, in f32.
    pub tensors: Vec<StateTensor>,
    /// Numbers by name, with their values before the first round. Must be finite.
    pub numbers: BTreeMap<String, f64>,
}

impl StateSpec {
    /// The same with one more tensor.
    pub fn tensor(mut self, tensor: StateTensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// The same with one more number.
    pub fn number(mut self, name: impl Into<String>, initial: f64) -> Self {
        self.numbers.insert(name.into(), initial);
        self
    }

    /// Checks names and initial values against the model.
    ///
    /// # Errors
    ///
    /// [`StrategyError::State`] names the tensor or the number, and what is wrong with it.
    pub fn check(&self, layout: &Layout) -> Result<(), StrategyError> {
        for (index, tensor) in self.tensors.iter().enumerate() {
            let name = &tensor.name;
            PayloadSpec::model(name, tensor.roles)
                .check()
                .map_err(StrategyError::State)?;
            let is_known = self.tensors[..index]
                .iter()
                .any(|other| other.name == *name);
            if is_known || name == DELTA {
                let problem =
                    format!("the state has more than one tensor {name:?}, or it is reserved");
                return Err(StrategyError::State(problem));
            }
            if let Initial::Values(values) = &tensor.initial {
                layout.check_same(values.layout()).map_err(|error| {
                    let problem =
                        format!("the initial values of {name:?} do not fit the model: {error}");
                    StrategyError::State(problem)
                })?;
            }
        }
        check_finite(&self.numbers)
    }
}

pub(super) fn check_finite(numbers: &BTreeMap<String, f64>) -> Result<(), StrategyError> {
    for (name, value) in numbers {
        if !value.is_finite() {
            let problem = format!("the number {name:?} is {value}: it must be finite");
            return Err(StrategyError::State(problem));
        }
    }
    Ok(())
}

/// One tensor of a strategy's state, with the model's shape.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StateTensor {
    /// Its name, as a payload's: see [`PayloadSpec::name`].
    pub name: String,
    /// Which of the model's tensors it has values for. In blocks of other roles it is empty.
    pub roles: Roles,
    /// Its values before the first round.
    pub initial: Initial,
    /// Whether clients can ask for it: a plan names it in [`RoundPlan::sends`](super::RoundPlan::sends).
    pub offered: bool,
}

/// The values of a state tensor before the first round.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Initial {
    /// This value everywhere.
    Filled(f32),
    /// These values, of the model's layout.
    Values(Arc<Parameters>),
}

impl StateTensor {
    /// A tensor for the model's trainable values that begins with zeros and stays with the coordinator.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            roles: Roles::TRAINABLE,
            initial: Initial::Filled(0.0),
            offered: false,
        }
    }

    /// The same for the model's values of these roles.
    pub fn with_roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        self
    }

    /// The same, beginning with this value everywhere.
    pub fn filled(mut self, value: f32) -> Self {
        self.initial = Initial::Filled(value);
        self
    }

    /// The same, beginning with these values. A job whose model has another layout is refused.
    pub fn starting_at(mut self, values: Arc<Parameters>) -> Self {
        self.initial = Initial::Values(values);
        self
    }

    /// The same, offered to clients.
    pub fn offered(mut self) -> Self {
        self.offered = true;
        self
    }

    /// The payload that clients get of it.
    pub fn payload(&self) -> PayloadSpec {
        PayloadSpec::model(&self.name, self.roles).with_dtype(DType::F32)
    }
}
