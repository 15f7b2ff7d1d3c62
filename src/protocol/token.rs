//! Tokens: what an operator asks for, and what is shown of them. The secret itself is shown once, to who made it.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::ids::{Timestamp, TokenId};

/// A secret. `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "http", schema(description = "A secret."))]
#[serde(transparent)]
pub struct Token(pub String);

impl Token {
    /// Whether the two are equal, in a time that depends on the length alone.
    pub fn matches(&self, other: &Token) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// The longest time after which a token may expire, in seconds: 31 years. No sum of a moment and such a time is beyond what
/// clocks count.
pub const LONGEST_EXPIRY_S: u64 = 1_000_000_000;

/// What an operator may do. Each scope includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See jobs, their models, and workers.
    Read,
    /// Submit jobs; pause, resume and cancel them.
    Submit,
    /// Delete jobs; make and revoke tokens; approve, release and revoke workers; read the audit.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Scope; 3] = [Self::Read, Self::Submit, Self::Admin];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| format!("{text:?} is not a scope: read, submit and admin are"))
    }
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A worker shows it once, when it registers.
    Join,
    /// An operator shows it with each request.
    Operator,
}

impl fmt::Display for TokenKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Join => "join",
            Self::Operator => "operator",
        })
    }
}

/// A token to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
// A misspelt limit would make a token without limits.
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// A name for people, such as whom it is given to: at most 64 bytes, and no name of a token that counts. The audit and the
    /// list of workers show it.
    #[cfg_attr(feature = "http", schema(min_length = 1, max_length = 64))]
    pub name: String,
    /// What it is for.
    pub kind: TokenKind,
    /// Of an operator's token: what it allows. A join token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Of a join token: how many workers may register with it, at least 1; any number if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 1))]
    pub uses: Option<u32>,
    /// After how many seconds it is refused, at least 1 and at most 1000000000 (31 years); never if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "http", schema(minimum = 1, maximum = 1000000000))]
    pub expires_in_s: Option<u64>,
}

impl NewToken {
    /// A token for workers, without an end.
    pub fn join(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: TokenKind::Join,
            scope: None,
            uses: None,
            expires_in_s: None,
        }
    }

    /// A token for an operator, without an end.
    pub fn operator(name: impl Into<String>, scope: Scope) -> Self {
        Self {
            kind: TokenKind::Operator,
            scope: Some(scope),
            ..Self::join(name)
        }
    }

    /// The same, for this many workers.
    pub fn uses(mut self, uses: u32) -> Self {
        self.uses = Some(uses);
        self
    }

    /// The same, refused after this time.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in_s = Some(time.as_secs());
        self
    }
}

/// A token as it is shown: without the secret, which nobody has but its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct TokenSummary {
    /// Its number. The coordinator's configuration has those of number 0.
    pub token: TokenId,
    /// The name that it was given.
    pub name: String,
    /// What it is for.
    pub kind: TokenKind,
    /// Of an operator's token: what it allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Of a join token: how many more workers may register with it; any number if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
}

impl TokenSummary {
    /// A token that was made now.
    pub fn new(token: TokenId, new: &NewToken, now: Timestamp) -> Self {
        let expires = new
            .expires_in_s
            .map(|seconds| now + Duration::from_secs(seconds));
        Self {
            token,
            name: new.name.clone(),
            kind: new.kind,
            scope: new.scope,
            uses_left: new.uses,
            created: now,
            expires,
            revoked: None,
        }
    }
}

/// What a caller may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct OwnAccess {
    /// The name of the token that was shown; `in process`, or `open` if none is needed.
    pub by: String,
    /// What it allows.
    pub scope: Scope,
}

impl OwnAccess {
    /// Who shows this token may do this.
    pub fn new(by: impl Into<String>, scope: Scope) -> Self {
        Self {
            by: by.into(),
            scope,
        }
    }
}

/// A token that was made, with its secret, which can't be shown again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct CreatedToken {
    /// What is shown of it.
    pub summary: TokenSummary,
    /// The token.
    pub secret: Token,
}

impl CreatedToken {
    /// A token and its secret.
    pub fn new(summary: TokenSummary, secret: Token) -> Self {
        Self { summary, secret }
    }
}

/// A worker's new token. The former one is refused once this one has been shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct Rotated {
    /// What the worker shows from now on.
    pub token: Token,
}

impl Rotated {
    /// This token.
    pub fn new(token: Token) -> Self {
        Self { token }
    }
}
