//! All reports' values at the same time, for a part of the block: what order statistics and distances need.

use super::{Rows, row_buffer::RowBuffer};
use crate::strategy::kernel::{order::WIDTH, products};

/// How many values are held at once, over all reports. Some columns of all reports, not all columns of one: whole blocks of a
/// thousand reports would be gigabytes.
const HELD: usize = 256 * 1024;

impl Rows<'_> {
    /// Calls `each` for one stretch of the block after the other, with the place in the block where it begins and each
    /// report's values there, in client order. The length of a stretch depends on the number of reports alone.
    pub fn stretches(&self, payload: &str, mut each: impl FnMut(usize, &[&[f32]])) {
        let count = self.count();
        if count == 0 {
            return;
        }
        let payload = self.payload(payload);
        let width = (HELD / count).next_multiple_of(WIDTH);
        // Taken, not borrowed: `each` may ask for other stretches.
        let mut buffers = self.scratch.stretches.take();
        buffers.resize_with(buffers.len().max(count), RowBuffer::default);
        for start in (0..self.len()).step_by(width) {
            let end = self.len().min(start + width);
            let range = self.range.start + start..self.range.start + end;
            let mut rows = Vec::with_capacity(count);
            for (row, (reader, buffer)) in payload.rows.iter().zip(&mut buffers).enumerate() {
                match buffer.fetch(*reader, range.clone()) {
                    Ok(values) => rows.push(values),
                    Err(source) => return self.fail(self.unreadable(row, source)),
                }
            }
            each(start, &rows);
        }
        self.scratch.stretches.replace(buffers);
    }

    /// Adds the sum of squares of each report's values in this block to `sums`, in client order.
    pub fn add_squares(&self, payload: &str, sums: &mut [f64]) {
        self.stretches(payload, |_, rows| {
            for (row, sum) in rows.iter().zip(&mut *sums) {
                products::add_products(&[row], std::slice::from_mut(sum));
            }
        });
    }

    /// Adds the dot product of each pair of reports in this block to `sums`, and with `state` those with a state tensor, which is
    /// the last row. The place of a pair is that of [`products::pair`].
    pub(in crate::strategy) fn add_products(
        &self,
        payload: &str,
        state: Option<&str>,
        sums: &mut [f64],
    ) {
        let state = state.map(|name| self.state(name));
        self.stretches(payload, |start, rows| {
            let mut rows = rows.to_vec();
            if let Some(state) = state {
                let len = rows[0].len();
                rows.push(&state[start..start + len]);
            }
            products::add_products(&rows, sums);
        });
    }
}
