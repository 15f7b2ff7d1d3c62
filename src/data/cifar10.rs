//! CIFAR-10 in its official binary form, the folder `cifar-10-batches-bin`.
//!
//! 60 000 colour images of 32 x 32 pixels in ten classes: A. Krizhevsky, *Learning Multiple Layers of Features from
//! Tiny Images* (2009), <https://www.cs.toronto.edu/~kriz/cifar.html>. A batch file is a sequence of records, each one
//! label byte followed by 3072 pixel bytes: the red plane, the green one, the blue one, row by row.
//!
//! Five training batches of exactly 10 000 records, and a test batch of at most as many: a shorter one is a subset. A
//! file of any other size, or with a label above 9, is an error that names it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Augmentation, DataError, Dataset, ImageSet, ImageShape, Normalization};

/// The folder that holds the batches, as the official archive names it.
pub const FOLDER: &str = "cifar-10-batches-bin";
/// The training batches, in order.
pub const TRAIN_BATCHES: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
/// The test batch.
pub const TEST_BATCH: &str = "test_batch.bin";

const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];
const SHAPE: ImageShape = ImageShape {
    channels: 3,
    height: 32,
    width: 32,
};
const RECORD: usize = 1 + 3 * 32 * 32;
const RECORDS_PER_BATCH: usize = 10_000;
/// The size in bytes of a whole batch file.
pub(super) const BATCH_BYTES: u64 = (RECORDS_PER_BATCH * RECORD) as u64;

/// CIFAR-10 from `data_dir`, which holds `cifar-10-batches-bin` or is that folder itself. About 180 MB of memory.
pub fn cifar10(data_dir: &Path) -> Result<Dataset, DataError> {
    let folder = find(data_dir)?;
    let train = TRAIN_BATCHES.map(|name| folder.join(name));
    let test = [folder.join(TEST_BATCH)];
    Ok(Dataset {
        train: read_set("cifar10/train", &train)?,
        test: read_set("cifar10/test", &test)?,
        normalization: Normalization {
            max: 255.0,
            mean: vec![0.4914, 0.4822, 0.4465],
            std: vec![0.2470, 0.2435, 0.2616],
        },
        augmentation: Augmentation::CIFAR10,
    })
}

/// Checks sizes and labels of all batches in `folder`, one at a time.
#[cfg(feature = "cli")]
pub(super) fn verify(folder: &Path) -> Result<(), DataError> {
    for name in TRAIN_BATCHES.into_iter().chain([TEST_BATCH]) {
        read_batch(&folder.join(name), &mut Vec::new(), &mut Vec::new())?;
    }
    Ok(())
}

fn find(data_dir: &Path) -> Result<PathBuf, DataError> {
    let looked_at = vec![data_dir.join(FOLDER), data_dir.to_owned()];
    for folder in &looked_at {
        // A batch and not the folder alone: an empty folder of this name must not hide the data in the next place.
        if folder.join(TRAIN_BATCHES[0]).is_file() {
            return Ok(folder.clone());
        }
    }
    Err(DataError::NotFound {
        dataset: "cifar10".to_owned(),
        looked_at,
        hint: "Get it with `fedavg data download cifar10`, or set --data-dir or FEDAVG_DATA to the folder that holds it.",
    })
}

fn read_set(name: &str, batches: &[PathBuf]) -> Result<ImageSet, DataError> {
    let mut pixels = Vec::with_capacity(batches.len() * RECORDS_PER_BATCH * SHAPE.pixels());
    let mut labels = Vec::with_capacity(batches.len() * RECORDS_PER_BATCH);
    for batch in batches {
        read_batch(batch, &mut pixels, &mut labels)?;
    }
    let classes = CLASSES.map(str::to_owned).to_vec();
    ImageSet::new(name, SHAPE, classes, pixels, labels)
}

/// Appends the records of one batch file, after checking its size and labels.
fn read_batch(path: &Path, pixels: &mut Vec<u8>, labels: &mut Vec<u16>) -> Result<(), DataError> {
    // One byte more than a whole batch, so that a longer file shows, however long it is.
    let bytes = read_at_most(path, BATCH_BYTES + 1)
        .map_err(|source| DataError::unreadable(path, source))?;
    if let Some(reason) = wrong_size(path, bytes.len()) {
        return Err(DataError::malformed(path, reason));
    }
    for (at, record) in bytes.chunks_exact(RECORD).enumerate() {
        let label = record[0];
        // A file of another format can have the right size. Its bytes make labels beyond the ten classes.
        if usize::from(label) >= CLASSES.len() {
            let reason = format!("record {at} has label {label}, and the highest is 9");
            return Err(DataError::malformed(path, reason));
        }
        labels.push(u16::from(label));
        pixels.extend_from_slice(&record[1..]);
    }
    Ok(())
}

/// What is wrong with the size of a batch file, if anything.
fn wrong_size(path: &Path, size: usize) -> Option<String> {
    let may_be_shorter = path.ends_with(TEST_BATCH);
    if size as u64 > BATCH_BYTES {
        return Some(format!(
            "it has more than the {BATCH_BYTES} bytes of a batch"
        ));
    }
    if size as u64 != BATCH_BYTES && !may_be_shorter {
        return Some(format!(
            "it has {size} bytes, and a training batch has {BATCH_BYTES}"
        ));
    }
    if size == 0 || !size.is_multiple_of(RECORD) {
        return Some(format!(
            "it has {size} bytes, which is not a whole number of records of {RECORD}"
        ));
    }
    None
}

