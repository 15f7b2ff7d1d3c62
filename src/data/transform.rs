//! From bytes to the numbers that a model sees: normalisation, flip and padded crop.
//!
//! Every byte goes through a table of 256 floats per channel, so that a pixel costs one look-up and nothing branches
//! on it. Random draws come from a generator that the caller seeds per client and round; burn's global one is never
//! used.

use std::iter::repeat_n;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{DataError, ImageSet, ImageShape};

/// How raw values become the model's inputs: `(raw / max - mean) / std`, per channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Normalization {
    /// The largest raw value: 255 for photographs.
    pub max: f32,
    /// Mean of `raw / max` for each channel.
    pub mean: Vec<f32>,
    /// Standard deviation of `raw / max` for each channel.
    pub std: Vec<f32>,
}

impl Normalization {
    /// The mean and standard deviation of `images`, which must be the training images. Exact integer sums, so that
    /// every process measures the same.
    pub fn measure(images: &ImageSet, max: f32) -> Self {
        let shape = images.shape();
        let plane = shape.height * shape.width;
        let mut sums = vec![(0_u64, 0_u64); shape.channels];
        for (at, values) in images.pixels().chunks_exact(plane).enumerate() {
            let (sum, squares) = &mut sums[at % shape.channels];
            for &value in values {
                *sum += u64::from(value);
                *squares += u64::from(value) * u64::from(value);
            }
        }
        let count = (images.len().max(1) * plane) as f64;
        let max64 = f64::from(max);
        let (mean, std) = sums
            .into_iter()
            .map(|(sum, squares)| {
                // From exact sums: floating-point sums would depend on the order of the images.
                let mean = sum as f64 / count;
                // Of equal values the difference may round to a little below zero, whose root is not a number.
                let std = (squares as f64 / count - mean * mean).max(0.0).sqrt();
                // A channel of one value has no spread; it is centred and not stretched.
                let std = if std > 0.0 { std } else { max64 };
                ((mean / max64) as f32, (std / max64) as f32)
            })
            .unzip();
        Self { max, mean, std }
    }

    /// `raw / max`, for images of this many channels.
    pub fn scale(channels: usize, max: f32) -> Self {
        Self {
            max,
            mean: vec![0.0; channels],
            std: vec![1.0; channels],
        }
    }

    fn table(&self, channel: usize) -> [f32; 256] {
        // A raw value has 256 possibilities: a table of them makes filling a batch one look-up for each value.
        std::array::from_fn(|raw| (raw as f32 / self.max - self.mean[channel]) / self.std[channel])
    }
}

/// How training images are varied, each time they are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Mirror left and right with probability one half.
    pub flip: bool,
    /// Pad each side with this many pixels and cut the original size out at a random place. 0 is none.
    pub crop_padding: u32,
    /// Whether the padding is the image mirrored at its edge, which is not repeated, as `torchvision`'s
    /// `padding_mode="reflect"`. Else it is raw zeros (black).
    pub reflect: bool,
}

impl Augmentation {
    /// Images as they are.
    pub const NONE: Self = Self {
        flip: false,
        crop_padding: 0,
        reflect: false,
    };
    /// What is usual for CIFAR-10: flip, and crop after padding by 4 with zeros.
    pub const CIFAR10: Self = Self {
        flip: true,
        crop_padding: 4,
        reflect: false,
    };
}

/// A batch in a form that tensors are made of. Reused, it allocates once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// `images x channels x height x width` values (NCHW), normalised.
    pub pixels: Vec<f32>,
    /// One label per image.
    pub labels: Vec<i32>,
}

/// Fills batches from image sets of one shape, with one normalisation.
#[derive(Debug, Clone)]
pub struct Transform {
    shape: ImageShape,
    tables: Vec<[f32; 256]>,
}

impl Transform {
    /// A transform of images of this shape. Refused: a normalisation with another number of channels, or one that
    /// divides by zero.
    pub fn new(shape: ImageShape, normalization: &Normalization) -> Result<Self, DataError> {
        let Normalization { max, mean, std } = normalization;
        let fits = mean.len() == shape.channels && std.len() == shape.channels;
        // Refused here, once, and not found as NaN in a loss after an hour.
        let divides = std.iter().chain([max]).all(|&divisor| divisor > 0.0);
        if !fits || !divides {
            return Err(DataError::Inconsistent {
                name: "normalization".to_owned(),
                reason: format!("{normalization:?} for images of {shape}"),
            });
        }
        let tables = (0..shape.channels)
            .map(|channel| normalization.table(channel))
            .collect();
        Ok(Self { shape, tables })
    }

    /// Replaces `batch` by the images at `indices`, unvaried, in that order.
    pub fn fill(
        &self,
        images: &ImageSet,
        indices: &[u32],
        batch: &mut Batch,
    ) -> Result<(), DataError> {
        self.fill_with(images, indices, batch, |_| Placement::default())
    }

    /// Replaces `batch` by the images at `indices`, varied by draws from `rng`, in that order.
    pub fn fill_augmented(
        &self,
        images: &ImageSet,
        indices: &[u32],
        augmentation: Augmentation,
        rng: &mut ChaCha8Rng,
        batch: &mut Batch,
    ) -> Result<(), DataError> {
        self.fill_with(images, indices, batch, |shape| {
            Placement::draw(augmentation, shape, rng)
        })
    }

