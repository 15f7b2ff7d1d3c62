//! The fold: reports become the next global model, block by block.
//!
//! For each block of parameters, every report's block is added up in f64, in client order, and applied to the global
//! model's block. Blocks have a constant size and are independent of each other, so the result is the same to the last
//! bit whatever order reports arrived in and however many threads fold; memory is a block for each thread.

use std::sync::{Mutex, PoisonError};

use super::StrategyError;
use crate::{
    ids::ClientId,
    parameters::{BlockReader, BlockWriter, Role},
    report::{ReportError, Reports},
};

/// Values in a block: 16 384 f64 sums and four clients' f32 blocks are 384 KiB, about a core's own cache.
const BLOCK: usize = 16 * 1024;
/// Reports read per pass over the sums, which saves loads and stores of the sums. The order of additions to one sum, and
/// with it every bit, is that of one report at a time.
const PASS: usize = 4;
/// Blocks for each thread between two writes of the finished ones.
const BLOCKS_PER_THREAD: usize = 4;

/// Writes `global + sum(weight * delta) / sum(weight)` to `next`; frozen tensors keep the global model's values.
///
/// Sums and the division are in f64, one rounding to f32 at the end. `weights` has one entry for each report, in order.
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
    let executor = reports.executor();
    let wave = executor.threads().max(1) * BLOCKS_PER_THREAD;
    let mut slots: Vec<Mutex<Slot>> = (0..wave).map(|_| Mutex::new(Slot::default())).collect();
    let mut start = 0;
    while start < len {
        let blocks = (len - start).div_ceil(BLOCK).min(wave);
        executor.run(blocks, &|index| {
            let offset = start + index * BLOCK;
            let mut slot = slots[index].lock().unwrap_or_else(PoisonError::into_inner);
            let count = BLOCK.min(len - offset);
            slot.error = slot.fold(global, &inputs, total, offset, count).err();
        });
        for (index, slot) in slots.iter_mut().take(blocks).enumerate() {
            let slot = slot.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = slot.error.take() {
                return Err(error);
            }
            next.write(start + index * BLOCK, &slot.next)?;
        }
        start += blocks * BLOCK;
    }
    Ok(total)
}

struct Input<'a> {
    client: ClientId,
    weight: f64,
    delta: &'a (dyn BlockReader + Send + Sync),
}

/// The buffers of one block, used again for the next.
#[derive(Default)]
struct Slot {
    sums: Vec<f64>,
    deltas: [Vec<f32>; PASS],
    next: Vec<f32>,
    error: Option<StrategyError>,
}

impl Slot {
    fn fold(
        &mut self,
        global: &dyn BlockReader,
        inputs: &[Input<'_>],
        total: f64,
        offset: usize,
        count: usize,
    ) -> Result<(), StrategyError> {
        self.sums.clear();
        self.sums.resize(count, 0.0);
        self.next.resize(count, 0.0);
        for pass in inputs.chunks(PASS) {
            for (input, delta) in pass.iter().zip(&mut self.deltas) {
                delta.resize(count, 0.0);
                input
                    .delta
                    .read(offset, delta)
                    .map_err(|source| ReportError::Block {
                        client: input.client,
                        source,
                    })?;
            }
            add(&mut self.sums, pass, &self.deltas);
        }
        global.read(offset, &mut self.next)?;
        let mut position = 0;
        while position < count {
            let Some((role, range)) = global.layout().role_at(offset + position) else {
                break;
            };
            let end = (range.end - offset).min(count);
            if role != Role::Frozen {
                for (value, sum) in self.next[position..end]
                    .iter_mut()
                    .zip(&self.sums[position..end])
                {
                    *value = (f64::from(*value) + sum / total) as f32;
                }
            }
            position = end;
        }
        Ok(())
    }
}

/// `sums += weight * delta` for each of the pass's reports in turn: multiply, then add, each rounded.
fn add(sums: &mut [f64], pass: &[Input<'_>], deltas: &[Vec<f32>; PASS]) {
    if let [a, b, c, d] = pass {
        let weights = [a.weight, b.weight, c.weight, d.weight];
        let rows = deltas[0]
            .iter()
            .zip(&deltas[1])
            .zip(deltas[2].iter().zip(&deltas[3]));
        for (sum, ((a, b), (c, d))) in sums.iter_mut().zip(rows) {
            let mut value = *sum;
            value += weights[0] * f64::from(*a);
            value += weights[1] * f64::from(*b);
            value += weights[2] * f64::from(*c);
            value += weights[3] * f64::from(*d);
            *sum = value;
        }
        return;
    }
    for (input, delta) in pass.iter().zip(deltas) {
        for (sum, value) in sums.iter_mut().zip(delta) {
            *sum += input.weight * f64::from(*value);
        }
    }
}

#[cfg(test)]
mod tests;
