//! Datasets: how they are found, what they hold, and batches of them.
//!
//! | text | dataset | source |
//! |---|---|---|
//! | `digits` | 8 x 8 handwritten digits, 1797 grey images | embedded in the crate ([`digits`](fn@digits)) |
//! | `cifar10` | 32 x 32 photographs, 60 000 in ten classes | `cifar-10-batches-bin` ([`cifar10`](fn@cifar10)) |
//! | `folder:PATH` | any images of one size | `train/<class>/*` and `test/<class>/*` (feature `vision`) |
//!
//! [`data_dir`] is the one rule for the folder that datasets are looked for in, and [`Source::open`] reads one into memory, decoded.
//! [`Transform`] makes batches of a set: normalised, and varied by flip and padded crop.
//!
//! ```
//! use fedavg::data::{Batch, DATA_DIR_VARIABLE, data_dir, open};
//!
//! let folder = data_dir(None, std::env::var_os(DATA_DIR_VARIABLE))?;
//! let digits = open("digits", &folder)?;
//! let mut batch = Batch::default();
//! digits.transform()?.fill(&digits.test, &[0, 1, 2], &mut batch)?;
//! assert_eq!(batch.pixels.len(), 3 * 8 * 8);
//! # Ok::<(), fedavg::data::DataError>(())
//! ```
//!
//! An [`ImageSet`] is a `burn_dataset::Dataset`, so that burn's tools take it. Nothing here makes a tensor, knows a
//! backend, or draws from a generator that the caller did not seed. Nothing here panics on a damaged file.

mod cifar10;
mod dataset;
mod digits;
#[cfg(feature = "cli")]
pub mod download;
mod error;
#[cfg(feature = "vision")]
mod folder;
mod image_set;
mod location;
mod source;
mod transform;

pub use cifar10::cifar10;
pub use dataset::Dataset;
pub use digits::digits;
pub use error::DataError;
#[cfg(feature = "vision")]
pub use folder::folder;
pub use image_set::{ImageSet, ImageShape, LabelledImage};
pub use location::{DATA_DIR_VARIABLE, data_dir};
pub use source::{KNOWN, Source, open};
pub use transform::{Augmentation, Batch, Normalization, Transform};
