//! The reports of one round: who is to send one, whose has come, and whether that is enough.

use std::collections::BTreeMap;

use super::planted::{Bug, planted};
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
    strategy::RoundPlan,
};

/// A round that has been planned and not yet ended.
#[derive(Debug)]
pub(super) struct Collection {
    pub round: RoundId,
    pub version: ModelVersion,
    pub plan: RoundPlan,
    pub deadline: Timestamp,
    /// No report is taken any more; what was accepted stays so.
    pub closed: bool,
    members: BTreeMap<ClientId, Member>,
}

#[derive(Debug, Default)]
struct Member {
    state: MemberState,
    /// Who was given the task last.
    issued_to: Option<WorkerId>,
}

#[derive(Debug, Clone, Default, PartialEq)]
enum MemberState {
    #[default]
    Pending,
    Uploading {
        upload: RequestId,
        worker: WorkerId,
        examples: u64,
    },
    Accepted {
        upload: RequestId,
        worker: WorkerId,
    },
    /// Takes no further part: this refusal is the verdict on whatever it sends.
    Failed(Refusal),
}

/// What to say to an offered report.
#[derive(Debug, PartialEq)]
pub(super) enum Offer {
    Admit,
    AlreadyAccepted,
    Refuse(Refusal),
    /// Refuse, and expect nothing more of the client.
    Fail(Refusal),
}

/// What came of an upload.
#[derive(Debug, PartialEq)]
pub(super) enum Upload {
    Accepted {
        worker: WorkerId,
        examples: u64,
    },
    Refused {
        worker: Option<WorkerId>,
        refusal: Refusal,
        failed: bool,
    },
}

impl Collection {
    pub fn new(
        round: RoundId,
        version: ModelVersion,
        plan: RoundPlan,
        deadline: Timestamp,
    ) -> Self {
        let members = plan
            .cohort
            .iter()
            .map(|client| (*client, Member::default()))
            .collect();
        Self {
            round,
            version,
            plan,
            deadline,
            closed: false,
            members,
        }
    }

    /// The accepted reports, in client order.
    pub fn accepted(&self) -> Vec<(ClientId, RequestId)> {
        let accepted = |(client, member): (&ClientId, &Member)| match member.state {
            MemberState::Accepted { upload, .. } => Some((*client, upload)),
            _ => None,
        };
        self.members.iter().filter_map(accepted).collect()
    }

    pub fn accepted_count(&self) -> usize {
        self.members
            .values()
            .filter(|member| matches!(member.state, MemberState::Accepted { .. }))
            .count()
    }

    /// Members of whom a report may still come.
    pub fn outstanding(&self) -> usize {
        let open = |member: &&Member| {
            matches!(
                member.state,
                MemberState::Pending | MemberState::Uploading { .. }
            )
        };
        self.members.values().filter(open).count()
    }

    /// Whether a report may still come of this client.
    pub fn is_outstanding(&self, client: ClientId) -> bool {
        let state = self.members.get(&client).map(|member| &member.state);
        matches!(
            state,
            Some(MemberState::Pending | MemberState::Uploading { .. })
        )
    }

    /// Whether the client's task may be handed out: not while its report is on the way.
    pub fn is_pending(&self, client: ClientId) -> bool {
        self.members
            .get(&client)
            .is_some_and(|member| member.state == MemberState::Pending)
    }

    /// Notes that the worker has the client's task; whether that is news.
    pub fn issue(&mut self, client: ClientId, worker: WorkerId) -> bool {
        let Some(member) = self.members.get_mut(&client) else {
            return false;
        };
        member.issued_to.replace(worker) != Some(worker)
    }

