//! The reports of one round: who is to send one, whose has come, and the verdict on each.
//!
//! A verdict that is a function of what was sent (stale, too many examples) is given before one that depends on what
//! else happened, and what happened is never undone: so a report that is sent again gets the same answer. Only
//! "not leased" and the transient refusals speak of the moment. Nothing here knows of other rounds, or decides when
//! the round is over.

use std::collections::{BTreeMap, BTreeSet};

use super::failures::Failure;
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::{Refusal, RefusalKind, ReportMetadata},
    strategy::RoundPlan,
    words::plural,
};

/// A round that has been planned, open or closed.
#[derive(Debug)]
pub(super) struct Collection {
    pub round: RoundId,
    pub version: ModelVersion,
    pub plan: RoundPlan,
    pub deadline: Timestamp,
    /// No report is taken any more; what was accepted stays so.
    pub closed: bool,
    members: BTreeMap<ClientId, Member>,
    /// The pending members that have a worker, by it: what is looked at when a worker asks for a task.
    ready: BTreeSet<(WorkerId, ClientId)>,
    /// Admitted uploads that have not ended, those that were overtaken too.
    uploads: BTreeMap<RequestId, Upload>,
    /// Those of them that can't be accepted any more, as long as nobody was told.
    unneeded: Vec<RequestId>,
    accepted: usize,
    outstanding: usize,
}

#[derive(Debug, Default)]
struct Member {
    state: MemberState,
    /// Number of examples in its partition in this round: a verdict must not change when the data is dealt again. It does if
    /// the worker that has the data comes back with more or fewer examples, since all that it then sends is new.
    examples: u64,
    /// The worker that acts for the client.
    holder: Option<WorkerId>,
    /// Who was given the task last.
    issued_to: Option<WorkerId>,
    /// Why it takes no further part, if so.
    failure: Option<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq)]
enum MemberState {
    #[default]
    Pending,
    Uploading(RequestId),
    Accepted {
        upload: RequestId,
        worker: WorkerId,
        claim: Claim,
    },
    /// Takes no further part: this refusal is the verdict on whatever it sends.
    Failed(Refusal),
}

impl MemberState {
    fn is_outstanding(&self) -> bool {
        matches!(self, Self::Pending | Self::Uploading(_))
    }

    fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }
}

#[derive(Debug)]
struct Upload {
    client: ClientId,
    worker: WorkerId,
    claim: Claim,
}

/// What a report says of itself that the round's event log needs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Claim {
    examples: u64,
    train_loss: Option<f64>,
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

