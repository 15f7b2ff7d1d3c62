//! Any folder of images, `train/<class>/*` and `test/<class>/*`, through burn-dataset.
//!
//! `ImageFolderDataset` decodes a file at every access, so each file is decoded once here, on all cores, and kept. The
//! list of classes is made here as well, from the folders under `train/`: burn-dataset would number the classes of
//! `test/` by themselves, and a class without test images would shift every label after it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use burn_dataset::Dataset as _;
use burn_dataset::vision::{Annotation, ImageDatasetItem, ImageFolderDataset, PixelData};

use super::{Augmentation, DataError, Dataset, ImageSet, ImageShape, Normalization};
use crate::panics;

/// What burn-dataset decodes.
const EXTENSIONS: [&str; 4] = ["bmp", "jpg", "jpeg", "png"];

/// The images under `root/train` and `root/test`, of which all must have the same height and width.
///
/// Classes are the sorted names of the folders under `train`; files are in the order of class and name, and those that
/// are not `bmp`, `jpg`, `jpeg` or `png` are passed over. If one image has colour, grey ones are read as colour;
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
    if classes.is_empty() {
        let reason = "it has no folders, and each class must be one";
        return Err(DataError::malformed(train, reason));
    }
    // Labels have 16 bits everywhere: in partitions, in the fingerprint and in memory.
    if classes.len() > usize::from(u16::MAX) {
        let reason = format!(
            "it has {} classes, and {} is the most",
            classes.len(),
            u16::MAX
        );
        return Err(DataError::malformed(train, reason));
    }
    Ok(classes)
}

/// Decodes every image under `split/<class>/` for the classes given, in order of class and file name; at least one.
fn decode(split: &Path, classes: &[String]) -> Result<Vec<Decoded>, DataError> {
    let mut items: Vec<(PathBuf, String)> = Vec::new();
    for path in entries(split)? {
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Its label would be beyond the model's outputs.
        if !classes.iter().any(|class| *class == name) {
            let reason = "it is a class that train/ does not have: remove it, or give train/ a folder of this name";
            return Err(DataError::malformed(&path, reason));
        }
        let files = entries(&path)?;
        let images = files.into_iter().filter(|file| is_image(file));
        items.extend(images.map(|file| (file, name.clone().into_owned())));
    }
    if items.is_empty() {
        let reason = format!("it has no images ({})", EXTENSIONS.join(", "));
        return Err(DataError::malformed(split, reason));
    }
    let paths: Vec<PathBuf> = items.iter().map(|(path, _)| path.clone()).collect();
    let images = ImageFolderDataset::new_classification_with_items(items, classes)
        .map_err(|error| DataError::malformed(split, error.to_string()))?;
    decode_all(&images, &paths)
}

/// Decodes all images, in this order, on as many threads as the machine has cores.
fn decode_all(images: &ImageFolderDataset, paths: &[PathBuf]) -> Result<Vec<Decoded>, DataError> {
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    // In parts that are joined in order: labels and indices must be the same on a machine with other cores.
    let per_thread = paths.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        let mut running = Vec::new();
        for (part, paths) in paths.chunks(per_thread).enumerate() {
            running.push(scope.spawn(move || decode_range(images, part * per_thread, paths)));
        }
        let mut decoded = Vec::with_capacity(paths.len());
        for thread in running {
            match thread.join() {
                Ok(part) => decoded.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(decoded)
    })
}

/// Decodes the images from index `from` on, whose files are these.
fn decode_range(
    images: &ImageFolderDataset,
    from: usize,
    paths: &[PathBuf],
) -> Result<Vec<Decoded>, DataError> {
    let mut decoded = Vec::with_capacity(paths.len());
    for (at, path) in paths.iter().enumerate() {
        decoded.push(decode_one(images, from + at, path)?);
    }
    Ok(decoded)
}

fn decode_one(
    images: &ImageFolderDataset,
    index: usize,
    path: &Path,
) -> Result<Decoded, DataError> {
    // burn-dataset panics on a file that it cannot decode.
    let item = panics::caught(|| images.get(index))
        .map_err(|_| DataError::malformed(path, "it cannot be decoded"))?
        .map_err(|error| DataError::malformed(path, error.to_string()))?;
    let Annotation::Label(label) = item.annotation else {
        return Err(DataError::malformed(path, "it has no class"));
    };
    let (height, width) = (item.image_height, item.image_width);
    let plane = height * width;
    if plane == 0 {
        return Err(DataError::malformed(path, "it has no pixels"));
    }
    // burn-dataset does not tell the number of channels.
    let channels = item.image.len() / plane;
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
            let reason = format!(
                "it has {} x {} pixels and the first image {} x {}: all must have the same",
                image.height, image.width, shape.height, shape.width
            );
            return Err(DataError::malformed(&image.path, reason));
        }
        for channel in 0..shape.channels {
            // A grey image among colour ones has one plane, which is used for all channels.
            let from = channel.min(image.channels - 1);
            pixels.extend(image.values.iter().skip(from).step_by(image.channels));
        }
        labels.push(image.label);
    }
    ImageSet::new(name, shape, classes.to_vec(), pixels, labels)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let Some(extension) = extension else {
        return false;
    };
    EXTENSIONS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}

/// What is in a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| DataError::unreadable(folder, source))? {
        let entry = entry.map_err(|source| DataError::unreadable(folder, source))?;
        paths.push(entry.path());
    }
    // The operating system lists files in any order, and each worker must have the same.
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests;
