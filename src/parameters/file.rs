//! Model files of other programs: safetensors of any floating-point type, and names with a wrapper's prefix.

use std::sync::Arc;

use ::safetensors::{Dtype, SafeTensors, tensor::Metadata};
use half::{bf16, f16};

use super::{
    Layout, Parameters,
    safetensors::{
        LENGTH_BYTES, SafetensorsError, check_finite, is_batch_counter, role_of, roles_of,
    },
};

/// What PyTorch's wrappers put in front of every name: data-parallel training and compilation.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// The most bytes of a header that the format allows; the `safetensors` crate refuses more.
const MOST_HEADER: u64 = 100_000_000;

/// A safetensors file, as it is.
#[derive(Debug)]
pub struct ModelFile<'a> {
    /// In the order of the bytes.
    tensors: Vec<FileTensor<'a>>,
    metadata: Metadata,
}

/// One tensor of a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileTensor<'a> {
    /// Its name.
    pub name: String,
    /// The type of its values, in safetensors' words: `F32`, `BF16`, `I64`.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    kind: Dtype,
    bytes: &'a [u8],
}

/// A model that was read from a file, and what had to be changed for it, in words.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReadModel {
    /// The model.
    pub model: Parameters,
    /// A line for each kind of change; empty if the file is as this crate writes it.
    pub changes: Vec<String>,
}

impl<'a> ModelFile<'a> {
    /// How many bytes the file has, if these are its beginning with the whole header: what to read before [`ModelFile::parse`],
    /// since what is no such file can be of any length.
    pub fn length(start: &[u8]) -> Option<u64> {
        let header = Self::header_length(start)?;
        let json = start.get(LENGTH_BYTES..usize::try_from(header).ok()?)?;
        let metadata: Metadata = serde_json::from_slice(json).ok()?;
        header.checked_add(metadata.data_len() as u64)
    }

    /// How many bytes a file with this beginning has before its values, if that is known and not more than the format allows.
    pub fn header_length(start: &[u8]) -> Option<u64> {
        let length = u64::from_le_bytes(*start.first_chunk()?);
        (length <= MOST_HEADER).then_some(LENGTH_BYTES as u64 + length)
    }

    /// Reads the header of a whole file.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Malformed`], which says so if the file looks like one of PyTorch's own.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SafetensorsError> {
        // A zip, as `torch.save` writes, or a pickle, as it did before. Neither is ever opened: a pickle runs code.
        let looks_like_pytorch = bytes.starts_with(b"PK") || is_pickle(bytes);
        let malformed = |error: ::safetensors::SafeTensorError| {
            SafetensorsError::Malformed(if looks_like_pytorch {
                "not a safetensors file, but what torch.save writes; write it with safetensors.torch.save_file instead"
                    .to_string()
            } else {
                format!("not a safetensors file: {error}")
            })
        };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
        let mut tensors = Vec::with_capacity(file.len());
        for (name, view) in file.iter() {
            tensors.push(FileTensor {
                name: name.to_string(),
                dtype: format!("{:?}", view.dtype()),
                shape: view.shape().to_vec(),
                kind: view.dtype(),
                bytes: view.data(),
            });
        }
        // The crate yields them in the order of a hash map.
        tensors.sort_by_key(|tensor| (tensor.bytes.as_ptr() as usize, tensor.bytes.len()));
        Ok(Self { tensors, metadata })
    }

    /// The tensors, in the order of the bytes.
    pub fn tensors(&self) -> &[FileTensor<'a>] {
        &self.tensors
    }

    /// The role that a tensor of this name has.
    pub fn role(&self, name: &str) -> super::Role {
        role_of(roles_of(&self.metadata).as_ref(), name, name)
    }

    /// The model: values of other floating-point types become f32, counters of BatchNorm's batches are left out, and
    /// the prefix that a wrapper of PyTorch's gave all names is taken off.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Dtype`] for integers, [`SafetensorsError::NotFinite`], and [`SafetensorsError::Layout`].
    pub fn into_model(self) -> Result<ReadModel, SafetensorsError> {
        let roles = roles_of(&self.metadata);
        let mut changes = Vec::new();
        let mut kept = Vec::new();
        for tensor in self.tensors {
            if !is_batch_counter(&tensor.name) {
                kept.push(tensor);
            }
        }
        // In the layout's order, which the values below must have, too. A file's own is another one: that of its types, for
        // example, if it has several.
        kept.sort_by(|left, right| left.name.cmp(&right.name));
        let mut prefix = String::new();
        while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| {
            let with = format!("{prefix}{wrapper}");
            // Only if all names have it: a model can have a part of its own with the name `module`.
            !kept.is_empty() && kept.iter().all(|tensor| tensor.name.starts_with(&with))
        }) {
            prefix.push_str(wrapper);
        }
        if !prefix.is_empty() {
            changes.push(format!("took the prefix {prefix:?} off every name"));
        }
        let mut converted: Vec<String> = Vec::new();
        let mut tensors = Vec::with_capacity(kept.len());
        let mut values = Vec::new();
        for tensor in &kept {
            let found = tensor.values().ok_or_else(|| SafetensorsError::Dtype {
                name: tensor.name.clone(),
                found: tensor.dtype.clone(),
                expected:
                    "F32, F16, BF16 or F64; leave tensors of integers and booleans out of the file"
                        .to_string(),
            })?;
            if tensor.kind != Dtype::F32 && !converted.contains(&tensor.dtype) {
                converted.push(tensor.dtype.clone());
            }
            values.extend(found);
            let name = tensor.name[prefix.len()..].to_string();
            // By the name in the file, which is what the file's metadata lists.
            let role = role_of(roles.as_ref(), &tensor.name, &name);
            tensors.push((name, tensor.shape.clone(), role));
        }
        if !converted.is_empty() {
            changes.push(format!("converted {} to F32", converted.join(" and ")));
        }
        let layout: Arc<Layout> = Layout::new(tensors)?;
        // After the conversion: an f64 beyond f32's range becomes infinite there.
        check_finite(&layout, &values)?;
        let model = Parameters::new(layout, values)?;
        Ok(ReadModel { model, changes })
    }
}

