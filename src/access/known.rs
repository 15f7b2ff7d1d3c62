//! One token, and what it allows at a moment.

use serde::{Deserialize, Serialize};

use super::TokenHash;
use crate::{
    ids::Timestamp,
    protocol::{Scope, TokenKind, TokenSummary},
    report::{Refusal, RefusalKind},
};

/// A token as a coordinator knows it, and writes it down: without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownToken {
    /// What is shown of it.
    pub summary: TokenSummary,
    /// Of the secret.
    pub hash: TokenHash,
}

impl KnownToken {
    /// Whether it counts now.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.check(now).is_ok()
    }

    /// Whether an operator who shows it may do what needs this scope.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Unauthorized`] if it has ended, [`RefusalKind::Forbidden`] if it allows something else.
    pub fn check_operator(&self, needed: Scope, now: Timestamp) -> Result<(), Refusal> {
        self.check(now)?;
        let name = &self.summary.name;
        let Some(scope) = self.scope() else {
            return Err(forbidden(format!(
                "the token {name:?} is for workers that join; operators show one of their own (fedavg token create)"
            )));
        };
        if scope < needed {
            return Err(forbidden(format!(
                "the token {name:?} has the scope {scope}, and this needs {needed}"
            )));
        }
        Ok(())
    }

    /// Whether a worker may register with it. `again`: it registered before, and the answer was lost; that is no further use.
    ///
    /// # Errors
    ///
    /// As [`KnownToken::check_operator`].
    pub fn check_join(&self, now: Timestamp, again: bool) -> Result<(), Refusal> {
        self.check_uses(now, again)?;
        match self.summary.kind {
            TokenKind::Join => Ok(()),
            TokenKind::Operator => Err(forbidden(format!(
                "the token {:?} is an operator's: a worker shows a join token (fedavg token create --join)",
                self.summary.name
            ))),
        }
    }

    fn scope(&self) -> Option<Scope> {
        match self.summary.kind {
            TokenKind::Operator => self.summary.scope,
            TokenKind::Join => None,
        }
    }

    fn check(&self, now: Timestamp) -> Result<(), Refusal> {
        self.check_uses(now, false)
    }

    fn check_uses(&self, now: Timestamp, again: bool) -> Result<(), Refusal> {
        let TokenSummary {
            name,
            expires,
            revoked,
            uses_left,
            ..
        } = &self.summary;
        let ended = if revoked.is_some() {
            "was revoked"
        } else if expires.is_some_and(|expires| expires <= now) {
            "has expired"
        } else if *uses_left == Some(0) && !again {
            "was used as often as it may be"
        } else {
            return Ok(());
        };
        let detail = format!("the token {name:?} {ended}");
        Err(Refusal::new(RefusalKind::Unauthorized, detail))
    }
}

fn forbidden(detail: String) -> Refusal {
    Refusal::new(RefusalKind::Forbidden, detail)
}
