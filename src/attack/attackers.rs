//! A trainer factory some of whose clients attack: [`Attackers`].

use std::{fmt, sync::Arc};

use super::{
    Attack, AttackError, AttackingClients, Effort, Needs,
    collusion::Collusion,
    history::History,
    trainer::{AttackingTrainer, Plot},
};
use crate::{
    ids::ClientId,
    job::{JobDescription, JobSpec},
    parameters::Parameters,
    protocol::DatasetInfo,
    worker::{LocalTrainer, TrainError, TrainerFactory},
};

/// A [`TrainerFactory`] around an honest one: the trainers of some clients attack. All other clients train as with the honest factory,
/// to the bit, and so do models, labels and evaluations.
///
/// It is made for one job. A [`Simulation`](crate::Simulation) takes it as its trainers; the result does not depend on the number of
/// workers.
pub struct Attackers {
    honest: Arc<dyn TrainerFactory>,
    poisoned: Option<Arc<dyn TrainerFactory>>,
    plot: Arc<Plot>,
}

impl fmt::Debug for Attackers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Attackers")
            .field("clients", &self.plot.attackers)
            .finish_non_exhaustive()
    }
}

impl Attackers {
    /// An attack on updates in this job. Attacks on data need [`Attackers::with_poisoned`].
    ///
    /// # Errors
    ///
    /// [`AttackError`] if the job does not say its number of clients, for clients that it does not have, and if the attack does not fit
    /// the job: attackers that [collude](super::Needs::colluders) are refused if clients keep state (personal tensors, a kept optimizer),
    /// and with the partitions `proportional` and `local`. With objectives for which clients keep state (SCAFFOLD, FedDyn), the run is
    /// refused when it begins, since [`TrainerFactory::capabilities`] then lacks them.
    pub fn new(
        job: &JobSpec,
        attack: Arc<dyn Attack>,
        who: &AttackingClients,
        honest: Arc<dyn TrainerFactory>,
    ) -> Result<Self, AttackError> {
        if attack.needs().poisoned_data {
            return Err(AttackError::Unusable(
                "this attack trains on poisoned data: make it by `Attackers::with_poisoned`, with a factory that has the data"
                    .to_string(),
            ));
        }
        Self::made(job, attack, who, honest, None)
    }

    /// An attack on data in this job. `poisoned` makes the attackers' trainers: it has the [poisoned](super::poisoned()) dataset
    /// under the name of the clean one.
    ///
    /// # Errors
    ///
    /// As [`Attackers::new`].
    pub fn with_poisoned(
        job: &JobSpec,
        attack: Arc<dyn Attack>,
        who: &AttackingClients,
        honest: Arc<dyn TrainerFactory>,
        poisoned: Arc<dyn TrainerFactory>,
    ) -> Result<Self, AttackError> {
        let clean = honest.dataset(&job.dataset)?.train_examples;
        let found = poisoned.dataset(&job.dataset)?.train_examples;
        if found != clean {
            return Err(AttackError::Unusable(format!(
                "the poisoned dataset must have as many training examples as the clean one, {clean}, and not {found}"
            )));
        }
        Self::made(job, attack, who, honest, Some(poisoned))
    }

    fn made(
        job: &JobSpec,
        attack: Arc<dyn Attack>,
        who: &AttackingClients,
        honest: Arc<dyn TrainerFactory>,
        poisoned: Option<Arc<dyn TrainerFactory>>,
    ) -> Result<Self, AttackError> {
        let Some(clients) = job.clients else {
            return Err(AttackError::Unusable(
                "a job with attackers must say its number of clients".to_string(),
            ));
        };
        let attackers = who.choose(clients, job.seed)?;
        let needs = attack.needs();
        let checked = attack.check(clients, attackers.len() as u32);
        checked.map_err(AttackError::Unusable)?;
        let mut collusion = None;
        if needs.colluders {
            collusion = Some(Collusion::new(job, clients, &attackers, &*honest)?);
        }
        let plot = Plot {
            attack,
            needs,
            clients,
            attackers,
            collusion,
            history: History::default(),
        };
        Ok(Self {
            honest,
            poisoned,
            plot: Arc::new(plot),
        })
    }

    /// The clients that attack, in rising order.
    pub fn clients(&self) -> &[ClientId] {
        &self.plot.attackers
    }

    /// Whether at least half of the clients attack: no rule of aggregation is made for that.
    pub fn are_majority(&self) -> bool {
        2 * self.plot.attackers.len() as u64 >= u64::from(self.plot.clients)
    }
}

impl TrainerFactory for Attackers {
    fn trainer(&self, job: &JobDescription) -> Result<Box<dyn LocalTrainer>, TrainError> {
        let poisoned = match &self.poisoned {
            Some(factory) => Some(factory.trainer(job)?),
            None => None,
        };
        Ok(Box::new(AttackingTrainer {
            honest: self.honest.trainer(job)?,
            poisoned,
            plot: self.plot.clone(),
        }))
    }

    fn initial(&self, job: &JobDescription) -> Result<Parameters, TrainError> {
        self.honest.initial(job)
    }

    fn dataset(&self, name: &str) -> Result<DatasetInfo, TrainError> {
        self.honest.dataset(name)
    }

    fn labels(&self, dataset: &str) -> Result<Arc<[u16]>, TrainError> {
        self.honest.labels(dataset)
    }

    fn datasets(&self) -> Vec<DatasetInfo> {
        self.honest.datasets()
    }

    fn capabilities(&self) -> Vec<String> {
        let mut all = self.honest.capabilities();
        let Needs { effort, .. } = self.plot.needs;
        if effort == Effort::Nothing {
            // What an honest client measures or keeps while it trains, an attacker that trains nothing does not have.
            all.retain(|capability| !capability.starts_with("payload:"));
        }
        if self.plot.collusion.is_some() {
            all = Collusion::capabilities(all);
        }
        all
    }
}
