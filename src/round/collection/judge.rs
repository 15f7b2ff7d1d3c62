//! Judges what comes for a round: offered reports, uploads that ended, tasks that a worker gives up.
//!
//! The order of the checks is part of the protocol: a verdict that is a function of what was sent (stale, too many
//! examples) comes before one that depends on what else happened. Otherwise a report that is sent again could get
//! another answer.

use super::{
    Collection,
    member::{Claim, MemberState, Upload},
    verdict::{
        Offer, Verdict, from_another, improper, late, lost_lease, not_in_cohort, not_leased, stale,
        uploading_already,
    },
};
use crate::{
    ids::{ClientId, RequestId, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
};

impl Collection {
    /// Judges a report before its body is read. `lease` is the client's worker.
    pub fn offer(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        metadata: &ReportMetadata,
        lease: Option<WorkerId>,
    ) -> Offer {
        let Some(member) = self.members.get(&client) else {
            return Offer::Refuse(not_in_cohort(client, self.round));
        };
        if metadata.base_version != self.version {
            return Offer::Refuse(stale(metadata.base_version, self.version));
        }
        if let Some(refusal) = improper(client, metadata, member.examples) {
            return self.refuse_improper(worker, client, lease, refusal);
        }
        let is_uploading = match &member.state {
            MemberState::Accepted { worker: sender, .. } => {
                if *sender == worker {
                    return Offer::AlreadyAccepted;
                }
                return Offer::Refuse(from_another(client));
            }
            MemberState::Failed(refusal) => return Offer::Refuse(refusal.clone()),
            MemberState::Uploading(_) => true,
            MemberState::Pending => false,
        };
        if self.closed {
            return Offer::Refuse(late(self.round));
        }
        if lease != Some(worker) {
            return Offer::Refuse(not_leased(worker, client));
        }
        if is_uploading {
            return Offer::Refuse(uploading_already(client));
        }
        let claim = Claim {
            examples: metadata.examples,
            train_loss: metadata.train_loss(),
        };
        let upload = Upload {
            client,
            worker,
            claim,
        };
        self.uploads.insert(request, upload);
        self.set(client, MemberState::Uploading(request));
        Offer::Admit
    }

    /// Refuses a report that is not valid in itself. The client would only send it again, so it takes no further part;
    /// but only its own worker can have it fail, and only as long as its report may still come.
    fn refuse_improper(
        &mut self,
        worker: WorkerId,
        client: ClientId,
        lease: Option<WorkerId>,
        refusal: Refusal,
    ) -> Offer {
        if self.closed || lease != Some(worker) || !self.is_pending(client) {
            return Offer::Refuse(refusal);
        }
        self.fail(client, refusal.clone());
        Offer::Fail(refusal)
    }

    /// Judges an upload that ended.
    pub fn stored(
        &mut self,
        client: ClientId,
        upload: RequestId,
        stored: Result<(), Refusal>,
    ) -> Verdict {
        let ended = self.uploads.remove(&upload);
        let Some(Upload { worker, claim, .. }) = ended.filter(|ended| ended.client == client)
        else {
            let detail = format!("request {upload} uploads nothing for client {client}");
            return Verdict::Unknown(Refusal::new(RefusalKind::Conflict, detail));
        };
        let mut is_current = false;
        match self.members.get(&client).map(|member| &member.state) {
            Some(MemberState::Accepted { worker: sender, .. }) => {
                if *sender == worker {
                    return Verdict::AlreadyAccepted;
                }
                let refusal = from_another(client);
                return Verdict::Refuse { worker, refusal };
            }
            Some(MemberState::Failed(refusal)) => {
                let refusal = refusal.clone();
                return Verdict::Refuse { worker, refusal };
            }
            Some(MemberState::Uploading(current)) => is_current = *current == upload,
            Some(MemberState::Pending) | None => {}
        }
        if self.closed {
            let refusal = late(self.round);
            return Verdict::Refuse { worker, refusal };
        }
        if !is_current {
            let refusal = lost_lease(worker, client);
            return Verdict::Refuse { worker, refusal };
        }
        match stored {
            Ok(()) => {
                let accepted = MemberState::Accepted {
                    upload,
                    worker,
                    claim,
                };
                self.set(client, accepted);
                Verdict::Accept {
                    worker,
                    examples: claim.examples,
                }
            }
            // The report itself may be good: the client sends it again.
            Err(refusal) if refusal.kind.is_transient() => {
                self.set(client, MemberState::Pending);
                Verdict::Refuse { worker, refusal }
            }
            Err(refusal) => {
                self.set(client, MemberState::Failed(refusal.clone()));
                Verdict::Fail { worker, refusal }
            }
        }
    }

    /// Judges what a worker says about a task that it can't do. Returns whether that changes the round.
    ///
    /// # Errors
    ///
    /// Why this worker may not say so.
    pub fn give_up(
        &mut self,
        worker: WorkerId,
        client: ClientId,
        reason: &str,
        lease: Option<WorkerId>,
    ) -> Result<bool, Refusal> {
        let Some(member) = self.members.get(&client) else {
            return Err(not_in_cohort(client, self.round));
        };
        if self.closed || !member.state.is_outstanding() {
            return Ok(false);
        }
        if lease != Some(worker) {
            return Err(not_leased(worker, client));
        }
        let detail = format!("client {client} failed: {reason}");
        let is_news = self.fail(client, Refusal::new(RefusalKind::Conflict, detail));
        let member = self.members.get_mut(&client);
        if let Some(failure) = member.and_then(|member| member.failure.as_mut()) {
            failure.reason = reason.to_string();
        }
        Ok(is_news)
    }
}
