//! A dataset: its two splits, and what is usual to do with them.

use sha2::{Digest, Sha256};

use super::{Augmentation, DataError, ImageSet, Normalization, Transform, image_set::hex};

/// Training and test images of one kind, and what is usual to do with them.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What partitioners deal and clients train on.
    pub train: ImageSet,
    /// What the global model is evaluated on. Of the shape and the classes of `train`.
    pub test: ImageSet,
    /// How raw values become inputs.
    pub normalization: Normalization,
    /// How training images are usually varied. A suggestion: nothing applies it unasked.
    pub augmentation: Augmentation,
}

impl Dataset {
    /// A SHA-256 in hexadecimal over both sets' fingerprints. Two processes with the same hold the same data.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.train.fingerprint());
        hash.update(self.test.fingerprint());
        hex(&hash.finalize())
    }

    /// The transform of this dataset's images by its normalisation.
    pub fn transform(&self) -> Result<Transform, DataError> {
        Transform::new(self.train.shape(), &self.normalization)
    }

    /// The transform that scales raw values from 0 to 1, and no more.
    pub fn plain_transform(&self) -> Result<Transform, DataError> {
        let shape = self.train.shape();
        let plain = Normalization::scale(shape.channels, self.normalization.max);
        Transform::new(shape, &plain)
    }
}