impl FileTensor<'_> {
    /// The values as f32, each rounded to the nearest; none if they are no floating-point numbers.
    pub fn values(&self) -> Option<Vec<f32>> {
        let mut values = Vec::with_capacity(self.shape.iter().product());
        match self.kind {
            Dtype::F32 => {
                for bytes in self.bytes.as_chunks().0 {
                    values.push(f32::from_le_bytes(*bytes));
                }
            }
            Dtype::F16 => {
                for bytes in self.bytes.as_chunks().0 {
                    values.push(f16::from_le_bytes(*bytes).to_f32());
                }
            }
            Dtype::BF16 => {
                for bytes in self.bytes.as_chunks().0 {
                    values.push(bf16::from_le_bytes(*bytes).to_f32());
                }
            }
            Dtype::F64 => {
                for bytes in self.bytes.as_chunks().0 {
                    values.push(f64::from_le_bytes(*bytes) as f32);
                }
            }
            _ => return None,
        }
        Some(values)
    }
}

/// Whether the bytes begin as a pickle does: the opcode of its protocol, and the protocol. The length of a safetensors
/// header can begin with the same two bytes, but then has zeros.
fn is_pickle(bytes: &[u8]) -> bool {
    let is_length = bytes.get(4..LENGTH_BYTES) == Some(&[0; 4]);
    matches!(bytes, [0x80, 2..=5, ..]) && !is_length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Role, safetensors::encode};

    /// A file of one tensor of four values, under this name.
    fn file(name: &str, dtype: &str, body: &[u8]) -> Vec<u8> {
        let header = format!(
            r#"{{"{name}":{{"dtype":"{dtype}","shape":[2,2],"data_offsets":[0,{}]}}}}"#,
            body.len()
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    const VALUES: [f32; 4] = [0.5, -2.0, 0.0, 1024.0];

    fn read(bytes: &[u8]) -> Result<ReadModel, SafetensorsError> {
        ModelFile::parse(bytes)?.into_model()
    }

    #[test]
    fn every_floating_point_type_is_read_and_the_change_is_told() {
        let bodies = [
            (
                "F16",
                VALUES
                    .map(|value| f16::from_f32(value).to_le_bytes())
                    .concat(),
            ),
            (
                "BF16",
                VALUES
                    .map(|value| bf16::from_f32(value).to_le_bytes())
                    .concat(),
            ),
            (
                "F64",
                VALUES.map(|value| f64::from(value).to_le_bytes()).concat(),
            ),
        ];
        for (dtype, body) in bodies {
            let read = read(&file("w", dtype, &body)).unwrap();
            assert_eq!(read.model.values(), VALUES, "{dtype}");
            assert_eq!(read.changes, [format!("converted {dtype} to F32")]);
        }
    }

    #[test]
    fn values_go_with_their_names_in_whatever_order_the_file_has_them() {
        let header = br#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        for value in [9.0_f32, 1.0, 2.0] {
            bytes.extend(value.to_le_bytes());
        }
        let read = read(&bytes).unwrap().model;
        let names: Vec<_> = read
            .layout()
            .tensors()
            .iter()
            .map(|tensor| &tensor.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(read.values(), [1.0, 2.0, 9.0]);
    }

    #[test]
    fn a_wrappers_prefix_is_taken_off_and_told() {
        let body = VALUES.map(f32::to_le_bytes).concat();
        let read = read(&file("module._orig_mod.fc.weight", "F32", &body)).unwrap();
        assert!(read.model.layout().find("fc.weight").is_some());
        assert_eq!(
            read.changes,
            ["took the prefix \"module._orig_mod.\" off every name"]
        );
    }

    #[test]
    fn a_file_of_this_crate_is_read_unchanged_with_its_roles() {
        let tensors = [
            ("w".to_string(), vec![2], Role::Frozen),
            ("bn.running_var".to_string(), vec![2], Role::Buffer),
        ];
        let model = Parameters::new(Layout::new(tensors).unwrap(), VALUES.to_vec()).unwrap();
        let read = read(&encode(&model)).unwrap();
        assert_eq!(read.model, model);
        assert!(read.changes.is_empty());
    }

    #[test]
    fn what_can_not_be_read_says_what_it_is() {
        let problem = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert!(problem(b"PK\x03\x04 a zip of torch.save").contains("torch.save"));
        assert!(problem(b"\x80\x02}q\x00(X\x04\x00").contains("torch.save"));
        // The length of a header, and a file that ends in it.
        assert!(!problem(&[0x80, 2, 0, 0, 0, 0, 0, 0, 9, 9]).contains("torch.save"));
        assert!(problem(b"what is this file?").contains("not a safetensors file"));
        assert!(problem(&file("w", "I64", &[0; 32])).contains("\"w\" is I64"));
        let nan = [f32::NAN; 4].map(f32::to_le_bytes).concat();
        assert!(problem(&file("w", "F32", &nan)).contains("not finite"));
    }
}
