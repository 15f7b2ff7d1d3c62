//! What a run is: the jobs, and who trains them.

use super::draw::Draw;

/// The rounds of each job that is drawn.
pub const ROUNDS: u64 = 30;

/// A job. Each round waits for its whole cohort, and no deadline is near: so the model depends on nothing but the flags.
#[derive(Debug, Clone)]
pub struct JobPlan {
    /// As `simulate` takes them, too.
    pub flags: String,
    pub goal: usize,
    rounds: u64,
}

impl JobPlan {
    pub fn new(
        encoding: &str,
        clients: u64,
        goal: u64,
        rounds: u64,
        epochs: u64,
        seed: u64,
    ) -> Self {
        let flags = format!(
            "--model mlp --dataset digits --encoding {encoding} --clients {clients} --goal {goal} --min-updates {goal} \
             --rounds {rounds} --local-epochs {epochs} --lr 0.1 --seed {seed}"
        );
        let goal = goal as usize;
        Self {
            flags,
            goal,
            rounds,
        }
    }

    /// The name of the last version of its model.
    pub fn last_version(&self) -> String {
        format!("v{}", self.rounds)
    }

    /// Whether the workers keep a state of each client.
    pub fn has_states(&self) -> bool {
        let kept_for = ["top_k", "scaffold", "feddyn"];
        kept_for.iter().any(|name| self.flags.contains(name))
    }
}

/// A run.
#[derive(Debug)]
pub struct Plan {
    pub jobs: Vec<JobPlan>,
    pub workers: u64,
    pub slots: u64,
    /// Seconds. Where a lost worker would take the state of a client with it, none is lost.
    pub expiry: u64,
    /// Whether uploads that break off go on, however small they are.
    pub resumes_all: bool,
}

impl Plan {
    pub fn draw(draw: &mut Draw) -> Self {
        let mut jobs = Vec::new();
        for _ in 0..draw.between(1, 2) {
            let encoding = draw.one_of(&["f32", "top_k:0.05", "int8"]);
            // One without a state, two with a state on the coordinator (an optimizer's, a reducer's), and one each with a state on
            // the workers, and on both.
            let strategy = draw.one_of(&[
                "fedavg",
                "fedadam",
                "centered_clipping",
                "feddyn",
                "scaffold",
            ]);
            let clients = draw.between(2, 6);
            let goal = draw.between(2, clients);
            // Rounds of about 50 to 500 ms.
            let epochs = draw.between(8, 48);
            let seed = draw.below(1000);
            let mut job = JobPlan::new(encoding, clients, goal, ROUNDS, epochs, seed);
            job.flags = format!("{} --strategy {strategy}", job.flags);
            jobs.push(job);
        }
        let has_states = jobs.iter().any(JobPlan::has_states);
        Self {
            jobs,
            workers: draw.between(2, 3),
            slots: draw.between(1, 2),
            expiry: if has_states { 600 } else { 2 },
            resumes_all: draw.below(2) == 0,
        }
    }

    /// Whether the workers keep states of clients.
    pub fn has_states(&self) -> bool {
        self.jobs.iter().any(JobPlan::has_states)
    }
}
