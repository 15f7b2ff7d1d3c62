//! The part of a training split that is kept for validation.

use rand_chacha::ChaCha8Rng;

use super::{PartitionError, deal::shuffled};

/// A training split in two parts, each in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationSplit {
    /// What is dealt to the clients.
    pub training: Vec<u32>,
    /// What versions are evaluated on.
    pub validation: Vec<u32>,
}

impl ValidationSplit {
    /// Draws `share` (above 0, below 1) of `count` examples, at least one, and leaves at least one. The same generator leads to
    /// the same examples.
    ///
    /// # Errors
    ///
    /// [`PartitionError::NothingToValidate`] of fewer than two examples.
    pub fn draw(count: usize, share: f64, mut rng: ChaCha8Rng) -> Result<Self, PartitionError> {
        if count < 2 {
            return Err(PartitionError::NothingToValidate { examples: count });
        }
        let mut validation = shuffled(count, &mut rng);
        let wanted = (count as f64 * share).round() as usize;
        let mut training = validation.split_off(wanted.clamp(1, count - 1));
        training.sort_unstable();
        validation.sort_unstable();
        Ok(Self {
            training,
            validation,
        })
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    fn draw(seed: u64, count: usize, share: f64) -> ValidationSplit {
        ValidationSplit::draw(count, share, ChaCha8Rng::seed_from_u64(seed)).unwrap()
    }

    #[test]
    fn each_example_is_in_one_part_and_the_seed_decides_in_which() {
        let split = draw(7, 1000, 0.1);
        assert_eq!(split.validation.len(), 100);
        assert!(split.validation.is_sorted() && split.training.is_sorted());
        let mut all = [split.training.clone(), split.validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
        assert_eq!(split, draw(7, 1000, 0.1));
        assert_ne!(split, draw(8, 1000, 0.1));
    }

    #[test]
    fn neither_part_is_empty() {
        let sizes = |count, share| {
            let split = draw(1, count, share);
            (split.training.len(), split.validation.len())
        };
        assert_eq!(sizes(2, 0.001), (1, 1));
        assert_eq!(sizes(3, 0.999), (1, 2));
        assert!(ValidationSplit::draw(1, 0.5, ChaCha8Rng::seed_from_u64(1)).is_err());
    }
}