/// What to say of an upload that ended.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
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
    /// A round that is open. `examples` says how many a client's partition has.
    pub fn new(
        round: RoundId,
        version: ModelVersion,
        plan: RoundPlan,
        deadline: Timestamp,
        examples: impl Fn(ClientId) -> u64,
    ) -> Self {
        let member = |client| Member {
            examples: examples(client),
            ..Member::default()
        };
        let members: BTreeMap<_, _> = plan
            .clients()
            .map(|client| (client, member(client)))
            .collect();
        Self {
            round,
            version,
            plan,
            deadline,
            closed: false,
            ready: BTreeSet::new(),
            uploads: BTreeMap::new(),
            unneeded: Vec::new(),
            accepted: 0,
            outstanding: members.len(),
            members,
        }
    }

    /// Takes no more reports; what was accepted stays so.
    pub fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        for member in self.members.values() {
            if let MemberState::Uploading(upload) = member.state {
                self.unneeded.push(upload);
            }
        }
    }

    /// The uploads that became of no use since this was asked last.
    pub fn take_unneeded(&mut self) -> Vec<RequestId> {
        let mut unneeded = std::mem::take(&mut self.unneeded);
        // Some may have ended by themselves meanwhile.
        unneeded.retain(|upload| self.uploads.contains_key(upload));
        unneeded
    }

    /// The accepted reports, in client order, each with the request that uploaded it.
    pub fn accepted(&self) -> Vec<(ClientId, RequestId)> {
        let accepted = |(client, member): (&ClientId, &Member)| match member.state {
            MemberState::Accepted { upload, .. } => Some((*client, upload)),
            _ => None,
        };
        self.members.iter().filter_map(accepted).collect()
    }

    /// The mean training loss of these clients' accepted reports, weighted by examples; none unless each of them has one.
    pub fn train_loss(&self, clients: &[ClientId]) -> Option<f64> {
        let (mut sum, mut examples) = (0.0, 0.0);
        for client in clients {
            let MemberState::Accepted { claim, .. } = &self.members.get(client)?.state else {
                return None;
            };
            let weight = claim.examples as f64;
            sum += claim.train_loss? * weight;
            examples += weight;
        }
        let mean = sum / examples;
        mean.is_finite().then_some(mean)
    }

    pub fn accepted_count(&self) -> usize {
        self.accepted
    }

    /// How many members there are of whom a report may still come.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether a report may still come of this client.
    pub fn is_outstanding(&self, client: ClientId) -> bool {
        self.members
            .get(&client)
            .is_some_and(|member| member.state.is_outstanding())
    }

    /// Whether the client's task may be handed out: not while its report is on the way.
    pub fn is_pending(&self, client: ClientId) -> bool {
        self.members
            .get(&client)
            .is_some_and(|member| member.state == MemberState::Pending)
    }

    /// The clients of this worker whose tasks may be handed out, in order.
    pub fn ready(&self, worker: WorkerId) -> impl Iterator<Item = ClientId> + '_ {
        let all_of_worker = (worker, ClientId(0))..=(worker, ClientId(u32::MAX));
        self.ready.range(all_of_worker).map(|(_, client)| *client)
    }

    /// Notes that the worker has the client's task; whether that is news.
    pub fn issue(&mut self, client: ClientId, worker: WorkerId) -> bool {
        let Some(member) = self.members.get_mut(&client) else {
            return false;
        };
        member.issued_to.replace(worker) != Some(worker)
    }

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
            return Offer::Refuse(self.not_in_cohort(client));
        };
        if metadata.base_version != self.version {
            let detail = format!(
                "starts from version {}, and the round from {}",
                metadata.base_version, self.version
            );
            return Offer::Refuse(Refusal::new(RefusalKind::Stale, detail));
        }
        if let Some(refusal) = improper(client, metadata, member.examples) {
            let may_fail = !self.closed && lease == Some(worker);
            return if may_fail && self.is_pending(client) && self.fail(client, refusal.clone()) {
                Offer::Fail(refusal)
            } else {
                Offer::Refuse(refusal)
            };
        }
        match &member.state {
            MemberState::Accepted { worker: sender, .. } if *sender == worker => {
                Offer::AlreadyAccepted
            }
            MemberState::Accepted { .. } => Offer::Refuse(from_another(client)),
            MemberState::Failed(refusal) => Offer::Refuse(refusal.clone()),
            _ if self.closed => Offer::Refuse(late(self.round)),
            _ if lease != Some(worker) => Offer::Refuse(not_leased(worker, client)),
            MemberState::Uploading(_) => {
                let detail = format!("the report of client {client} is being uploaded already");
                Offer::Refuse(Refusal::new(RefusalKind::Duplicate, detail))
            }
            MemberState::Pending => {
                let upload = Upload {
                    client,
                    worker,
                    claim: Claim {
                        examples: metadata.examples,
                        train_loss: metadata.train_loss(),
                    },
                };
                self.uploads.insert(request, upload);
                self.set(client, MemberState::Uploading(request));
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
        let ended = self.uploads.remove(&upload);
        let Some(Upload { worker, claim, .. }) = ended.filter(|ended| ended.client == client)
        else {
            let detail = format!("request {upload} uploads nothing for client {client}");
            return Verdict::Unknown(Refusal::new(RefusalKind::Conflict, detail));
        };
        let refuse = |refusal| Verdict::Refuse { worker, refusal };
        match self.members.get(&client).map(|member| &member.state) {
            Some(MemberState::Accepted { worker: sender, .. }) if *sender == worker => {
                return Verdict::AlreadyAccepted;
            }
            Some(MemberState::Accepted { .. }) => return refuse(from_another(client)),
            Some(MemberState::Failed(refusal)) => return refuse(refusal.clone()),
            _ if self.closed => return refuse(late(self.round)),
            Some(MemberState::Uploading(current)) if *current == upload => {}
            _ => {
                let detail = format!("worker {worker} lost the lease of client {client} meanwhile");
                return refuse(Refusal::new(RefusalKind::NotLeased, detail));
            }
        }
        match stored {
            Ok(()) => {
                self.set(
                    client,
                    MemberState::Accepted {
                        upload,
                        worker,
                        claim,
                    },
                );
                Verdict::Accept {
                    worker,
                    examples: claim.examples,
                }
            }
            Err(refusal) if refusal.kind.is_transient() => {
                self.set(client, MemberState::Pending);
                refuse(refusal)
            }
            Err(refusal) => {
                self.set(client, MemberState::Failed(refusal.clone()));
                Verdict::Fail { worker, refusal }
            }
        }
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
            Some(member) if self.closed || !member.state.is_outstanding() => Ok(false),
            Some(_) if lease != Some(worker) => Err(not_leased(worker, client)),
            Some(_) => {
                let detail = format!("client {client} failed: {reason}");
                let is_news = self.fail(client, Refusal::new(RefusalKind::Conflict, detail));
                let member = self.members.get_mut(&client);
                if let Some(failure) = member.and_then(|member| member.failure.as_mut()) {
                    failure.reason = reason.to_string();
                }
                Ok(is_news)
            }
        }
    }

    /// The clients that take no further part, in order, each with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (ClientId, &Failure)> {
        self.members
            .iter()
            .filter_map(|(client, member)| Some((*client, member.failure.as_ref()?)))
    }

    /// The client's own data has this many examples now. What was accepted is not judged again.
    pub fn resize(&mut self, client: ClientId, examples: u64) {
        if let Some(member) = self.members.get_mut(&client)
            && !member.state.is_accepted()
        {
            member.examples = examples;
        }
    }

    /// The client takes no further part, unless its report is in; whether that changed anything.
    pub fn fail(&mut self, client: ClientId, refusal: Refusal) -> bool {
        let is_open = self.is_outstanding(client);
        if is_open {
            self.set(client, MemberState::Failed(refusal));
        }
        is_open
    }

    /// This worker acts for the client from now on, or nobody does.
    pub fn place(&mut self, client: ClientId, holder: Option<WorkerId>) {
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut member.holder, holder) {
            self.ready.remove(&(before, client));
        }
        if let (MemberState::Pending, Some(holder)) = (&member.state, holder) {
            self.ready.insert((holder, client));
        }
    }

    /// The client's lease moved to this worker: an upload under way is overtaken, and the task is to be handed out again.
    pub fn release(&mut self, client: ClientId, holder: Option<WorkerId>) {
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        member.issued_to = None;
        if matches!(member.state, MemberState::Uploading(_)) {
            self.set(client, MemberState::Pending);
        }
        self.place(client, holder);
    }

    fn set(&mut self, client: ClientId, state: MemberState) {
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        let before = std::mem::replace(&mut member.state, state);
        if let MemberState::Failed(refusal) = &member.state {
            member.failure = Some(Failure {
                worker: member.issued_to.or(member.holder),
                reason: refusal.detail.clone(),
            });
        }
        if let MemberState::Uploading(upload) = before
            && self.uploads.contains_key(&upload)
        {
            self.unneeded.push(upload);
        }
        self.accepted += usize::from(member.state.is_accepted());
        self.accepted -= usize::from(before.is_accepted());
        self.outstanding += usize::from(member.state.is_outstanding());
        self.outstanding -= usize::from(before.is_outstanding());
        if let Some(holder) = member.holder {
            match member.state {
                MemberState::Pending => self.ready.insert((holder, client)),
                _ => self.ready.remove(&(holder, client)),
            };
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
pub(super) fn late(round: RoundId) -> Refusal {
    Refusal::new(RefusalKind::Late, format!("round {round} has closed"))
}

/// The verdict on what comes from a worker that may not act for the client.
pub(super) fn not_leased(worker: WorkerId, client: ClientId) -> Refusal {
    let detail = format!("worker {worker} does not hold the lease of client {client}");
    Refusal::new(RefusalKind::NotLeased, detail)
}

fn from_another(client: ClientId) -> Refusal {
    let detail = format!("the report of client {client} came from another worker");
    Refusal::new(RefusalKind::NotLeased, detail)
}

/// What is wrong with what a report says about itself, whatever the round.
fn improper(client: ClientId, metadata: &ReportMetadata, partition: u64) -> Option<Refusal> {
    if metadata.examples == 0 || metadata.examples > partition {
        let detail = format!(
            "claims {}, and the partition of client {client} has {partition}",
            plural(metadata.examples, "example")
        );
        return Some(Refusal::new(RefusalKind::ExamplesExceeded, detail));
    }
    metadata.check().err()
}
