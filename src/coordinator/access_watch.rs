//! Streams that go on for long end when the right to read them does: a token that is revoked or expires shows nothing more.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::{sync::watch, time::sleep};

use super::handle::Coordinator;
use crate::{
    ids::Timestamp,
    protocol::Scope,
    report::Refusal,
    transport::{Caller, Events},
};

/// Watches whether a caller may still do what it was let in for.
pub(super) struct AccessWatch {
    coordinator: Coordinator,
    caller: Caller,
    needed: Scope,
    /// When the caller's token ends by itself.
    expires: Option<Timestamp>,
    revocations: watch::Receiver<()>,
}

impl AccessWatch {
    /// Lets a caller in, as [`Coordinator::admit`] does, and watches it from then on.
    pub fn new(coordinator: &Coordinator, caller: &Caller, needed: Scope) -> Result<Self, Refusal> {
        let (revocations, expires) = {
            let state = coordinator.state();
            let shown = caller.token.as_ref();
            let known = shown.and_then(|shown| state.tokens.find(shown));
            let expires = known.and_then(|known| known.summary.expires);
            (state.revocations.subscribe(), expires)
        };
        // After the subscription, so that no revocation comes between the two.
        coordinator.admit(caller, needed)?;
        Ok(Self {
            coordinator: coordinator.clone(),
            caller: caller.clone(),
            needed,
            expires,
            revocations,
        })
    }

    /// The same events, until the caller may not read them any more: then the refusal, as the last.
    pub fn guard(self, events: Events) -> Events {
        Box::pin(stream::unfold(Some((self, events)), |state| async {
            let (mut access, mut events) = state?;
            let next = tokio::select! {
                // In this order: an event that is there already is not shown after the end of the token.
                biased;
                refusal = access.ended() => Some(Err(refusal.into())),
                next = events.next() => next,
            };
            match next? {
                Ok(event) => Some((Ok(event), Some((access, events)))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// Done once the caller may not go on.
    async fn ended(&mut self) -> Refusal {
        loop {
            if let Err(refusal) = self.check() {
                return refusal;
            }
            let now = self.coordinator.now();
            let expiry = async {
                match self.expires {
                    // A clock in milliseconds may be a little behind.
                    Some(expires) => sleep(expires.since(now) + Duration::from_millis(1)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as the coordinator.
                _ = self.revocations.changed() => self.revocations.mark_changed(),
                () = expiry => {}
            }
        }
    }

    /// Looks at the token if it may have ended since the last look.
    fn check(&mut self) -> Result<(), Refusal> {
        let has_expired = self
            .expires
            .is_some_and(|expires| expires <= self.coordinator.now());
        if has_expired || self.revocations.has_changed().unwrap_or(false) {
            self.revocations.mark_unchanged();
            self.coordinator.admit(&self.caller, self.needed)?;
        }
        Ok(())
    }
}
