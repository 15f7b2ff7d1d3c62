//! Order statistics of many columns at once: a sorting network, whose comparisons do not depend on the values, and so
//! compare as many columns as vectors are wide.

use std::ops::Range;

/// Columns that are sorted at once: four vectors of AVX-512, so that comparisons need not wait for each other.
pub(in crate::strategy) const WIDTH: usize = 64;

/// The values of one rank, or of one report, in some columns.
pub(in crate::strategy) type Lanes = [f32; WIDTH];

/// The comparisons that sort a column of this many values, as far as some ranks need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::strategy) struct Network {
    rows: usize,
    ranks: Range<usize>,
    pairs: Vec<(u32, u32)>,
}

impl Network {
    /// Sorts columns of `rows` values so that the ranks of this range, counted from 0, are right.
    pub fn new(rows: usize, ranks: Range<usize>) -> Self {
        let pairs = needed(merge_exchange(rows), rows, &ranks);
        Self { rows, ranks, pairs }
    }

    /// Whether it is that of this many values and these ranks.
    pub fn is_for(&self, rows: usize, ranks: &Range<usize>) -> bool {
        self.rows == rows && self.ranks == *ranks
    }

    /// Sorts the columns from `start` on into `tile`, and returns the values of the ranks. After the last column there are zeros.
    pub fn sort<'a>(&self, rows: &[&[f32]], start: usize, tile: &'a mut Tile) -> &'a [Lanes] {
        tile.keys.resize(self.rows, [0; WIDTH]);
        tile.ranks.resize(self.ranks.len(), [0.0; WIDTH]);
        let tile_of = Sorting {
            network: self,
            rows,
            start,
            tile,
        };
        dispatch(tile_of);
        &tile.ranks
    }
}

/// Space for the columns that are sorted.
#[derive(Debug, Default)]
pub(in crate::strategy) struct Tile {
    keys: Vec<[i32; WIDTH]>,
    ranks: Vec<Lanes>,
}

struct Sorting<'a> {
    network: &'a Network,
    rows: &'a [&'a [f32]],
    start: usize,
    tile: &'a mut Tile,
}

