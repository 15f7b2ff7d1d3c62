//! The fold: reports become the next version, block by block; and the scan: sums over all blocks.
//!
//! Blocks have a constant length, stay within one role and are independent of each other, and partial sums are added in block
//! order: so the result is the same to the last bit whatever order reports arrived in and however many threads work. Memory
//! is a block for each thread.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    AggregateContext, Inputs, StrategyError,
    checks::{check_model, check_state},
    inputs::Resolved,
    rows::{Rows, Scratch},
    state::check_finite,
};
use crate::{
    panics,
    parameters::{BlockError, FoldBlock, Role},
};

/// Takes the next version's values while they are folded.
///
/// What a caller promises: each value of the model, and of each state tensor's roles, comes exactly once, in blocks of
/// [`Layout::blocks`](crate::parameters::Layout::blocks), in any order; one block at a time, from any thread.
pub trait VersionSink: Send {
    /// Takes the model's values from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unwritable`] and [`BlockError::Full`].
    fn write(&mut self, offset: usize, values: &[f32]) -> Result<(), BlockError>;

    /// Takes values of a state tensor, counted from 0 in the order of the strategy's [`StateSpec`](super::StateSpec).
    ///
    /// # Errors
    ///
    /// As for the model.
    fn write_state(
        &mut self,
        state: usize,
        offset: usize,
        values: &[f32],
    ) -> Result<(), BlockError>;
}

/// The next model version, and the strategy's state with it, while it is made.
pub struct NextVersion<'a> {
    context: AggregateContext<'a>,
    sink: Mutex<&'a mut dyn VersionSink>,
    numbers: BTreeMap<String, f64>,
    folds: u32,
}

impl fmt::Debug for NextVersion<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "NextVersion({})",
            self.context.version.number.next()
        )
    }
}

/// The next values of one block: the model's and the state's. They begin as the present ones.
pub struct Out<'a> {
    model: &'a mut [f32],
    states: &'a mut [Vec<f32>],
    names: &'a [&'a str],
}

impl fmt::Debug for Out<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Out({} values, {:?})",
            self.model.len(),
            self.names
        )
    }
}

impl Out<'_> {
    /// The model's values.
    pub fn model(&mut self) -> &mut [f32] {
        self.model
    }

    /// The values of a state tensor; empty in a block of a role that it does not have.
    ///
    /// # Panics
    ///
    /// If the strategy's state has no such tensor: the round ends with that message.
    pub fn state(&mut self, name: &str) -> &mut [f32] {
        let index = self.index(name);
        &mut self.states[index]
    }

    /// The model's values, and those of several state tensors at the same time.
    ///
    /// # Panics
    ///
    /// If the strategy's state lacks one of them, or one is named more than once.
    pub fn tensors<const N: usize>(&mut self, names: [&str; N]) -> (&mut [f32], [&mut [f32]; N]) {
        let indices = names.map(|name| self.index(name));
        match self.states.get_disjoint_mut(indices) {
            Ok(states) => (self.model, states.map(|state| &mut state[..])),
            // Two views of one tensor could not both be written to.
            Err(_) => panic!("a state tensor is named more than once: {names:?}"),
        }
    }

    /// Adds the mean of a payload ([`Rows::mean`]) to the model's values, each rounded once: at the speed of memory.
    pub fn add_mean(&mut self, rows: &Rows<'_>, payload: &str) {
        rows.add_mean(payload, self.model);
    }

    /// Adds an update, as long as the block, to the model's values, each rounded once.
    pub fn add(&mut self, update: &[f64]) {
        for (value, update) in self.model.iter_mut().zip(update) {
            *value = (f64::from(*value) + update) as f32;
        }
    }

    fn index(&self, name: &str) -> usize {
        let found = self.names.iter().position(|found| *found == name);
        found.unwrap_or_else(|| panic!("the strategy's state has no tensor {name:?}"))
    }
}

/// What a thread needs for one block, kept from block to block.
#[derive(Default)]
struct Space {
    model: Vec<f32>,
    states: Vec<Vec<f32>>,
    scratch: Scratch,
}

impl<'a> NextVersion<'a> {
    /// The version after that of the context, to be written to a sink.
    pub(super) fn new(context: AggregateContext<'a>, sink: &'a mut dyn VersionSink) -> Self {
        Self {
            context,
            sink: Mutex::new(sink),
            // As of the last commit: a number that the strategy does not set stays as it is.
            numbers: context.version.numbers.clone(),
            folds: 0,
        }
    }

