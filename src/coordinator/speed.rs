//! How fast a worker trains, as its reports say: what `proportional:measured` deals by.

use std::collections::VecDeque;

use crate::statistics::lower_median;

/// The weight of the latest round in a worker's speed. With a half, a change shows at once, and what a single odd round
/// measured is an eighth of the speed two rounds later.
const LATEST: f64 = 0.5;

/// For how many pairs of a model and a dataset a worker's speed is remembered.
const REMEMBERED: usize = 16;

/// A worker's speeds, each for one model and one dataset, in examples that one slot trains in a second.
#[derive(Debug, Default)]
pub(super) struct Speeds {
    /// The one that was measured last is at the back.
    known: VecDeque<Speed>,
}

#[derive(Debug)]
struct Speed {
    model: String,
    dataset: String,
    examples_per_second: f64,
}

/// What was measured of a worker in one round: its accepted reports, added up, those that were excluded too.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Measured {
    /// Number of examples, each counted as often as it was trained on.
    pub examples: f64,
    /// Seconds that the trainings took.
    pub seconds: f64,
}

impl Measured {
    /// Adds a report on a training of this many examples, each counted as often as it was trained on. One that does not say
    /// how long it took, that trained on nothing, or in no time, says nothing.
    pub fn add(&mut self, examples: u64, seconds: Option<f64>) {
        // Workers send this number: 0 s would be an infinite speed, and such a worker would be due all examples.
        if let Some(seconds) = seconds.filter(|seconds| seconds.is_finite() && *seconds > 0.0)
            && examples > 0
        {
            self.examples += examples as f64;
            self.seconds += seconds;
        }
    }

    /// Examples in a second, if that is a positive, finite number.
    pub fn speed(self) -> Option<f64> {
        let speed = self.examples / self.seconds;
        (speed.is_finite() && speed > 0.0).then_some(speed)
    }
}

impl Speeds {
    /// Takes a round's measure into the speed: it counts for half, and all rounds before it for the other half.
    pub fn note(&mut self, model: &str, dataset: &str, measured: Measured) {
        let Some(latest) = measured.speed() else {
            return;
        };
        let before = self
            .position(model, dataset)
            // Removed and put back at the end, so that the one that was measured longest ago is forgotten first.
            .and_then(|at| self.known.remove(at));
        let examples_per_second = match before {
            Some(before) => {
                before.examples_per_second + LATEST * (latest - before.examples_per_second)
            }
            None => latest,
        };
        self.known.push_back(Speed {
            model: model.to_string(),
            dataset: dataset.to_string(),
            examples_per_second,
        });
        if self.known.len() > REMEMBERED {
            self.known.pop_front();
        }
    }

    /// The speed on this model and dataset, if it has been measured.
    pub fn of(&self, model: &str, dataset: &str) -> Option<f64> {
        let at = self.position(model, dataset)?;
        self.known.get(at).map(|speed| speed.examples_per_second)
    }

    /// The speed that was measured last, on whatever model and dataset.
    pub fn latest(&self) -> Option<f64> {
        self.known.back().map(|speed| speed.examples_per_second)
    }

    fn position(&self, model: &str, dataset: &str) -> Option<usize> {
        let mut speeds = self.known.iter();
        speeds.position(|speed| speed.model == model && speed.dataset == dataset)
    }
}

/// How far from the median of a job's workers a speed counts. Workers report the times that speeds are made of: without a bound, one
/// that reports a millisecond would be due all examples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SpeedBounds {
    median: f64,
    least: f64,
    most: f64,
}

impl SpeedBounds {
    /// Around the median of these speeds: `spread` times it, and one part in `spread`. Of two speeds, the median is the lower one: that
    /// a worker is too fast is what a liar says.
    pub fn new(speeds: impl IntoIterator<Item = f64>, spread: f64) -> Self {
        let speeds: Vec<_> = speeds.into_iter().collect();
        let median = lower_median(&speeds);
        let spread = spread.max(1.0);
        Self {
            median,
            least: median / spread,
            most: median * spread,
        }
    }

    /// The median.
    pub fn median(self) -> f64 {
        self.median
    }

    /// What counts of a speed.
    pub fn hold(self, speed: f64) -> f64 {
        // Not `clamp`, which panics if a bound is no number.
        speed.max(self.least).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(examples: u64, seconds: f64) -> Measured {
        let mut measured = Measured::default();
        measured.add(examples, Some(seconds));
        measured
    }

    #[test]
    fn the_latest_round_counts_for_half() {
        let mut speeds = Speeds::default();
        let mut seen = Vec::new();
        for (examples, seconds) in [(100, 1.0), (300, 1.0), (200, 1.0)] {
            speeds.note("mlp", "digits", measured(examples, seconds));
            seen.extend(speeds.of("mlp", "digits"));
        }
        assert_eq!(seen, [100.0, 200.0, 200.0]);
        assert_eq!(speeds.of("mlp", "cifar10"), None);
    }

    #[test]
    fn long_trainings_count_more() {
        let mut measured = Measured::default();
        measured.add(3 * 10, Some(1.0));
        measured.add(3 * 90, Some(2.0));
        let mut speeds = Speeds::default();
        speeds.note("mlp", "digits", measured);
        assert_eq!(speeds.latest(), Some(100.0));
    }

    #[test]
    fn a_speed_counts_within_a_spread_around_the_median() {
        let held = |speeds: &[f64]| {
            let bounds = SpeedBounds::new(speeds.iter().copied(), 8.0);
            let mut held = Vec::new();
            for speed in speeds {
                held.push(bounds.hold(*speed));
            }
            held
        };
        assert_eq!(
            held(&[100.0, 1e9, 110.0, 0.001]),
            [100.0, 800.0, 110.0, 12.5]
        );
        assert_eq!(held(&[100.0, 1e9]), [100.0, 800.0]);
        assert_eq!(held(&[5.0]), [5.0]);
        assert!(held(&[]).is_empty());
        let free = SpeedBounds::new([1.0, 2.0, 1e9], f64::INFINITY);
        assert_eq!((free.hold(1e9), free.hold(1e-9)), (1e9, 1e-9));
    }

    #[test]
    fn nonsense_is_not_a_speed() {
        let mut speeds = Speeds::default();
        for (examples, seconds) in [
            (10, 0.0),
            (10, -1.0),
            (10, f64::NAN),
            (10, f64::INFINITY),
            (0, 1.0),
            (u64::MAX, f64::from_bits(1)),
        ] {
            speeds.note("mlp", "digits", measured(examples, seconds));
            assert_eq!(speeds.latest(), None, "{examples} in {seconds} s");
        }
        let mut silent = Measured::default();
        silent.add(10, None);
        speeds.note("mlp", "digits", silent);
        assert_eq!(speeds.latest(), None);
    }

    #[test]
    fn jobs_of_many_names_do_not_fill_the_memory() {
        let mut speeds = Speeds::default();
        for job in 0..100 {
            speeds.note(&format!("model-{job}"), "digits", measured(job + 1, 1.0));
        }
        assert_eq!(speeds.known.len(), REMEMBERED);
        assert_eq!(speeds.latest(), Some(100.0));
        assert_eq!(speeds.of("model-99", "digits"), Some(100.0));
        assert_eq!(speeds.of("model-0", "digits"), None);
    }
}
