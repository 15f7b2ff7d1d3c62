//! Checks the values of a body as their bytes pass, in pieces of any size.

use super::form::{Directory, Entry, INDICES, Kind, SCALES};
use crate::parameters::safetensors::SafetensorsError;

/// What each element of a tensor must be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Check {
    Finite64,
    Finite32,
    /// A float of two bytes. All these bits of it are set if it is not finite.
    Finite16(u16),
    Scale,
    Index,
    Any,
}

/// The exponent's bits: all of them are set in infinities and NaNs, and in nothing else.
const F16_EXPONENT: u16 = 0x7c00;
const BF16_EXPONENT: u16 = 0x7f80;
const F32_EXPONENT: u32 = 0x7f80_0000;
const F64_EXPONENT: u64 = 0x7ff0_0000_0000_0000;

impl Check {
    /// What the elements of this tensor must be.
    pub fn of(entry: &Entry) -> Self {
        if entry.is_front && entry.name == SCALES {
            return Self::Scale;
        }
        if entry.is_front && entry.name == INDICES {
            return Self::Index;
        }
        match entry.kind {
            Kind::F32 | Kind::Sparse => Self::Finite32,
            Kind::F16 => Self::Finite16(F16_EXPONENT),
            Kind::Bf16 => Self::Finite16(BF16_EXPONENT),
            Kind::F64 => Self::Finite64,
            Kind::Int8 | Kind::U32 | Kind::U64 => Self::Any,
        }
    }

    /// The error for a tensor that has an element that is something else.
    pub fn failure(self, name: &str) -> SafetensorsError {
        let name = name.to_string();
        match self {
            Self::Scale => SafetensorsError::Scale { name },
            Self::Index => SafetensorsError::Index { name },
            _ => SafetensorsError::NotFinite { name },
        }
    }
}

/// Puts together the elements of a tensor whose bytes come in several pieces, and checks them.
#[derive(Debug, Default)]
pub(super) struct Elements {
    /// The bytes of an element whose end has not come yet.
    bytes: [u8; 8],
    /// How many of them there are.
    len: usize,
}

impl Elements {
    /// Whether every element that ends in `bytes` is what it must be. Indices must be below `len`, and are counted in the
    /// directory.
    pub fn check(
        &mut self,
        check: Check,
        bytes: &[u8],
        len: usize,
        directory: &mut Directory,
    ) -> bool {
        match check {
            Check::Any => true,
            Check::Finite64 => self.each_whole(bytes, are_finite_64),
            Check::Finite32 => self.each_whole(bytes, are_finite_32),
            Check::Finite16(exponent) => {
                self.each_whole(bytes, |elements| are_finite_16(elements, exponent))
            }
            Check::Scale => self.each_whole(bytes, are_scales),
            Check::Index => self.each_whole(bytes, |elements| {
                are_rising_indices(elements, len, directory)
            }),
        }
    }

    /// Calls `check` with the element that an earlier piece began, and then with all whole elements of `bytes`.
    fn each_whole<const N: usize>(
        &mut self,
        mut bytes: &[u8],
        mut check: impl FnMut(&[[u8; N]]) -> bool,
    ) -> bool {
        // A piece may end in the middle of an element: its bytes wait here for the next piece.
        if self.len > 0 {
            let count = (N - self.len).min(bytes.len());
            self.bytes[self.len..self.len + count].copy_from_slice(&bytes[..count]);
            self.len += count;
            bytes = &bytes[count..];
            if self.len < N {
                return true;
            }
            self.len = 0;
            let (elements, _) = self.bytes[..N].as_chunks();
            if !check(elements) {
                return false;
            }
        }
        let (elements, rest) = bytes.as_chunks();
        self.bytes[..rest.len()].copy_from_slice(rest);
        // Set before the check, which may refuse and end everything.
        self.len = rest.len();
        check(elements)
    }
}

// The loops below look at every element even after a bad one: a loop with an early exit is not vectorized, and checking would
// then cost more than receiving.

fn are_finite_64(elements: &[[u8; 8]]) -> bool {
    let mut is_bad = false;
    for element in elements {
        is_bad |= u64::from_le_bytes(*element) & F64_EXPONENT == F64_EXPONENT;
    }
    !is_bad
}

fn are_finite_32(elements: &[[u8; 4]]) -> bool {
    let mut is_bad = false;
    for element in elements {
        is_bad |= u32::from_le_bytes(*element) & F32_EXPONENT == F32_EXPONENT;
    }
    !is_bad
}

fn are_finite_16(elements: &[[u8; 2]], exponent: u16) -> bool {
    let mut is_bad = false;
    for element in elements {
        is_bad |= u16::from_le_bytes(*element) & exponent == exponent;
    }
    !is_bad
}

/// Whether each is the scale of an int8 group: not negative, finite, and of at most 16 significant bits.
fn are_scales(elements: &[[u8; 4]]) -> bool {
    let mut is_bad = false;
    for element in elements {
        let bits = u32::from_le_bytes(*element);
        // The sign is the highest bit, so that negative numbers are above all exponents.
        is_bad |= bits >= F32_EXPONENT;
        is_bad |= bits & 0xff != 0;
    }
    !is_bad
}

/// Whether each index is above the one before it and below `len`. Unlike the other checks this one may stop early, since each
/// step depends on the one before and nothing can be vectorized.
fn are_rising_indices(elements: &[[u8; 4]], len: usize, directory: &mut Directory) -> bool {
    for element in elements {
        if !directory.take(u32::from_le_bytes(*element), len) {
            return false;
        }
    }
    true
}
