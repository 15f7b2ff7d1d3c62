//! Numbers that a few odd values do not move: medians, and what is measured by them.

/// A value above this many times the median magnitude counts for nothing in a mean of what clients say.
const FARTHEST: f64 = 100.0;

/// The median; of an even number, the mean of the middle two. Without any value, 0.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => 0.0,
        count => f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
    }
}

/// The median; of an even number, the smaller one of the middle two, so that of two values a huge one does not count. Without any
/// value, 0.
pub fn lower_median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => 0.0,
        count => sorted[(count - 1) / 2],
    }
}

/// The largest magnitude that counts in a mean of what clients say, given what all of them say: 100 times the median magnitude, and
/// at least 100. Without the floor, one error would be too many if most clients have none.
pub fn largest_plausible(values: &[f64]) -> f64 {
    let mut magnitudes = Vec::with_capacity(values.len());
    for value in values {
        magnitudes.push(value.abs());
    }
    FARTHEST * lower_median(&magnitudes).max(1.0)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_even_number_the_median_is_between_the_middle_two() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(lower_median(&[4.0, 1.0, 2.0, 3.0]), 2.0);
        assert_eq!(lower_median(&[1e300, 7.0]), 7.0);
        assert_eq!(lower_median(&[]), 0.0);
    }

    #[test]
    fn what_is_plausible_follows_the_middle_and_not_the_largest() {
        assert_eq!(largest_plausible(&[0.0, 0.0, 5.0]), 100.0);
        assert_eq!(largest_plausible(&[-30.0, 20.0, 1e300]), 3000.0);
        assert_eq!(largest_plausible(&[-1e300, 20.0]), 2000.0);
    }
}
