//! Data that attackers poison, and how well they reach their goal.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use super::{Attack, AttackError};
use crate::{
    data::Dataset,
    ids::{ClientId, ModelVersion, RoundId},
    job::JobDescription,
    parameters::Parameters,
    rng::{Purpose, keyed},
    worker::{ClientContext, EvalTask, TrainError, TrainerFactory},
};

/// The dataset that the attackers of a job with this seed train on.
///
/// # Errors
///
/// What [`Attack::poison`] says.
pub fn poisoned(attack: &dyn Attack, clean: &Dataset, seed: u64) -> Result<Dataset, AttackError> {
    // Rounds count from 1: no draw of a round has this key. Who attacks is drawn without a client.
    let mut generator = keyed(seed, Purpose::Attack, RoundId(0), Some(ClientId(0)));
    attack.poison(clean, &mut generator)
}

/// How well the attackers reach their goal with this model, from 0 to 1: the share of the goal's examples that it classifies as they
/// want. For [`Backdoor`](super::Backdoor), that is the share of the test images of all other classes that it takes for the target
/// when they have the trigger.
///
/// `goal` makes trainers that have [`Attack::goal`]'s dataset under the name of the job's.
///
/// # Errors
///
/// [`TrainError`] if the model can't be evaluated, or is not a classifier.
pub fn success_rate(
    goal: &dyn TrainerFactory,
    job: &JobDescription,
    model: &Parameters,
) -> Result<f64, TrainError> {
    let mut trainer = goal.trainer(job)?;
    let mut state = BTreeMap::new();
    let mut context = ClientContext {
        client: ClientId(0),
        state: &mut state,
        cancelled: &AtomicBool::new(false),
        progress: &mut |_, _| {},
    };
    let whole = EvalTask::test(ModelVersion(0), 0, 1);
    let evaluation = trainer.evaluate(model, &whole, &mut context)?;
    evaluation.accuracy.ok_or_else(|| {
        TrainError::Model(
            "it is not a classifier, so that the success of the attack can't be measured"
                .to_string(),
        )
    })
}