    /// Sets a number of the state.
    pub fn set(&mut self, number: &str, value: f64) {
        self.numbers.insert(number.to_string(), value);
    }

    /// Writes the next model and state: calls `f` once for each block that is not frozen, from several threads, with the
    /// values that it reads and those that it writes. Must be called exactly once in an aggregation.
    ///
    /// # Errors
    ///
    /// [`StrategyError::Folds`] at a second call, [`StrategyError::Aggregate`] if the inputs do not fit the reports,
    /// [`StrategyError::Report`] and [`StrategyError::Block`] if storage fails, [`StrategyError::Panicked`] if `f` panics,
    /// [`StrategyError::Cancelled`]. Pass it on: the round can't be committed any more.
    pub fn fold(
        &mut self,
        inputs: &Inputs,
        f: &(dyn Fn(&Rows<'_>, &mut Out<'_>) + Sync),
    ) -> Result<(), StrategyError> {
        self.folds += 1;
        // A second fold would overwrite blocks of the first one, with nothing to show for it.
        if self.folds > 1 {
            return Err(StrategyError::Folds { calls: self.folds });
        }
        let context = self.context;
        let resolved = Resolved::new(&context, inputs)?;
        let names: Vec<_> = context
            .version
            .states
            .iter()
            .map(|state| state.name)
            .collect();
        let sink = &self.sink;
        each_block(
            &context,
            &context.version.model.layout().blocks(),
            &|block, space: &mut Space| {
                // Also of frozen blocks: the next version is a whole file, so their values are copied.
                space.read(&context, block)?;
                if block.role != Role::Frozen {
                    let Space {
                        model,
                        states,
                        scratch,
                    } = space;
                    let (role, range) = (block.role, block.range.clone());
                    let rows = Rows::new(role, range, context.version, &resolved, scratch);
                    let mut out = Out {
                        model,
                        states,
                        names: &names,
                    };
                    guarded(|| f(&rows, &mut out))?;
                    // `f` has no way to return an error: what it could not read is told here, before anything is
                    // written.
                    rows.finish()?;
                    // Before it is written: a version that holds a NaN must never get its name.
                    check_model(context.version.model.layout(), block, &space.model)?;
                    for (name, values) in names.iter().zip(&space.states) {
                        check_state(name, values)?;
                    }
                }
                // One writer at a time, as the sink's contract says. Computing above needs no lock.
                let mut sink = locked(sink);
                sink.write(block.range.start, &space.model)?;
                for (index, values) in space.states.iter().enumerate() {
                    // A state tensor has no values in blocks of a role that it does not cover, and none are due there.
                    if !values.is_empty() {
                        sink.write_state(index, block.range.start, values)?;
                    }
                }
                Ok(())
            },
        )
    }

    /// The numbers of the state, once all is written.
    pub(super) fn finish(self) -> Result<BTreeMap<String, f64>, StrategyError> {
        // A strategy that never folds leaves the sink without values: a store in memory would publish a model of
        // zeros.
        if self.folds != 1 {
            return Err(StrategyError::Folds { calls: self.folds });
        }
        // A number that no `StateSpec` names would be lost at the next start of the coordinator.
        for name in self.numbers.keys() {
            if !self.context.version.numbers.contains_key(name) {
                let problem = format!("the strategy's state has no number {name:?}");
                return Err(StrategyError::State(problem));
            }
        }
        check_finite(&self.numbers)?;
        Ok(self.numbers)
    }
}

impl Space {
    /// Takes the present values of a block: what is next, unless it is changed.
    fn read(
        &mut self,
        context: &AggregateContext<'_>,
        block: &FoldBlock,
    ) -> Result<(), StrategyError> {
        let (start, len) = (block.range.start, block.range.len());
        self.model.resize(len, 0.0);
        context.version.model.read(start, &mut self.model)?;
        self.states
            .resize_with(context.version.states.len(), Vec::new);
        for (values, state) in self.states.iter_mut().zip(context.version.states) {
            // Zeros of the block before must not stay in a tensor that does not have this role.
            values.clear();
            if state.roles.contains(block.role) {
                values.resize(len, 0.0);
                state.values.read(start, values)?;
            }
        }
        Ok(())
    }
}

