//! The verdict on each report, and on each task that a worker gives up.
//!
//! What a verdict is taken from, in this order:
//!
//! 1. what was sent (another version, too many examples): the same for the same report, whatever else happened;
//! 2. what happened to the client in this round, which is never undone: so a report that is sent again gets the same
//!    answer;
//! 3. the moment ("not leased", and refusals that are transient).

use super::{
    Collection,
    member::{Admitted, Claim, MemberProgress},
};
use crate::{
    ids::{ClientId, RequestId, RoundId, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
    words::plural,
};

/// What to say to an offered report.
#[derive(Debug, PartialEq)]
pub(in crate::round) enum Offer {
    Admit,
    AlreadyAccepted,
    Refuse(Refusal),
    /// Refuse, and expect nothing more of the client.
    Fail(Refusal),
}

/// What to say of an upload that ended.
#[derive(Debug, PartialEq)]
pub(in crate::round) enum Verdict {
    Accept {
        worker: WorkerId,
        examples: u64,
    },
    AlreadyAccepted,
    /// No such upload was admitted, or it has ended before.
    Unknown(Refusal),
    Refuse {
        worker: WorkerId,
        refusal: Refusal,
    },
    /// Refuse, and expect nothing more of the client.
    Fail {
        worker: WorkerId,
        refusal: Refusal,
    },
}

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
        // In the order that the head of this file gives. A change of the order changes the answer to a repeated
        // report.
        let Some(member) = self.members.get(&client) else {
            return Offer::Refuse(self.not_in_cohort(client));
        };
        // A delta is a difference to one version. Added to another version, it would be silently wrong.
        if metadata.base_version != self.version {
            let detail = format!(
                "starts from version {}, and the round from {}",
                metadata.base_version, self.version
            );
            return Offer::Refuse(Refusal::new(RefusalKind::Stale, detail));
        }
        if let Some(refusal) = improper(client, metadata, member.examples) {
            let is_awaited = !self.closed && self.is_pending(client);
            // A stranger's bad report must not fail the client of an honest worker.
            if !is_awaited || lease != Some(worker) {
                return Offer::Refuse(refusal);
            }
            // The worker that acts for the client has trained, and this is what it has to send: nothing better will come.
            self.set(client, MemberProgress::Failed(refusal.clone()));
            return Offer::Fail(refusal);
        }
        match &member.progress {
            MemberProgress::Accepted { worker: sender, .. } if *sender == worker => {
                Offer::AlreadyAccepted
            }
            MemberProgress::Accepted { .. } => Offer::Refuse(from_another(client)),
            MemberProgress::Failed(refusal) => Offer::Refuse(refusal.clone()),
            _ if self.closed => Offer::Refuse(late(self.round)),
            _ if lease != Some(worker) => Offer::Refuse(not_leased(worker, client)),
            // A second upload beside the first one could replace it after its verdict.
            MemberProgress::Uploading(_) => {
                let detail = format!("the report of client {client} is being uploaded already");
                Offer::Refuse(Refusal::new(RefusalKind::Duplicate, detail))
            }
            MemberProgress::Pending => {
                let upload = Admitted {
                    client,
                    worker,
                    claim: Claim {
                        examples: metadata.examples,
                        train_loss: metadata.train_loss(),
                    },
                };
                self.uploads.insert(request, upload);
                self.set(client, MemberProgress::Uploading(request));
                Offer::Admit
            }
        }
    }

    /// Judges an upload that ended.
    pub fn stored(
        &mut self,
        client: ClientId,
        upload: RequestId,
        stored: Result<(), Refusal>,
    ) -> Verdict {
        // Removed whatever the verdict is: an upload ends once.
        let ended = self.uploads.remove(&upload);
        let Some(Admitted { worker, claim, .. }) = ended.filter(|ended| ended.client == client)
        else {
            let detail = format!("request {upload} uploads nothing for client {client}");
            return Verdict::Unknown(Refusal::new(RefusalKind::Conflict, detail));
        };
        // The round may have gone on while the body came: what is settled is not changed by it.
        if let Some(verdict) = self.settled(client, upload, worker) {
            return verdict;
        }
        match stored {
            Ok(()) => {
                let state = MemberProgress::Accepted {
                    upload,
                    worker,
                    claim,
                };
                self.set(client, state);
                Verdict::Accept {
                    worker,
                    examples: claim.examples,
                }
            }
            // The same bytes may arrive whole next time, so the client stays in the round.
            Err(refusal) if refusal.kind.is_transient() => {
                self.set(client, MemberProgress::Pending);
                Verdict::Refuse { worker, refusal }
            }
            Err(refusal) => {
                self.set(client, MemberProgress::Failed(refusal.clone()));
                Verdict::Fail { worker, refusal }
            }
        }
    }

    /// The verdict on an upload that can't change the round any more; none if it is the one that the round waits for.
    fn settled(&self, client: ClientId, upload: RequestId, worker: WorkerId) -> Option<Verdict> {
        let member = self.members.get(&client);
        let refusal = match member.map(|member| &member.progress) {
            Some(MemberProgress::Accepted { worker: sender, .. }) if *sender == worker => {
                // The lease went away and came back during the upload, and the worker's second upload was faster.
                return Some(Verdict::AlreadyAccepted);
            }
            Some(MemberProgress::Accepted { .. }) => from_another(client),
            Some(MemberProgress::Failed(refusal)) => refusal.clone(),
            _ if self.closed => late(self.round),
            Some(MemberProgress::Uploading(current)) if *current == upload => return None,
            _ => {
                let detail = format!("worker {worker} lost the lease of client {client} meanwhile");
                Refusal::new(RefusalKind::NotLeased, detail)
            }
        };
        Some(Verdict::Refuse { worker, refusal })
    }

    /// Judges what a worker says about a task that it can't do: whether that changes the round, or why it may not say
    /// so.
    pub fn give_up(
        &mut self,
        worker: WorkerId,
        client: ClientId,
        reason: &str,
        lease: Option<WorkerId>,
    ) -> Result<bool, Refusal> {
        match self.members.get(&client) {
            None => Err(self.not_in_cohort(client)),
            // Before the lease is looked at: a worker that says it again, since the answer was lost, gets the same
            // answer.
            Some(member) if self.closed || !member.progress.is_outstanding() => Ok(false),
            Some(_) if lease != Some(worker) => Err(not_leased(worker, client)),
            Some(_) => {
                let detail = format!("client {client} failed: {reason}");
                let is_news = self.fail(client, Refusal::new(RefusalKind::Conflict, detail));
                // The refusal's text names the client, for those who report later. The summary of failures names it by
                // itself.
                let member = self.members.get_mut(&client);
                if let Some(failure) = member.and_then(|member| member.failure.as_mut()) {
                    failure.reason = reason.to_string();
                }
                Ok(is_news)
            }
        }
    }

    fn not_in_cohort(&self, client: ClientId) -> Refusal {
        let detail = format!(
            "client {client} is not in the cohort of round {}",
            self.round
        );
        Refusal::new(RefusalKind::NotInCohort, detail)
    }
}

/// The verdict on what comes after its round has closed.
pub(in crate::round) fn late(round: RoundId) -> Refusal {
    Refusal::new(RefusalKind::Late, format!("round {round} has closed"))
}

/// The verdict on what comes from a worker that may not act for the client.
pub(in crate::round) fn not_leased(worker: WorkerId, client: ClientId) -> Refusal {
    let detail = format!("worker {worker} does not hold the lease of client {client}");
    Refusal::new(RefusalKind::NotLeased, detail)
}

fn from_another(client: ClientId) -> Refusal {
    let detail = format!("the report of client {client} came from another worker");
    Refusal::new(RefusalKind::NotLeased, detail)
}

/// What is wrong with what a report says about itself, in any round.
fn improper(client: ClientId, metadata: &ReportMetadata, partition: u64) -> Option<Refusal> {
    // Examples are the report's weight in the mean: a claim beyond the partition would buy influence.
    if metadata.examples == 0 || metadata.examples > partition {
        let detail = format!(
            "claims {}, and the partition of client {client} has {partition}",
            plural(metadata.examples, "example")
        );
        return Some(Refusal::new(RefusalKind::ExamplesExceeded, detail));
    }
    metadata.check().err()
}
