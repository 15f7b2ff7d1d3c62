//! All tokens of a coordinator.

use std::collections::BTreeMap;

use super::{KnownToken, TokenHash, secret::prefix_of};
use crate::{
    ids::{Timestamp, TokenId},
    protocol::{NewToken, Scope, Token, TokenKind, TokenSummary},
    report::{Refusal, RefusalKind},
    text::is_unsafe,
};

/// The longest name of a token, in bytes.
const LONGEST_NAME: usize = 64;

/// The tokens of operators and for workers that join. The workers' own are with the workers.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Of the configuration: they can't be revoked, and end with it.
    fixed: Vec<KnownToken>,
    made: BTreeMap<TokenId, KnownToken>,
    last: TokenId,
}

impl Tokens {
    /// Tokens of the configuration alone.
    pub fn fixed(join: Option<&Token>, admin: Option<&Token>) -> Self {
        let mut fixed = Vec::new();
        let name = "configuration";
        for (token, new) in [
            (join, NewToken::join(name)),
            (admin, NewToken::operator(name, Scope::Admin)),
        ] {
            // An empty one would let in who shows none.
            if let Some(token) = token.filter(|token| !token.0.is_empty()) {
                fixed.push(KnownToken {
                    summary: TokenSummary::new(TokenId(0), &new, Timestamp(0)),
                    hash: TokenHash::of(token),
                });
            }
        }
        Self {
            fixed,
            ..Self::default()
        }
    }

    /// The token that was shown.
    pub fn find(&self, shown: &Token) -> Option<&KnownToken> {
        let hash = TokenHash::of(shown);
        let mut found = None;
        // All of them, whichever it is: the time tells nothing of the others.
        for known in self.fixed.iter().chain(self.made.values()) {
            if known.hash == hash {
                found = Some(known);
            }
        }
        found
    }

    /// The tokens after this one, in order; first those of the configuration.
    pub fn list(&self) -> impl Iterator<Item = &KnownToken> {
        self.fixed.iter().chain(self.made.values())
    }

    /// Makes a token of these 32 random bytes; the secret is in the answer alone. If there are `most` of them, the oldest that
    /// counts no more is forgotten.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Malformed`] with what is wrong, [`RefusalKind::Busy`] if all of them count.
    pub fn create(
        &mut self,
        new: &NewToken,
        random: &[u8; 32],
        now: Timestamp,
        most: usize,
    ) -> Result<(KnownToken, Token, Option<TokenId>), Refusal> {
        check_new(new)?;
        let mut forgotten = None;
        if self.made.len() >= most {
            let ended = self.made.values().find(|token| !token.is_valid(now));
            let ended = ended.map(|token| token.summary.token);
            let ended = ended.ok_or_else(|| {
                let detail = format!("there are {most} tokens, which is the most: revoke some");
                Refusal::new(RefusalKind::Busy, detail)
            })?;
            self.made.remove(&ended);
            forgotten = Some(ended);
        }
        self.last.0 += 1;
        let secret = super::secret(prefix_of(new.kind), random);
        let known = KnownToken {
            summary: TokenSummary::new(self.last, new, now),
            hash: TokenHash::of(&secret),
        };
        self.made.insert(self.last, known.clone());
        Ok((known, secret, forgotten))
    }

    /// Revokes a token. Revoked again, it stays as it is.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::NotFound`], and [`RefusalKind::Conflict`] for one of the configuration.
    pub fn revoke(&mut self, token: TokenId, now: Timestamp) -> Result<&KnownToken, Refusal> {
        if token == TokenId(0) {
            let detail =
                "this token is the coordinator's configuration: start the coordinator without it";
            return Err(Refusal::new(RefusalKind::Conflict, detail));
        }
        let Some(known) = self.made.get_mut(&token) else {
            return Err(Refusal::new(
                RefusalKind::NotFound,
                format!("no token {token}"),
            ));
        };
        known.summary.revoked.get_or_insert(now);
        Ok(known)
    }

