//! A driver that does all that it should, to see that the job comes to its end.

use super::{workers::honest, *};

impl World {
    /// From wherever the run has got to: long work ends well, time passes, and the workers either do what they are
    /// told or never send a request again. The job must come to its end.
    pub(super) fn finish(&mut self) -> Step {
        self.is_fair = true;
        if self.paused == Some(true) {
            self.set_paused(false)?;
        }
        let is_silent = self.chance(30);
        let must_complete = !is_silent && self.is_promising();
        for _ in 0..200 {
            if self.checker.is_over() {
                let outcome = self.machine.outcome();
                let is_good = matches!(outcome, Some(Outcome::Completed | Outcome::Stopped { .. }));
                return if must_complete && !is_good {
                    Err(format!("with honest workers it ends as {outcome:?}"))
                } else {
                    Ok(())
                };
            }
            if !self.advance(is_silent)? {
                let deadline = self.machine.poll_deadline().ok_or("nothing to wait for")?;
                self.tick_at(deadline)?;
            }
            self.offer_again()?;
        }
        Err(format!("no end in sight: {:?}", self.machine.status()))
    }

    /// Whether nothing stands between the job and its completion but time and work. The attempt under way may be lost.
    pub(super) fn is_promising(&self) -> bool {
        let is_waiting = self.machine.status().phase == "waiting";
        let has_workers = !self.checker.live.is_empty() && !is_waiting;
        has_workers
            && !self.habits.local
            && !self.checker.is_over()
            && self.checker.attempts_left() >= 2
    }

    /// Does all there is to do; whether there was anything, or the job is over.
    pub(super) fn advance(&mut self, is_silent: bool) -> Result<bool, String> {
        let mut is_active = false;
        while let Some(flight) = self.flights.pop() {
            is_active = true;
            let event = self.end_of(flight, false);
            self.feed(event)?;
        }
        while let Some((upload, offered)) = self.uploads.pop() {
            is_active = true;
            self.store(upload, &offered, Ok(()))?;
        }
        let live: BTreeSet<_> = self.checker.live.clone();
        for worker in live.into_iter().filter(|_| !is_silent) {
            while let Some(task) = self.ask_for_task(worker, Vec::new())? {
                is_active = true;
                self.do_task(worker, &task)?;
            }
        }
        Ok(is_active || !self.flights.is_empty() || self.checker.is_over())
    }

    pub(super) fn do_task(&mut self, worker: WorkerId, task: &Task) -> Step {
        if let TaskKind::Evaluate { .. } = task.kind {
            return match self.evaluate(worker, task, false)? {
                Response::Accepted => Ok(()),
                other => Err(format!("an honest share got {other:?}")),
            };
        }
        match self.offer(honest(worker, task))? {
            Response::Admitted => {}
            other => return Err(format!("an honest offer got {other:?}")),
        }
        match self.uploads.pop() {
            Some((upload, offered)) => self.store(upload, &offered, Ok(())),
            None => Err("an admitted upload is lost".to_string()),
        }
    }
}
