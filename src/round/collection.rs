//! The reports of one round: who is to send one, whose has come, and the verdict on each.
//!
//! What happened is never undone, so that a report that is sent again gets the same answer. Only "not leased" and the
//! transient refusals depend on the moment. Nothing here knows of other rounds, or decides when the round is over.
//! [`judge`] gives the verdicts.

mod judge;
mod member;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use member::{Failure, Member, MemberState, Upload};
pub(super) use verdict::{Offer, Verdict, late, not_leased};

use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::Refusal,
    strategy::RoundPlan,
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

impl Collection {
    /// A round that is open. `examples` says how many a client's partition has.
    pub fn new(
        round: RoundId,
        version: ModelVersion,
        plan: RoundPlan,
        deadline: Timestamp,
        examples: impl Fn(ClientId) -> u64,
    ) -> Self {
        let mut members = BTreeMap::new();
        for client in plan.clients() {
            let member = Member {
                examples: examples(client),
                ..Member::default()
            };
            members.insert(client, member);
        }
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
        let mut accepted = Vec::with_capacity(self.accepted);
        for (client, member) in &self.members {
            if let MemberState::Accepted { upload, .. } = member.state {
                accepted.push((*client, upload));
            }
        }
        accepted
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

    /// The number of members whose report may still come.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether this client's report may still come.
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

    /// Notes that the worker has the client's task. Returns whether that is news.
    pub fn issue(&mut self, client: ClientId, worker: WorkerId) -> bool {
        let Some(member) = self.members.get_mut(&client) else {
            return false;
        };
        let before = member.issued_to.replace(worker);
        before != Some(worker)
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

    /// The client takes no further part, unless its report is in. Returns whether that changed anything.
    pub fn fail(&mut self, client: ClientId, refusal: Refusal) -> bool {
        if !self.is_outstanding(client) {
            return false;
        }
        self.set(client, MemberState::Failed(refusal));
        true
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

    /// Moves a member to another state, and keeps the counts and indexes in step with it. No other code writes a state:
    /// the counts would be wrong then, and a round would never end.
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
}
