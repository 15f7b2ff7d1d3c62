//! One round: its cohort, and how far each client is with its report. [`verdicts`] judges what comes.
//!
//! Nothing here knows of other rounds, or decides when the round is over.

mod member;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};

use member::{Admitted, Member, MemberProgress};
use serde::{Deserialize, Serialize};
pub(super) use verdicts::{Offer, Verdict, late, not_leased};

use super::failures::Failure;
use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId, Timestamp, WorkerId},
    report::Refusal,
    statistics::largest_plausible,
    strategy::RoundPlan,
};

/// A round that has been planned, open or closed.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    uploads: BTreeMap<RequestId, Admitted>,
    /// Those of them that can't be accepted any more, until the driver is told.
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
            // Empty at first: `place` fills it as it tells the members' workers.
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
            // Uploads that were overtaken before are in the list already.
            if let MemberProgress::Uploading(upload) = member.progress {
                self.unneeded.push(upload);
            }
        }
    }

    /// The uploads that have become useless since the last call.
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
            if let MemberProgress::Accepted { upload, .. } = member.progress {
                accepted.push((*client, upload));
            }
        }
        accepted
    }

    /// The accepted reports, in client order, each with the request that uploaded it and the worker that sent it.
    pub fn accepted_with_senders(&self) -> Vec<(ClientId, RequestId, WorkerId)> {
        let mut accepted = Vec::with_capacity(self.accepted);
        for (client, member) in &self.members {
            if let MemberProgress::Accepted { upload, worker, .. } = member.progress {
                accepted.push((*client, upload, worker));
            }
        }
        accepted
    }

    /// The mean training loss of these clients' accepted reports, weighted by examples; none unless each of them has one. A loss that
    /// is far from the others' is not in it: clients say what they like.
    pub fn train_loss(&self, clients: &[ClientId]) -> Option<f64> {
        let (mut losses, mut weights) = (Vec::new(), Vec::new());
        for client in clients {
            let MemberProgress::Accepted { claim, .. } = &self.members.get(client)?.progress else {
                return None;
            };
            // One that is missing makes the mean one of other clients than the version is of: no figure is better.
            losses.push(claim.train_loss?);
            weights.push(claim.examples as f64);
        }
        let most = largest_plausible(&losses);
        let (mut sum, mut examples) = (0.0, 0.0);
        for (loss, weight) in losses.iter().zip(&weights) {
            if loss.abs() <= most {
                sum += loss * weight;
                examples += weight;
            }
        }
        let mean = sum / examples;
        // JSON has no infinity, and a diverged loss is told by the reports themselves.
        mean.is_finite().then_some(mean)
    }

    pub fn accepted_count(&self) -> usize {
        self.accepted
    }

    /// How many members may still report.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Whether this client may still report.
    pub fn is_outstanding(&self, client: ClientId) -> bool {
        self.members
            .get(&client)
            .is_some_and(|member| member.progress.is_outstanding())
    }

    /// Whether the client's task may be handed out: not while its report is on the way.
    pub fn is_pending(&self, client: ClientId) -> bool {
        self.members
            .get(&client)
            .is_some_and(|member| member.progress == MemberProgress::Pending)
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
        // A poll whose answer was lost asks again and gets the same task: that is no new entry of the log.
        member.issued_to.replace(worker) != Some(worker)
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
            && !member.progress.is_accepted()
        {
            member.examples = examples;
        }
    }

    /// The client takes no further part, unless its report is in; whether that changed anything.
    pub fn fail(&mut self, client: ClientId, refusal: Refusal) -> bool {
        let is_open = self.is_outstanding(client);
        // An accepted report stays: what its worker says or does afterwards takes nothing back.
        if is_open {
            self.set(client, MemberProgress::Failed(refusal));
        }
        is_open
    }

    /// This worker acts for the client from now on, or no worker does.
    pub fn place(&mut self, client: ClientId, holder: Option<WorkerId>) {
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut member.holder, holder) {
            self.ready.remove(&(before, client));
        }
        if let (MemberProgress::Pending, Some(holder)) = (&member.progress, holder) {
            self.ready.insert((holder, client));
        }
    }

    /// The client's lease moved to this worker: an upload under way is overtaken, and the task is to be handed out again.
    pub fn release(&mut self, client: ClientId, holder: Option<WorkerId>) {
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        // The new holder has not got the task yet.
        member.issued_to = None;
        // The old holder's upload may never end, and the new one must not wait for it.
        if matches!(member.progress, MemberProgress::Uploading(_)) {
            self.set(client, MemberProgress::Pending);
        }
        // After `set`: only a client that is pending gets into the new worker's `ready`.
        self.place(client, holder);
    }

    /// No upload is under way any more: the process that took them has ended. Their clients may report again.
    pub fn end_uploads(&mut self) {
        self.unneeded.clear();
        for (upload, admitted) in std::mem::take(&mut self.uploads) {
            let member = self.members.get(&admitted.client);
            // Not one that was overtaken: its client may be accepted by now.
            if member.is_some_and(|member| member.progress == MemberProgress::Uploading(upload)) {
                self.set(admitted.client, MemberProgress::Pending);
            }
        }
    }

    fn set(&mut self, client: ClientId, state: MemberProgress) {
        let Some(member) = self.members.get_mut(&client) else {
            return;
        };
        let before = std::mem::replace(&mut member.progress, state);
        if let MemberProgress::Failed(refusal) = &member.progress {
            // The worker that had the task, and not the one that would get it now: the reason is about that one.
            member.failure = Some(Failure {
                // A client can fail before its task was handed out, for instance by a report that is not proper.
                worker: member.issued_to.or(member.holder),
                reason: refusal.detail.clone(),
            });
        }
        if let MemberProgress::Uploading(upload) = before
            // `stored` takes an upload out before it sets the client's progress: one that has ended by itself need not
            // be ended.
            && self.uploads.contains_key(&upload)
        {
            self.unneeded.push(upload);
        }
        // Counted here alone: looking at each member for each event would make a round quadratic in its cohort.
        self.accepted += usize::from(member.progress.is_accepted());
        self.accepted -= usize::from(before.is_accepted());
        self.outstanding += usize::from(member.progress.is_outstanding());
        self.outstanding -= usize::from(before.is_outstanding());
        if let Some(holder) = member.holder {
            match member.progress {
                MemberProgress::Pending => self.ready.insert((holder, client)),
                _ => self.ready.remove(&(holder, client)),
            };
        }
    }
}
