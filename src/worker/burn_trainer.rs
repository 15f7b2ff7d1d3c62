//! The trainer that trains burn modules: [`BurnTrainer`] for one thread, made by [`BurnTrainers`].
//!
//! What is trained is a [`Learner`]: a module, its examples and its loss. Image classifiers, of the zoo or an embedder's,
//! are learners already, on any [`Dataset`](crate::data::Dataset). Local training uses burn only in this folder, which must
//! know no coordinator, no transport and no strategy.

mod datasets;
mod device_pool;
mod erased;
mod generator;
mod gradients;
mod images;
mod learner;
mod optimizer;
mod registry;
mod tally;

use std::{collections::HashSet, fmt, sync::Arc};

use burn::{module::Module, optim::GradientsParams, tensor::Device};
use generator::lock_generator;
use gradients::GradientChange;
pub use learner::{BatchLoss, Learner, Minibatch, Randomness, Split};
use rand::seq::SliceRandom;
pub use registry::BurnTrainers;
use tally::{Measured, Tally};

use super::{
    ClientContext, EvalTask, LOSS_BEFORE, LocalTrainer, LocalUpdate, Objectives, Partition,
    PayloadValues, TrainError, TrainTask, Trained,
};
use crate::{
    job::{Augment, InnerState},
    model::{self, BridgeError},
    panics,
    parameters::{Layout, Parameters, Values, safetensors::check_finite},
    rng::{ChaCha8Rng, Purpose, keyed},
    round::Evaluation,
};

/// Number of examples that are evaluated at once.
const EVALUATION_BATCH: usize = 250;

