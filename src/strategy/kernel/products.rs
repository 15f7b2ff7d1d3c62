//! Dot products of all pairs of rows, for distances between reports.
//!
//! A product of two f32 is exact in f64, and each sum has eight lanes that are added in one order at the end: so the bits are
//! the same on every CPU. Sums in f64 also keep the distances of honest reports right beside an attacker's of any size.

/// Values of each row in one pass: so many that the rows of a pass stay in the cache while all pairs are multiplied.
const STRETCH: usize = 1024;
/// Lanes of a sum.
const LANES: usize = 8;

/// Number of pairs of rows, each row with itself included.
pub(in crate::strategy) const fn pairs(rows: usize) -> usize {
    rows * (rows + 1) / 2
}

/// The place of a pair among [`pairs`].
pub(in crate::strategy) const fn pair(a: usize, b: usize) -> usize {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    high * (high + 1) / 2 + low
}

/// Adds the dot product of each pair of rows to `sums`, at [`pair`]. All rows have the same length.
pub(in crate::strategy) fn add_products(rows: &[&[f32]], sums: &mut [f64]) {
    let len = rows.first().map_or(0, |row| row.len());
    for start in (0..len).step_by(STRETCH) {
        let stretch = Stretch {
            rows,
            start,
            len: STRETCH.min(len - start),
        };
        dispatch(stretch, sums);
    }
}

#[derive(Clone, Copy)]
struct Stretch<'a> {
    rows: &'a [&'a [f32]],
    start: usize,
    len: usize,
}

