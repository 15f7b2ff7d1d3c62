//! Entries of the event log, against the books.

use super::*;

impl Checker {
    pub(super) fn log(&mut self, event: &JobEvent) -> Check {
        match event {
            JobEvent::Waiting { .. }
            | JobEvent::WorkerPassedOver { .. }
            | JobEvent::WorkerReturned { .. }
            | JobEvent::Recovered { .. }
            | JobEvent::Diverges { .. }
            | JobEvent::Paused
            | JobEvent::Unpaused
            | JobEvent::Started { .. }
            | JobEvent::ReportRefused { .. } => {}
            JobEvent::Dealt { round, examples } => {
                ensure!(
                    self.settled == Some(*round),
                    "deals again before round {round}, out of turn"
                );
                ensure!(
                    self.dealt.take().as_ref() == Some(examples),
                    "logs other sizes than were dealt"
                );
                self.seen.dealt = true;
            }
            JobEvent::DataResized { client, examples } => self.resized(*client, *examples)?,
            JobEvent::Leased { client, from, to } => self.leased(*client, *from, *to)?,
            JobEvent::RoundStarted {
                round,
                version,
                cohort,
                goal,
                quorum,
            } => {
                let planned = self.plan.take().filter(|(planned, _)| planned == round);
                let Some((_, plan)) = planned.filter(|_| self.planning) else {
                    return Err(format!("round {round} starts without a plan"));
                };
                ensure!(
                    *round == self.last_round,
                    "round {round} is not the planned one"
                );
                ensure!(*version == self.version, "starts from version {version}");
                ensure!(
                    cohort.iter().copied().eq(plan.clients())
                        && (goal, quorum) == (&plan.goal, &plan.quorum),
                    "not as planned"
                );
                let known = cohort
                    .iter()
                    .all(|client| (client.0 as usize) < self.clients.len());
                ensure!(
                    known && cohort.is_sorted_by(|a, b| a < b),
                    "a cohort of {cohort:?}"
                );
                ensure!(
                    (*quorum == 0 || *quorum >= self.quorum())
                        && quorum <= goal
                        && *goal <= cohort.len(),
                    "an invalid plan"
                );
                ensure!(
                    *quorum == 0 || !cohort.is_empty(),
                    "nobody is asked, and somebody must report"
                );
                self.planning = false;
                let deadline = self.now + Duration::from_secs(self.config.limits.round_timeout);
                let began = Round {
                    version: *version,
                    plan,
                    deadline,
                    sizes: self.clients.iter().map(|spec| spec.examples).collect(),
                    open: true,
                    told: BTreeMap::new(),
                    failed: BTreeSet::new(),
                    uploading: BTreeMap::new(),
                    accepted: None,
                    aggregation: None,
                };
                self.rounds.insert(*round, began);
            }
            JobEvent::TaskIssued { client, worker, .. } => {
                ensure!(
                    self.holder(*client) == Some(*worker),
                    "issues {client} to a stranger"
                );
            }
            JobEvent::ReportAccepted { round, client, .. } => {
                let told = self
                    .rounds
                    .get(round)
                    .is_none_or(|round| round.told.contains_key(client));
                ensure!(!told, "the report of {client} counts twice");
            }
            JobEvent::ClientFailed { round, client, .. } => {
                let by_stranger = self
                    .asker
                    .is_some_and(|asker| self.holder(*client) != Some(asker));
                ensure!(!by_stranger, "a stranger fails {client}");
                let Some(open) = self.rounds.get_mut(round).filter(|round| round.open) else {
                    return Err(format!(
                        "{client} fails in round {round}, which is not open"
                    ));
                };
                ensure!(
                    !open.told.contains_key(client),
                    "{client} fails after its report was accepted"
                );
                ensure!(open.failed.insert(*client), "{client} fails twice");
                open.uploading.remove(client);
            }
            JobEvent::RoundCommitted {
                round,
                version,
                accepted,
                folded,
                excluded,
                train_loss,
                metrics,
            } => {
                ensure!(
                    self.published.take() == Some(*version),
                    "commits what is not published"
                );
                ensure!(
                    *version == self.version.next(),
                    "version {version} after {}",
                    self.version
                );
                ensure!(
                    self.discarded.last() == Some(round),
                    "the reports were not discarded"
                );
                let ended = self.rounds.get(round);
                let Some(said) = ended.and_then(|ended| ended.aggregation.as_ref()) else {
                    return Err(format!("commits round {round}, which was not aggregated"));
                };
                ensure!(
                    ended.and_then(|ended| ended.accepted.as_ref()) == Some(accepted),
                    "records {accepted:?} as accepted"
                );
                let recorded = excluded
                    .iter()
                    .map(|excluded| (excluded.client, excluded.reason.clone()));
                ensure!(
                    *folded == said.folded && recorded.eq(said.excluded.iter().cloned()),
                    "records {folded:?} and {excluded:?}, and the strategy says {said:?}"
                );
                ensure!(
                    *metrics == said.metrics,
                    "records other metrics: {metrics:?}"
                );
                // All reports say the same.
                let loss = (!folded.is_empty()).then_some(0.5);
                ensure!(*train_loss == loss, "records train loss {train_loss:?}");
                for client in folded {
                    self.basis.insert(*client, *round);
                }
                self.seen.excluded |= !excluded.is_empty();
                self.seen.without_reports |= accepted.is_empty();
                self.version = *version;
                self.abandoned = 0;
                self.seen.committed = true;
                self.evaluating.committed(&self.config, *version);
            }
            JobEvent::RoundAbandoned {
                round,
                accepted,
                reason,
                ..
            } => {
                ensure!(!reason.is_empty(), "abandoned without a reason");
                let told = self.rounds.get(round).into_iter();
                let told = told.flat_map(|round| round.told.keys());
                ensure!(told.eq(accepted), "records {accepted:?} as accepted");
                self.seen.not_folded |= reason.contains("accepted reports were folded");
                self.seen.nonsense |= reason.contains("aggregation is not valid");
                ensure!(
                    *round == self.last_round,
                    "abandons round {round} out of turn"
                );
                let is_closed = self.rounds.get(round).is_none_or(|round| !round.open);
                ensure!(is_closed, "abandoned but not discarded");
                self.planning = false;
                self.abandoned += 1;
                self.seen.abandoned = true;
                ensure!(
                    self.abandoned <= self.config.limits.max_attempts,
                    "an attempt too many"
                );
            }
            JobEvent::Evaluated {
                version,
                split,
                evaluation,
                reason,
                ..
            } => {
                ensure!(
                    self.evaluating.ended(*version, *split),
                    "version {version} is evaluated twice, or out of turn"
                );
                ensure!(
                    evaluation.is_some() != reason.is_some(),
                    "neither measured nor a reason"
                );
            }
            JobEvent::Ended(outcome) => {
                ensure!(self.outcome.is_none(), "ends twice");
                if *outcome == Outcome::Completed {
                    ensure!(
                        self.version.0 == u64::from(self.config.rounds),
                        "completed too early"
                    );
                }
                let is_over = matches!(outcome, Outcome::Completed | Outcome::Stopped { .. });
                ensure!(
                    self.evaluating.open().next().is_none(),
                    "ends without a word on versions {:?}",
                    self.evaluating
                );
                ensure!(
                    !is_over || self.evaluating.is_complete(&self.config, self.version),
                    "the final version was not tested: {:?}",
                    self.evaluating
                );
                ensure!(
                    !matches!(outcome, Outcome::Stopped { .. })
                        || self.config.progress.stop.is_some(),
                    "stops without a rule"
                );
                ensure!(self.no_round_is_open(), "ends with a round open");
                let kept = self
                    .rounds
                    .keys()
                    .find(|round| !self.discarded.contains(round));
                ensure!(
                    kept.is_none(),
                    "the reports of round {kept:?} are never discarded"
                );
                self.outcome = Some(outcome.clone());
            }
        }
        Ok(())
    }

