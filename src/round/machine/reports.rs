//! Verdicts on reports, for the round that is open and for the last that closed.

use super::{Phase, RoundMachine};
use crate::{
    ids::{ClientId, RequestId, RoundId, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
    round::{
        JobEvent, Response,
        collection::{Collection, Offer, Verdict, late},
    },
};

impl RoundMachine {
    pub(super) fn report_offered(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
        metadata: &ReportMetadata,
    ) {
        match self.judge_offer(request, worker, client, round, metadata) {
            Offer::Admit => self.respond(request, Response::Admitted),
            Offer::AlreadyAccepted => self.respond(request, Response::Accepted),
            Offer::Refuse(refusal) => self.refuse(request, round, client, worker, refusal),
            Offer::Fail(refusal) => {
                let reason = refusal.detail.clone();
                self.refuse(request, round, client, worker, refusal);
                self.log_failed(round, client, Some(worker), reason);
            }
        }
    }

    fn judge_offer(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
        metadata: &ReportMetadata,
    ) -> Offer {
        let known = self.check_begun(round).and_then(|()| self.client(client));
        let lease = self.leases.holder(client);
        match known {
            Err(refusal) => Offer::Refuse(refusal),
            Ok(_) => match self.collection(round) {
                Some(collection) => collection.offer(request, worker, client, metadata, lease),
                None => Offer::Refuse(late(round)),
            },
        }
    }

    pub(super) fn report_stored(
        &mut self,
        request: RequestId,
        upload: RequestId,
        client: ClientId,
        round: RoundId,
        stored: Result<(), Refusal>,
    ) {
        let verdict = match self.collection(round) {
            Some(collection) => collection.stored(client, upload, stored),
            None => Verdict::Unknown(late(round)),
        };
        match verdict {
            Verdict::Accept { worker, examples } => {
                self.log(JobEvent::ReportAccepted {
                    round,
                    client,
                    worker,
                    examples,
                });
                self.respond(request, Response::Accepted);
            }
            Verdict::AlreadyAccepted => self.respond(request, Response::Accepted),
            Verdict::Unknown(refusal) => self.respond(request, Response::Refused(refusal)),
            Verdict::Refuse { worker, refusal } => {
                self.refuse(request, round, client, worker, refusal);
                let open = self.current.as_ref().filter(|open| open.round == round);
                if open.is_some_and(|open| !open.closed && open.is_pending(client)) {
                    // The task can be handed out again. Without this, a poll that is held would only bring it when it
                    // ends.
                    self.wake(self.leases.holder(client));
                }
            }
            Verdict::Fail { worker, refusal } => {
                let reason = refusal.detail.clone();
                self.refuse(request, round, client, worker, refusal);
                self.log_failed(round, client, Some(worker), reason);
            }
        }
    }

    pub(super) fn task_failed(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        round: RoundId,
        reason: String,
    ) {
        let known = self.check_begun(round).and_then(|()| self.client(client));
        let lease = self.leases.holder(client);
        let verdict = known.and_then(|_| match self.collection(round) {
            Some(collection) => collection.give_up(worker, client, &reason, lease),
            // A failure in a round that is forgotten changes nothing. Its sender need not know.
            None => Ok(false),
        });
        match verdict {
            Ok(is_news) => {
                if is_news {
                    self.log_failed(round, client, Some(worker), reason);
                }
                self.respond(request, Response::Accepted);
            }
            Err(refusal) => self.respond(request, Response::Refused(refusal)),
        }
    }

    fn refuse(
        &mut self,
        request: RequestId,
        round: RoundId,
        client: ClientId,
        worker: WorkerId,
        refusal: Refusal,
    ) {
        self.log(JobEvent::ReportRefused {
            round,
            client,
            worker,
            refusal: refusal.clone(),
        });
        self.respond(request, Response::Refused(refusal));
    }

    /// The round of this number, as long as it is remembered.
    fn collection(&mut self, round: RoundId) -> Option<&mut Collection> {
        self.current
            .iter_mut()
            .chain(&mut self.closed)
            .find(|collection| collection.round == round)
    }

    fn check_begun(&self, round: RoundId) -> Result<(), Refusal> {
        // The round has its number, and no cohort yet: any report of it is made up.
        let is_planned = self.phase == Phase::Planning && round == self.round;
        if round == RoundId(0) || round > self.round || is_planned {
            let detail = format!("round {round} has not begun");
            return Err(Refusal::new(RefusalKind::WrongRound, detail));
        }
        Ok(())
    }
}