#[cfg(target_arch = "x86_64")]
fn dispatch(stretch: Stretch<'_>, sums: &mut [f64]) {
    use pulp::x86::{V3, V4};
    if !super::is_narrow()
        && let Some(simd) = V4::try_new()
    {
        return simd.vectorize(Tiles::<3, 4, true> { stretch, sums });
    }
    match V3::try_new() {
        Some(simd) => simd.vectorize(Tiles::<4, 4, true> { stretch, sums }),
        None => Tiles::<4, 4, false> { stretch, sums }.run(),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(stretch: Stretch<'_>, sums: &mut [f64]) {
    // Every such CPU has the fused instruction; of other targets that is not known.
    if cfg!(target_arch = "aarch64") {
        Tiles::<4, 4, true> { stretch, sums }.run()
    } else {
        Tiles::<4, 4, false> { stretch, sums }.run()
    }
}

/// All pairs of a stretch, `M` rows with `N` rows at a time: each value that is loaded is used several times. Other sizes give
/// the same bits.
struct Tiles<'a, 'b, const M: usize, const N: usize, const FUSED: bool> {
    stretch: Stretch<'a>,
    sums: &'b mut [f64],
}

impl<const M: usize, const N: usize, const FUSED: bool> Tiles<'_, '_, M, N, FUSED> {
    #[inline(always)]
    fn run(self) {
        let count = self.stretch.rows.len();
        for first in (0..count).step_by(M) {
            // The other half has the same products.
            let end = (first + M).min(count);
            for second in (0..end).step_by(N) {
                let products = self.stretch.tile::<M, N, FUSED>(first, second);
                for (row, products) in products.iter().enumerate() {
                    for (column, lanes) in products.iter().enumerate() {
                        let (a, b) = (first + row, second + column);
                        if a < count && b <= a {
                            self.sums[pair(a, b)] += add_lanes(lanes);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl<const M: usize, const N: usize, const FUSED: bool> pulp::NullaryFnOnce
    for Tiles<'_, '_, M, N, FUSED>
{
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.run();
    }
}

impl<'a> Stretch<'a> {
    #[inline(always)]
    fn tile<const M: usize, const N: usize, const FUSED: bool>(
        self,
        first: usize,
        second: usize,
    ) -> [[[f64; LANES]; N]; M] {
        let a: [_; M] = std::array::from_fn(|row| self.row(first + row));
        let b: [_; N] = std::array::from_fn(|row| self.row(second + row));
        let mut sums = [[[0.0; LANES]; N]; M];
        let whole = self.len / LANES;
        let (a_whole, b_whole) = (
            a.map(|row| &row.as_chunks::<LANES>().0[..whole]),
            b.map(|row| &row.as_chunks::<LANES>().0[..whole]),
        );
        for place in 0..whole {
            let columns = b_whole.map(|row| &row[place]);
            add::<M, N, FUSED>(&mut sums, a_whole.map(|row| &row[place]), columns);
        }
        let rest = whole * LANES;
        if rest < self.len {
            // The values that fill no vector, with zeros after them, which add nothing.
            let (a, b) = (
                a.map(|row| padded(&row[rest..])),
                b.map(|row| padded(&row[rest..])),
            );
            add::<M, N, FUSED>(&mut sums, a.each_ref(), b.each_ref());
        }
        sums
    }

    /// A row; after the last one, the last one again: its products are not used.
    #[inline(always)]
    fn row(self, index: usize) -> &'a [f32] {
        let row = self.rows[index.min(self.rows.len() - 1)];
        &row[self.start..self.start + self.len]
    }
}

#[inline(always)]
fn add<const M: usize, const N: usize, const FUSED: bool>(
    sums: &mut [[[f64; LANES]; N]; M],
    rows: [&[f32; LANES]; M],
    columns: [&[f32; LANES]; N],
) {
    for row in 0..M {
        let mut values = [0.0; LANES];
        for lane in 0..LANES {
            values[lane] = f64::from(rows[row][lane]);
        }
        for column in 0..N {
            for lane in 0..LANES {
                let (value, other) = (values[lane], f64::from(columns[column][lane]));
                let sum = &mut sums[row][column][lane];
                *sum = if FUSED {
                    value.mul_add(other, *sum)
                } else {
                    value * other + *sum
                };
            }
        }
    }
}

fn padded(values: &[f32]) -> [f32; LANES] {
    let mut padded = [0.0; LANES];
    padded[..values.len()].copy_from_slice(values);
    padded
}

#[inline(always)]
fn add_lanes(lanes: &[f64; LANES]) -> f64 {
    let halves: [f64; 4] = std::array::from_fn(|lane| lanes[lane] + lanes[lane + 4]);
    (halves[0] + halves[2]) + (halves[1] + halves[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, len: usize) -> Vec<Vec<f32>> {
        let value =
            |row: usize, place: usize| ((row * 7919 + place * 104_729) % 1009) as f32 / 64.0 - 7.0;
        let row = |row| (0..len).map(|place| value(row, place)).collect();
        (0..count).map(row).collect()
    }

    fn products(rows: &[Vec<f32>]) -> Vec<f64> {
        let rows: Vec<_> = rows.iter().map(|row| &row[..]).collect();
        let mut sums = vec![0.0; pairs(rows.len())];
        add_products(&rows, &mut sums);
        sums
    }

    #[test]
    fn each_pair_is_multiplied_once_for_any_number_of_rows_and_values() {
        for count in [1, 2, 3, 4, 5, 9, 13] {
            for len in [1, 7, 8, 9, 1024, 1500] {
                let rows = rows(count, len);
                let found = products(&rows);
                for a in 0..count {
                    for b in 0..=a {
                        // These values have no rounding: any order gives this sum.
                        let sum: f64 = std::iter::zip(&rows[a], &rows[b])
                            .map(|(x, y)| f64::from(*x) * f64::from(*y))
                            .sum();
                        assert_eq!(found[pair(a, b)], sum, "{count} x {len}: {a}, {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_gives_the_same_bits() {
        // Values whose sums do round.
        let mut rows = rows(11, 1029);
        for (index, row) in rows.iter_mut().enumerate() {
            row.iter_mut()
                .for_each(|value| *value = (*value * 0.37).exp() * (index as f32 - 5.3));
        }
        let rows: Vec<_> = rows.iter().map(|row| &row[..]).collect();
        let stretch = Stretch {
            rows: &rows,
            start: 0,
            len: 1029,
        };
        let mut plain = vec![0.0; pairs(rows.len())];
        Tiles::<4, 4, false> {
            stretch,
            sums: &mut plain,
        }
        .run();
        let mut fused = vec![0.0; pairs(rows.len())];
        Tiles::<3, 4, true> {
            stretch,
            sums: &mut fused,
        }
        .run();
        let mut best = vec![0.0; pairs(rows.len())];
        dispatch(stretch, &mut best);
        assert_eq!(plain, fused);
        assert_eq!(plain, best);
    }
}
