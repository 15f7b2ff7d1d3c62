//! Which payloads of which reports an aggregation reads, and how much each report counts.

use std::collections::BTreeSet;

use super::{AggregateContext, StrategyError};
use crate::{
    ids::ClientId,
    parameters::{BlockReader, Role},
    report::DELTA,
};

/// Payloads by name, and a coefficient for each report that is read.
///
/// ```
/// use fedavg::{ids::ClientId, strategy::Inputs};
///
/// // The mean of two clients' deltas, weighted 3 : 1, and their control variates beside it.
/// let inputs = Inputs::new("delta", [(ClientId(0), 3.0), (ClientId(4), 1.0)]).and("control");
/// assert_eq!(inputs.total(), 4.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
    payloads: Vec<Input>,
    rows: Vec<(ClientId, f64)>,
    buffers: Option<Vec<f64>>,
    denominator: Option<f64>,
}

/// A payload that is read.
#[derive(Debug, Clone, PartialEq)]
struct Input {
    name: String,
    /// Coefficients and a denominator of its own, if it has any.
    own: Option<(Vec<f64>, f64)>,
}

impl Input {
    fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            own: None,
        }
    }
}

impl Inputs {
    /// This payload of these clients' reports, each with its coefficient: a finite number, negative ones too. Clients are in
    /// rising order; reports that are not named are not read.
    pub fn new(
        payload: impl Into<String>,
        rows: impl IntoIterator<Item = (ClientId, f64)>,
    ) -> Self {
        Self {
            payloads: vec![Input::new(payload)],
            rows: rows.into_iter().collect(),
            buffers: None,
            denominator: None,
        }
    }

    /// The delta of each report, weighted by the number of examples: what FedAvg reads.
    pub fn by_examples(round: &AggregateContext<'_>) -> Self {
        let reports = round.reports().iter();
        Self::new(
            DELTA,
            reports.map(|report| (report.client, report.metadata.examples as f64)),
        )
    }

    /// The same with a further payload of each report.
    pub fn and(mut self, payload: impl Into<String>) -> Self {
        self.payloads.push(Input::new(payload));
        self
    }

    /// The same with a further payload of each report, with coefficients and a denominator of its own, for all roles alike: one
    /// coefficient for each row, in order.
    pub fn and_counted(
        mut self,
        payload: impl Into<String>,
        coefficients: impl IntoIterator<Item = f64>,
        denominator: f64,
    ) -> Self {
        let mut input = Input::new(payload);
        input.own = Some((coefficients.into_iter().collect(), denominator));
        self.payloads.push(input);
        self
    }

    /// The same with other coefficients for buffers, one for each row, in order.
    pub fn with_buffers(mut self, coefficients: impl IntoIterator<Item = f64>) -> Self {
        self.buffers = Some(coefficients.into_iter().collect());
        self
    }

    /// The same with a fixed denominator of the mean of trainable values. Without it, the denominator is the sum of the
    /// coefficients. That of buffers is always the sum.
    pub fn over(mut self, denominator: f64) -> Self {
        self.denominator = Some(denominator);
        self
    }

    /// The clients whose reports are read, in order.
    pub fn clients(&self) -> impl ExactSizeIterator<Item = ClientId> + '_ {
        self.rows.iter().map(|(client, _)| *client)
    }

    /// The coefficients, in client order.
    pub fn coefficients(&self) -> Vec<f64> {
        self.rows
            .iter()
            .map(|(_, coefficient)| *coefficient)
            .collect()
    }

    /// The same with other coefficients, one for each row, in order; those of buffers, if they have any of their own, stay.
    pub fn with_coefficients(mut self, coefficients: impl IntoIterator<Item = f64>) -> Self {
        for ((_, coefficient), other) in self.rows.iter_mut().zip(coefficients) {
            *coefficient = other;
        }
        self
    }

    /// Leaves out rows, given by place.
    pub(super) fn remove(&mut self, places: &BTreeSet<usize>) {
        leave_out(&mut self.rows, places);
        if let Some(buffers) = &mut self.buffers {
            leave_out(buffers, places);
        }
        for payload in &mut self.payloads {
            if let Some((coefficients, _)) = &mut payload.own {
                leave_out(coefficients, places);
            }
        }
    }

    /// The sum of the coefficients.
    pub fn total(&self) -> f64 {
        self.rows.iter().map(|(_, coefficient)| *coefficient).sum()
    }
}