    /// Only data at home with one worker changes its size, and a report that was accepted is not judged by the new one.
    fn resized(&mut self, client: ClientId, examples: u64) -> Check {
        let Some(spec) = self.clients.get_mut(client.0 as usize) else {
            return Err(format!("{client}, which there is not, is resized"));
        };
        ensure!(spec.home.is_some(), "{client} has no data of its own");
        ensure!(spec.examples != examples, "a new size that is none");
        spec.examples = examples;
        for round in self.rounds.values_mut().filter(|round| round.open) {
            if !round.told.contains_key(&client) {
                round.sizes[client.0 as usize] = examples;
            }
        }
        Ok(())
    }

    pub(super) fn leased(
        &mut self,
        client: ClientId,
        from: Option<WorkerId>,
        to: Option<WorkerId>,
    ) -> Check {
        ensure!(
            self.holder(client) == from,
            "{client} was not held by {from:?}"
        );
        ensure!(from != to, "a move that is none");
        ensure!(
            to.is_none_or(|to| self.live.contains(&to)),
            "leased to {to:?}, which is gone"
        );
        if let Some((id, round)) = self.rounds.last_key_value().filter(|(_, round)| round.open) {
            let forced = from.is_none_or(|from| !self.live.contains(&from));
            ensure!(forced, "{client} moves without need in round {id}");
            self.seen.moved |= from.is_some()
                && to.is_some()
                && round.plan.clients().any(|member| member == client);
        }
        self.holders.insert(client, to);
        for upload in self
            .uploads
            .values_mut()
            .filter(|upload| upload.offered.client == client)
        {
            upload.overtaken = true;
        }
        for round in self.rounds.values_mut().filter(|round| round.open) {
            round.uploading.remove(&client);
        }
        Ok(())
    }
}
