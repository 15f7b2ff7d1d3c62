//! Any folder of images, `train/<class>/*` and `test/<class>/*`, through burn-dataset.
//!
//! `ImageFolderDataset` decodes a file at every access, so each file is decoded once here, on all cores, and kept. The
//! list of classes is made here as well, from the folders under `train/`: burn-dataset would number the classes of
//! `test/` by themselves, and a class without test images would shift every label after it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use burn_dataset::Dataset as _;
use burn_dataset::vision::{Annotation, ImageDatasetItem, ImageFolderDataset, PixelData};

use super::{Augmentation, DataError, Dataset, ImageSet, ImageShape, Normalization};

/// What burn-dataset decodes.
const EXTENSIONS: [&str; 4] = ["bmp", "jpg", "jpeg", "png"];

/// The images under `root/train` and `root/test`, of which all must have the same height and width.
///
/// Classes are the sorted names of the folders under `train`; files are in the order of class and name, and those that
/// are not `bmp`, `jpg`, `jpeg` or `png` are passed over. Where one image has colour, grey ones are read as colour;
/// transparency is dropped, and 16 bits or floats per value become 8 bits. Normalised with the mean and standard deviation of
/// the training images; no augmentation.
pub fn folder(root: &Path) -> Result<Dataset, DataError> {
    let classes = class_names(&root.join("train"))?;
    let train = decode(&root.join("train"), &classes)?;
    let test = decode(&root.join("test"), &classes)?;
    let channels = train
        .iter()
        .chain(&test)
        .map(|image| image.channels)
        .max()
        .unwrap_or(1);
    let shape = ImageShape {
        channels,
        height: train[0].height,
        width: train[0].width,
    };
    let name = root.display();
    let train = assemble(format!("{name}/train"), shape, &classes, train)?;
    Ok(Dataset {
        test: assemble(format!("{name}/test"), shape, &classes, test)?,
        normalization: Normalization::measure(&train, 255.0),
        train,
        augmentation: Augmentation::NONE,
    })
}

/// One file's image, its values still interleaved.
struct Decoded {
    path: PathBuf,
    label: u16,
    channels: usize,
    height: usize,
    width: usize,
    values: Vec<u8>,
}

fn class_names(train: &Path) -> Result<Vec<String>, DataError> {
    let mut classes = Vec::new();
    for path in entries(train)? {
        if path.is_dir() {
            let name = path.file_name().unwrap_or_default();
            classes.push(name.to_string_lossy().into_owned());
        }
    }
    match classes.len() {
        0 => Err(DataError::Malformed {
            path: train.to_owned(),
            reason: "no folders of classes in it".to_owned(),
        }),
        count if count > usize::from(u16::MAX) => Err(DataError::Malformed {
            path: train.to_owned(),
            reason: format!("{count} classes are more than {}", u16::MAX),
        }),
        _ => Ok(classes),
    }
}

/// Decodes every image under `split/<class>/` for the classes given, in order of class and file name; at least one.
fn decode(split: &Path, classes: &[String]) -> Result<Vec<Decoded>, DataError> {
    let mut items: Vec<(PathBuf, String)> = Vec::new();
    for path in entries(split)? {
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !classes.iter().any(|class| *class == name) {
            return Err(DataError::Malformed {
                reason: "a class that train/ does not have".to_owned(),
                path,
            });
        }
        let files = entries(&path)?;
        let images = files.into_iter().filter(|file| is_image(file));
        items.extend(images.map(|file| (file, name.clone().into_owned())));
    }
    if items.is_empty() {
        return Err(DataError::Malformed {
            path: split.to_owned(),
            reason: format!("no images ({}) in it", EXTENSIONS.join(", ")),
        });
    }
    let paths: Vec<PathBuf> = items.iter().map(|(path, _)| path.clone()).collect();
    let images =
        ImageFolderDataset::new_classification_with_items(items, classes).map_err(|error| {
            DataError::Malformed {
                path: split.to_owned(),
                reason: error.to_string(),
            }
        })?;

    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let per_thread = paths.len().div_ceil(threads).max(1);
    let parts: Vec<Result<Vec<Decoded>, DataError>> = thread::scope(|scope| {
        let running: Vec<_> = paths
            .chunks(per_thread)
            .enumerate()
            .map(|(part, paths)| {
                let images = &images;
                scope.spawn(move || {
                    let from = part * per_thread;
                    let each = paths.iter().enumerate();
                    each.map(|(at, path)| decode_one(images, from + at, path))
                        .collect()
                })
            })
            .collect();
        running.into_iter().map(joined).collect()
    });
    let mut decoded = Vec::with_capacity(paths.len());
    for part in parts {
        decoded.extend(part?);
    }
    Ok(decoded)
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn decode_one(
    images: &ImageFolderDataset,
    index: usize,
    path: &Path,
) -> Result<Decoded, DataError> {
    let malformed = |reason: &str| DataError::Malformed {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    // burn-dataset panics on a file that it cannot decode.
    let item = catch_unwind(AssertUnwindSafe(|| images.get(index)))
        .map_err(|_| malformed("it cannot be decoded"))?
        .map_err(|error| malformed(&error.to_string()))?;
    let Annotation::Label(label) = item.annotation else {
        return Err(malformed("it has no class"));
    };
    let (height, width) = (item.image_height, item.image_width);
    let channels = match height * width {
        0 => return Err(malformed("it is empty")),
        plane => item.image.len() / plane,
    };
    Ok(Decoded {
        path: path.to_owned(),
        label: label as u16,
        channels: colours(channels),
        height,
        width,
        values: without_transparency(bytes(item), channels),
    })
}

/// How many of `channels` are not transparency.
fn colours(channels: usize) -> usize {
    match channels {
        2 => 1,
        4 => 3,
        other => other,
    }
}

fn bytes(item: ImageDatasetItem) -> Vec<u8> {
    match item.image {
        PixelData::U8(values) => values,
        PixelData::U16(values) => values.into_iter().map(|value| (value >> 8) as u8).collect(),
        PixelData::F32(values) => values
            .into_iter()
            .map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8)
            .collect(),
    }
}

fn without_transparency(values: Vec<u8>, channels: usize) -> Vec<u8> {
    match colours(channels) {
        kept if kept == channels => values,
        kept => values
            .chunks_exact(channels)
            .flat_map(|pixel| &pixel[..kept])
            .copied()
            .collect(),
    }
}

/// Puts decoded images of one shape together, each as planes.
fn assemble(
    name: String,
    shape: ImageShape,
    classes: &[String],
    images: Vec<Decoded>,
) -> Result<ImageSet, DataError> {
    let mut pixels = Vec::with_capacity(images.len() * shape.pixels());
    let mut labels = Vec::with_capacity(images.len());
    for image in images {
        if (image.height, image.width) != (shape.height, shape.width) {
            return Err(DataError::Malformed {
                reason: format!(
                    "{} x {} pixels, where the first image has {} x {}",
                    image.height, image.width, shape.height, shape.width
                ),
                path: image.path,
            });
        }
        for channel in 0..shape.channels {
            // A grey image among colour ones has only one plane, which stands for all.
            let from = channel.min(image.channels - 1);
            pixels.extend(image.values.iter().skip(from).step_by(image.channels));
        }
        labels.push(image.label);
    }
    ImageSet::new(name, shape, classes.to_vec(), pixels, labels)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|own| {
        EXTENSIONS
            .iter()
            .any(|known| own.eq_ignore_ascii_case(known))
    })
}

/// What is in a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let read = |source| DataError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut paths = fs::read_dir(folder)
        .map_err(read)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(read)?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
