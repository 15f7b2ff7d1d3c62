//! What an attacker knows in a round: [`AttackRound`].

use std::sync::Arc;

use crate::{
    parameters::{Parameters, Role},
    rng::{ChaCha8Rng, Purpose, keyed},
    worker::{LocalUpdate, TrainTask},
};

/// What an attacker knows when it makes its report.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AttackRound<'a> {
    /// The attacker's task, as the coordinator gave it.
    pub task: &'a TrainTask,
    /// The global model of the round.
    pub global: &'a Parameters,
    /// The global model of the last version before this one in which anybody trained; none in the first round.
    pub previous: Option<&'a Parameters>,
    /// The honest changes (local minus global model) of all attackers of the job in this round, in client order, including attackers
    /// that are not in the round's cohort: one adversary controls all of them. Empty if the attack does not
    /// [need](super::Needs::colluders) them. Honest clients' changes are not here.
    pub colluders: &'a [Arc<Parameters>],
    /// Number of clients of the job.
    pub clients: u32,
    /// Number of attackers among them.
    pub attackers: u32,
}

impl<'a> AttackRound<'a> {
    /// A round with one client, which attacks. The public fields change that.
    pub fn new(task: &'a TrainTask, global: &'a Parameters) -> Self {
        Self {
            task,
            global,
            previous: None,
            colluders: &[],
            clients: 1,
            attackers: 1,
        }
    }

    /// The random number generator of this attacker in this round. Each call returns a new one that gives the same numbers.
    pub fn generator(&self) -> ChaCha8Rng {
        let task = self.task;
        keyed(task.seed, Purpose::Attack, task.round, Some(task.client))
    }

    /// Puts another change of the model in place of the one in `update`. For each value, `change` gets its place in the layout and the
    /// present change, and returns the new one.
    ///
    /// Trainable tensors alone are changed. Buffers (BatchNorm's statistics) are sent as they are: a variance below zero would be
    /// found at once.
    pub fn send(&self, update: &mut LocalUpdate, mut change: impl FnMut(usize, f64) -> f64) {
        let local = update.parameters.values_mut();
        let global = self.global.values();
        for tensor in self.global.layout().tensors() {
            if tensor.role != Role::Trainable {
                continue;
            }
            for place in tensor.range() {
                let start = f64::from(global[place]);
                let present = f64::from(local[place]) - start;
                local[place] = (start + change(place, present)) as f32;
            }
        }
    }

    /// Mean and standard deviation (of the population) of the colluders' changes at this place.
    pub(super) fn moments(&self, place: usize) -> (f64, f64) {
        let count = self.colluders.len() as f64;
        let mut sum = 0.0;
        for delta in self.colluders {
            sum += f64::from(delta.values()[place]);
        }
        let mean = sum / count;
        let mut squares = 0.0;
        for delta in self.colluders {
            squares += (f64::from(delta.values()[place]) - mean).powi(2);
        }
        (mean, (squares / count).sqrt())
    }
}
