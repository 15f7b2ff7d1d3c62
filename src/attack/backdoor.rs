//! A trigger: images that have it get the class that the attackers want.

use rand::seq::SliceRandom;

use super::{Attack, AttackError, AttackRound, Needs};
use crate::{
    data::{Dataset, ImageSet},
    rng::ChaCha8Rng,
    worker::{LocalUpdate, TrainError},
};

/// Model replacement: Bagdasaryan et al. 2020 (<https://arxiv.org/abs/1807.00459>). A share of the attacker's images get a trigger, a
/// bright square in the lower right corner (Gu et al. 2017, <https://arxiv.org/abs/1708.06733>), and the target for a label. The
/// attacker trains on them beside its clean images, and sends `scale * delta`, so that the mean becomes the attackers' model.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Backdoor {
    /// The class that images with the trigger shall be taken for.
    pub target: u16,
    /// The share of the training images that are poisoned, from 0 to 1. The paper has 20 of a batch of 64.
    pub share: f64,
    /// Height and width of the square, in pixels.
    pub size: usize,
    /// How many times as long as the honest change; none for clients divided by attackers, which replaces the global model.
    pub scale: Option<f64>,
}

impl Default for Backdoor {
    fn default() -> Self {
        Self {
            target: 0,
            share: Self::SHARE,
            size: Self::SIZE,
            scale: None,
        }
    }
}

impl Backdoor {
    /// The paper's share of poisoned images.
    pub(super) const SHARE: f64 = 20.0 / 64.0;
    /// A square that covers a seventh of the smallest images that are there, and little of others.
    pub(super) const SIZE: usize = 3;

    /// Towards this class, with the paper's other parameters. The public fields change that.
    pub fn new(target: u16) -> Self {
        Self {
            target,
            ..Self::default()
        }
    }

    fn check_data(&self, clean: &Dataset) -> Result<(), AttackError> {
        let classes = clean.train.classes().len();
        if usize::from(self.target) >= classes {
            return Err(AttackError::Unusable(format!(
                "attack backdoor: target {} is not a class of the dataset, which has {classes}, numbered from 0",
                self.target
            )));
        }
        let shape = clean.train.shape();
        if self.size == 0 || self.size > shape.height.min(shape.width) {
            return Err(AttackError::Unusable(format!(
                "attack backdoor: a trigger of size {} does not fit images of {shape}",
                self.size
            )));
        }
        Ok(())
    }

    /// Paints the trigger onto an image, in all channels.
    fn stamp(&self, image: &mut [u8], set: &ImageSet, bright: u8) {
        let shape = set.shape();
        for plane in image.chunks_exact_mut(shape.height * shape.width) {
            for row in plane.chunks_exact_mut(shape.width).rev().take(self.size) {
                row[shape.width - self.size..].fill(bright);
            }
        }
    }
}

/// The largest raw value of a pixel.
fn bright(data: &Dataset) -> u8 {
    // The conversion saturates.
    data.normalization.max.round() as u8
}

impl Attack for Backdoor {
    fn needs(&self) -> Needs {
        Needs::default().with_poisoned_data()
    }

    fn poison(&self, clean: &Dataset, generator: &mut ChaCha8Rng) -> Result<Dataset, AttackError> {
        self.check_data(clean)?;
        let train = &clean.train;
        let (mut pixels, mut labels) = (train.pixels().to_vec(), train.labels().to_vec());
        let mut order: Vec<usize> = (0..train.len()).collect();
        order.shuffle(generator);
        let count = (self.share * train.len() as f64).round() as usize;
        let size = train.shape().pixels();
        for index in order.into_iter().take(count) {
            let image = &mut pixels[index * size..(index + 1) * size];
            self.stamp(image, train, bright(clean));
            labels[index] = self.target;
        }
        let mut poisoned = clean.clone();
        let classes = train.classes().to_vec();
        poisoned.train = ImageSet::new(train.name(), train.shape(), classes, pixels, labels)?;
        Ok(poisoned)
    }

    /// The test images of all other classes, with the trigger, and with the target for a label.
    fn goal(&self, clean: &Dataset) -> Result<Option<Dataset>, AttackError> {
        self.check_data(clean)?;
        let test = &clean.test;
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (image, label) in test
            .pixels()
            .chunks_exact(test.shape().pixels())
            .zip(test.labels())
        {
            if *label == self.target {
                continue;
            }
            let mut image = image.to_vec();
            self.stamp(&mut image, test, bright(clean));
            pixels.append(&mut image);
            labels.push(self.target);
        }
        if labels.is_empty() {
            return Err(AttackError::Unusable(format!(
                "attack backdoor: all test images are of the target, class {}",
                self.target
            )));
        }
        let mut goal = clean.clone();
        goal.test = ImageSet::new(
            test.name(),
            test.shape(),
            test.classes().to_vec(),
            pixels,
            labels,
        )?;
        Ok(Some(goal))
    }

    fn update(&self, update: &mut LocalUpdate, round: &AttackRound<'_>) -> Result<(), TrainError> {
        let replacing = f64::from(round.clients) / f64::from(round.attackers);
        let scale = self.scale.unwrap_or(replacing);
        round.send(update, |_, own| scale * own);
        Ok(())
    }
}
