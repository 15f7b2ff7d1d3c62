//! How a token is written.

use crate::protocol::{Token, TokenKind};

/// How a worker's token begins. Each kind has a beginning of its own, so that a person, and a scanner for secrets in public
/// files, knows it from its text.
pub const WORKER_PREFIX: &str = "fedavg_worker_";
const JOIN_PREFIX: &str = "fedavg_join_";
const OPERATOR_PREFIX: &str = "fedavg_operator_";

/// The token of this beginning from 32 random bytes: 256 bits can't be guessed, so that a hash of it needs no salt.
pub fn secret(prefix: &str, random: &[u8; 32]) -> Token {
    Token(format!("{prefix}{}", hex(random)))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a token of this kind begins.
pub(super) fn prefix_of(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Join => JOIN_PREFIX,
        TokenKind::Operator => OPERATOR_PREFIX,
    }
}
