//! Answers to requests, against the books.

use super::*;

impl Checker {
    pub(super) fn response(
        &mut self,
        request: RequestId,
        asked: Asked,
        response: &Response,
    ) -> Check {
        if let Response::Refused(refusal) = response {
            self.seen.refused.insert(refusal.kind.code());
            ensure!(!refusal.detail.is_empty(), "refused without a reason");
        }
        match asked {
            Asked::Task { worker, busy } => self.task(worker, &busy, response),
            Asked::Offer(offered) => {
                self.verdict(&offered, response)?;
                self.offer(request, offered, response)
            }
            Asked::Stored { upload, is_ok } => self.stored(upload, is_ok, response),
            Asked::Other => Ok(()),
            Asked::Cancel => {
                let wanted = matches!(self.outcome, None | Some(Outcome::Cancelled));
                ensure!(
                    (*response == Response::Accepted) == wanted,
                    "a cancel got {response:?}"
                );
                Ok(())
            }
        }
    }

    pub(super) fn task(&mut self, worker: WorkerId, busy: &[Task], response: &Response) -> Check {
        let is_free = |task: &Task| !busy.iter().any(|other| other.is_same_work(task));
        self.idle.remove(&worker);
        match response {
            Response::Task(task) => {
                ensure!(is_free(task), "a task that the worker has: {task:?}");
                ensure!(
                    self.holder(task.client) == Some(worker),
                    "a task for a stranger's client"
                );
                match task.kind {
                    TaskKind::Train {
                        deadline, basis, ..
                    } => {
                        let known = self.basis.get(&task.client).copied();
                        ensure!(basis == known, "a task with basis {basis:?}, not {known:?}");
                        self.seen.on_a_basis |= basis.is_some();
                        let round = self.rounds.get(&task.round);
                        let is_right = round.is_some_and(|round| {
                            round.is_pending(task.client)
                                && round.deadline == deadline
                                && round.version == task.version
                        });
                        ensure!(
                            is_right && self.now < deadline,
                            "a task for nothing: {task:?}"
                        );
                    }
                    TaskKind::Evaluate {
                        share,
                        shares,
                        split,
                    } => {
                        ensure!(share < shares, "share {share} of {shares}");
                        ensure!(
                            self.evaluating.is_next(task.version, split),
                            "version {} is not the next to evaluate",
                            task.version
                        );
                    }
                }
            }
            Response::Idle => {
                let forgotten = self.forgotten(worker, busy);
                ensure!(
                    forgotten.is_none(),
                    "idle, and {forgotten:?} waits for {worker}"
                );
                self.idle.insert(worker, busy.to_vec());
            }
            _ => return Err(format!("a poll got {response:?}")),
        }
        Ok(())
    }

    /// A client whose training task this worker could have, and does not.
    pub(super) fn forgotten(&self, worker: WorkerId, busy: &[Task]) -> Option<ClientId> {
        let (id, round) = self.rounds.last_key_value()?;
        let is_busy = |client: ClientId| {
            busy.iter().any(|task| {
                let is_training = matches!(task.kind, TaskKind::Train { .. });
                is_training && (task.client, task.round) == (client, *id)
            })
        };
        round.plan.clients().find(|client| {
            let is_its_own = self.holder(*client) == Some(worker);
            is_its_own && round.is_pending(*client) && !is_busy(*client)
        })
    }

    /// Every report gets one verdict, and its duplicate the same.
    pub(super) fn verdict(&mut self, offered: &Offered, response: &Response) -> Check {
        let is_final = match response {
            Response::Accepted => true,
            Response::Refused(Refusal { kind, .. }) => {
                let of_the_moment =
                    matches!(kind, RefusalKind::NotLeased | RefusalKind::WrongRound);
                !of_the_moment && !kind.is_transient()
            }
            _ => false,
        };
        let position = self
            .discarded
            .iter()
            .rev()
            .position(|round| *round == offered.round);
        let is_remembered = position.is_none_or(|position| position < REMEMBERED_ROUNDS);
        match self.verdicts.get(&offered.key()) {
            Some(before) if is_remembered => {
                self.seen.duplicates += 1;
                ensure!(
                    before == response,
                    "{offered:?} got {before:?}, and sent again {response:?}"
                );
            }
            _ if is_final => {
                self.verdicts.insert(offered.key(), response.clone());
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn offer(
        &mut self,
        request: RequestId,
        offered: Offered,
        response: &Response,
    ) -> Check {
        let Offered {
            worker,
            client,
            round,
            ref metadata,
        } = offered;
        let holds_lease = self.holder(client) == Some(worker);
        let sizes = self.rounds.get(&round).map(|round| &round.sizes);
        let partition = sizes
            .and_then(|sizes| sizes.get(client.0 as usize).copied())
            .unwrap_or(0);
        let is_proper = (1..=partition).contains(&metadata.examples) && offered.has_numbers();
        let now = self.now;
        let record = self.rounds.get_mut(&round);
        let is_valid = holds_lease
            && is_proper
            && record.as_ref().is_some_and(|round| {
                round.is_pending(client)
                    && now < round.deadline
                    && metadata.base_version == round.version
            });
        match response {
            Response::Admitted => {
                let Some(record) = record.filter(|round| round.open) else {
                    return Err(format!(
                        "a report is admitted after the close of round {round}"
                    ));
                };
                ensure!(
                    metadata.base_version == record.version,
                    "a report that starts from another version is admitted"
                );
                ensure!(is_valid, "admits {offered:?}");
                record.uploading.insert(client, request);
                self.uploads.insert(
                    request,
                    Upload {
                        offered,
                        overtaken: false,
                        unneeded: false,
                    },
                );
            }
            Response::Accepted => {
                let sender = record.and_then(|round| round.told.get(&client));
                ensure!(
                    sender.is_some_and(|(_, sender)| *sender == worker),
                    "accepts what it does not have"
                );
            }
            Response::Refused(_) => ensure!(!is_valid, "refuses {offered:?} with {response:?}"),
            _ => return Err(format!("an offer got {response:?}")),
        }
        Ok(())
    }

    pub(super) fn stored(&mut self, upload: RequestId, is_ok: bool, response: &Response) -> Check {
        let Some(Upload {
            offered, overtaken, ..
        }) = self.uploads.remove(&upload)
        else {
            ensure!(
                matches!(response, Response::Refused(_)),
                "accepts an upload that is none"
            );
            return Ok(());
        };
        self.verdict(&offered, response)?;
        let now = self.now;
        let Some(round) = self.rounds.get_mut(&offered.round) else {
            return Err("an upload for no round".to_string());
        };
        self.seen.late_upload |= !round.open;
        let client = offered.client;
        let is_current = !overtaken && round.uploading.get(&client) == Some(&upload);
        let is_valid = is_ok && is_current && round.open && now < round.deadline;
        if is_current {
            round.uploading.remove(&client);
        }
        let is_accepted = *response == Response::Accepted;
        match round.told.get(&client) {
            Some((_, sender)) => {
                ensure!(
                    is_accepted == (*sender == offered.worker),
                    "two reports of {client}"
                );
            }
            None => {
                ensure!(
                    round.open || !is_accepted,
                    "a report is accepted after the close of its round"
                );
                ensure!(
                    is_accepted == is_valid,
                    "an upload got {response:?}: {offered:?}"
                );
                if is_accepted {
                    round.told.insert(client, (upload, offered.worker));
                }
            }
        }
        Ok(())
    }
}
