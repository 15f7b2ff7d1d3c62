//! The trainer that trains burn modules: [`BurnTrainer`] for one thread, made by [`BurnTrainers`].
//!
//! What is trained is a [`Learner`]: a module, its examples and its loss. Image classifiers, of the zoo or an embedder's,
//! are learners already, on any [`Dataset`](crate::data::Dataset). Local training uses burn only in this folder, which must
//! know no coordinator, no transport and no strategy.

mod datasets;
mod device_pool;
mod erased;
mod generator;
mod images;
mod learner;
mod optimizer;
mod registry;
mod tally;

use std::{fmt, sync::Arc};

use burn::{module::Module, optim::GradientsParams, tensor::Device};
use generator::lock_generator;
pub use learner::{BatchLoss, Learner, Minibatch, Randomness, Split};
use rand::seq::SliceRandom;
pub use registry::BurnTrainers;
use tally::Tally;

use super::{ClientContext, EvalTask, LocalTrainer, LocalUpdate, Partition, TrainError, TrainTask};
use crate::{
    model::{self, BridgeError},
    panics,
    parameters::{Layout, Parameters, safetensors::check_finite},
    rng::{ChaCha8Rng, Purpose, keyed},
    round::Evaluation,
};

/// Number of examples that are evaluated at once.
const EVALUATION_BATCH: usize = 250;

/// Trains one [`Learner`] on one device.
///
/// Every call builds a fresh module and a fresh optimizer, so that nothing of one client or round reaches the next.
pub struct BurnTrainer<L: Learner> {
    learner: Arc<L>,
    device: Device,
    layout: Arc<Layout>,
}

impl<L: Learner> fmt::Debug for BurnTrainer<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BurnTrainer")
            .finish_non_exhaustive()
    }
}

impl<L: Learner> BurnTrainer<L> {
    /// A trainer on this device, which [`DeviceSpec`](crate::backend::DeviceSpec) makes.
    ///
    /// # Errors
    ///
    /// [`TrainError::Model`] if the module has no layout, [`TrainError::Panicked`] if it can't be built.
    pub fn new(learner: Arc<L>, device: Device) -> Result<Self, TrainError> {
        // Once: the names and shapes of a module's tensors are the same each time that it is built.
        let _drawing = lock_generator();
        let layout = guarded(|| {
            let module = learner.module(&device.clone().autodiff())?;
            Ok(model::layout_of(&module)?)
        })?;
        Ok(Self {
            learner,
            device,
            layout,
        })
    }

    /// A fresh module with the global model's values.
    fn module(&self, global: &Parameters, device: &Device) -> Result<L::Module, TrainError> {
        self.layout
            .check_same(global.layout())
            .map_err(|error| TrainError::Model(error.to_string()))?;
        // Its own values are replaced below, but drawing them moves burn's generator.
        let module = {
            let _drawing = lock_generator();
            self.learner.module(device)?
        };
        Ok(model::fill(module, global)?)
    }

