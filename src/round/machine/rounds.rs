//! How rounds begin. [`super::commits`] has how they end.

use std::{collections::BTreeSet, time::Duration};

use super::{Phase, RoundMachine};
use crate::{
    ids::{RoundId, Timestamp},
    round::{ClientSpec, Command, JobEvent, StopRule, collection::Collection},
    strategy::{ClientInfo, RoundPlan},
    words::plural,
};

impl RoundMachine {
    pub(super) fn prepared(&mut self, prepared: Result<Vec<ClientSpec>, String>, now: Timestamp) {
        if self.phase != Phase::Preparing {
            return;
        }
        let clients = match prepared {
            Ok(clients) => clients,
            Err(reason) => return self.fail(reason),
        };
        // At once: with too few clients, each attempt would only end at its deadline.
        if clients.len() < self.quorum() {
            return self.fail(format!(
                "the job has {}, and its quorum is {}",
                plural(clients.len(), "client"),
                self.quorum()
            ));
        }
        // Only now is it known how many clients there are, if the job has not said: as many as workers.
        if let Some(goal) = self.config.limits.goal
            && clients.len() < goal as usize
        {
            return self.fail(format!(
                "the job has {}, and its goal is {goal} reports",
                plural(clients.len(), "client")
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

    /// Ends the job if it has taken as long as it may. Looked at between rounds alone: the open one is worth its end.
    fn check_time(&mut self, now: Timestamp) {
        let started = *self.started.get_or_insert(now);
        let most = self.config.progress.stop.as_ref();
        let most = most.and_then(|stop| stop.max_seconds);
        if let Some(most) = most
            && now.since(started) >= Duration::from_secs(most)
        {
            let detail = format!("the job has run for {most} s, which is max_seconds");
            self.progress.stop_by(StopRule::Time, detail);
        }
    }

    pub(super) fn begin_round(&mut self, now: Timestamp) {
        self.check_time(now);
        // By versions and not by attempts: an abandoned round is made up for.
        let is_complete = self.version.0 >= u64::from(self.config.rounds);
        if is_complete || self.progress.stop.is_some() {
            self.phase = Phase::Finishing;
            return;
        }
        if self.paused {
            self.phase = Phase::Paused;
            return;
        }
        if self.is_behind() {
            self.phase = Phase::CatchingUp;
            return;
        }
        // Here alone, between rounds: a client that moves in the middle of a round trains twice.
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

    /// Takes the new sizes of the partitions, if any, and begins the round.
    pub(super) fn dealt(&mut self, round: RoundId, examples: Option<Vec<u64>>, now: Timestamp) {
        if self.phase != Phase::Dealing || round != self.round.next() {
            return;
        }
        // Sizes that are not those of all clients, or a client without data, are a driver's mistake: the old ones stay.
        if let Some(examples) = examples
            && examples.len() == self.clients.len()
            && !examples.contains(&0)
        {
            for (client, size) in self.clients.iter_mut().zip(&examples) {
                client.examples = *size;
            }
            self.log(JobEvent::Dealt { round, examples });
        }
        // Workers may have gone meanwhile.
        if self.leases.held() < self.quorum() {
            self.gather(now)
        } else {
            self.plan_round()
        }
    }

    fn plan_round(&mut self) {
        // Before the plan, so that an attempt has a number of its own even if its plan fails: log, records and random
        // draws are keyed by it.
        self.round = self.round.next();
        self.plan();
    }

    /// Has the strategy plan the round.
    pub(super) fn plan(&mut self) {
        self.phase = Phase::Planning;
        let clients = self
            .available()
            .map(|(id, spec)| {
                let mut client = ClientInfo::new(id, spec.examples);
                client.basis = self.basis.get(&id).copied();
                client
            })
            .collect();
        self.commands.push_back(Command::Plan {
            round: self.round,
            version: self.version,
            clients,
        });
    }

    pub(super) fn gather(&mut self, now: Timestamp) {
        // The first deadline stays. Each worker that joins leads here, and workers that come and go must not put it
        // off forever.
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
        let checked = plan.and_then(|plan| self.check_plan(&plan).map(|()| plan));
        let plan = match checked {
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
        let mut current = Collection::new(round, self.version, plan, deadline, |client| {
            let spec = self.clients.get(client.0 as usize);
            spec.map_or(0, |spec| spec.examples)
        });
        for client in &cohort {
            // Before tasks are handed out: they are found by worker.
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
                // Any worker that joins before the deadline can act for it.
                None => {}
            }
        }
        self.wake(holders);
    }

    /// Whether a round can be begun with this plan.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn check_plan(&self, plan: &RoundPlan) -> Result<(), String> {
        let job_clients = self.clients.len();
        // A plan is an embedder's: each condition here is one that later code relies on. Rising order also says that
        // no client is in it twice.
        let problem = if !plan.clients().is_sorted_by(|a, b| a < b) {
            "the cohort is not in rising order"
        } else if plan
            .clients()
            .any(|client| client.0 as usize >= job_clients)
        {
            "the cohort has a client that the job has not"
        } else if plan.goal > plan.members.len() {
            "the goal is above the cohort"
        } else if plan.members.is_empty() && plan.quorum > 0 {
            "the cohort is empty, and only a plan with quorum 0 can do without reports"
        } else if plan.goal == 0 && !plan.members.is_empty() {
            "the goal is 0, so no client of the cohort could report"
        } else if plan.quorum > 0 && plan.quorum < self.quorum() {
            "the quorum is below the job's"
        } else if plan.quorum > plan.goal {
            "the quorum is above the goal"
        } else {
            return Ok(());
        };
        Err(format!("the strategy's plan is not valid: {problem}"))
    }
}
