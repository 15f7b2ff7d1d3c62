//! 8 x 8 handwritten digits, embedded in the crate: enough to try everything without a download.
//!
//! 1797 grey images with values 0 to 16, from the *Optical Recognition of Handwritten Digits* data set of E. Alpaydin
//! and C. Kaynak, UCI Machine Learning Repository (1998), licence CC BY 4.0 (`DIGITS-LICENSE.md` beside this file).
//! `scripts/digits_to_binary.py` made `digits.bin` out of scikit-learn's copy.

use super::{Augmentation, DataError, Dataset, ImageSet, ImageShape, Normalization};

/// Records of one label byte and 64 pixel bytes.
static RECORDS: &[u8] = include_bytes!("digits.bin");

const SHAPE: ImageShape = ImageShape {
    channels: 1,
    height: 8,
    width: 8,
};
/// Measured over the training images.
const MEAN: f32 = 0.3051;
const STD: f32 = 0.3762;

/// The digits, split in 1442 training and 355 test images.
///
/// The split is fixed and the same fraction of each class: in file order, every fifth image of a class (its fifth, tenth,
/// and so on) is a test image. Values are divided by 16 and normalised with the training images' mean and standard
/// deviation. There is no augmentation, since a mirrored digit is another sign.
pub fn digits() -> Result<Dataset, DataError> {
    let mut train = (Vec::new(), Vec::new());
    let mut test = (Vec::new(), Vec::new());
    let mut seen = [0_usize; 10];
    for record in RECORDS.chunks_exact(1 + SHAPE.pixels()) {
        let label = record[0];
        seen[label as usize] += 1;
        let (pixels, labels) = match seen[label as usize] % 5 {
            0 => &mut test,
            _ => &mut train,
        };
        pixels.extend_from_slice(&record[1..]);
        labels.push(u16::from(label));
    }
    let classes: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    Ok(Dataset {
        train: ImageSet::new("digits/train", SHAPE, classes.clone(), train.0, train.1)?,
        test: ImageSet::new("digits/test", SHAPE, classes, test.0, test.1)?,
        normalization: Normalization {
            max: 16.0,
            mean: vec![MEAN],
            std: vec![STD],
        },
        augmentation: Augmentation::NONE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_1442_to_355_with_every_class_in_both() {
        let digits = digits().unwrap();
        assert_eq!((digits.train.len(), digits.test.len()), (1442, 355));
        for set in [&digits.train, &digits.test] {
            for label in 0..10 {
                let share =
                    set.labels().iter().filter(|&&l| l == label).count() as f64 / set.len() as f64;
                assert!((0.09..0.11).contains(&share), "{label}: {share}");
            }
            assert!(set.pixels().iter().all(|&value| value <= 16));
        }
        // The first image of the original: a zero.
        assert_eq!(digits.train.labels()[0], 0);
        assert_eq!(
            &digits.train.image(0).unwrap()[..8],
            [0, 0, 5, 13, 9, 1, 0, 0]
        );
    }

    #[test]
    fn the_normalization_is_that_of_the_training_images() {
        let digits = digits().unwrap();
        let measured = Normalization::measure(&digits.train, 16.0);
        assert!((measured.mean[0] - MEAN).abs() < 1e-4, "{measured:?}");
        assert!((measured.std[0] - STD).abs() < 1e-4, "{measured:?}");
    }
}
