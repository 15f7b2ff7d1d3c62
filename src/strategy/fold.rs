//! The fold: reports become the next global model, block by block.
//!
//! For each block of parameters, every report's block is added up in f64, in client order, and applied to the global
//! model's block. Blocks have a constant size and are independent of each other, so the result is the same to the last
//! bit whatever order reports arrived in and however many threads fold; memory is a block for each thread.

mod kernel;

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kernel::{PASS, add, apply};

use super::StrategyError;
use crate::{
    ids::ClientId,
    parameters::{Block, BlockBuffer, BlockReader, BlockWriter, Role},
    report::{ReportError, Reports},
};

/// Values in a block. Its f64 sums are 512 KiB, half of the second-level cache of a current server: shorter blocks keep
/// the sums nearer, but then memory is read in stretches too short for the CPU to run ahead (docs/performance.md).
const BLOCK: usize = 64 * 1024;

/// Writes `global + sum(weight * delta) / sum(weight)` to `next`; frozen tensors keep the global model's values.
///
/// Sums and the division are in f64, one rounding to f32 at the end. `weights` has one entry for each report, in order.
/// The sum of the weights comes back.
///
/// # Errors
///
/// [`StrategyError::Aggregate`] where the weights do not fit the reports, one is negative or not finite, or all are
/// zero; [`StrategyError::Report`] and [`StrategyError::Block`] where storage fails.
pub fn weighted_mean(
    global: &dyn BlockReader,
    reports: &Reports<'_>,
    payload: &str,
    weights: &[f64],
    next: &mut dyn BlockWriter,
) -> Result<f64, StrategyError> {
    let total: f64 = weights.iter().sum();
    if weights.len() != reports.len()
        || weights.iter().any(|weight| *weight < 0.0)
        || !total.is_finite()
        || total <= 0.0
    {
        return Err(StrategyError::Aggregate(format!(
            "{} reports with weights that add up to {total}",
            reports.len()
        )));
    }
    let inputs: Vec<Input<'_>> = reports
        .iter()
        .zip(weights)
        .map(|(report, &weight)| {
            Ok(Input {
                client: report.client,
                weight,
                delta: report.payload(payload)?,
            })
        })
        .collect::<Result<_, ReportError>>()?;

    let len = global.layout().len();
    let next = Mutex::new(next);
    let failure: Mutex<Option<StrategyError>> = Mutex::new(None);
    // As many as threads: each takes one for a block and puts it back.
    let idle: Mutex<Vec<Buffers>> = Mutex::default();
    reports.executor().run(len.div_ceil(BLOCK), &|index| {
        if locked(&failure).is_some() {
            return;
        }
        let mut buffers = locked(&idle).pop().unwrap_or_default();
        let offset = index * BLOCK;
        let folded = buffers.fold(global, &inputs, total, offset..len.min(offset + BLOCK));
        let written = folded.and_then(|()| Ok(locked(&next).write(offset, &buffers.next)?));
        if let Err(error) = written {
            locked(&failure).get_or_insert(error);
        }
        locked(&idle).push(buffers);
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(total),
    }
}

struct Input<'a> {
    client: ClientId,
    weight: f64,
    delta: &'a (dyn BlockReader + Send + Sync),
}

/// One block's sums, the reports' values where they have to be fetched, and the result.
#[derive(Default)]
struct Buffers {
    sums: Vec<f64>,
    fetched: [BlockBuffer; PASS],
    next: Vec<f32>,
}

impl Buffers {
    fn fold(
        &mut self,
        global: &dyn BlockReader,
        inputs: &[Input<'_>],
        total: f64,
        range: Range<usize>,
    ) -> Result<(), StrategyError> {
        self.sums.clear();
        self.sums.resize(range.len(), 0.0);
        for pass in inputs.chunks(PASS) {
            let mut weights = [0.0; PASS];
            let mut blocks = [Block::F32(&[]); PASS];
            for (place, (input, buffer)) in pass.iter().zip(&mut self.fetched).enumerate() {
                weights[place] = input.weight;
                let block = input.delta.block(range.clone(), buffer);
                blocks[place] = block.map_err(|source| ReportError::Block {
                    client: input.client,
                    source,
                })?;
            }
            add(
                &mut self.sums,
                &weights[..pass.len()],
                &blocks[..pass.len()],
            );
        }
        self.next.resize(range.len(), 0.0);
        global.read(range.start, &mut self.next)?;
        let mut position = range.start;
        while position < range.end {
            let Some((role, stretch)) = global.layout().role_at(position) else {
                break;
            };
            let end = stretch.end.min(range.end);
            if role != Role::Frozen {
                let stretch = position - range.start..end - range.start;
                apply(&mut self.next[stretch.clone()], &self.sums[stretch], total);
            }
            position = end;
        }
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
