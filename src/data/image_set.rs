//! A set of labelled images, decoded and in memory.

use std::fmt;
use std::sync::{Arc, OnceLock};

#[cfg(feature = "burn")]
use burn_dataset::DatasetError;
use sha2::{Digest, Sha256};

use super::DataError;

/// Labelled images of one shape, decoded and in memory. Cloning shares them.
///
/// It is also a `burn_dataset::Dataset` of [`LabelledImage`], so that burn's own tools (`SelectionDataset`,
/// `DataLoaderBuilder`) take it.
#[derive(Clone)]
pub struct ImageSet(Arc<Inner>);

struct Inner {
    name: String,
    shape: ImageShape,
    classes: Vec<String>,
    pixels: Vec<u8>,
    labels: Vec<u16>,
    fingerprint: OnceLock<String>,
}

/// The shape of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Colour channels: 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Pixels per row.
    pub width: usize,
}

impl ImageShape {
    /// Values per image.
    pub fn pixels(&self) -> usize {
        self.channels * self.height * self.width
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} x {}", self.channels, self.height, self.width)
    }
}

impl ImageSet {
    /// A set of `labels.len()` images.
    ///
    /// `pixels` holds them one after the other, each as `channels` planes of `height` rows. A label is an index into
    /// `classes`.
    pub fn new(
        name: impl Into<String>,
        shape: ImageShape,
        classes: Vec<String>,
        pixels: Vec<u8>,
        labels: Vec<u16>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        // From here on, each image has its label: transforms index the labels without a check.
        let expected = labels.len().checked_mul(shape.pixels());
        if shape.pixels() == 0 || expected != Some(pixels.len()) {
            return Err(DataError::Inconsistent {
                reason: format!(
                    "it has {} bytes of pixels, which are not {} images of {shape}",
                    pixels.len(),
                    labels.len()
                ),
                name,
            });
        }
        if let Some(label) = labels
            .iter()
            .find(|&&label| label as usize >= classes.len())
        {
            return Err(DataError::Inconsistent {
                reason: format!(
                    "it has the label {label}, and only {} classes, counted from 0",
                    classes.len()
                ),
                name,
            });
        }
        Ok(Self(Arc::new(Inner {
            name,
            shape,
            classes,
            pixels,
            labels,
            fingerprint: OnceLock::new(),
        })))
    }

    /// The set's name, for messages: `cifar10/train`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        self.0.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.labels.is_empty()
    }

    /// The shape of each image.
    pub fn shape(&self) -> ImageShape {
        self.0.shape
    }

    /// The names of the classes, in label order.
    pub fn classes(&self) -> &[String] {
        &self.0.classes
    }

    /// The label of each image: what a partitioner asks for.
    pub fn labels(&self) -> &[u16] {
        &self.0.labels
    }

    /// The raw values of one image, as `channels` planes of `height` rows; `None` past the end.
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        let size = self.0.shape.pixels();
        let from = index.checked_mul(size)?;
        self.0.pixels.get(from..from.checked_add(size)?)
    }

    /// The raw values of all images, one after the other.
    pub fn pixels(&self) -> &[u8] {
        &self.0.pixels
    }

    /// A SHA-256 in hexadecimal over shape, number of classes, labels and decoded bytes: equal for two processes
    /// exactly when they hold the same examples in the same order. Computed at the first call, remembered after.
    pub fn fingerprint(&self) -> &str {
        self.0.fingerprint.get_or_init(|| {
            let inner = &*self.0;
            let mut hash = Sha256::new();
            // With a version: another recipe must not give the fingerprint of this one.
            hash.update(b"fedavg image set 1\n");
            for size in [
                inner.shape.channels,
                inner.shape.height,
                inner.shape.width,
                inner.classes.len(),
                inner.labels.len(),
            ] {
                hash.update((size as u64).to_le_bytes());
            }
            for label in &inner.labels {
                hash.update(label.to_le_bytes());
            }
            hash.update(&inner.pixels);
            hex(&hash.finalize())
        })
    }
}

impl fmt::Debug for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ImageSet({}, {} of {})",
            self.name(),
            self.len(),
            self.shape()
        )
    }
}

/// One image as burn's dataset tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelledImage {
    /// Raw values, as `channels` planes of `height` rows.
    pub pixels: Vec<u8>,
    /// Index into the set's classes.
    pub label: u16,
}

#[cfg(feature = "burn")]
impl burn_dataset::Dataset<LabelledImage> for ImageSet {
    fn get(&self, index: usize) -> Result<LabelledImage, DatasetError> {
        Ok(LabelledImage {
            label: self.0.labels[index],
            pixels: self.0.pixels[index * self.0.shape.pixels()..][..self.0.shape.pixels()]
                .to_vec(),
        })
    }

    fn len(&self) -> usize {
        self.len()
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape {
        channels: 1,
        height: 1,
        width: 2,
    };

    fn set(pixels: &[u8], labels: &[u16]) -> Result<ImageSet, DataError> {
        let classes = vec!["zero".to_owned(), "one".to_owned()];
        ImageSet::new("test", SHAPE, classes, pixels.to_vec(), labels.to_vec())
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        assert!(set(&[1, 2, 3, 4], &[0, 1]).is_ok());
        for (pixels, labels) in [
            (&[1, 2, 3][..], &[0, 1][..]),
            (&[1, 2, 3, 4], &[0]),
            (&[1, 2], &[2]),
        ] {
            assert!(matches!(
                set(pixels, labels),
                Err(DataError::Inconsistent { .. })
            ));
        }
    }

    #[test]
    fn the_fingerprint_sees_pixels_labels_and_order_but_not_the_name() {
        let fingerprint =
            |pixels: &[u8], labels: &[u16]| set(pixels, labels).unwrap().fingerprint().to_owned();
        let base = fingerprint(&[1, 2, 3, 4], &[0, 1]);
        assert_eq!(base.len(), 64);
        assert_eq!(base, fingerprint(&[1, 2, 3, 4], &[0, 1]));
        assert_ne!(base, fingerprint(&[1, 2, 3, 5], &[0, 1]));
        assert_ne!(base, fingerprint(&[1, 2, 3, 4], &[1, 0]));
        assert_ne!(base, fingerprint(&[3, 4, 1, 2], &[1, 0]));
        let tall = ImageShape {
            height: 2,
            width: 1,
            ..SHAPE
        };
        let classes = vec!["a".to_owned(), "b".to_owned()];
        let other = ImageSet::new("other", tall, classes, vec![1, 2, 3, 4], vec![0, 1]).unwrap();
        assert_ne!(base, other.fingerprint());
    }

    #[test]
    fn burn_sees_the_same_images() {
        use burn_dataset::Dataset as _;
        use burn_dataset::transform::SelectionDataset;

        let set = set(&[1, 2, 3, 4, 5, 6], &[0, 1, 0]).unwrap();
        let item = set.get(1).unwrap();
        assert_eq!((item.pixels.as_slice(), item.label), (&[3, 4][..], 1));
        assert_eq!(set.image(2), Some(&[5, 6][..]));
        assert_eq!(set.image(3), None);
        let own = SelectionDataset::from_indices_checked(set, vec![2, 0]);
        assert_eq!(own.get(0).unwrap().pixels, [5, 6]);
        assert_eq!(own.len(), 2);
    }
}