    fn train_guarded(
        &self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        let device = self.device.clone().autodiff();
        let mut order = examples_of(&task.partition, self.learner.examples(Split::Train))?;
        // One generator a purpose: whether images are varied must not change the order of the examples.
        let mut shuffle = generator(task, Purpose::Shuffle);
        let mut augment = generator(task, Purpose::Augment);
        let mut dropout = generator(task, Purpose::Dropout);

        let mut module = self.module(global, &device)?;
        let mut optimizer = optimizer::local_optimizer(&task.training);
        let mut tally = Tally::default();
        let total = order.len() as u64 * u64::from(task.training.local_epochs);
        let (mut done, mut steps) = (0, 0);
        for _ in 0..task.training.local_epochs {
            // The generator goes on, so that no two epochs have the same order.
            order.shuffle(&mut shuffle);
            // At least 1: the task comes from another machine, and `chunks` panics at 0.
            for examples in order.chunks(task.training.batch_size.max(1) as usize) {
                if context.is_cancelled() {
                    return Err(TrainError::Cancelled);
                }
                let batch = self.learner.loss(
                    &module,
                    Minibatch {
                        split: Split::Train,
                        examples,
                        device: &device,
                        randomness: Some(Randomness {
                            augment: task.training.augment.then_some(&mut augment),
                            dropout: &mut dropout,
                        }),
                    },
                )?;
                let gradients = GradientsParams::from_grads(batch.loss.backward(), &module);
                module = optimizer.step(task.training.lr, module, gradients);
                tally.add(batch, examples.len())?;
                steps += 1;
                done += examples.len() as u64;
                (context.progress)(done, total);
            }
        }
        let measured = tally.finish()?;
        let values = model::export_as(&module, &self.layout)?.into_values();
        let parameters = Parameters::new(global.layout().clone(), values)
            .map_err(|error| TrainError::Model(error.to_string()))?;
        // Not while training: reading values in each step would stall the device.
        check_finite(parameters.layout(), parameters.values())
            .map_err(|error| TrainError::Model(format!("training diverged: {error}")))?;
        let mut update = LocalUpdate::new(parameters, order.len() as u64);
        update.steps = steps;
        update.metrics = measured.metrics();
        Ok(update)
    }

    fn evaluate_guarded(
        &self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        let count = self.learner.examples(Split::Test);
        let share = task.examples(u32::try_from(count).map_err(|_| too_many(count))?)?;
        // Without autodiff, and with BatchNorm's running statistics instead of the batch's.
        let module = self.module(global, &self.device)?.valid();
        let mut tally = Tally::default();
        let examples: Vec<u32> = share.collect();
        let mut done = 0;
        for chunk in examples.chunks(EVALUATION_BATCH) {
            if context.is_cancelled() {
                return Err(TrainError::Cancelled);
            }
            let batch = self.learner.loss(
                &module,
                Minibatch {
                    split: Split::Test,
                    examples: chunk,
                    device: &self.device,
                    randomness: None,
                },
            )?;
            tally.add(batch, chunk.len())?;
            done += chunk.len() as u64;
            (context.progress)(done, examples.len() as u64);
        }
        Ok(tally.finish()?.evaluation())
    }
}

impl<L: Learner> LocalTrainer for BurnTrainer<L> {
    fn train(
        &mut self,
        global: &Parameters,
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<LocalUpdate, TrainError> {
        guarded(|| self.train_guarded(global, task, context))
    }

    fn evaluate(
        &mut self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        guarded(|| self.evaluate_guarded(global, task, context))
    }
}

/// The generator of one purpose: of this client in this round, whatever was drawn before.
fn generator(task: &TrainTask, purpose: Purpose) -> ChaCha8Rng {
    keyed(task.seed, purpose, task.round, Some(task.client))
}

/// Returns the partition as indices into the training split.
fn examples_of(partition: &Partition, count: usize) -> Result<Vec<u32>, TrainError> {
    match partition {
        Partition::Everything => (0..count)
            .map(|index| u32::try_from(index).map_err(|_| too_many(count)))
            .collect(),
        Partition::Indices(indices) => {
            match indices.iter().find(|&&index| index as usize >= count) {
                Some(index) => Err(TrainError::Task(format!(
                    "example {index} of {count} training examples"
                ))),
                None => Ok(indices.to_vec()),
            }
        }
    }
}

fn too_many(count: usize) -> TrainError {
    TrainError::Task(format!("{count} examples; indices have 32 bits"))
}

/// Runs what calls burn, whose way to report a wrong shape is a panic.
fn guarded<T>(action: impl FnOnce() -> Result<T, TrainError>) -> Result<T, TrainError> {
    // A panic leaves nothing half changed: module, optimizer and tally are of this call alone.
    panics::caught(action).unwrap_or_else(|text| Err(TrainError::Panicked(text)))
}

impl From<BridgeError> for TrainError {
    fn from(error: BridgeError) -> Self {
        match error {
            BridgeError::Panicked(text) => Self::Panicked(text),
            other => Self::Model(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
