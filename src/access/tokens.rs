//! All tokens of a coordinator.

use std::collections::BTreeMap;

use super::{KnownToken, TokenHash, secret::prefix_of};
use crate::{
    ids::{Timestamp, TokenId},
    protocol::{LONGEST_EXPIRY_S, NewToken, Scope, Token, TokenKind, TokenSummary},
    report::{Refusal, RefusalKind},
    text::is_unsafe,
};

/// The longest name of a token, in bytes.
const LONGEST_NAME: usize = 64;
/// What the audit and the list of workers say of callers who show no token that was made: no token may have such a name.
const RESERVED_NAMES: [&str; 5] = [
    "configuration",
    "coordinator",
    "in process",
    "open",
    "worker",
];

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
    /// [`RefusalKind::Malformed`] with what is wrong, [`RefusalKind::Conflict`] if a token that counts has the name already,
    /// [`RefusalKind::Busy`] if there are `most` tokens and all of them count.
    pub fn create(
        &mut self,
        new: &NewToken,
        random: &[u8; 32],
        now: Timestamp,
        most: usize,
    ) -> Result<(KnownToken, Token, Option<TokenId>), Refusal> {
        check_new(new)?;
        self.check_name(&new.name, now)?;
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

    /// Refuses a name that a token has which counts: the audit would not tell the two apart.
    fn check_name(&self, name: &str, now: Timestamp) -> Result<(), Refusal> {
        for known in self.made.values() {
            let TokenSummary {
                token, name: taken, ..
            } = &known.summary;
            if taken == name && known.is_valid(now) {
                let detail = format!(
                    "token {token} has the name {name:?} already: choose another name, or revoke token {token} first"
                );
                return Err(Refusal::new(RefusalKind::Conflict, detail));
            }
        }
        Ok(())
    }

    /// Revokes a token; whether it was not revoked before. One that was stays as it is.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::NotFound`], and [`RefusalKind::Conflict`] for one of the configuration.
    pub fn revoke(
        &mut self,
        token: TokenId,
        now: Timestamp,
    ) -> Result<(&KnownToken, bool), Refusal> {
        if token == TokenId(0) && !self.fixed.is_empty() {
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
        let is_new = known.summary.revoked.is_none();
        known.summary.revoked.get_or_insert(now);
        Ok((known, is_new))
    }

    /// Whether this is the only token that counts and has the scope `admin`.
    pub fn is_last_admin(&self, token: TokenId, now: Timestamp) -> bool {
        let mut is_admin = false;
        for known in self.list() {
            if known.check_operator(Scope::Admin, now).is_err() {
                continue;
            }
            if known.summary.token != token {
                return false;
            }
            is_admin = true;
        }
        is_admin
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
    let is_blank = name.trim().is_empty();
    let wrong = if is_blank || name.len() > LONGEST_NAME || name.chars().any(is_unsafe) {
        "a token's name has 1 to 64 bytes, not spaces alone, and no control characters"
    } else if RESERVED_NAMES.contains(&name.trim()) {
        "the names configuration, coordinator, in process, open and worker have a meaning of their own: choose another name"
    } else if *kind == TokenKind::Operator && new.scope.is_none() {
        "an operator's token needs a scope: read, submit or admin"
    } else if *kind == TokenKind::Operator && new.uses.is_some() {
        "an operator's token is not counted: leave uses out"
    } else if *kind == TokenKind::Join && new.scope.is_some() {
        "a join token has no scope: leave it out"
    } else if new.uses == Some(0) || new.expires_in_s == Some(0) {
        "a token that can't be used is not made: uses and expires_in_s are at least 1"
    } else if new.expires_in_s > Some(LONGEST_EXPIRY_S) {
        "expires_in_s is at most 1000000000 (31 years): leave it out for a token that never expires"
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
        assert!(tokens.revoke(id, NOW).unwrap().1);
        assert!(!tokens.revoke(id, Timestamp(NOW.0 + 1)).unwrap().1);
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
            make(&mut tokens, &NewToken::join(format!("{random}")), random);
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
    fn a_name_is_free_again_once_its_token_counts_no_more() {
        let mut tokens = Tokens::default();
        let (ann, _) = make(&mut tokens, &NewToken::operator("ann", Scope::Read), 1);
        let again = || NewToken::join("ann");
        let refused = tokens.create(&again(), &[2; 32], NOW, MOST).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Conflict);
        tokens.revoke(ann, NOW).unwrap();
        assert!(tokens.create(&again(), &[2; 32], NOW, MOST).is_ok());
    }

    #[test]
    fn there_is_no_token_0_without_one_of_the_configuration() {
        let refused = Tokens::default().revoke(TokenId(0), NOW).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::NotFound);
    }

    #[test]
    fn the_last_token_of_an_administrator_is_known_as_such() {
        let mut tokens = Tokens::default();
        let (ann, _) = make(&mut tokens, &NewToken::operator("ann", Scope::Admin), 1);
        let (bob, _) = make(&mut tokens, &NewToken::operator("bob", Scope::Admin), 2);
        assert!(!tokens.is_last_admin(ann, NOW));
        tokens.revoke(bob, NOW).unwrap();
        assert!(tokens.is_last_admin(ann, NOW) && !tokens.is_last_admin(bob, NOW));
        let configured = Token("configured".to_string());
        let mut tokens = Tokens::fixed(None, Some(&configured));
        let (ann, _) = make(&mut tokens, &NewToken::operator("ann", Scope::Admin), 1);
        assert!(!tokens.is_last_admin(ann, NOW));
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
            NewToken::join("  "),
            NewToken::join("in process"),
            NewToken::join("open"),
            NewToken::join(" configuration "),
            NewToken::join("lab").expires_in(Duration::from_secs(u64::MAX)),
            NewToken::join("lab").expires_in(Duration::from_secs(LONGEST_EXPIRY_S + 1)),
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
