//! Values of a payload in memory, by type.

use crate::parameters::DType;

/// Values of a payload, by type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// Unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Unsigned 64-bit integers.
    U64(Vec<u64>),
}

impl Values {
    /// Their type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F64(_) => DType::F64,
            Self::U32(_) => DType::U32,
            Self::U64(_) => DType::U64,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.as_bytes().len() / self.dtype().size()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// Their bytes, as they are in memory.
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F64(values) => bytemuck::cast_slice(values),
            Self::U32(values) => bytemuck::cast_slice(values),
            Self::U64(values) => bytemuck::cast_slice(values),
        }
    }

    /// Whether all of them are finite. Integers are.
    pub(super) fn is_finite(&self) -> bool {
        match self {
            Self::F32(values) => values.iter().all(|value| value.is_finite()),
            Self::F64(values) => values.iter().all(|value| value.is_finite()),
            Self::U32(_) | Self::U64(_) => true,
        }
    }
}
