//! What an attack is: [`Attack`].

use super::{AttackError, AttackRound, Effort};
use crate::{
    data::Dataset,
    rng::ChaCha8Rng,
    worker::{LocalUpdate, TrainError},
};

/// How clients attack. Object-safe, so that configuration chooses it at run time. All methods have defaults, with which attackers
/// are honest.
///
/// # Contract
///
/// - Every method is a function of its arguments and of the attack's configuration: the same arguments give the same bits. All
///   randomness comes from the generators that it is given, so that a run is the same with any number of workers.
/// - `&self` is shared by threads and rounds. It is never called under a lock.
pub trait Attack: Send + Sync {
    /// What it needs beside the attacker's own honest update.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Checks that it makes sense with these numbers of clients and of attackers among them.
    ///
    /// # Errors
    ///
    /// What is wrong, and what to choose instead.
    fn check(&self, clients: u32, attackers: u32) -> Result<(), String> {
        let _ = (clients, attackers);
        Ok(())
    }

    /// The dataset that attackers train on, made of the clean one: images or labels of its training split are changed, their number
    /// and their order are not. Called if [`Needs::poisoned_data`] is set.
    ///
    /// # Errors
    ///
    /// [`AttackError::Unusable`] if the attack does not fit these data.
    fn poison(&self, clean: &Dataset, generator: &mut ChaCha8Rng) -> Result<Dataset, AttackError> {
        let _ = generator;
        Ok(clean.clone())
    }

    /// What the attackers want to reach beside harm, as a dataset: its test split has examples, each with the label that they want
    /// the global model to give. [`success_rate`](super::success_rate) measures that. None for attacks without such a goal.
    ///
    /// # Errors
    ///
    /// [`AttackError::Unusable`] if the attack does not fit these data.
    fn goal(&self, clean: &Dataset) -> Result<Option<Dataset>, AttackError> {
        let _ = clean;
        Ok(None)
    }

    /// Makes what an attacker sends of its honest update. [`AttackRound::send`] puts another change of the model in place of the
    /// honest one.
    ///
    /// # Errors
    ///
    /// [`TrainError`]: the client then fails in this round.
    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        let _ = (update, round);
        Ok(())
    }
}

/// What an attack needs beside the attacker's own honest update: by default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// Attackers train on [`Attack::poison`]'s data.
    pub poisoned_data: bool,
    /// Attackers know each other's honest updates: [`AttackRound::colluders`]. Such attackers can't act for clients that keep state
    /// between rounds.
    pub colluders: bool,
    /// How much attackers train.
    pub effort: Effort,
}

impl Needs {
    /// The same with poisoned data.
    pub fn with_poisoned_data(mut self) -> Self {
        self.poisoned_data = true;
        self
    }

    /// The same with the honest updates of all attackers.
    pub fn with_colluders(mut self) -> Self {
        self.colluders = true;
        self
    }

    /// The same with another amount of training.
    pub fn with_effort(mut self, effort: Effort) -> Self {
        self.effort = effort;
        self
    }
}
