//! How the values of one tensor are stored.

use crate::parameters::{DType, Encoding, Role};

/// How the values of a section are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F16,
    Bf16,
    /// One tensor.
    Int8,
    Sparse,
    F64,
    U32,
    U64,
}

impl Kind {
    /// How values of this type and role are stored in this encoding. Buffers and frozen tensors are never encoded: an error of
    /// a running mean would add up from round to round, and nothing would correct it.
    pub fn of(dtype: DType, encoding: Encoding, role: Role) -> Self {
        match (dtype, encoding, role) {
            (DType::F64, ..) => Self::F64,
            (DType::U32, ..) => Self::U32,
            (DType::U64, ..) => Self::U64,
            (DType::F32, Encoding::F16, Role::Trainable) => Self::F16,
            (DType::F32, Encoding::Bf16, Role::Trainable) => Self::Bf16,
            (DType::F32, Encoding::Int8, Role::Trainable) => Self::Int8,
            (DType::F32, Encoding::TopK { .. }, Role::Trainable) => Self::Sparse,
            (DType::F32, ..) => Self::F32,
        }
    }

    /// How tensors without values are said to be stored: an encoding has nothing to do for them.
    pub fn of_nothing(dtype: DType) -> Self {
        Self::of(dtype, Encoding::F32, Role::Frozen)
    }

    /// Bytes of a value; 0 for sparse ones, which have no place of their own.
    pub fn size(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Int8 => 1,
            Self::F64 | Self::U64 => 8,
            Self::Sparse => 0,
        }
    }

    /// The type's name in a safetensors header.
    pub fn dtype(self) -> &'static str {
        match self {
            Self::F32 | Self::Sparse => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Int8 => "I8",
            Self::F64 => "F64",
            Self::U32 => "U32",
            Self::U64 => "U64",
        }
    }
}