/// Inputs with the readers behind them.
pub(super) struct Resolved<'a> {
    pub payloads: Vec<Payload<'a>>,
    pub clients: Vec<ClientId>,
    trainable: Coefficients,
    buffers: Coefficients,
}

/// One payload of each row.
pub(super) struct Payload<'a> {
    pub name: String,
    pub rows: Vec<&'a (dyn BlockReader + Send + Sync)>,
    /// What its rows count, if not as those of the first payload.
    pub own: Option<Coefficients>,
}

/// What each row counts in blocks of one role, and what their sum is divided by.
pub(super) struct Coefficients {
    pub rows: Vec<f64>,
    pub denominator: f64,
}

impl Coefficients {
    fn new(rows: Vec<f64>, fixed: Option<f64>) -> Result<Self, StrategyError> {
        let denominator = fixed.unwrap_or_else(|| rows.iter().sum());
        let are_finite = rows.iter().all(|coefficient| coefficient.is_finite());
        // Negative ones are allowed: a strategy may subtract. Only a division that has no result is refused.
        let is_usable = denominator.is_finite() && denominator != 0.0;
        // Without rows nothing is divided, so a denominator of 0 is no error then.
        if !are_finite || (!is_usable && !rows.is_empty()) {
            return Err(StrategyError::Aggregate(format!(
                "{} reports with weights that add up to {denominator}",
                rows.len()
            )));
        }
        Ok(Self { rows, denominator })
    }
}

impl<'a> Resolved<'a> {
    pub fn new(context: &AggregateContext<'a>, inputs: &Inputs) -> Result<Self, StrategyError> {
        // The order of additions is the order of rows, and with another one the bits differ.
        if !inputs.rows.is_sorted_by(|a, b| a.0 < b.0) {
            return unfit("the inputs are not in rising order of clients".to_string());
        }
        let trainable: Vec<_> = inputs
            .rows
            .iter()
            .map(|(_, coefficient)| *coefficient)
            .collect();
        let buffers = inputs.buffers.clone().unwrap_or_else(|| trainable.clone());
        check_length("buffers", buffers.len(), trainable.len())?;
        let mut reports = Vec::with_capacity(inputs.rows.len());
        for client in inputs.clients() {
            let found = context
                .reports
                .binary_search_by_key(&client, |report| report.client);
            match found {
                Ok(index) => reports.push(&context.reports[index]),
                Err(_) => return unfit(format!("client {client} has no accepted report")),
            }
        }
        let mut payloads = Vec::with_capacity(inputs.payloads.len());
        for Input { name, own } in &inputs.payloads {
            let mut rows = Vec::with_capacity(reports.len());
            for report in &reports {
                let reader = report.payload(name)?;
                // A vector, for instance: a block's range in the model is not one of the vector.
                if reader.layout().len() != context.version.model.layout().len() {
                    return unfit(format!("payload {name:?} does not have the model's shape"));
                }
                rows.push(reader);
            }
            let own = match own {
                Some((coefficients, denominator)) => {
                    check_length(name, coefficients.len(), rows.len())?;
                    Some(Coefficients::new(coefficients.clone(), Some(*denominator))?)
                }
                None => None,
            };
            let name = name.clone();
            payloads.push(Payload { name, rows, own });
        }
        Ok(Self {
            payloads,
            clients: inputs.clients().collect(),
            trainable: Coefficients::new(trainable, inputs.denominator)?,
            buffers: Coefficients::new(buffers, None)?,
        })
    }

    /// What the rows of a payload count in blocks of a role.
    pub fn coefficients_of<'b>(&'b self, payload: &'b Payload<'_>, role: Role) -> &'b Coefficients {
        match &payload.own {
            Some(own) => own,
            None => self.coefficients(role),
        }
    }

    pub fn coefficients(&self, role: Role) -> &Coefficients {
        match role {
            Role::Buffer => &self.buffers,
            Role::Trainable | Role::Frozen => &self.trainable,
        }
    }
}

fn leave_out<T>(values: &mut Vec<T>, places: &BTreeSet<usize>) {
    let mut place = 0;
    values.retain(|_| {
        place += 1;
        !places.contains(&(place - 1))
    });
}

fn check_length(what: &str, coefficients: usize, reports: usize) -> Result<(), StrategyError> {
    if coefficients == reports {
        return Ok(());
    }
    unfit(format!(
        "{coefficients} coefficients for {what} of {reports} reports"
    ))
}

fn unfit<T>(problem: String) -> Result<T, StrategyError> {
    Err(StrategyError::Aggregate(problem))
}
