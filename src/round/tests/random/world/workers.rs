//! What workers do: come and go, ask, report, honestly or not.

use super::*;

impl World {
    pub(super) fn come_or_go(&mut self) -> Step {
        let live = self.checker.live.len();
        let leaves = if self.habits.restless { 60 } else { 25 };
        if live > 1 && self.chance(leaves) || live > 5 {
            return match self.any_live() {
                Some(worker) => self.lose(worker),
                None => Ok(()),
            };
        }
        match self.rng.random_range(0..4) {
            0 if !self.gone.is_empty() => {
                let index = self.rng.random_range(0..self.gone.len());
                let worker = self.gone.swap_remove(index);
                self.join(worker, None)
            }
            1 => {
                let former = self.gone.choose(&mut self.rng).copied();
                let former = if self.chance(20) {
                    self.any_live()
                } else {
                    former
                };
                self.workers += 1;
                self.join(WorkerId(self.workers), former)
            }
            2 => match self.any_live() {
                Some(worker) => self.join(worker, None),
                None => Ok(()),
            },
            _ => self.join_new(),
        }
    }

    pub(super) fn join_new(&mut self) -> Step {
        self.workers += 1;
        self.join(WorkerId(self.workers), None)
    }

    pub(super) fn join(&mut self, worker: WorkerId, replaces: Option<WorkerId>) -> Step {
        let slots = self.rng.random_range(1..4);
        self.feed(Event::WorkerJoined {
            worker,
            slots,
            replaces,
        })?;
        if replaces.is_none() {
            return Ok(());
        }
        // At least 10, which is what honest reports claim.
        let examples = self.rng.random_range(10..20);
        self.feed(Event::DataResized { worker, examples })
    }

    pub(super) fn lose(&mut self, worker: WorkerId) -> Step {
        self.gone.push(worker);
        if self.chance(50) {
            self.tasks.remove(&worker);
        }
        self.feed(Event::WorkerLost { worker })
    }

    pub(super) fn poll(&mut self) -> Step {
        let worker = if self.chance(95) {
            self.any_live()
        } else {
            Some(WorkerId(self.rng.random_range(0..9)))
        };
        let Some(worker) = worker else {
            return Ok(());
        };
        let busy = match self.chance(85) {
            true => self.tasks.get(&worker).cloned().unwrap_or_default(),
            // The answer to an earlier poll was lost.
            false => Vec::new(),
        };
        self.ask_for_task(worker, busy).map(|_| ())
    }

    pub(super) fn ask_for_task(
        &mut self,
        worker: WorkerId,
        busy: Vec<Task>,
    ) -> Result<Option<Task>, String> {
        let request = self.request(Asked::Task {
            worker,
            busy: busy.clone(),
        });
        let response = self.ask(
            request,
            Event::TaskRequested {
                request,
                worker,
                busy,
            },
        )?;
        let Response::Task(task) = response else {
            return Ok(None);
        };
        if !self.machine.wants(worker, &task) {
            return Err(format!("hands out a task and doesn't want it: {task:?}"));
        }
        let tasks = self.tasks.entry(worker).or_default();
        tasks.retain(|other| !other.is_same_work(&task));
        tasks.push(task.clone());
        Ok(Some(task))
    }

    /// A worker gets on with one of its tasks.
    pub(super) fn work(&mut self) -> Step {
        let workers: Vec<_> = self.tasks.keys().copied().collect();
        let Some(worker) = workers.choose(&mut self.rng).copied() else {
            return Ok(());
        };
        let tasks = self.tasks.entry(worker).or_default();
        if tasks.is_empty() {
            return Ok(());
        }
        let index = self.rng.random_range(0..tasks.len());
        let task = if self.chance(80) {
            self.tasks.entry(worker).or_default().swap_remove(index)
        } else {
            self.tasks[&worker][index].clone()
        };
        let fails = self.faulty() && self.chance(50);
        match task.kind {
            TaskKind::Evaluate { .. } => self.evaluate(worker, &task, fails).map(|_| ()),
            TaskKind::Train { .. } if fails => self.give_up(worker, task.client, task.round),
            TaskKind::Train { .. } => {
                let offered = self.report(worker, &task);
                self.offer(offered).map(|_| ())
            }
        }
    }

    pub(super) fn evaluate(
        &mut self,
        worker: WorkerId,
        task: &Task,
        fails: bool,
    ) -> Result<Response, String> {
        let measured = Evaluation::new(1.0, 10).with_accuracy(0.5);
        let request = self.request(Asked::Other);
        let event = Event::ShareEvaluated {
            request,
            worker,
            client: task.client,
            version: task.version,
            split: task.kind.split().unwrap_or_default(),
            evaluation: if fails {
                Err("out of memory".to_string())
            } else {
                Ok(measured)
            },
        };
        self.ask(request, event)
    }