    fn fill_with(
        &self,
        images: &ImageSet,
        indices: &[u32],
        batch: &mut Batch,
        mut place: impl FnMut(ImageShape) -> Placement,
    ) -> Result<(), DataError> {
        // Tables and rows are of one shape: with another one, rows would be cut out of the wrong places without an
        // error.
        if images.shape() != self.shape {
            return Err(DataError::Inconsistent {
                name: images.name().to_owned(),
                reason: format!("images of {}, not {}", images.shape(), self.shape),
            });
        }
        batch.labels.clear();
        batch.pixels.clear();
        // Values are appended and not written over zeros: clearing a batch first takes as long as filling it.
        batch.pixels.reserve(indices.len() * self.shape.pixels());
        for &index in indices {
            let image = images
                .image(index as usize)
                .ok_or_else(|| DataError::IndexOutOfRange {
                    set: images.name().to_owned(),
                    index,
                    examples: images.len(),
                })?;
            batch
                .labels
                .push(i32::from(images.labels()[index as usize]));
            self.append(image, place(self.shape), &mut batch.pixels);
        }
        Ok(())
    }

    /// Appends one image at its place.
    fn append(&self, image: &[u8], place: Placement, out: &mut Vec<f32>) {
        let ImageShape { height, width, .. } = self.shape;
        for (image, table) in image.chunks_exact(height * width).zip(&self.tables) {
            // Evaluation and training without augmentation: whole planes, and no look at rows.
            if place.is_whole() {
                append_row(image, false, table, out);
                continue;
            }
            if place.reflect {
                append_reflected(image, self.shape, place, table, out);
                continue;
            }
            let shift = place.right.unsigned_abs().min(width);
            // Padding is right of what is shown if the window moved right, else left of it; the other way round in a mirror.
            let padded_right = (place.right >= 0) != place.mirrored;
            for y in 0..height {
                // The row of the original that this row shows; the rest is padding.
                let Some(from) = y
                    .checked_add_signed(place.down)
                    .filter(|&from| from < height)
                else {
                    out.extend(repeat_n(table[0], width));
                    continue;
                };
                let row = &image[from * width..][..width];
                let shown = if place.right >= 0 {
                    &row[shift..]
                } else {
                    &row[..width - shift]
                };
                if !padded_right {
                    out.extend(repeat_n(table[0], shift));
                }
                append_row(shown, place.mirrored, table, out);
                if padded_right {
                    out.extend(repeat_n(table[0], shift));
                }
            }
        }
    }
}

fn append_row(image: &[u8], mirrored: bool, table: &[f32; 256], out: &mut Vec<f32>) {
    if mirrored {
        out.extend(image.iter().rev().map(|&raw| table[raw as usize]))
    } else {
        out.extend(image.iter().map(|&raw| table[raw as usize]))
    }
}

/// Appends one plane at a place whose padding is the image mirrored at its edge.
fn append_reflected(
    plane: &[u8],
    shape: ImageShape,
    place: Placement,
    table: &[f32; 256],
    out: &mut Vec<f32>,
) {
    let ImageShape { height, width, .. } = shape;
    for y in 0..height {
        let row = &plane[reflected(y as isize + place.down, height) * width..][..width];
        out.extend((0..width).map(|x| {
            let x = if place.mirrored { width - 1 - x } else { x };
            table[row[reflected(x as isize + place.right, width)] as usize]
        }));
    }
}

/// The index that is shown at `at`, which is less than `size` away from `0..size`: -1 shows 1, and `size` shows `size - 2`.
fn reflected(at: isize, size: usize) -> usize {
    let last = size as isize - 1;
    let at = at.abs();
    (if at > last { 2 * last - at } else { at }) as usize
}

/// The window's place on the image, and whether it is mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Placement {
    /// Rows the window moves down on the image; up when negative.
    down: isize,
    /// Columns the window moves right on the image; left when negative.
    right: isize,
    mirrored: bool,
    /// Whether what is outside of the image is the image mirrored at its edge, and not zeros.
    reflect: bool,
}

impl Placement {
    fn draw(augmentation: Augmentation, shape: ImageShape, rng: &mut ChaCha8Rng) -> Self {
        // The order of the draws is part of what a seed means.
        let Augmentation {
            flip,
            crop_padding,
            reflect,
        } = augmentation;
        // An image mirrored at its edge ends one pixel before its size, since the edge is not repeated.
        let most = |size: usize| size.saturating_sub(usize::from(reflect));
        Self {
            down: draw_offset(crop_padding, most(shape.height), rng),
            right: draw_offset(crop_padding, most(shape.width), rng),
            mirrored: flip && rng.random_bool(0.5),
            reflect,
        }
    }

    /// Whether it shows the image as it is.
    fn is_whole(&self) -> bool {
        (self.down, self.right, self.mirrored) == (0, 0, false)
    }
}

/// A uniform draw between `-padding` and `padding`; of at most `most`, since all else would show padding alone.
fn draw_offset(padding: u32, most: usize, rng: &mut ChaCha8Rng) -> isize {
    let padding = padding.min(most as u32);
    if padding == 0 {
        return 0;
    }
    rng.random_range(0..=2 * padding) as isize - padding as isize
}

#[cfg(test)]
mod tests;
