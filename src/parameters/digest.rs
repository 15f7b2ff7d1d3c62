//! A checksum of bytes on their way and at rest.

use std::{fmt, str::FromStr};

use crc32fast::Hasher;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The CRC-32 of some bytes (ISO 3309, as `zlib.crc32` of Python): it finds what transport and disks break. It protects
/// from no attacker; the tokens do. Unlike a cryptographic digest, it can be taken block by block in any order, so that a file
/// that several threads write has one for free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(u32);

impl Digest {
    /// Of all these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc32fast::hash(bytes))
    }

    /// The number.
    pub fn crc32(self) -> u32 {
        self.0
    }

    /// The one with this number.
    pub(crate) fn of_crc32(crc32: u32) -> Self {
        Self(crc32)
    }

    /// Of these bytes and then `len` more, whose digest is `next`.
    pub fn then(self, next: Digest, len: u64) -> Self {
        let mut hasher = Hasher::new_with_initial(self.0);
        hasher.combine(&Hasher::new_with_initial_len(next.0, len));
        Self(hasher.finalize())
    }
}

/// Takes a digest piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Digesting(Hasher);

impl Digesting {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of what has been taken.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "crc32={:08x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix("crc32=").ok_or(DigestError)?;
        // `from_str_radix` takes fewer digits and a sign, too, which would print as something else.
        if digits.len() != 8 || digits.starts_with('+') {
            return Err(DigestError);
        }
        match u32::from_str_radix(digits, 16) {
            Ok(number) => Ok(Self(number)),
            Err(_) => Err(DigestError),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a digest: expected crc32= and eight hexadecimal digits, such as crc32=cbf43926")]
pub struct DigestError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_of_other_languages() {
        // python3 -c 'import zlib; print(hex(zlib.crc32(b"123456789")))'
        let digest = Digest::of(b"123456789");
        assert_eq!(digest.to_string(), "crc32=cbf43926");
        assert_eq!("crc32=cbf43926".parse(), Ok(digest));
        for text in [
            "cbf43926",
            "crc32=cbf4392",
            "crc32=cbf4392g",
            "crc32=+cbf4392",
            "sha256=00000000",
        ] {
            assert_eq!(text.parse::<Digest>(), Err(DigestError));
        }
    }

    #[test]
    fn parts_combine_in_order() {
        let (first, second) = (Digest::of(b"12345"), Digest::of(b"6789"));
        assert_eq!(first.then(second, 4), Digest::of(b"123456789"));
        let mut pieces = Digesting::default();
        pieces.update(b"1234567");
        pieces.update(b"89");
        assert_eq!(pieces.finish(), Digest::of(b"123456789"));
    }
}