fn read_at_most(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Of a file that is too long, no more space is taken than for a whole one and a byte.
    let expected = file.metadata()?.len().min(limit);
    let mut bytes = Vec::with_capacity(expected as usize);
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn record(label: u8, value: u8) -> Vec<u8> {
        let mut record = vec![value; RECORD];
        record[0] = label;
        record
    }

    /// A folder of five whole training batches, image `i` of batch `b` of class `i % 10` and value `b`, and a test
    /// batch of twenty images.
    fn folder() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(FOLDER)).unwrap();
        for (batch, name) in TRAIN_BATCHES.iter().enumerate() {
            let bytes: Vec<u8> = (0..RECORDS_PER_BATCH)
                .flat_map(|at| record((at % 10) as u8, batch as u8))
                .collect();
            fs::write(root.path().join(FOLDER).join(name), bytes).unwrap();
        }
        let bytes: Vec<u8> = (0..20).flat_map(|at| record(at % 10, 100 + at)).collect();
        fs::write(root.path().join(FOLDER).join(TEST_BATCH), bytes).unwrap();
        root
    }

    #[test]
    fn whole_batches_are_read_in_order_and_broken_ones_named() {
        let root = folder();
        let data = cifar10(root.path()).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (50_000, 20));
        assert_eq!(data.train.labels()[..3], [0, 1, 2]);
        assert_eq!(data.train.image(39_999).unwrap()[0], 3);
        assert_eq!(data.train.image(40_000).unwrap()[3071], 4);
        assert_eq!(data.test.image(7).unwrap()[0], 107);

        // The folder itself is found too.
        let itself = cifar10(&root.path().join(FOLDER)).unwrap();
        assert_eq!(itself.fingerprint(), data.fingerprint());

        let train = root.path().join(FOLDER).join(TRAIN_BATCHES[2]);
        let test = root.path().join(FOLDER).join(TEST_BATCH);
        let whole = fs::read(&train).unwrap();
        let mut wrong_label = whole.clone();
        wrong_label[RECORD] = 10;
        let longer: Vec<u8> = whole.iter().copied().chain(record(0, 0)).collect();
        for (path, bytes) in [
            (&train, &whole[..whole.len() - 1]),
            (&train, &whole[..whole.len() - RECORD]),
            (&train, &longer),
            (&train, &wrong_label),
            (&train, &[]),
            (&test, &longer),
            (&test, &whole[..RECORD + 5]),
            (&test, &[]),
        ] {
            let kept = fs::read(path).unwrap();
            fs::write(path, bytes).unwrap();
            let error = cifar10(root.path()).unwrap_err();
            assert!(
                matches!(&error, DataError::Malformed { path: named, .. } if named == path),
                "{error}"
            );
            fs::write(path, kept).unwrap();
        }
        fs::remove_file(&test).unwrap();
        let error = cifar10(root.path()).unwrap_err();
        assert!(
            matches!(&error, DataError::Read { path, .. } if *path == test),
            "{error}"
        );
    }

    /// A batch is read whole or refused with its name, whatever is in it.
    #[test]
    fn fuzz_batches() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(TEST_BATCH);
        let two = [record(3, 7), record(9, 0)].concat();
        let target = crate::testing::fuzz::Target::new("batches").seed(record(0, 1));
        target.seed(two).runs(300).run(|bytes| {
            fs::write(&path, bytes).unwrap();
            match read_set("cifar10/test", std::slice::from_ref(&path)) {
                Ok(set) => {
                    assert_eq!(set.len() * RECORD, bytes.len());
                    for (at, label) in set.labels().iter().enumerate() {
                        assert_eq!(bytes[at * RECORD], *label as u8);
                        assert_eq!(
                            set.image(at),
                            Some(&bytes[at * RECORD + 1..(at + 1) * RECORD])
                        );
                    }
                    "read".to_string()
                }
                Err(DataError::Malformed {
                    path: named,
                    reason,
                }) => {
                    assert_eq!(named, path);
                    reason
                }
                Err(error) => panic!("{error}"),
            }
        });
    }

    #[test]
    fn a_missing_dataset_says_where_it_was_looked_for_and_how_to_get_it() {
        let root = tempfile::tempdir().unwrap();
        let message = cifar10(root.path()).unwrap_err().to_string();
        let expected = root.path().join(FOLDER).display().to_string();
        assert!(message.contains(&expected), "{message}");
        assert!(
            message.contains("fedavg data download cifar10"),
            "{message}"
        );
    }

    /// Reads the real data, if FEDAVG_DATA names its folder.
    #[test]
    fn the_published_means_are_those_of_the_real_images() {
        let Some(data_dir) = std::env::var_os(crate::data::DATA_DIR_VARIABLE) else {
            eprintln!("skipped: FEDAVG_DATA is not set, so that there is no CIFAR-10 to read");
            return;
        };
        let data = cifar10(Path::new(&data_dir)).unwrap();
        assert_eq!(data.train.len(), 50_000);
        let measured = Normalization::measure(&data.train, 255.0);
        for channel in 0..3 {
            let mean = measured.mean[channel] - data.normalization.mean[channel];
            let std = measured.std[channel] - data.normalization.std[channel];
            // JPEG copies of the set differ from it in the third decimal place.
            assert!(mean.abs() < 0.005 && std.abs() < 0.005, "{measured:?}");
        }
        for label in 0..10 {
            let count = data.train.labels().iter().filter(|&&l| l == label).count();
            assert_eq!(count, 5_000);
        }
    }
}
