//! A coordinator whose machine loses its power at any step: the next one goes on with all that was acknowledged.

use std::{collections::BTreeSet, path::Path};

use super::{
    places::{Places, on_a_runtime},
    recovery::{finish, kill},
    *,
};
use crate::{
    disk::{
        Site,
        testing::{Power, sync_sites},
    },
    panics,
    round::JobEvent,
};

const ROUNDS: u32 = 2;

/// What the coordinator has said.
#[derive(Clone, Default)]
struct Said {
    workers: Vec<Credentials>,
    jobs: Vec<JobId>,
    /// Accepted reports.
    accepted: Vec<(JobId, RoundId, ClientId)>,
    /// What each job's model is at its end.
    model: Vec<f32>,
}

impl Said {
    /// From now on, a coordinator on what a power failure leaves goes on with all of it.
    fn promised(&self, power: &Power) {
        power.withdraw("all that was said");
        let said = self.clone();
        power.promise("all that was said", move |root| {
            let held = panics::caught(|| on_a_runtime(said.holds(root)));
            held.unwrap_or_else(Err)
        });
    }

    async fn holds(&self, root: &Path) -> Result<(), String> {
        let lab = Places::open(root).unwrap().start().await;
        for job in &self.jobs {
            let log = lab.coordinator.log(*job).await.unwrap();
            for (_, round, client) in self.accepted.iter().filter(|(of, ..)| of == job) {
                let is_there = log.iter().any(|entry| {
                    matches!(&entry.event, JobEvent::ReportAccepted { round: r, client: c, .. } if (r, c) == (round, client))
                });
                if !is_there {
                    return Err(format!(
                        "job {job}: {round}, {client} was accepted: {log:#?}"
                    ));
                }
            }
        }
        let workers: Vec<_> = self.workers.iter().collect();
        for job in &self.jobs {
            let model = finish(&lab, &workers, *job).await;
            let (summary, rounds, _) = lab.finished(*job).await;
            if summary.phase != "completed" || rounds.len() != ROUNDS as usize {
                return Err(format!("{summary:?}, {rounds:#?}"));
            }
            if model != self.model {
                return Err(format!("job {job}: another model"));
            }
        }
        kill(lab).await;
        Ok(())
    }
}

async fn submit(lab: &Lab) -> JobId {
    lab.submit(|spec| spec.rounds = ROUNDS).await
}

/// The model that a job ends with.
async fn undisturbed() -> Vec<f32> {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let workers = (lab.worker("a").await, lab.worker("b").await);
    let job = submit(&lab).await;
    finish(&lab, &[&workers.0, &workers.1], job).await
}

/// Two jobs, one after the other, with a restart in the midst of the first; then the first is deleted.
async fn scenario(root: &Path, power: &Power) {
    let mut said = Said {
        model: undisturbed().await,
        ..Said::default()
    };
    let places = Places::open(root).unwrap();
    let mut lab = places.start().await;
    for name in ["a", "b"] {
        said.workers.push(lab.worker(name).await);
        said.promised(power);
    }
    for _ in 0..2 {
        said.jobs.push(submit(&lab).await);
        said.promised(power);
    }
    let first = said.jobs[0];
    for round in 0..ROUNDS {
        for (index, worker) in said.workers.clone().iter().enumerate() {
            let task = lab.poll(worker, vec![]).await;
            assert_eq!(lab.report(worker, &task).await.0, 204);
            said.accepted.push((task.job, task.round, task.client));
            said.promised(power);
            // A restart in the midst of the first round.
            if (round, index) == (0, 0) {
                kill(lab).await;
                lab = places.start().await;
            }
        }
    }
    lab.finished(first).await;
    said.promised(power);
    let workers: Vec<_> = said.workers.iter().collect();
    finish(&lab, &workers, said.jobs[1]).await;
    power.withdraw("all that was said");
    lab.coordinator.delete(&HERE, first).await.unwrap();
    said.jobs.remove(0);
    said.promised(power);
    kill(lab).await;
    let lab = places.start().await;
    kill(lab).await;
}

#[test]
fn the_power_fails_at_any_step_and_nothing_that_was_said_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let (power, _watch) = Power::watch(root.path(), None);
    on_a_runtime(scenario(root.path(), &power));
    let visited: BTreeSet<_> = power
        .visited()
        .intersection(&sync_sites())
        .copied()
        .collect();
    let expected = [
        Site::FolderAboveSync,
        Site::FolderPartsSync,
        Site::ReportSync,
        Site::ReportRoundSync,
        Site::ReportJobSync,
        Site::ReportsSync,
        Site::ModelSync,
        Site::VersionSync,
        Site::ModelJobSync,
        Site::ModelsSync,
        Site::JournalSync,
    ];
    assert_eq!(visited, BTreeSet::from(expected));
    println!("the power failed at {} moments", power.moments());
    assert_eq!(power.violation(), None);
}
