//! SCAFFOLD: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020,
//! <https://arxiv.org/abs/1910.06378>, algorithm 1 with option II.

use std::collections::BTreeMap;

use super::{BlockRule, ClientObjective, Counted, restarts};
use crate::{
    objective::Objective,
    parameters::{PayloadSpec, Roles},
    report::DELTA,
    settings::TrainingSettings,
    strategy::{
        AggregateContext, Inputs, NextVersion, Out, Rows, StateSpec, StateTensor, StrategyError,
    },
};

/// The server's control variate `c`, as a state tensor and as a payload to clients; in a report, the change of the client's.
const CONTROL: &str = "control";

/// How often all control variates were set back to zero, since a client had lost its own.
const RESTARTS: &str = "control_restarts";

/// Clients correct each gradient by the difference of two control variates: the server's `c`, an estimate of the direction that all
/// clients move in, and their own `c_i`. Each report has the change of `c_i`; the coordinator adds it to `c`, divided by the number of all clients of the job.
///
/// Each client keeps its `c_i`, of the model's size. If a worker lost that of a client, `c` has a part that no `c_i` has: all clients
/// and the server then restart from zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scaffold;

impl ClientObjective for Scaffold {
    fn objective(&self, numbers: &BTreeMap<String, f64>) -> Objective {
        let restarts = restarts::count(numbers, RESTARTS);
        Objective::Scaffold { restarts }
    }

    fn state(&self) -> StateSpec {
        StateSpec::default()
            .tensor(StateTensor::new(CONTROL).offered())
            .number(RESTARTS, 0.0)
    }

    fn begin(&self, round: &AggregateContext<'_>, next: &mut NextVersion<'_>) {
        restarts::note(round, next, RESTARTS);
    }

    fn sends(&self) -> Vec<String> {
        vec![CONTROL.to_string()]
    }

    fn expects(&self) -> Vec<PayloadSpec> {
        vec![PayloadSpec::model(CONTROL, Roles::TRAINABLE)]
    }

    fn check(&self, training: &TrainingSettings) -> Result<(), String> {
        training
            .check_reach()
            .map_err(|problem| format!("SCAFFOLD: {problem}"))?;
        if training.lr == 0.0 {
            return Err("SCAFFOLD divides by the learning rate, which must be above 0".to_string());
        }
        Ok(())
    }

    fn count(
        &self,
        round: &AggregateContext<'_>,
        weights: Vec<f64>,
    ) -> Result<Counted, StrategyError> {
        let clients = round.reports().iter().map(|report| report.client);
        // c += 1 / N * the sum of the changes: N is all clients of the job, and not those of the round.
        let all = round.population().len().max(round.reports().len()).max(1);
        let ones = vec![1.0; round.reports().len()];
        let inputs = Inputs::new(DELTA, clients.zip(weights));
        Ok(Counted::new(inputs.and_counted(CONTROL, ones, all as f64)))
    }

    fn block_rule(&self) -> Option<&dyn BlockRule> {
        Some(self)
    }

    fn needs_mean(&self) -> Option<String> {
        Some("SCAFFOLD moves its control variate by the mean of the reports, which a reducer does not protect".to_string())
    }
}

impl BlockRule for Scaffold {
    fn apply(
        &self,
        round: &AggregateContext<'_>,
        rows: &Rows<'_>,
        _: &mut [f64],
        out: &mut Out<'_>,
    ) {
        if restarts::is_due(round) {
            return out.state(CONTROL).fill(0.0);
        }
        let change = rows.mean(CONTROL);
        for (control, change) in out.state(CONTROL).iter_mut().zip(change.iter()) {
            *control = (f64::from(*control) + change) as f32;
        }
    }
}
