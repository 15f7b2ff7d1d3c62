//! The jobs that run, and which of them the next task is of.
//!
//! Two rules, in this order. The job whose tasks take the smallest part of the slots, for its priority, comes first: so
//! slots are shared also if one job's tasks take long and another's do not. Of equal ones, the job whose turn it is comes
//! first, by start-time fair queueing (Goyal, Vin and Cheng, *Start-time Fair Queuing*, 1996): so a single slot is shared,
//! too, and a job that had nothing to do for a while does not make up for it at the others' cost.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::ids::JobId;

/// What a task of a job with priority 1 costs.
const COST: u64 = 1 << 20;

/// The jobs that run.
#[derive(Debug, Default)]
pub(super) struct Turns {
    jobs: BTreeMap<JobId, Turn>,
    /// The turn of the last task.
    now: u64,
}

#[derive(Debug)]
struct Turn {
    priority: u32,
    /// Tasks that workers have, as their last requests say.
    under_way: u64,
    /// When its next task is due.
    next: u64,
}

impl Turns {
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    pub fn contains(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// The jobs, in order of their numbers.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> + '_ {
        self.jobs.keys().copied()
    }

    /// A job begins to run.
    pub fn start(&mut self, job: JobId, priority: u32) {
        let turn = Turn {
            priority: priority.max(1),
            under_way: 0,
            next: self.now,
        };
        self.jobs.insert(job, turn);
    }

    /// A job runs no longer; whether it ran.
    pub fn end(&mut self, job: JobId) -> bool {
        self.jobs.remove(&job).is_some()
    }

    /// The jobs in the order in which they are asked for the next task.
    pub fn order(&self) -> Vec<JobId> {
        let mut order: Vec<_> = self.jobs.iter().collect();
        order.sort_by(|(_, left), (_, right)| self.compare(left, right));
        order.into_iter().map(|(job, _)| *job).collect()
    }

    fn compare(&self, left: &Turn, right: &Turn) -> Ordering {
        // under_way / priority of both, without division.
        let of_left = left.under_way * u64::from(right.priority);
        let of_right = right.under_way * u64::from(left.priority);
        let by_slots = of_left.cmp(&of_right);
        by_slots.then(self.due(left).cmp(&self.due(right)))
    }

    /// Not before now: turns that a job let pass are gone.
    fn due(&self, turn: &Turn) -> u64 {
        turn.next.max(self.now)
    }

    /// A task of this job went out.
    pub fn served(&mut self, job: JobId) {
        let Some(turn) = self.jobs.get(&job) else {
            return;
        };
        self.now = self.due(turn);
        let next = self.now + COST / u64::from(turn.priority);
        if let Some(turn) = self.jobs.get_mut(&job) {
            turn.next = next;
        }
    }

    /// A worker has one more task of this job.
    pub fn occupy(&mut self, job: JobId) {
        if let Some(turn) = self.jobs.get_mut(&job) {
            turn.under_way += 1;
        }
    }

    /// A worker has one task less of this job. It may have ended meanwhile.
    pub fn release(&mut self, job: JobId) {
        if let Some(turn) = self.jobs.get_mut(&job) {
            turn.under_way = turn.under_way.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves tasks on a single slot: how many each job got.
    fn serve(turns: &mut Turns, tasks: usize) -> BTreeMap<JobId, usize> {
        let mut served = BTreeMap::new();
        for _ in 0..tasks {
            let job = turns.order()[0];
            turns.served(job);
            *served.entry(job).or_default() += 1;
        }
        served
    }

    #[test]
    fn a_single_slot_is_shared_by_priority() {
        let mut turns = Turns::default();
        turns.start(JobId(1), 1);
        turns.start(JobId(2), 3);
        let served = serve(&mut turns, 400);
        assert_eq!(served, BTreeMap::from([(JobId(1), 100), (JobId(2), 300)]));
    }

    #[test]
    fn a_job_that_comes_late_gets_its_part_and_not_what_it_missed() {
        let mut turns = Turns::default();
        turns.start(JobId(1), 1);
        serve(&mut turns, 1000);
        turns.start(JobId(2), 1);
        let served = serve(&mut turns, 10);
        assert_eq!(served, BTreeMap::from([(JobId(1), 5), (JobId(2), 5)]));
        assert!(turns.end(JobId(2)) && !turns.end(JobId(2)));
        assert_eq!(serve(&mut turns, 3)[&JobId(1)], 3);
    }

    #[test]
    fn slots_are_shared_whatever_the_length_of_the_tasks() {
        let mut turns = Turns::default();
        turns.start(JobId(1), 1);
        turns.start(JobId(2), 3);
        let mut slots: Vec<JobId> = Vec::new();
        for _ in 0..8 {
            let job = turns.order()[0];
            turns.served(job);
            turns.occupy(job);
            slots.push(job);
        }
        let count = |slots: &[JobId], job| slots.iter().filter(|slot| **slot == job).count();
        assert_eq!(count(&slots, JobId(2)), 6);
        // Tasks of job 2 end at once, and those of job 1 do not: the free slot goes to job 2 again.
        for _ in 0..50 {
            turns.release(JobId(2));
            assert_eq!(turns.order()[0], JobId(2));
            turns.served(JobId(2));
            turns.occupy(JobId(2));
        }
        turns.release(JobId(1));
        assert_eq!(turns.order()[0], JobId(1));
    }
}
