//! The fold: reports become the next global model, block by block.
//!
//! For each block of parameters, every report's block is added up in f64, in client order, and applied to the global
//! model's block. Blocks have a constant size and are independent of each other, so the result is the same to the last
//! bit whatever order reports arrived in and however many threads fold; memory is a block for each thread.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::StrategyError;
use crate::{
    ids::ClientId,
    parameters::{BlockReader, BlockWriter, Role},
    report::{ReportError, Reports},
};

/// Values in a block: its f64 sums are 64 KiB, and stay in a core's own cache while the reports stream past.
const BLOCK: usize = 8 * 1024;
/// Reports added per pass over the sums, which saves loads and stores of the sums. The order of additions to one sum, and
/// with it every bit, is that of one report at a time.
const PASS: usize = 4;

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

/// One block's sums, the reports' values where they have to be copied, and the result.
#[derive(Default)]
struct Buffers {
    sums: Vec<f64>,
    deltas: [Vec<f32>; PASS],
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
            let mut rows: [&[f32]; PASS] = [&[]; PASS];
            for ((row, input), buffer) in rows.iter_mut().zip(pass).zip(&mut self.deltas) {
                *row = match input.delta.borrow(range.clone()) {
                    Some(values) => values,
                    None => {
                        buffer.resize(range.len(), 0.0);
                        let read = input.delta.read(range.start, buffer);
                        read.map_err(|source| ReportError::Block {
                            client: input.client,
                            source,
                        })?;
                        buffer
                    }
                };
            }
            add(&mut self.sums, pass, rows);
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
                for (value, sum) in self.next[stretch.clone()]
                    .iter_mut()
                    .zip(&self.sums[stretch])
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
fn add(sums: &mut [f64], pass: &[Input<'_>], rows: [&[f32]; PASS]) {
    let [a, b, c, d] = rows;
    if let [first, second, third, fourth] = pass {
        let weights = [first.weight, second.weight, third.weight, fourth.weight];
        for (sum, (((a, b), c), d)) in sums.iter_mut().zip(a.iter().zip(b).zip(c).zip(d)) {
            let mut value = *sum;
            value += weights[0] * f64::from(*a);
            value += weights[1] * f64::from(*b);
            value += weights[2] * f64::from(*c);
            value += weights[3] * f64::from(*d);
            *sum = value;
        }
        return;
    }
    for (input, row) in pass.iter().zip(rows) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += input.weight * f64::from(*value);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
