//! Flipped labels.

use super::{Attack, AttackError, Needs};
use crate::{
    data::{Dataset, ImageSet},
    rng::ChaCha8Rng,
};

/// Trains honestly on false labels: `y` becomes `C - 1 - y`, for `C` classes. Fang et al. 2020 (<https://arxiv.org/abs/1911.11815>).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LabelFlip;

impl Attack for LabelFlip {
    fn needs(&self) -> Needs {
        Needs::default().with_poisoned_data()
    }

    fn poison(&self, clean: &Dataset, _: &mut ChaCha8Rng) -> Result<Dataset, AttackError> {
        let train = &clean.train;
        let classes = train.classes().len() as u16;
        let mut labels = train.labels().to_vec();
        for label in &mut labels {
            // Each label is below the number of classes.
            *label = classes - 1 - *label;
        }
        let mut poisoned = clean.clone();
        poisoned.train = ImageSet::new(
            train.name(),
            train.shape(),
            train.classes().to_vec(),
            train.pixels().to_vec(),
            labels,
        )?;
        Ok(poisoned)
    }
}
