//! Sums of losses and right answers, read from the device seldom enough not to stall it.

use std::{collections::BTreeMap, fmt::Display};

use burn::tensor::Tensor;

use super::learner::BatchLoss;
use crate::{round::Evaluation, words::IF_IT_DIVERGES, worker::TrainError};

/// Number of batches whose results stay on the device before they are read.
const READ_EVERY: usize = 64;

/// Accumulates in f64 what each batch measured.
#[derive(Default)]
pub(super) struct Tally {
    waiting: Vec<Tensor<1>>,
    counts: Vec<usize>,
    loss: f64,
    correct: Option<f64>,
    examples: u64,
}

impl Tally {
    /// Takes the results of a batch of this many examples.
    pub(super) fn add(&mut self, batch: BatchLoss, count: usize) -> Result<(), TrainError> {
        // Learners are an embedder's. A third value for a batch would shift all the pairs that `read` makes.
        let values = [Some(&batch.loss), batch.correct.as_ref()];
        if values
            .into_iter()
            .flatten()
            .any(|value| value.dims() != [1])
        {
            return Err(TrainError::Model(
                "the learner gives more than one value for a batch".to_string(),
            ));
        }
        self.waiting.push(batch.loss.inner());
        // A batch that counts no right answers makes the whole uncounted.
        let counts_answers = batch.correct.is_some();
        // The first batch of all decides whether answers are counted.
        if self.examples == 0 && self.counts.is_empty() {
            self.correct = counts_answers.then_some(0.0);
        } else if !counts_answers {
            self.correct = None;
        }
        let device = self.waiting[self.waiting.len() - 1].device();
        self.waiting.push(match batch.correct {
            Some(correct) => correct.inner(),
            // Two values for each batch, so that one read of the device brings them all.
            None => Tensor::zeros([1], &device),
        });
        self.counts.push(count);
        match self.counts.len() {
            READ_EVERY => self.read(),
            _ => Ok(()),
        }
    }

    fn read(&mut self) -> Result<(), TrainError> {
        if self.counts.is_empty() {
            return Ok(());
        }
        let data = Tensor::cat(std::mem::take(&mut self.waiting), 0)
            .try_into_data()
            .map_err(unreadable)?;
        let values = data.try_into_vec_as::<f32>().map_err(unreadable)?;
        for (pair, count) in values.chunks_exact(2).zip(self.counts.drain(..)) {
            self.loss += f64::from(pair[0]) * count as f64;
            self.examples += count as u64;
            if let Some(correct) = &mut self.correct {
                *correct += f64::from(pair[1]);
            }
        }
        Ok(())
    }

    fn mean(&self, sum: f64) -> f64 {
        match self.examples {
            // A share of an evaluation may be empty; 0 / 0 would be taken for a training that diverged.
            0 => 0.0,
            examples => sum / examples as f64,
        }
    }

    /// Returns the means over all examples.
    pub(super) fn finish(mut self) -> Result<Measured, TrainError> {
        self.read()?;
        let loss = self.mean(self.loss);
        if !loss.is_finite() {
            return Err(TrainError::Model(format!(
                "the loss is {loss}; {IF_IT_DIVERGES}"
            )));
        }
        Ok(Measured {
            loss,
            accuracy: self.correct.map(|correct| self.mean(correct)),
            examples: self.examples,
        })
    }
}

fn unreadable(error: impl Display) -> TrainError {
    TrainError::Model(error.to_string())
}

/// What was measured over all examples of a training or an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Mean over the examples.
    loss: f64,
    /// Share of right answers, if the learner counts them.
    accuracy: Option<f64>,
    examples: u64,
}

impl Measured {
    /// As a report's metrics.
    pub(super) fn metrics(&self) -> BTreeMap<String, f64> {
        let accuracy = self.accuracy.map(|accuracy| ("train_accuracy", accuracy));
        let loss = (self.examples > 0).then_some(("train_loss", self.loss));
        loss.into_iter()
            .chain(accuracy)
            .map(|(name, value)| (name.to_string(), value))
            .collect()
    }

    /// Mean over the examples; 0 if there are none.
    pub(super) fn loss(&self) -> f64 {
        self.loss
    }

    pub(super) fn evaluation(&self) -> Evaluation {
        let mut evaluation = Evaluation::new(self.loss, self.examples);
        evaluation.accuracy = self.accuracy;
        evaluation
    }
}