#[cfg(target_arch = "x86_64")]
fn dispatch(sorting: Sorting<'_>) {
    use pulp::x86::{V3, V4};
    if !super::is_narrow()
        && let Some(simd) = V4::try_new()
    {
        return simd.vectorize(sorting);
    }
    match V3::try_new() {
        Some(simd) => simd.vectorize(sorting),
        None => sorting.run(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(sorting: Sorting<'_>) {
    sorting.run();
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Sorting<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.run();
    }
}

impl Sorting<'_> {
    #[inline(always)]
    fn run(self) {
        let Tile { keys, ranks } = self.tile;
        for (keys, row) in keys.iter_mut().zip(self.rows) {
            let row = &row[self.start..];
            match row.first_chunk::<WIDTH>() {
                Some(values) => {
                    for lane in 0..WIDTH {
                        keys[lane] = key(values[lane]);
                    }
                }
                None => {
                    keys.fill(0);
                    for (key_of, value) in keys.iter_mut().zip(row) {
                        *key_of = key(*value);
                    }
                }
            }
        }
        for &(a, b) in &self.network.pairs {
            let (x, y) = (keys[a as usize], keys[b as usize]);
            let (mut low, mut high) = ([0; WIDTH], [0; WIDTH]);
            for lane in 0..WIDTH {
                low[lane] = x[lane].min(y[lane]);
                high[lane] = x[lane].max(y[lane]);
            }
            keys[a as usize] = low;
            keys[b as usize] = high;
        }
        let sorted = &keys[self.network.ranks.clone()];
        for (rank, keys) in ranks.iter_mut().zip(sorted) {
            for lane in 0..WIDTH {
                rank[lane] = value(keys[lane]);
            }
        }
    }
}

/// An integer with the order of [`f32::total_cmp`]. Compared as floats, 0 and -0 would stay in the order in which they came.
#[inline(always)]
fn key(value: f32) -> i32 {
    flipped(value.to_bits() as i32)
}

#[inline(always)]
fn value(key: i32) -> f32 {
    f32::from_bits(flipped(key) as u32)
}

/// Turns the bits of negative numbers, whose order is the other way round; its own inverse.
#[inline(always)]
fn flipped(bits: i32) -> i32 {
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

/// The comparisons of Batcher's merge exchange: Knuth, *The Art of Computer Programming*, volume 3, 5.2.2, algorithm M.
fn merge_exchange(rows: usize) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    if rows < 2 {
        return pairs;
    }
    let largest = 1 << (usize::BITS - 1 - (rows - 1).leading_zeros());
    let mut step = largest;
    while step > 0 {
        let (mut merged, mut remainder, mut distance) = (largest, 0, step);
        loop {
            for row in 0..rows - distance.min(rows) {
                if row & step == remainder {
                    pairs.push((row as u32, (row + distance) as u32));
                }
            }
            if merged == step {
                break;
            }
            distance = merged - step;
            merged /= 2;
            remainder = step;
        }
        step /= 2;
    }
    pairs
}

/// Leaves out what no wanted rank depends on.
fn needed(pairs: Vec<(u32, u32)>, rows: usize, ranks: &Range<usize>) -> Vec<(u32, u32)> {
    let mut is_needed = vec![false; rows];
    is_needed[ranks.clone()].fill(true);
    let mut kept = Vec::with_capacity(pairs.len());
    // From the last comparison to the first: each one that is needed needs both of its values.
    for (a, b) in pairs.into_iter().rev() {
        if is_needed[a as usize] || is_needed[b as usize] {
            is_needed[a as usize] = true;
            is_needed[b as usize] = true;
            kept.push((a, b));
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(columns: &[Vec<f32>], ranks: Range<usize>) -> Vec<Vec<f32>> {
        let rows = columns[0].len();
        let values: Vec<Vec<f32>> = (0..rows)
            .map(|row| columns.iter().map(|column| column[row]).collect())
            .collect();
        let values: Vec<_> = values.iter().map(|row| &row[..]).collect();
        let network = Network::new(rows, ranks);
        let mut tile = Tile::default();
        let mut found = vec![Vec::new(); columns.len()];
        for start in (0..columns.len()).step_by(WIDTH) {
            for rank in network.sort(&values, start, &mut tile) {
                for (lane, column) in found[start..].iter_mut().take(WIDTH).enumerate() {
                    column.push(rank[lane]);
                }
            }
        }
        found
    }

    #[test]
    fn a_network_sorts_every_column_of_zeros_and_ones() {
        // A network that sorts those sorts everything: Knuth, 5.3.4, theorem Z.
        for rows in 1..=12 {
            let columns: Vec<Vec<f32>> = (0..1 << rows)
                .map(|bits: u32| (0..rows).map(|row| (bits >> row & 1) as f32).collect())
                .collect();
            for (column, found) in columns.iter().zip(sorted(&columns, 0..rows)) {
                let mut expected = column.clone();
                expected.sort_by(f32::total_cmp);
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn any_ranks_of_many_rows_are_those_of_a_sort_with_the_order_of_zeros() {
        for rows in [1, 2, 15, 16, 17, 100, 257] {
            let columns: Vec<Vec<f32>> = (0..70)
                .map(|column| {
                    (0..rows)
                        .map(|row| match (row * 31 + column * 17) % 7 {
                            0 => 0.0,
                            1 => -0.0,
                            _ => ((row * 7919 + column * 104_729) % 1009) as f32 - 500.0,
                        })
                        .collect()
                })
                .collect();
            for ranks in [
                0..rows,
                (rows - 1) / 2..rows / 2 + 1,
                rows / 4..rows - rows / 4,
            ] {
                let found = sorted(&columns, ranks.clone());
                for (column, found) in columns.iter().zip(found) {
                    let mut expected = column.clone();
                    expected.sort_by(f32::total_cmp);
                    let bits =
                        |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&found), bits(&expected[ranks.clone()]), "{rows}");
                }
            }
        }
    }
}
