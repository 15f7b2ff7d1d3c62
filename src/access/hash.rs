//! Tokens as they are kept.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::hex;
use crate::protocol::Token;

/// SHA-256 of a token, in JSON as hexadecimal digits. Two are compared in constant time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    // Once for each request: so without the digits.
    /// The hash of a token.
    pub fn of(token: &Token) -> Self {
        Self(Sha256::digest(token.0.as_bytes()).into())
    }

    /// Its bytes, as a key of an index.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl From<TokenHash> for String {
    fn from(hash: TokenHash) -> Self {
        hex(&hash.0)
    }
}

impl TryFrom<String> for TokenHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = || "not a hash: expected 64 hexadecimal digits".to_string();
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return Err(wrong());
        }
        for (byte, index) in bytes.iter_mut().zip((0..).step_by(2)) {
            let digits = text.get(index..index + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let hash = TokenHash::of(&Token("b1946ac9".to_string()));
        assert_eq!(hash, TokenHash::of(&Token("b1946ac9".to_string())));
        assert_ne!(hash, TokenHash::of(&Token("b1946ac8".to_string())));
        let json = serde_json::to_string(&hash).unwrap();
        assert!(!json.contains("b1946ac9"));
        assert_eq!(serde_json::from_str::<TokenHash>(&json).unwrap(), hash);
        for wrong in ["", "ab", &"x".repeat(64), &"é".repeat(32)] {
            assert!(TokenHash::try_from(wrong.to_string()).is_err(), "{wrong}");
        }
    }
}