/// Trains one [`Learner`] on one device.
///
/// Every call builds a fresh module and a fresh optimizer, so that nothing of one client or round reaches the next, but for the
/// state that the job keeps of a client.
pub struct BurnTrainer<L: Learner> {
    learner: Arc<L>,
    device: Device,
    layout: Arc<Layout>,
    objectives: Objectives,
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
            objectives: Objectives::default(),
        })
    }

    /// The same, with these objectives.
    pub fn with_objectives(mut self, objectives: Objectives) -> Self {
        self.objectives = objectives;
        self
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
        let settings = &task.training;
        // The task comes from another machine.
        settings
            .check()
            .map_err(|error| TrainError::Task(format!("training.{error}")))?;
        let objective = self.objectives.find(&task.objective)?;
        let device = self.device.clone().autodiff();
        let mut order = examples_of(&task.partition, self.learner.examples(Split::Train))?;
        let loss_before = self.loss_before(global, &order, task, context)?;
        // One generator a purpose: whether images are varied must not change the order of the examples.
        let mut shuffle = generator(task, Purpose::Shuffle);
        let mut augment = generator(task, Purpose::Augment);
        let mut dropout = generator(task, Purpose::Dropout);

        let fixed: HashSet<&str> = fixed_names(global, task).collect();
        let mut module = self.module(global, &device)?;
        if !fixed.is_empty() {
            module = model::without_gradients(module, &|name| fixed.contains(name))?;
        }
        let correction = objective.begin(global, task, context.state)?;
        let change = GradientChange::new(&module, global, &correction, settings.clip_norm)?;
        let mut optimizer = optimizer::local_optimizer(settings);
        let keeps_state = settings.inner_state == InnerState::Keep;
        if keeps_state {
            optimizer.restore(&module, global, context.state)?;
        }
        let mut tally = Tally::default();
        let total = settings.examples_trained(order.len() as u64);
        let (mut done, mut steps) = (0, 0);
        while done < total {
            // The generator goes on, so that no two passes have the same order.
            order.shuffle(&mut shuffle);
            // The last pass may be a part of one.
            let of_pass = (total - done).min(order.len() as u64) as usize;
            for examples in order[..of_pass].chunks(settings.batch_size as usize) {
                if context.is_cancelled() {
                    return Err(TrainError::Cancelled);
                }
                let mut batch = Minibatch::new(Split::Train, examples, &device);
                batch.label_smoothing = settings.label_smoothing;
                batch.randomness = Some(Randomness {
                    augment: (settings.augment != Augment::Off).then_some(&mut augment),
                    reflect: settings.augment == Augment::Reflect,
                    dropout: &mut dropout,
                });
                let batch = self.learner.loss(&module, batch)?;
                let gradients = GradientsParams::from_grads(batch.loss.backward(), &module);
                let gradients = change.apply(&module, gradients);
                module = optimizer.step(settings.lr, module, gradients);
                tally.add(batch, examples.len())?;
                steps += 1;
                done += examples.len() as u64;
                (context.progress)(done, total);
            }
        }
        let measured = tally.finish()?;
        let values = model::export_as(&module, &self.layout)?.into_values();
        let mut parameters = Parameters::new(global.layout().clone(), values)
            .map_err(|error| TrainError::Model(error.to_string()))?;
        // A forward pass moves BatchNorm's statistics, whether they have a gradient or not.
        for tensor in global.layout().tensors() {
            if fixed.contains(tensor.name.as_str()) {
                let values = &mut parameters.values_mut()[tensor.range()];
                values.copy_from_slice(&global.values()[tensor.range()]);
            }
        }
        // Not while training: reading values in each step would stall the device.
        check_finite(parameters.layout(), parameters.values())
            .map_err(|error| TrainError::Model(format!("training diverged: {error}")))?;
        if keeps_state {
            optimizer.save(&module, global, context.state)?;
        } else {
            optimizer::forget(context.state);
        }
        let trained = Trained::new(task, global, &parameters, steps);
        let mut payloads = objective.end(&trained, context.state)?;
        if let Some(loss) = loss_before {
            let loss = PayloadValues::Values(Values::F64(vec![loss]));
            payloads.insert(LOSS_BEFORE.to_string(), loss);
        }
        let mut update = LocalUpdate::new(parameters, order.len() as u64);
        update.steps = steps;
        update.metrics = measured.metrics();
        update.payloads = payloads;
        Ok(update)
    }

    /// The payload [`LOSS_BEFORE`], if the task expects it: it costs a pass over the examples.
    fn loss_before(
        &self,
        global: &Parameters,
        examples: &[u32],
        task: &TrainTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Option<f64>, TrainError> {
        if !task.expects(LOSS_BEFORE) {
            return Ok(None);
        }
        let measured = self.measure(global, Split::Train, examples, context, |_, _, _| ())?;
        Ok(Some(measured.loss()))
    }

    fn evaluate_guarded(
        &self,
        global: &Parameters,
        task: &EvalTask,
        context: &mut ClientContext<'_>,
    ) -> Result<Evaluation, TrainError> {
        let (split, examples) = match &task.training {
            Some(indices) => {
                let partition = Partition::Indices(indices.clone());
                let examples = examples_of(&partition, self.learner.examples(Split::Train))?;
                (Split::Train, examples)
            }
            None => {
                let count = self.learner.examples(Split::Test);
                let share = task.examples(u32::try_from(count).map_err(|_| too_many(count))?)?;
                (Split::Test, share.collect())
            }
        };
        let measured =
            self.measure(global, split, &examples, context, |context, done, total| {
                (context.progress)(done, total)
            })?;
        Ok(measured.evaluation())
    }

    /// Measures a global model on these examples, as evaluations do, and tells after each batch how many are done.
    fn measure(
        &self,
        global: &Parameters,
        split: Split,
        examples: &[u32],
        context: &mut ClientContext<'_>,
        tell: impl Fn(&mut ClientContext<'_>, u64, u64),
    ) -> Result<Measured, TrainError> {
        // Without autodiff, and with BatchNorm's running statistics instead of the batch's.
        let module = self.module(global, &self.device)?.valid();
        let mut tally = Tally::default();
        let mut done = 0;
        for chunk in examples.chunks(EVALUATION_BATCH) {
            if context.is_cancelled() {
                return Err(TrainError::Cancelled);
            }
            let batch = Minibatch::new(split, chunk, &self.device);
            tally.add(self.learner.loss(&module, batch)?, chunk.len())?;
            done += chunk.len() as u64;
            tell(context, done, examples.len() as u64);
        }
        tally.finish()
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

/// The names of the tensors that training leaves as they are.
fn fixed_names<'a>(global: &'a Parameters, task: &TrainTask) -> impl Iterator<Item = &'a str> {
    let tensors = global.layout().tensors().iter();
    tensors
        .filter(|tensor| task.is_fixed(tensor))
        .map(|tensor| tensor.name.as_str())
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