impl AggregateContext<'_> {
    /// Sums over all values of the model that are not frozen: calls `f` once for each block, from several threads, with the
    /// values that it reads and `sums` numbers that begin with zero. What `f` leaves there is added up in block order, so that
    /// the result has the same bits however many threads work. For norms, distances and scores.
    ///
    /// # Errors
    ///
    /// As [`NextVersion::fold`], but that it may be called any number of times.
    pub fn scan(
        &self,
        inputs: &Inputs,
        sums: usize,
        f: &(dyn Fn(&Rows<'_>, &mut [f64]) + Sync),
    ) -> Result<Vec<f64>, StrategyError> {
        self.scan_by(inputs, sums, |sum, value| sum + value, f)
    }

    /// As [`AggregateContext::scan`], with the largest number of all blocks instead of the sum. For largest values: 0 is the least.
    ///
    /// # Errors
    ///
    /// As [`AggregateContext::scan`].
    pub fn scan_largest(
        &self,
        inputs: &Inputs,
        numbers: usize,
        f: &(dyn Fn(&Rows<'_>, &mut [f64]) + Sync),
    ) -> Result<Vec<f64>, StrategyError> {
        self.scan_by(inputs, numbers, f64::max, f)
    }

    fn scan_by(
        &self,
        inputs: &Inputs,
        sums: usize,
        combine: fn(f64, f64) -> f64,
        f: &(dyn Fn(&Rows<'_>, &mut [f64]) + Sync),
    ) -> Result<Vec<f64>, StrategyError> {
        /// How many partial sums wait to be added at once. It changes no bit.
        const WAITING: usize = 1 << 20;
        let resolved = Resolved::new(self, inputs)?;
        let mut blocks = self.version.model.layout().blocks();
        // Frozen values never change and are not part of a delta: they have nothing to add to a norm or a distance.
        blocks.retain(|block| block.role != Role::Frozen);
        let mut totals = vec![0.0; sums];
        // A scan of all pairs of a thousand reports has a million sums for each block: they can't all wait.
        let at_once = (WAITING / sums.max(1)).max(self.executor.threads());
        for blocks in blocks.chunks(at_once) {
            let partial: Vec<_> = blocks.iter().map(|_| Mutex::new(Vec::new())).collect();
            let first = blocks[0].range.start;
            each_block(self, blocks, &|block, space: &mut Space| {
                let (role, range) = (block.role, block.range.clone());
                let rows = Rows::new(role, range, self.version, &resolved, &mut space.scratch);
                let mut found = vec![0.0; sums];
                guarded(|| f(&rows, &mut found))?;
                rows.finish()?;
                let index = blocks.partition_point(|other| other.range.start < block.range.start);
                debug_assert!(first <= block.range.start);
                // Kept apart until all are there: added as they come, they would be rounded in another order in each
                // run.
                *locked(&partial[index]) = found;
                Ok(())
            })?;
            for partial in partial {
                let partial = partial.into_inner().unwrap_or_else(PoisonError::into_inner);
                for (total, value) in totals.iter_mut().zip(partial) {
                    *total = combine(*total, value);
                }
            }
        }
        Ok(totals)
    }
}

/// Calls `work` for each block on the context's threads, until one fails. Each thread has a space of its own.
fn each_block(
    context: &AggregateContext<'_>,
    blocks: &[FoldBlock],
    work: &(dyn Fn(&FoldBlock, &mut Space) -> Result<(), StrategyError> + Sync),
) -> Result<(), StrategyError> {
    let failure: Mutex<Option<StrategyError>> = Mutex::new(None);
    // As many as threads: each takes one for a block and puts it back.
    let idle: Mutex<Vec<Space>> = Mutex::default();
    context.executor.run(blocks.len(), &|index| {
        // The executor runs all indices; after a failure the rest is skipped.
        if locked(&failure).is_some() {
            return;
        }
        let mut space = locked(&idle).pop().unwrap_or_default();
        // Asked before each block: a cancelled job stops within the time of one block, not of the whole fold.
        let done = context
            .check_cancelled()
            .and_then(|()| work(&blocks[index], &mut space));
        if let Err(error) = done {
            // The first one, which is the cause of those after it more often than not.
            locked(&failure).get_or_insert(error);
        }
        locked(&idle).push(space);
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Runs a strategy's own code; a panic in it is an error with its message, on any thread.
fn guarded(work: impl FnOnce()) -> Result<(), StrategyError> {
    panics::caught(work).map_err(StrategyError::Panicked)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
