//! What lets a worker in, and whether it may have tasks.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use super::config::QuarantineLimits;
use crate::{
    access::TokenHash,
    ids::{Timestamp, TokenId},
    protocol::Admission,
    report::{Refusal, RefusalKind},
    words::plural,
};

/// What let a worker in. The name of a worker with data of its own is bound to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JoinedWith {
    /// Nothing: it is in this process, or the coordinator is open.
    #[default]
    Nothing,
    /// A join token.
    Token(TokenId),
    /// A certificate of this SHA-256, beside whatever token.
    Certificate(String),
}

/// Who let a worker in, and how it has behaved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkerAccess {
    /// The name of the token, for people.
    #[serde(default)]
    pub joined_by: String,
    #[serde(default)]
    pub joined_with: JoinedWith,
    #[serde(default)]
    pub standing: Standing,
    /// The token before the last rotation: it counts until the new one is shown, since the answer may have been lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_token: Option<TokenHash>,
    /// Whether an operator revoked its token, which also frees its name.
    #[serde(default)]
    pub revoked: bool,
    /// How many of its reports were refused for what was in them.
    #[serde(default)]
    pub refused_reports: u64,
    /// When the last ones were.
    #[serde(skip)]
    pub refused_at: VecDeque<Timestamp>,
}

/// Whether a worker may have tasks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    /// It may.
    #[default]
    Admitted,
    /// Once an operator has let it in.
    Pending,
    /// Not before this moment.
    Quarantined { until: Timestamp, reason: String },
}

impl WorkerAccess {
    /// What it joined with, for people.
    pub fn joined_with_words(&self) -> String {
        match &self.joined_with {
            JoinedWith::Certificate(hash) => format!("the certificate sha256:{hash}"),
            JoinedWith::Token(_) | JoinedWith::Nothing => format!("the token {:?}", self.joined_by),
        }
    }

    /// Whether it may have tasks.
    pub fn is_admitted(&self) -> bool {
        self.standing == Standing::Admitted
    }

    /// What is shown of it now, and why it may not have tasks.
    pub fn shown(&self, now: Timestamp) -> (Admission, Option<String>) {
        if self.revoked {
            let held = "its token was revoked: it has to register again".to_string();
            return (Admission::Revoked, Some(held));
        }
        match &self.standing {
            Standing::Admitted => (Admission::Admitted, None),
            // It ends with the worker's next request. Until then it holds nobody up any more.
            Standing::Quarantined { until, .. } if *until <= now => (Admission::Admitted, None),
            Standing::Pending => {
                let held = "waits for an operator: fedavg workers approve".to_string();
                (Admission::Pending, Some(held))
            }
            Standing::Quarantined { reason, .. } => (Admission::Quarantined, Some(reason.clone())),
        }
    }

    /// When its quarantine ends by itself, if it is in one.
    pub fn held_until(&self, now: Timestamp) -> Option<Timestamp> {
        match &self.standing {
            Standing::Quarantined { until, .. } if *until > now && !self.revoked => Some(*until),
            _ => None,
        }
    }

    /// Refuses what only a worker with tasks may ask for.
    pub fn check(&self, now: Timestamp) -> Result<(), Refusal> {
        let (admission, held) = self.shown(now);
        match held {
            None => Ok(()),
            Some(held) => {
                let detail = format!("this worker is {admission}: {held}");
                Err(Refusal::new(RefusalKind::Forbidden, detail))
            }
        }
    }

    /// Ends a quarantine whose time is over; whether there was one.
    pub fn release_if_due(&mut self, now: Timestamp) -> bool {
        match self.standing {
            Standing::Quarantined { until, .. } if until <= now => {
                self.standing = Standing::Admitted;
                true
            }
            _ => false,
        }
    }

    /// A report was refused for what was in it; whether the worker is in quarantine from now on.
    pub fn note_refused(
        &mut self,
        refusal: &Refusal,
        limits: &QuarantineLimits,
        now: Timestamp,
    ) -> bool {
        self.refused_reports += 1;
        if limits.refusals == 0 {
            return false;
        }
        self.refused_at.push_back(now);
        while self
            .refused_at
            .front()
            .is_some_and(|first| now.since(*first) > limits.within)
        {
            self.refused_at.pop_front();
        }
        if self.refused_at.len() < limits.refusals as usize || !self.is_admitted() {
            return false;
        }
        let reports = plural(self.refused_at.len(), "report");
        let reason = format!(
            "{reports} refused within {} s, the last one since {}; fedavg workers release ends it before its time",
            within(&self.refused_at, now).as_secs(),
            refusal.detail,
        );
        self.refused_at.clear();
        self.standing = Standing::Quarantined {
            until: now + limits.lasts,
            reason,
        };
        true
    }
}

fn within(times: &VecDeque<Timestamp>, now: Timestamp) -> Duration {
    times
        .front()
        .map_or(Duration::ZERO, |first| now.since(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1000)
    }

    #[test]
    fn refusals_count_within_their_time_alone_and_a_quarantine_ends() {
        let limits = QuarantineLimits {
            refusals: 3,
            within: Duration::from_secs(60),
            lasts: Duration::from_secs(100),
        };
        let refusal = Refusal::new(RefusalKind::Malformed, "a value is NaN");
        let mut access = WorkerAccess::default();
        for seconds in [0, 50, 100, 150] {
            assert!(!access.note_refused(&refusal, &limits, second(seconds)));
        }
        assert!(access.note_refused(&refusal, &limits, second(155)));
        let (admission, held) = access.shown(second(155));
        assert_eq!(admission, Admission::Quarantined);
        assert_eq!(access.held_until(second(155)), Some(second(255)));
        let held = held.unwrap();
        assert!(held.contains("3 reports refused within 55 s") && held.contains("a value is NaN"));
        let refused = access.check(second(254)).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Forbidden);
        assert!(!access.release_if_due(second(254)));
        // What is shown does not wait for the worker's next request.
        assert_eq!(access.shown(second(255)), (Admission::Admitted, None));
        assert_eq!(access.held_until(second(255)), None);
        assert!(access.release_if_due(second(255)));
        // It begins again with none.
        assert!(!access.note_refused(&refusal, &limits, second(256)));
        assert_eq!(access.refused_reports, 6);
    }

    #[test]
    fn no_number_of_refusals_counts_if_there_is_no_quarantine() {
        let limits = QuarantineLimits {
            refusals: 0,
            ..QuarantineLimits::default()
        };
        let refusal = Refusal::new(RefusalKind::Malformed, "");
        let mut access = WorkerAccess::default();
        for _ in 0..100 {
            assert!(!access.note_refused(&refusal, &limits, second(0)));
        }
        assert!(access.refused_at.is_empty());
    }
}
