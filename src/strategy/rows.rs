//! One block of one role as an aggregation reads it: the reports' values, the global values and the state.

mod order;
mod row_buffer;
mod sorter;
mod stretches;

use std::{
    cell::{OnceCell, Ref, RefCell},
    fmt,
    ops::Range,
};

use row_buffer::RowBuffer;
use sorter::Sorter;

use super::{
    StrategyError, Version,
    inputs::{Payload, Resolved},
    kernel::{self, PASS},
};
use crate::{
    ids::ClientId,
    parameters::{Block, BlockBuffer, BlockReader, Role},
    report::ReportError,
};

/// What can be read of one block. All of a block is of one role; blocks are the same in every run, with any number of
/// threads.
///
/// Methods that take a name panic if the inputs or the state do not have it: the round then ends with that message. A report
/// that can't be read ends the round, too; until it does, its values read as zeros.
pub struct Rows<'a> {
    role: Role,
    range: Range<usize>,
    version: Version<'a>,
    inputs: &'a Resolved<'a>,
    scratch: &'a Scratch,
    global: OnceCell<Vec<f32>>,
    states: Vec<OnceCell<Vec<f32>>>,
    failure: RefCell<Option<StrategyError>>,
}

/// Space that a thread keeps from block to block.
#[derive(Default)]
pub(super) struct Scratch {
    fetched: RefCell<[BlockBuffer; PASS]>,
    means: Vec<RefCell<Mean>>,
    stretches: RefCell<Vec<RowBuffer>>,
    sorting: RefCell<Sorter>,
}

/// The mean of one payload.
#[derive(Default)]
struct Mean {
    /// Whether it is that of this block.
    is_current: bool,
    values: Vec<f64>,
}

impl Scratch {
    /// Forgets the block before.
    fn reset(&mut self, payloads: usize) {
        self.means.resize_with(payloads, RefCell::default);
        for mean in &mut self.means {
            mean.get_mut().is_current = false;
        }
    }
}

