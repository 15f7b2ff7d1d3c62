//! Order statistics over the reports, for each value of a block. What they give does not depend on who reported what.

use std::ops::Range;

use super::Rows;
use crate::strategy::kernel::order::{Lanes, WIDTH};

impl Rows<'_> {
    /// Calls `each` for every value of the block with its index and the values that the reports have there, in client order.
    /// `each` may reorder them.
    pub fn columns(&self, payload: &str, mut each: impl FnMut(usize, &mut [f32])) {
        let mut column = vec![0.0; self.count()];
        self.stretches(payload, |start, rows| {
            for place in 0..rows[0].len() {
                // Copied out: `each` sorts its column, and in a stretch neighbours are of the same report.
                for (value, row) in column.iter_mut().zip(rows) {
                    *value = row[place];
                }
                each(start + place, &mut column);
            }
        });
    }

    /// The median over the reports, for each value of the block; of an even number, the mean of the middle two. Coefficients do
    /// not count. `out` is as long as the block.
    pub fn median(&self, payload: &str, out: &mut [f64]) {
        let count = self.count();
        if count == 0 {
            return;
        }
        self.sorted(payload, middle(count), |places, ranks| {
            let (below, above) = (&ranks[0], &ranks[ranks.len() - 1]);
            for (lane, value) in out[places].iter_mut().enumerate() {
                *value = f64::midpoint(f64::from(below[lane]), f64::from(above[lane]));
            }
        });
    }

    /// The mean over the reports without the `trim` smallest and the `trim` largest values, for each value of the block.
    /// Coefficients do not count. `out` is as long as the block.
    ///
    /// # Panics
    ///
    /// If nothing is left: `2 * trim` must be below the number of reports.
    pub fn trimmed_mean(&self, payload: &str, trim: usize, out: &mut [f64]) {
        let count = self.count();
        assert!(
            2 * trim < count,
            "{trim} of {count} reports can't be trimmed at both ends"
        );
        self.sorted(payload, trim..count - trim, |places, ranks| {
            let mut sums = [0.0; WIDTH];
            // In rising order of values, and so independent of who reported them.
            for rank in ranks {
                for (sum, value) in sums.iter_mut().zip(rank) {
                    *sum += f64::from(*value);
                }
            }
            for (value, sum) in out[places].iter_mut().zip(sums) {
                *value = sum / ranks.len() as f64;
            }
        });
    }

    /// The mean of the `kept` values that are closest to the median, for each value of the block; of two that are equally close, the
    /// smaller one comes first. Coefficients do not count. `out` is as long as the block.
    ///
    /// # Panics
    ///
    /// Unless `kept` is at least 1 and at most the number of reports.
    pub fn mean_around_median(&self, payload: &str, kept: usize, out: &mut [f64]) {
        let count = self.count();
        assert!(
            (1..=count).contains(&kept),
            "{kept} of {count} reports can't be kept"
        );
        self.sorted(payload, 0..count, |places, ranks| {
            for (lane, value) in out[places].iter_mut().enumerate() {
                *value = around_median(ranks, lane, kept);
            }
        });
    }

    /// Calls `each` with some neighbouring places of the block and the sorted values there, of these ranks alone: of each rank
    /// one value for each place, and zeros after them.
    fn sorted(
        &self,
        payload: &str,
        ranks: Range<usize>,
        mut each: impl FnMut(Range<usize>, &[Lanes]),
    ) {
        let mut sorter = self.scratch.sorting.borrow_mut();
        let (network, tile) = sorter.prepare(self.count(), &ranks);
        self.stretches(payload, |start, rows| {
            let len = rows[0].len();
            for first in (0..len).step_by(WIDTH) {
                let sorted = network.sort(rows, first, tile);
                let end = len.min(first + WIDTH);
                each(start + first..start + end, sorted);
            }
        });
    }
}

/// The ranks whose mean is the median.
fn middle(count: usize) -> Range<usize> {
    (count - 1) / 2..count / 2 + 1
}

fn around_median(ranks: &[Lanes], lane: usize, kept: usize) -> f64 {
    let at = |rank: usize| f64::from(ranks[rank][lane]);
    let middle = middle(ranks.len());
    let median = f64::midpoint(at(middle.start), at(middle.end - 1));
    // Sorted, the closest values are neighbours: the first ones, moved up as long as that comes closer.
    let mut first = 0;
    while first + kept < ranks.len() && at(first + kept) - median < median - at(first) {
        first += 1;
    }
    let mut sum = 0.0;
    for rank in first..first + kept {
        sum += at(rank);
    }
    sum / kept as f64
}
