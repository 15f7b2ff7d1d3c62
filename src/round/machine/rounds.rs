//! How rounds begin and end.

use std::{collections::BTreeSet, time::Duration};

use super::{Phase, RoundMachine};
use crate::{
    ids::{ClientId, ModelVersion, RoundId, Timestamp},
    round::{
        ClientSpec, Command, JobEvent,
        collection::Collection,
        planted::{Bug, planted},
    },
    strategy::{Aggregation, ClientInfo, RoundPlan},
};

/// Closed rounds whose verdicts are remembered, so that a report that is sent again gets the same answer.
pub(in crate::round) const REMEMBERED_ROUNDS: usize = 8;

impl RoundMachine {
    pub(super) fn prepared(&mut self, prepared: Result<Vec<ClientSpec>, String>, now: Timestamp) {
        if self.phase != Phase::Preparing {
            return;
        }
        let clients = match prepared {
            Ok(clients) => clients,
            Err(reason) => return self.fail(reason),
        };
        if clients.len() < self.quorum() {
            return self.fail(format!(
                "the job has {} clients, and its quorum is {}",
                clients.len(),
                self.quorum()
            ));
        }
        self.clients = clients;
        self.log(JobEvent::Started {
            clients: self.clients.len() as u32,
        });
        let homes: Vec<_> = self
            .numbered()
            .map(|(client, spec)| (client, spec.home))
            .collect();
        let moves = self.leases.start(homes);
        self.apply(moves);
        self.begin_round(now);
    }

    /// The fewest reports that the job's limits allow a round to commit with.
    pub(super) fn quorum(&self) -> usize {
        self.config.limits.min_updates.max(1) as usize
    }

    pub(super) fn begin_round(&mut self, now: Timestamp) {
        if self.version.0 >= u64::from(self.config.rounds) {
            self.phase = Phase::Finishing;
            return;
        }
        let moves = self.leases.rebalance();
        self.apply(moves);
        if self.leases.held() < self.quorum() {
            return self.gather(now);
        }
        if self.config.deals {
            self.phase = Phase::Dealing;
            let round = self.round.next();
            return self.commands.push_back(Command::Deal { round });
        }
        self.plan_round();
    }

    /// Takes the new sizes of the partitions, where there are some, and begins the round.
    pub(super) fn dealt(&mut self, round: RoundId, examples: Option<Vec<u64>>, now: Timestamp) {
        if self.phase != Phase::Dealing || round != self.round.next() {
            return;
        }
        let is_whole = |sizes: &Vec<u64>| sizes.len() == self.clients.len() && !sizes.contains(&0);
        if let Some(examples) = examples.filter(is_whole) {
            for (client, size) in self.clients.iter_mut().zip(&examples) {
                client.examples = *size;
            }
            self.log(JobEvent::Dealt { round, examples });
        }
        // Workers may have gone meanwhile.
        match self.leases.held() < self.quorum() {
            true => self.gather(now),
            false => self.plan_round(),
        }
    }

    fn plan_round(&mut self) {
        self.round = self.round.next();
        self.phase = Phase::Planning;
        let clients = self
            .available()
            .map(|(id, spec)| ClientInfo::new(id, spec.examples))
            .collect();
        self.commands.push_back(Command::Plan {
            round: self.round,
            version: self.version,
            clients,
        });
    }