impl fmt::Debug for Rows<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Rows({:?}, {:?})", self.role, self.range)
    }
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        role: Role,
        range: Range<usize>,
        version: Version<'a>,
        inputs: &'a Resolved<'a>,
        scratch: &'a mut Scratch,
    ) -> Self {
        scratch.reset(inputs.payloads.len());
        Self {
            role,
            range,
            version,
            inputs,
            scratch,
            // Read at the first use: most strategies never look at one or the other, and each read copies a block.
            global: OnceCell::new(),
            states: vec![OnceCell::new(); version.states.len()],
            failure: RefCell::new(None),
        }
    }

    /// What could not be read.
    pub(super) fn finish(self) -> Result<(), StrategyError> {
        match self.failure.into_inner() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The role of all values of this block: trainable or buffer. Frozen values are never folded.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Number of values of the block.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the block has no values; no block is like that.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Number of reports that are read.
    pub fn count(&self) -> usize {
        self.inputs.clients.len()
    }

    /// The client of a report, counted from 0 in client order.
    pub fn client(&self, row: usize) -> ClientId {
        self.inputs.clients[row]
    }

    /// What a report counts in this block, in payloads without coefficients of their own.
    pub fn coefficient(&self, row: usize) -> f64 {
        self.inputs.coefficients(self.role).rows[row]
    }

    /// The global model's values.
    pub fn global(&self) -> &[f32] {
        self.global.get_or_init(|| self.fetch(self.version.model))
    }

    /// The values of a state tensor, as of the last commit; empty in a block of a role that it does not have.
    pub fn state(&self, name: &str) -> &[f32] {
        let index = self
            .version
            .states
            .iter()
            .position(|state| state.name == name);
        let index = index.unwrap_or_else(|| panic!("the strategy's state has no tensor {name:?}"));
        let state = &self.version.states[index];
        // Empty and not zeros: a strategy that computes with them by mistake fails at once, on the length.
        if !state.roles.contains(self.role) {
            return &[];
        }
        self.states[index].get_or_init(|| self.fetch(state.values))
    }

    /// Fills `out`, as long as the block, with a report's values.
    pub fn read(&self, payload: &str, row: usize, out: &mut [f32]) {
        let payload = self.payload(payload);
        let read = payload.rows[row].read(self.range.start, out);
        if let Err(source) = read {
            // The closure goes on to its end, and must not see what was in `out` before.
            out.fill(0.0);
            self.fail(self.unreadable(row, source));
        }
    }

    /// Adds `coefficient * value` of each report in turn to `sums`, which is as long as the block: at the speed of memory, in
    /// client order, in f64.
    pub fn add(&self, payload: &str, sums: &mut [f64]) {
        assert_eq!(
            sums.len(),
            self.len(),
            "as many sums as the block has values"
        );
        if let Err(error) = self.try_add(self.payload(payload), sums) {
            self.fail(error);
        }
    }

    /// The sum of `coefficient * value` over the reports, divided by the denominator of the inputs. Without any report, zeros.
    pub fn mean(&self, payload: &str) -> Ref<'_, [f64]> {
        let index = self.index(payload);
        let slot = &self.scratch.means[index];
        // Once per block: a strategy may ask for the same mean in several steps.
        if !slot.borrow().is_current {
            let mut mean = slot.borrow_mut();
            self.sum(index, &mut mean.values);
            let denominator = self.denominator(index);
            // Without reports the denominator is 0, and 0 / 0 is not a number.
            if self.count() > 0 {
                for value in &mut mean.values {
                    *value /= denominator;
                }
            }
            mean.is_current = true;
        }
        Ref::map(slot.borrow(), |mean| &mean.values[..])
    }

    /// Adds the mean of a payload to `values`, each value rounded once: the fastest way to a weighted mean.
    pub(super) fn add_mean(&self, payload: &str, values: &mut [f32]) {
        let index = self.index(payload);
        if self.count() == 0 {
            return;
        }
        let mut mean = self.scratch.means[index].borrow_mut();
        // The sums are not divided here, so that `mean` must not take them for its own.
        mean.is_current = false;
        self.sum(index, &mut mean.values);
        let denominator = self.denominator(index);
        kernel::apply(values, &mean.values, denominator);
    }

    /// Calls `read` with a report's values as they came: for payloads of other types than f32.
    pub fn with_block(&self, payload: &str, row: usize, mut read: impl FnMut(usize, Block<'_>)) {
        let reader = self.payload(payload).rows[row];
        let mut fetched = self.scratch.fetched.borrow_mut();
        let mut start = self.range.start;
        while start < self.range.end {
            // An encoding may change its scale inside of a block; what is read at once has one scale.
            let end = reader.uniform_end(start).clamp(start + 1, self.range.end);
            match reader.block(start..end, &mut fetched[0]) {
                Ok(block) => read(start - self.range.start, block),
                Err(source) => return self.fail(self.unreadable(row, source)),
            }
            start = end;
        }
    }

    fn sum(&self, payload: usize, sums: &mut Vec<f64>) {
        sums.clear();
        sums.resize(self.len(), 0.0);
        if let Err(error) = self.try_add(&self.inputs.payloads[payload], sums) {
            self.fail(error);
        }
    }

    fn try_add(&self, payload: &Payload<'_>, sums: &mut [f64]) -> Result<(), StrategyError> {
        let coefficients = &self.inputs.coefficients_of(payload, self.role).rows;
        let mut fetched = self.scratch.fetched.borrow_mut();
        let mut start = self.range.start;
        while start < self.range.end {
            // All reports have the same form, so a block ends at the same place in each of them as in the first.
            let first = payload.rows.first();
            let end = first.map_or(self.range.end, |row| row.uniform_end(start));
            // At least one value: a reader that returns its own start must not loop forever.
            let end = end.clamp(start + 1, self.range.end);
            let part = &mut sums[start - self.range.start..end - self.range.start];
            for (index, pass) in payload.rows.chunks(PASS).enumerate() {
                let first = index * PASS;
                let mut blocks = [Block::F32(&[]); PASS];
                for (place, (row, buffer)) in pass.iter().zip(fetched.iter_mut()).enumerate() {
                    let block = row.block(start..end, buffer);
                    blocks[place] =
                        block.map_err(|source| self.unreadable(first + place, source))?;
                }
                let coefficients = &coefficients[first..first + pass.len()];
                // In client order, whatever the order of arrival: f64 sums depend on their order, and the result must
                // not.
                kernel::add(part, coefficients, &blocks[..pass.len()]);
            }
            start = end;
        }
        Ok(())
    }

    fn fetch(&self, reader: &(dyn BlockReader + Send + Sync)) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        if let Err(error) = reader.read(self.range.start, &mut values) {
            self.fail(error.into());
        }
        values
    }

    /// What the sum of a payload is divided by.
    fn denominator(&self, payload: usize) -> f64 {
        let payload = &self.inputs.payloads[payload];
        self.inputs.coefficients_of(payload, self.role).denominator
    }

    fn index(&self, name: &str) -> usize {
        let found = self
            .inputs
            .payloads
            .iter()
            .position(|payload| payload.name == name);
        found.unwrap_or_else(|| panic!("the inputs do not name the payload {name:?}"))
    }

    fn payload(&self, name: &str) -> &Payload<'a> {
        &self.inputs.payloads[self.index(name)]
    }

    fn unreadable(&self, row: usize, source: crate::parameters::BlockError) -> StrategyError {
        let client = self.inputs.clients[row];
        ReportError::Block { client, source }.into()
    }

    fn fail(&self, error: StrategyError) {
        self.failure.borrow_mut().get_or_insert(error);
    }
}