    /// Judges a report before its body is read. `lease` is the client's worker, `partition` its number of examples.
    pub fn offer(
        &mut self,
        request: RequestId,
        worker: WorkerId,
        client: ClientId,
        metadata: &ReportMetadata,
        lease: Option<WorkerId>,
        partition: u64,
    ) -> Offer {
        let Some(member) = self.members.get_mut(&client) else {
            let detail = format!(
                "client {client} is not in the cohort of round {}",
                self.round
            );
            return Offer::Refuse(Refusal::new(RefusalKind::NotInCohort, detail));
        };
        if matches!(member.state, MemberState::Accepted { worker: accepted, .. } if accepted == worker)
        {
            return Offer::AlreadyAccepted;
        }
        if self.closed {
            return Offer::Refuse(match &member.state {
                MemberState::Failed(refusal) => refusal.clone(),
                _ => late(self.round),
            });
        }
        if lease != Some(worker) {
            let detail = format!("worker {worker} does not hold the lease of client {client}");
            return Offer::Refuse(Refusal::new(RefusalKind::NotLeased, detail));
        }
        match &member.state {
            MemberState::Accepted { .. } => {
                let detail = format!("the report of client {client} came from another worker");
                return Offer::Refuse(Refusal::new(RefusalKind::NotLeased, detail));
            }
            MemberState::Failed(refusal) => return Offer::Refuse(refusal.clone()),
            MemberState::Uploading { .. } => {
                let detail = format!("the report of client {client} is being uploaded already");
                return Offer::Refuse(Refusal::new(RefusalKind::Duplicate, detail));
            }
            MemberState::Pending => {}
        }
        if metadata.base_version != self.version && !planted(Bug::StaleAdmitted) {
            let detail = format!(
                "starts from version {}, and the round from {}",
                metadata.base_version, self.version
            );
            return Offer::Refuse(Refusal::new(RefusalKind::Stale, detail));
        }
        if metadata.examples == 0 || metadata.examples > partition {
            let detail = format!(
                "claims {} examples, and the partition of client {client} has {partition}",
                metadata.examples
            );
            let refusal = Refusal::new(RefusalKind::ExamplesExceeded, detail);
            member.state = MemberState::Failed(refusal.clone());
            return Offer::Fail(refusal);
        }
        if metadata.metrics.values().any(|value| !value.is_finite()) {
            let refusal = Refusal::new(RefusalKind::Malformed, "a metric is not a finite number");
            member.state = MemberState::Failed(refusal.clone());
            return Offer::Fail(refusal);
        }
        member.state = MemberState::Uploading {
            upload: request,
            worker,
            examples: metadata.examples,
        };
        Offer::Admit
    }

    /// Judges an upload that ended.
    pub fn stored(
        &mut self,
        client: ClientId,
        upload: RequestId,
        stored: Result<(), Refusal>,
    ) -> Upload {
        let overtaken = || {
            let detail = format!("client {client} moved to another worker during the upload");
            Upload::Refused {
                worker: None,
                refusal: Refusal::new(RefusalKind::NotLeased, detail),
                failed: false,
            }
        };
        let Some(member) = self.members.get_mut(&client) else {
            return overtaken();
        };
        let MemberState::Uploading {
            upload: expected,
            worker,
            examples,
        } = member.state.clone()
        else {
            return overtaken();
        };
        if expected != upload {
            return overtaken();
        }
        let stored = match self.closed && !planted(Bug::LateAccepted) {
            true => Err(late(self.round)),
            false => stored,
        };
        match stored {
            Ok(()) => {
                member.state = MemberState::Accepted { upload, worker };
                Upload::Accepted { worker, examples }
            }
            Err(refusal) if refusal.kind.is_transient() => {
                member.state = MemberState::Pending;
                Upload::Refused {
                    worker: Some(worker),
                    refusal,
                    failed: false,
                }
            }
            Err(refusal) => {
                member.state = MemberState::Failed(refusal.clone());
                Upload::Refused {
                    worker: Some(worker),
                    refusal,
                    failed: true,
                }
            }
        }
    }

    /// The client takes no further part, unless its report is in; whether that changed anything.
    pub fn fail(&mut self, client: ClientId, refusal: Refusal) -> bool {
        match self.members.get_mut(&client) {
            Some(member)
                if matches!(
                    member.state,
                    MemberState::Pending | MemberState::Uploading { .. }
                ) =>
            {
                member.state = MemberState::Failed(refusal);
                true
            }
            _ => false,
        }
    }

    /// The client's lease moved: an upload under way is overtaken, and the task is to be handed out anew.
    pub fn release(&mut self, client: ClientId) {
        if let Some(member) = self.members.get_mut(&client) {
            member.issued_to = None;
            if matches!(member.state, MemberState::Uploading { .. }) {
                member.state = MemberState::Pending;
            }
        }
    }
}

/// The verdict on what comes after its round has closed.
pub(super) fn late(round: RoundId) -> Refusal {
    Refusal::new(RefusalKind::Late, format!("round {round} has closed"))
}