    fn gather(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Gathering { .. }) {
            return;
        }
        self.phase = Phase::Gathering {
            deadline: self.round_deadline(now),
        };
        self.log_waiting();
    }

    fn round_deadline(&self, now: Timestamp) -> Timestamp {
        now + Duration::from_secs(self.config.limits.round_timeout)
    }

    pub(super) fn planned(
        &mut self,
        round: RoundId,
        plan: Result<RoundPlan, String>,
        now: Timestamp,
    ) {
        if self.phase != Phase::Planning || round != self.round {
            return;
        }
        let plan = match plan.and_then(|plan| self.check_plan(plan)) {
            Ok(plan) => plan,
            Err(reason) => return self.abandon(reason, now),
        };
        self.log(JobEvent::RoundStarted {
            round,
            version: self.version,
            cohort: plan.clients().collect(),
            goal: plan.goal,
            quorum: plan.quorum,
        });
        let cohort: Vec<_> = plan.clients().collect();
        let deadline = self.round_deadline(now);
        let size = |client: ClientId| {
            let spec = self.clients.get(client.0 as usize);
            spec.map_or(0, |spec| spec.examples)
        };
        let mut current = Collection::new(round, self.version, plan, deadline, size);
        for client in &cohort {
            current.place(*client, self.leases.holder(*client));
        }
        self.current = Some(current);
        self.phase = Phase::Collecting;
        let mut holders = BTreeSet::new();
        for client in cohort {
            match self.leases.holder(client) {
                Some(holder) => {
                    holders.insert(holder);
                }
                // Its worker, which alone has its data, went while the strategy planned.
                None if self.client(client).is_ok_and(|spec| spec.home.is_some()) => {
                    self.drop_out(client);
                }
                None => {}
            }
        }
        self.wake(holders);
    }

    fn check_plan(&self, plan: RoundPlan) -> Result<RoundPlan, String> {
        let is_unknown = |client: ClientId| client.0 as usize >= self.clients.len();
        let problem = if !plan.clients().is_sorted_by(|a, b| a < b) {
            "the cohort is not in rising order"
        } else if plan.clients().any(is_unknown) {
            "the cohort has a client that the job has not"
        } else if plan.goal > plan.members.len() {
            "the goal is above the cohort"
        } else if plan.quorum < self.quorum() {
            "the quorum is below the job's"
        } else if plan.quorum > plan.goal {
            "the quorum is above the goal"
        } else {
            return Ok(plan);
        };
        Err(format!("the strategy's plan is not valid: {problem}"))
    }

    /// Closes the round where there is nothing more to wait for.
    pub(super) fn check_collection(&mut self, now: Timestamp) {
        let Some(current) = &mut self.current else {
            return;
        };
        let (accepted, outstanding) = (current.accepted_count(), current.outstanding());
        let quorum = match planted(Bug::QuorumIgnored) {
            true => 1,
            false => current.plan.quorum,
        };
        let is_due = now >= current.deadline;
        let is_full = accepted >= current.plan.goal || outstanding == 0;
        let is_hopeless = accepted + outstanding < current.plan.quorum;
        if !is_due && !is_full && !is_hopeless {
            return;
        }
        current.closed = true;
        if accepted >= quorum {
            self.phase = Phase::Aggregating;
            return self.commands.push_back(Command::Aggregate {
                round: current.round,
                base: current.version,
                accepted: current.accepted(),
            });
        }
        let why = match (outstanding, is_hopeless) {
            (0, _) => "every client has answered or failed",
            (_, true) => "too many clients have failed",
            (_, false) => "the deadline has passed",
        };
        let reason = format!(
            "{why} with {accepted} of {} accepted reports that the quorum needs",
            current.plan.quorum
        );
        self.abandon(reason, now);
    }

    pub(super) fn aggregated(
        &mut self,
        round: RoundId,
        aggregation: Result<Aggregation, String>,
        now: Timestamp,
    ) {
        if self.phase != Phase::Aggregating || round != self.round {
            return;
        }
        match aggregation {
            Ok(aggregation) => {
                let train_loss = aggregation.metrics.get("train_loss").copied();
                self.phase = Phase::Publishing { train_loss };
                self.commands.push_back(Command::Publish {
                    round,
                    version: self.version.next(),
                });
            }
            Err(reason) => self.abandon(reason, now),
        }
    }

    pub(super) fn published(
        &mut self,
        version: ModelVersion,
        published: Result<(), String>,
        now: Timestamp,
    ) {
        let Phase::Publishing { train_loss } = self.phase else {
            return;
        };
        if version != self.version.next() {
            return;
        }
        if let Err(reason) = published {
            return self.abandon(reason, now);
        }
        self.version = version;
        self.abandoned = 0;
        let round = self.round;
        let clients = self.close_current();
        self.log(JobEvent::RoundCommitted {
            round,
            version,
            clients,
            train_loss,
        });
        self.begin_evaluation(version, round, now);
        self.begin_round(now);
    }

    /// Ends the current round without a new version.
    fn abandon(&mut self, reason: String, now: Timestamp) {
        self.close_current();
        self.log(JobEvent::RoundAbandoned {
            round: self.round,
            reason: reason.clone(),
        });
        self.abandoned += 1;
        if self.abandoned >= self.config.limits.max_attempts {
            return self.fail(format!(
                "attempt {} of {} was abandoned: {reason}",
                self.abandoned, self.config.limits.max_attempts
            ));
        }
        self.begin_round(now);
    }

    /// Takes no more reports, has those that came forgotten, and names the clients of the accepted ones.
    pub(super) fn close_current(&mut self) -> Vec<ClientId> {
        let Some(mut current) = self.current.take() else {
            return Vec::new();
        };
        current.closed = true;
        self.commands.push_back(Command::Discard {
            round: current.round,
        });
        let accepted = current.accepted();
        self.closed.push_back(current);
        if self.closed.len() > REMEMBERED_ROUNDS {
            self.closed.pop_front();
        }
        accepted.into_iter().map(|(client, _)| client).collect()
    }
}
