//! Attackers that know each other's honest updates: [`Collusion`] trains each of them once in a round, whichever attacker asks first.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{AttackError, Effort};
use crate::{
    ids::{ClientId, ModelVersion, RoundId},
    job::{InnerState, JobSpec, TrainingSettings},
    parameters::{Digest, Parameters},
    partition::{Examples, partition},
    rng::{Purpose, keyed},
    worker::{
        ClientContext, LocalTrainer, LocalUpdate, Partition, TrainError, TrainTask, TrainerFactory,
    },
};

/// Of how many rounds honest updates are kept: of the present one, and of one whose tasks come late.
const KEPT: usize = 2;

/// What a client's state would be needed for. A colluder has the state of its own client alone, and could not train the others'.
const STATEFUL: [&str; 4] = [
    "objective:scaffold",
    "objective:feddyn",
    "training:inner_state",
    "tensors:personal",
];

/// The attackers of a job that collude, with the examples of each.
pub(super) struct Collusion {
    /// Each attacker and its examples, in client order.
    attackers: Vec<(ClientId, Partition)>,
    meetings: Mutex<VecDeque<Arc<Meeting>>>,
}

/// The honest updates of one round.
struct Meeting {
    key: Key,
    /// In the order of the attackers. Each is locked while it is made: who needs it meanwhile waits.
    honest: Vec<Mutex<Option<Arc<Honest>>>>,
}

/// Whose honest updates are the same.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    round: RoundId,
    version: ModelVersion,
    /// Of the global model: two runs with the same attackers may begin with other models.
    global: Digest,
    /// A strategy may give each client an amount of work of its own. A colluder then asks what the others would have made of its own.
    training: TrainingSettings,
}

/// An honest update, and the change that it makes.
#[derive(Debug)]
pub(super) struct Honest {
    pub update: LocalUpdate,
    pub delta: Arc<Parameters>,
}

impl Collusion {
    /// Deals the job's data as its coordinator will, and keeps what the attackers get.
    ///
    /// # Errors
    ///
    /// [`AttackError::Unusable`] and [`AttackError::Partition`] for jobs whose data nobody can deal before they start, and for jobs
    /// whose clients keep state.
    pub fn new(
        job: &JobSpec,
        clients: u32,
        attackers: &[ClientId],
        factory: &dyn TrainerFactory,
    ) -> Result<Self, AttackError> {
        check(job)?;
        let mut labels = None;
        if job.partition.needs_labels() {
            labels = Some(factory.labels(&job.dataset)?);
        }
        let examples = match &labels {
            Some(labels) => Examples::labelled(labels),
            None => {
                let count = factory.dataset(&job.dataset)?.train_examples;
                Examples::unlabelled(count as usize)
            }
        };
        // As the coordinator draws it.
        let generator = keyed(job.seed, Purpose::Partition, RoundId(0), None);
        let mut dealt = partition(&job.partition, examples, clients as usize, None, generator)?;
        let mut own = Vec::with_capacity(attackers.len());
        for attacker in attackers {
            let indices = std::mem::take(&mut dealt[attacker.0 as usize]);
            own.push((*attacker, Partition::Indices(Arc::from(indices))));
        }
        Ok(Self {
            attackers: own,
            meetings: Mutex::default(),
        })
    }

    /// The capabilities that trainers of colluding attackers have: without those for which clients keep state.
    pub fn capabilities(all: Vec<String>) -> Vec<String> {
        let mut kept = all;
        kept.retain(|capability| !STATEFUL.contains(&capability.as_str()));
        kept
    }

    /// The honest updates of all attackers in the task's round, in client order, and the place of the task's client among them.
    ///
    /// # Errors
    ///
    /// Whatever ends one of the trainings; [`TrainError::Task`] for a job whose clients keep state, and if the client's examples are
    /// others than those that were dealt here.
    pub fn updates(
        &self,
        effort: Effort,
        trainer: &mut dyn LocalTrainer,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<(Vec<Arc<Honest>>, usize), TrainError> {
        let place = self.place_of(task)?;
        let meeting = self.meeting(global, task);
        let count = self.attackers.len();
        let mut found = BTreeMap::new();
        for step in 0..count {
            // From the task's own client on, so that two that come at the same time train different ones first.
            let at = (place + step) % count;
            let mut honest = locked(&meeting.honest[at]);
            let update = match &*honest {
                Some(made) => made.clone(),
                None => {
                    let made = self.train(at, effort, trainer, global, task, context)?;
                    honest.insert(Arc::new(made)).clone()
                }
            };
            found.insert(at, update);
        }
        Ok((found.into_values().collect(), place))
    }

    /// The place of the task's client among the attackers.
    fn place_of(&self, task: &TrainTask) -> Result<usize, TrainError> {
        let found = self
            .attackers
            .iter()
            .position(|(client, partition)| *client == task.client && *partition == task.partition);
        found.ok_or_else(|| {
            TrainError::Task(format!(
                "client {} has other examples than the other attackers expect: the attackers were made for another job",
                task.client
            ))
        })
    }

    /// Where the attackers of this round meet.
    fn meeting(&self, global: &Parameters, task: &TrainTask) -> Arc<Meeting> {
        let key = Key {
            round: task.round,
            version: task.version,
            global: Digest::of(bytemuck::cast_slice(global.values())),
            training: task.training.clone(),
        };
        let mut meetings = locked(&self.meetings);
        if let Some(found) = meetings.iter().find(|meeting| meeting.key == key) {
            return found.clone();
        }
        let honest = self.attackers.iter().map(|_| Mutex::default()).collect();
        let meeting = Arc::new(Meeting { key, honest });
        meetings.push_back(meeting.clone());
        if meetings.len() > KEPT {
            meetings.pop_front();
        }
        meeting
    }

    /// The honest update of one attacker, as if the task were its own.
    fn train(
        &self,
        place: usize,
        effort: Effort,
        trainer: &mut dyn LocalTrainer,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Honest, TrainError> {
        let (client, partition) = &self.attackers[place];
        let mut own = task.clone();
        (own.client, own.partition) = (*client, partition.clone());
        let mut state = BTreeMap::new();
        let mut context = ClientContext {
            client: *client,
            state: &mut state,
            cancelled: context.cancelled,
            progress: &mut |_, _| {},
        };
        let update = effort.train(trainer, global, &own, &mut context)?;
        if !state.is_empty() {
            return Err(TrainError::Task(
                "attackers that collude can't act for clients that keep state between rounds, which this job's objective does"
                    .to_string(),
            ));
        }
        let delta = update.parameters.clone().into_delta(global);
        let delta = delta.map_err(|error| TrainError::Model(error.to_string()))?;
        Ok(Honest {
            update,
            delta: Arc::new(delta),
        })
    }
}

/// Refuses jobs that colluding attackers can't be in.
fn check(job: &JobSpec) -> Result<(), AttackError> {
    let problem = if job.partition.is_measured() {
        "partition proportional:measured deals the data by speeds that are measured while the job runs"
    } else if job.partition.is_local() {
        "partition local has the workers' own data, which the attackers do not share"
    } else if job.training.inner_state == InnerState::Keep {
        "inner_state \"keep\" has clients keep their optimizer's state between rounds, which the attackers do not share"
    } else if !job.personal.is_empty() {
        "personal tensors are a client's own, and the attackers do not share them"
    } else {
        return Ok(());
    };
    Err(AttackError::Unusable(format!(
        "attackers that collude train each other's clients, which is not possible in this job: {problem}"
    )))
}

/// Locks what a panic of another thread leaves whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
