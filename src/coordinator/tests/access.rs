//! Who may do what: every route with every kind of credential, and what lets workers in and puts them out.

mod admission;
mod ends;
mod methods;
mod routes;
mod trusting;

use super::*;
use crate::{
    access::{KnownToken, TokenHash},
    ids::{Timestamp, TokenId},
    protocol::{NewToken, Scope},
};

/// A coordinator that asks everybody for a token.
async fn closed(change: impl FnOnce(&mut CoordinatorConfig)) -> Lab {
    let mut config = CoordinatorConfig::default();
    change(&mut config);
    // Any: so that `Lab::open` does not open it.
    config.access.join_token = Some(Token("configured-join-token".to_string()));
    Lab::open(config).await
}

impl Lab {
    async fn token(&self, new: NewToken) -> (TokenId, Token) {
        let made = self.coordinator.create_token(&HERE, new).await.unwrap();
        (made.summary.token, made.secret)
    }

    /// A token whose time is over.
    async fn expired_token(&self, new: NewToken) -> Token {
        let (token, secret) = self.token(new).await;
        let mut state = self.coordinator.state();
        let known = state.tokens.find(&secret).unwrap();
        let mut summary = known.summary.clone();
        assert_eq!(summary.token, token);
        summary.expires = Some(Timestamp(1));
        let hash = TokenHash::of(&secret);
        state.tokens.restore(KnownToken { summary, hash });
        secret
    }

    /// Registers from another machine.
    async fn join(&self, name: &str, token: &Token, local: bool) -> Result<Credentials, Refusal> {
        let mut registration = self.registration(name);
        registration.local = local;
        let elsewhere = Peer::Address(([192, 0, 2, 7], 5000).into());
        self.ask_to_register(elsewhere, Some(token.clone()), registration)
            .await
    }
}
