//! Jobs that go on from another job: what they take over, and what they can't.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    continuation::Continuation, handle::Coordinator, job::Job, state::State, submission::invalid,
};
use crate::{
    ids::JobId,
    job::{ContinuedVersion, Continues, JobError, JobSpec, RoundLimits, StrategySpec},
    protocol::ContinuedFrom,
    report::{Refusal, RefusalKind},
    store::StoredModel,
};

/// How many of the jobs that have ended keep their clients' states with the workers, so that they can be continued: the latest.
const KEPT_STATES: usize = 8;

/// What a job begins with that goes on from another one.
pub(super) struct Source {
    pub model: Arc<dyn StoredModel>,
    /// Whether the strategy's state is taken over, with the secret seed of its draws.
    pub secret: Option<[u8; 32]>,
    pub continuation: Continuation,
}

impl Coordinator {
    /// What a job takes over from the one that it goes on from, if it does. The job gets numbers of rounds after the last one of
    /// that job, and its number of clients if it says none.
    pub(super) fn source_of(&self, spec: &mut JobSpec) -> Result<Option<Source>, Refusal> {
        let Some(continues) = spec.continues else {
            return Ok(None);
        };
        let state = self.state();
        let other = state.job(continues.job)?;
        if other.ended.is_none() {
            let detail = format!(
                "job {} has not ended: a job goes on from one that has",
                other.id
            );
            return Err(Refusal::new(RefusalKind::Conflict, detail));
        }
        match continues.version {
            ContinuedVersion::Final => {
                // With all defaults, as the strategy of a job that was accepted. A mistake in it is told when it is made, below.
                let mut strategy = spec.strategy.clone();
                let _ = strategy.complete(&self.0.catalogue);
                final_source(other, spec, &strategy)
            }
            ContinuedVersion::Best => best_source(other, continues),
        }
        .map(Some)
    }
}

/// The final version, with all that belongs to it.
fn final_source(
    other: &Job,
    spec: &mut JobSpec,
    strategy: &StrategySpec,
) -> Result<Source, Refusal> {
    let (version, model) = other.model(None)?;
    let mut notes = Vec::new();
    let keeps_state = *strategy == other.spec.strategy;
    if !keeps_state {
        notes.push(format!(
            "the strategy is not that of job {}: what it keeps between rounds begins again",
            other.id
        ));
    }
    // The workers may be other ones now, and without a number there would be a client for each.
    if spec.clients.is_none() && other.spec.clients.is_none() && !spec.partition.is_local() {
        spec.clients = u32::try_from(other.population().len())
            .ok()
            .filter(|clients| *clients > 0);
    }
    let keeps_clients = match unlike(spec, other) {
        None => true,
        Some(field) => {
            notes.push(format!(
                "{field} is not that of job {}: what clients keep between rounds begins again",
                other.id
            ));
            false
        }
    };
    if !spec.schedule.is_constant() {
        notes.push("the schedule of the learning rate begins again".to_string());
    }
    if strategy.to_string().contains("round_robin") {
        notes.push("the sampler's turn begins again".to_string());
    }
    if spec.training != other.spec.training {
        notes.push(format!("clients train otherwise than in job {}", other.id));
    }
    if spec.encoding != other.spec.encoding {
        notes.push(format!(
            "reports and models are encoded otherwise than in job {}",
            other.id
        ));
    }
    let of_rounds = |limits: &RoundLimits| (limits.goal, limits.min_updates);
    if of_rounds(&spec.limits) != of_rounds(&other.spec.limits) {
        notes.push(format!(
            "the goal or the quorum is not that of job {}",
            other.id
        ));
    }
    let machine = other.machine.as_ref();
    let last_round = machine
        .map(|machine| machine.status().round)
        .unwrap_or_default();
    spec.first_round = u32::try_from(last_round.0 + 1).map_err(|_| {
        invalid(&JobError::new(
            "continues",
            "has no numbers left for rounds",
        ))
    })?;
    let mut basis = BTreeMap::new();
    if keeps_clients {
        for client in other.population() {
            if let Some(round) = client.basis {
                basis.insert(client.id, round);
            }
        }
    }
    Ok(Source {
        model,
        secret: keeps_state.then_some(other.seeds.secret),
        continuation: Continuation {
            from: ContinuedFrom {
                job: other.id,
                version,
                is_exact: notes.is_empty(),
                notes,
            },
            states_of: keeps_clients.then(|| other.states_of()),
            basis,
        },
    })
}

/// The best version alone: what belongs to the rounds after it can't be taken back.
fn best_source(other: &Job, continues: Continues) -> Result<Source, Refusal> {
    let machine = other.machine.as_ref();
    let Some(best) = machine.and_then(|machine| machine.best()) else {
        let problem = format!(
            "job {} has no best version: nothing was measured",
            continues.job
        );
        return Err(invalid(&JobError::new("continues", problem)));
    };
    let (version, model) = other.model(Some(best.measured.version))?;
    let notes = vec![
        "from the best version: what the strategy and clients keep between rounds begins again"
            .to_string(),
    ];
    Ok(Source {
        model,
        secret: None,
        continuation: Continuation {
            from: ContinuedFrom {
                job: other.id,
                version,
                is_exact: false,
                notes,
            },
            states_of: None,
            basis: BTreeMap::new(),
        },
    })
}

/// The first setting in which the clients of a job are not those of another one.
fn unlike(spec: &JobSpec, other: &Job) -> Option<&'static str> {
    let had = u32::try_from(other.population().len()).ok();
    let other = &other.spec;
    let same_clients = spec.clients == other.clients || (spec.clients == had && had > Some(0));
    [
        ("model", spec.model == other.model),
        ("dataset", spec.dataset == other.dataset),
        ("clients", same_clients),
        ("partition", spec.partition == other.partition),
        ("seed", spec.seed == other.seed),
        ("validation", spec.validation == other.validation),
        ("personal", spec.personal == other.personal),
        ("frozen", spec.frozen == other.frozen),
        ("settings", spec.settings == other.settings),
    ]
    .into_iter()
    .find_map(|(field, is_same)| (!is_same).then_some(field))
}

impl State {
    /// The jobs whose clients' states workers are to keep, beside those of the running jobs' own.
    pub fn kept_states(&self) -> Vec<JobId> {
        let mut kept = Vec::new();
        for running in self.turns.jobs() {
            if let Some(job) = self.jobs.get(&running) {
                kept.push(job.states_of());
            }
        }
        let ended = self.jobs.values().rev().filter(|job| job.ended.is_some());
        for job in ended.take(KEPT_STATES) {
            kept.push(job.states_of());
        }
        // A job that waits in the queue needs them, too.
        for queued in &self.queue {
            if let Some(job) = self.jobs.get(queued) {
                kept.push(job.states_of());
            }
        }
        kept.sort_unstable();
        kept.dedup();
        kept
    }
}