    /// A worker registered with this token; the token as it is now, if that changed it.
    pub fn note_use(&mut self, token: TokenId) -> Option<&KnownToken> {
        let known = self.made.get_mut(&token)?;
        let left = known.summary.uses_left.as_mut()?;
        *left = left.saturating_sub(1);
        Some(known)
    }

    /// Puts a token back as an earlier process knew it. If the configuration names the same one, it is this one: otherwise it would
    /// be there twice, and could be revoked and count at once.
    pub fn restore(&mut self, known: KnownToken) {
        self.fixed.retain(|fixed| fixed.hash != known.hash);
        self.last = self.last.max(known.summary.token);
        self.made.insert(known.summary.token, known);
    }

    /// Goes on with numbers after this one.
    pub fn resume_after(&mut self, last: TokenId) {
        self.last = self.last.max(last);
    }

    /// The number of the token that was made last.
    pub fn last(&self) -> TokenId {
        self.last
    }
}

fn check_new(new: &NewToken) -> Result<(), Refusal> {
    let NewToken { name, kind, .. } = new;
    let wrong = if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(is_unsafe) {
        "a token's name has 1 to 64 bytes, and no control characters"
    } else if *kind == TokenKind::Operator && new.scope.is_none() {
        "an operator's token needs a scope: read, submit or admin"
    } else if *kind == TokenKind::Operator && new.uses.is_some() {
        "an operator's token is not counted: leave uses out"
    } else if *kind == TokenKind::Join && new.scope.is_some() {
        "a join token has no scope: leave it out"
    } else if new.uses == Some(0) || new.expires_in_s == Some(0) {
        "a token that can't be used is not made: uses and expires_in_s are at least 1"
    } else {
        return Ok(());
    };
    Err(Refusal::new(RefusalKind::Malformed, wrong))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);
    const MOST: usize = 3;

    fn make(tokens: &mut Tokens, new: &NewToken, random: u8) -> (TokenId, Token) {
        let made = tokens.create(new, &[random; 32], NOW, MOST);
        let (known, secret, _) = made.unwrap();
        (known.summary.token, secret)
    }

    #[test]
    fn each_scope_includes_those_before_it_and_none_after() {
        for (place, scope) in Scope::ALL.into_iter().enumerate() {
            let mut tokens = Tokens::default();
            let (_, secret) = make(&mut tokens, &NewToken::operator("lab", scope), 1);
            let known = tokens.find(&secret).unwrap();
            for (needed_place, needed) in Scope::ALL.into_iter().enumerate() {
                let granted = known.check_operator(needed, NOW);
                assert_eq!(granted.is_ok(), needed_place <= place, "{scope} {needed}");
                if let Err(refusal) = granted {
                    assert_eq!(refusal.kind, RefusalKind::Forbidden);
                }
            }
            assert_eq!(
                known.check_join(NOW, false).unwrap_err().kind,
                RefusalKind::Forbidden
            );
        }
    }

    #[test]
    fn a_join_token_gives_no_operators_rights() {
        let mut tokens = Tokens::default();
        let (_, secret) = make(&mut tokens, &NewToken::join("lab"), 1);
        let known = tokens.find(&secret).unwrap();
        assert!(known.check_join(NOW, false).is_ok());
        let refused = known.check_operator(Scope::Read, NOW).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Forbidden);
        assert!(tokens.find(&Token("other".to_string())).is_none());
    }

    #[test]
    fn tokens_end_by_time_by_use_and_by_revocation() {
        let mut tokens = Tokens::default();
        let minute = NewToken::join("minute").expires_in(Duration::from_secs(60));
        let (_, minute) = make(&mut tokens, &minute, 1);
        let just_before = Timestamp(NOW.0 + 59_999);
        let known = tokens.find(&minute).unwrap();
        assert!(known.check_join(just_before, false).is_ok());
        let refused = known
            .check_join(Timestamp(NOW.0 + 60_000), false)
            .unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Unauthorized);
        assert!(refused.detail.contains("expired"));

        let (twice, secret) = make(&mut tokens, &NewToken::join("twice").uses(2), 2);
        for left in [1, 0] {
            assert!(tokens.find(&secret).unwrap().check_join(NOW, false).is_ok());
            let noted = tokens.note_use(twice).unwrap();
            assert_eq!(noted.summary.uses_left, Some(left));
        }
        let used = tokens.find(&secret).unwrap();
        assert!(used.check_join(NOW, false).is_err());
        assert!(used.check_join(NOW, true).is_ok());

        let (id, secret) = make(&mut tokens, &NewToken::operator("lab", Scope::Read), 3);
        tokens.revoke(id, NOW).unwrap();
        tokens.revoke(id, Timestamp(NOW.0 + 1)).unwrap();
        let known = tokens.find(&secret).unwrap();
        assert_eq!(known.summary.revoked, Some(NOW));
        assert!(known.check_operator(Scope::Read, NOW).is_err());
        assert_eq!(
            tokens.revoke(TokenId(99), NOW).unwrap_err().kind,
            RefusalKind::NotFound
        );
    }

    #[test]
    fn only_tokens_that_have_ended_make_room_for_others() {
        let mut tokens = Tokens::default();
        for random in 0..MOST as u8 {
            make(&mut tokens, &NewToken::join("lab"), random);
        }
        let full = tokens.create(&NewToken::join("lab"), &[9; 32], NOW, MOST);
        assert_eq!(full.unwrap_err().kind, RefusalKind::Busy);
        tokens.revoke(TokenId(2), NOW).unwrap();
        let made = tokens.create(&NewToken::join("lab"), &[9; 32], NOW, MOST);
        let (known, _, forgotten) = made.unwrap();
        assert_eq!(
            (known.summary.token, forgotten),
            (TokenId(4), Some(TokenId(2)))
        );
    }

    #[test]
    fn tokens_of_the_configuration_are_no_ones_to_revoke_and_empty_ones_do_not_count() {
        let (join, admin) = (Token("join".to_string()), Token("admin".to_string()));
        let mut tokens = Tokens::fixed(Some(&join), Some(&admin));
        assert!(tokens.find(&join).unwrap().check_join(NOW, false).is_ok());
        let admin = tokens.find(&admin).unwrap();
        assert!(admin.check_operator(Scope::Admin, NOW).is_ok());
        let refused = tokens.revoke(TokenId(0), NOW).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Conflict);
        let empty = Token(String::new());
        assert!(
            Tokens::fixed(Some(&empty), Some(&empty))
                .find(&empty)
                .is_none()
        );
    }

    #[test]
    fn a_token_that_was_made_and_is_configured_is_there_once_and_stays_revoked() {
        let mut before = Tokens::default();
        let (id, secret) = make(&mut before, &NewToken::operator("admin", Scope::Admin), 1);
        before.revoke(id, NOW).unwrap();
        let mut tokens = Tokens::fixed(None, Some(&secret));
        tokens.restore(before.find(&secret).unwrap().clone());
        assert_eq!(tokens.list().count(), 1);
        let refused = tokens.find(&secret).unwrap();
        assert!(refused.check_operator(Scope::Read, NOW).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_not_made() {
        let mut scoped = NewToken::join("lab");
        scoped.scope = Some(Scope::Read);
        let mut unscoped = NewToken::operator("lab", Scope::Read);
        unscoped.scope = None;
        let wrong = [
            NewToken::join(""),
            NewToken::join("x".repeat(65)),
            NewToken::join("a\u{1b}[31m"),
            NewToken::join("lab").uses(0),
            NewToken::join("lab").expires_in(Duration::ZERO),
            NewToken::operator("lab", Scope::Read).uses(1),
            scoped,
            unscoped,
        ];
        for new in wrong {
            let made = Tokens::default().create(&new, &[0; 32], NOW, MOST);
            assert_eq!(made.unwrap_err().kind, RefusalKind::Malformed, "{new:?}");
        }
    }
}
