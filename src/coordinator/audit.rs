//! Who did what: written down with what was done, and read page by page.

use std::sync::Arc;

use super::{facts::json, handle::Coordinator, state::State};
use crate::{
    ids::TokenId,
    protocol::{AuditAction, AuditEntry},
    report::{Refusal, RefusalKind},
    store::{
        LogEntry, WindowedLog,
        journal::{Batch, Body, Entry, Stream},
    },
    transport::{Page, Peer},
};

/// The name of the log.
pub(super) const AUDIT: &str = "audit";

/// Who acts, once it is known that they may.
#[derive(Debug, Clone)]
pub(super) struct Actor {
    /// The name of the token that was shown, or why none was needed.
    pub by: String,
    /// The number of that token, if it was made.
    pub token: Option<TokenId>,
    pub peer: Peer,
}

impl Actor {
    /// One who shows this token, or none.
    pub fn new(by: impl Into<String>, peer: Peer) -> Self {
        Self {
            by: by.into(),
            token: None,
            peer,
        }
    }

    /// The same, by the token of this number; 0 is one of the configuration.
    pub fn with_token(mut self, token: TokenId) -> Self {
        self.token = Some(token).filter(|token| token.0 > 0);
        self
    }

    /// Whether only a token lets it act: it is neither in this process nor on the machine of an open coordinator.
    pub fn needs_token(&self) -> bool {
        self.peer != Peer::InProcess || self.token.is_some()
    }

    /// The coordinator itself.
    pub fn coordinator() -> Self {
        Self::new("coordinator", Peer::InProcess)
    }
}

impl LogEntry for AuditEntry {
    fn number(&self) -> u64 {
        self.number
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.by.len() + self.subject.len() + 64
    }
}

impl Coordinator {
    /// The audit of a coordinator whose last entry has this number.
    pub(super) fn audit_after(&self, last: u64) -> WindowedLog<AuditEntry> {
        WindowedLog::after(
            last,
            self.0.config.jobs.log_window,
            self.0.logs.clone(),
            Stream::Coordinator,
            AUDIT,
            self.0.runtime.clone(),
        )
    }

    /// Notes an action.
    pub(super) fn note_action(
        &self,
        state: &mut State,
        actor: &Actor,
        action: AuditAction,
        subject: impl Into<String>,
    ) {
        let audit = state
            .audit
            .get_or_insert_with(|| self.audit_after(0))
            .clone();
        let number = audit.last() + 1;
        let mut entry = AuditEntry::new(number, self.now(), &*actor.by, action, subject);
        entry.token = actor.token;
        entry.from = actor
            .peer
            .address()
            .map(|address| address.ip().to_canonical().to_string());
        tracing::info!(
            by = entry.by,
            from = entry.from,
            subject = entry.subject,
            "{}",
            action.words()
        );
        let entry = Arc::new(entry);
        audit.append(entry.clone());
        let batch = Batch {
            entries: vec![Entry {
                log: AUDIT,
                number,
                body: Body::Later(Box::new(move || json(&*entry))),
            }],
            ..Batch::default()
        };
        self.append(state, Stream::Coordinator, batch);
        self.once_durable(state, move || audit.settle(number));
    }

    pub(super) async fn list_audit(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Page<AuditEntry, u64>, Refusal> {
        let Some(audit) = self.state().audit.clone() else {
            return Ok(Page::new(Vec::new(), None));
        };
        let page = audit.page(after, self.page_size(limit)).await;
        let page = page.map_err(|error| {
            Refusal::new(
                RefusalKind::Storage,
                format!("the audit can't be read: {error}"),
            )
        })?;
        let mut entries = Vec::new();
        for entry in page.entries {
            entries.push(Arc::unwrap_or_clone(entry));
        }
        let last = entries.last().map(|entry| entry.number);
        Ok(Page::new(entries, last.filter(|_| !page.is_last)))
    }
}
