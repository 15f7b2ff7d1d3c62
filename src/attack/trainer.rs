//! The trainer of a factory with attackers: honest for all clients but those.

use std::sync::Arc;

use super::{Attack, AttackRound, Needs, collusion::Collusion, history::History};
use crate::{
    backend::EnergyMeter,
    ids::ClientId,
    parameters::Parameters,
    round::Evaluation,
    worker::{ClientContext, EvalTask, LocalTrainer, LocalUpdate, TrainError, TrainTask},
};

/// What all attackers of a job share.
pub(super) struct Plot {
    pub attack: Arc<dyn Attack>,
    pub needs: Needs,
    /// Number of clients of the job.
    pub clients: u32,
    /// The clients that attack, in rising order.
    pub attackers: Vec<ClientId>,
    pub collusion: Option<Collusion>,
    pub history: History,
}

/// Trains honest clients as `honest` does, and attacks for the others.
pub(super) struct AttackingTrainer {
    pub honest: Box<dyn LocalTrainer>,
    /// The trainer that has the poisoned data, if the attack is one on data.
    pub poisoned: Option<Box<dyn LocalTrainer>>,
    pub plot: Arc<Plot>,
}

impl AttackingTrainer {
    fn attack(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        let plot = &*self.plot;
        let trainer = match &mut self.poisoned {
            Some(poisoned) => &mut **poisoned,
            None => &mut *self.honest,
        };
        let effort = plot.needs.effort;
        let mut colluders = Vec::new();
        let mut update = match &plot.collusion {
            None => effort.train(trainer, global, task, context)?,
            Some(collusion) => {
                let (honest, own) = collusion.updates(effort, trainer, global, task, context)?;
                colluders.extend(honest.iter().map(|honest| honest.delta.clone()));
                honest[own].update.clone()
            }
        };
        // An attack goes through both models at once.
        let same = global.layout().check_same(update.parameters.layout());
        same.map_err(|error| TrainError::Model(error.to_string()))?;
        let previous = plot.history.before(task.version);
        let mut round = AttackRound::new(task, global);
        round.previous = previous.as_deref();
        round.colluders = &colluders;
        round.clients = plot.clients;
        round.attackers = plot.attackers.len() as u32;
        plot.attack.update(&mut update, &round)?;
        Ok(update)
    }
}

impl LocalTrainer for AttackingTrainer {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        self.plot.history.saw(task.version, global);
        if self.plot.attackers.binary_search(&task.client).is_ok() {
            self.attack(global, task, context)
        } else {
            self.honest.train(global, task, context)
        }
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        self.honest.evaluate(global, task, context)
    }

    fn device(&self) -> Option<String> {
        self.honest.device()
    }

    fn meter(&self) -> Option<Arc<EnergyMeter>> {
        self.honest.meter()
    }
}