    pub(super) fn give_up(&mut self, worker: WorkerId, client: ClientId, round: RoundId) -> Step {
        let request = self.request(Asked::Other);
        let reason = "out of memory".to_string();
        self.feed(Event::TaskFailed {
            request,
            worker,
            client,
            round,
            reason,
        })
    }

    /// The report that a worker makes of a task; sometimes it is wrong.
    pub(super) fn report(&mut self, worker: WorkerId, task: &Task) -> Offered {
        let mut offered = honest(worker, task);
        if self.faulty() {
            let metadata = &mut offered.metadata;
            match self.rng.random_range(0..7) {
                0 => metadata.examples = 1000,
                1 => metadata.examples = 0,
                2 => metadata.base_version = metadata.base_version.next(),
                3 => {
                    metadata.base_version = ModelVersion(metadata.base_version.0.saturating_sub(1))
                }
                4 => drop(metadata.metrics.insert("train_loss".to_string(), f64::NAN)),
                5 => offered.round = RoundId(self.rng.random_range(0..offered.round.0 + 2)),
                _ => offered.client = ClientId(self.rng.random_range(0..9)),
            }
        }
        offered
    }

    pub(super) fn offer(&mut self, offered: Offered) -> Result<Response, String> {
        self.offered.push(offered.clone());
        let request = self.request(Asked::Offer(offered.clone()));
        let Offered {
            worker,
            client,
            round,
            metadata,
        } = offered.clone();
        let event = Event::ReportOffered {
            request,
            worker,
            client,
            round,
            metadata,
        };
        let response = self.ask(request, event)?;
        if response == Response::Admitted {
            self.uploads.push((request, offered));
        }
        Ok(response)
    }

    pub(super) fn offer_again(&mut self) -> Step {
        let Some(mut offered) = self.offered.choose(&mut self.rng).cloned() else {
            return Ok(());
        };
        if self.chance(10)
            && let Some(other) = self.any_live()
        {
            offered.worker = other;
        }
        self.offer(offered).map(|_| ())
    }

    pub(super) fn end_upload(&mut self) -> Step {
        if self.uploads.is_empty() {
            return Ok(());
        }
        let index = self.rng.random_range(0..self.uploads.len());
        let (upload, offered) = self.uploads.swap_remove(index);
        let kinds = [
            RefusalKind::Truncated,
            RefusalKind::Truncated,
            RefusalKind::Busy,
            RefusalKind::Malformed,
            RefusalKind::TooLarge,
        ];
        let stored = if self.faulty() {
            Err(Refusal::new(
                *kinds.choose(&mut self.rng).unwrap(),
                "by chance",
            ))
        } else {
            Ok(())
        };
        self.store(upload, &offered, stored)
    }

    pub(super) fn store(
        &mut self,
        upload: RequestId,
        offered: &Offered,
        stored: Result<(), Refusal>,
    ) -> Step {
        let is_ok = stored.is_ok();
        let request = self.request(Asked::Stored { upload, is_ok });
        let (client, round) = (offered.client, offered.round);
        self.feed(Event::ReportStored {
            request,
            upload,
            client,
            round,
            stored,
        })
    }

    /// What no honest worker sends.
    pub(super) fn nonsense(&mut self) -> Step {
        let worker = WorkerId(self.rng.random_range(0..9));
        let client = ClientId(self.rng.random_range(0..10));
        let round = RoundId(self.rng.random_range(0..self.machine.status().round.0 + 3));
        match self.rng.random_range(0..4) {
            0 => self.give_up(worker, client, round),
            1 => {
                let version = ModelVersion(self.rng.random_range(0..5));
                let kind = TaskKind::Evaluate {
                    share: 0,
                    shares: 1,
                    split: EvalSplit::Test,
                };
                let task = Task {
                    client,
                    round,
                    version,
                    kind,
                };
                self.evaluate(worker, &task, false).map(|_| ())
            }
            2 => {
                let upload = RequestId(u64::MAX);
                let offered = Offered {
                    worker,
                    client,
                    round,
                    metadata: metadata(ModelVersion(0)),
                };
                self.store(upload, &offered, Ok(()))
            }
            _ => {
                let version = self.machine.status().version;
                let offered = Offered {
                    worker,
                    client,
                    round,
                    metadata: metadata(version),
                };
                self.offer(offered).map(|_| ())
            }
        }
    }
}

pub(super) fn honest(worker: WorkerId, task: &Task) -> Offered {
    Offered {
        worker,
        client: task.client,
        round: task.round,
        metadata: metadata(task.version),
    }
}

fn metadata(base_version: ModelVersion) -> ReportMetadata {
    ReportMetadata {
        base_version,
        examples: 10,
        steps: 1,
        metrics: BTreeMap::from([("train_loss".to_string(), 0.5)]),
        ..ReportMetadata::default()
    }
}
