//! `fedavg simulate --attack`: some clients of the simulation attack.

use std::{fmt, sync::Arc};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Failure, Screen, TrainerArgs, failure::in_full, values::percent};
use crate::{
    attack::{AttackError, AttackSpec, Attackers, Attacks, poisoned, success_rate},
    backend::DeviceSpec,
    ids::{ClientId, RoundId},
    job::{JobDescription, JobSpec},
    parameters::{Parameters, PayloadSpec, Roles},
    report::DELTA,
    strategy::{Catalogue, ClientInfo, FederatedStrategy, RoundContext},
    words::plural,
    worker::TrainerFactory,
};

/// How many attackers are named to people. The summary has all.
const NAMED: usize = 20;

/// Clients that attack.
#[derive(Debug, Clone, Default, Args)]
pub struct AttackArgs {
    /// Let some clients attack: KIND:FRACTION, such as alie:0.2 (a fraction of all clients, drawn by --seed), or
    /// KIND:clients=2,7. "fedavg attacks" lists the kinds. The last lines and summary.json say who attacked, and how often a
    /// backdoor succeeds
    #[arg(long, value_name = "KIND:FRACTION")]
    pub attack: Option<AttackSpec>,
    /// Set a parameter of the attack (epsilon=0.5); "fedavg attacks" lists them. Can be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parameter, requires = "attack")]
    pub attack_set: Vec<(String, f64)>,
}

fn parameter(text: &str) -> Result<(String, f64), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("expected KEY=VALUE, such as epsilon=0.5".to_string());
    };
    let number: f64 = value
        .trim()
        .parse()
        .map_err(|_| format!("{value:?} is not a number"))?;
    Ok((key.trim().to_string(), number))
}

impl AttackArgs {
    /// The attack with all its parameters, if there is one.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for an attack or a parameter that is not known, and for a value that can't be.
    pub fn spec(&self) -> Result<Option<AttackSpec>, Failure> {
        let Some(mut spec) = self.attack.clone() else {
            return Ok(None);
        };
        for (key, value) in &self.attack_set {
            if spec.settings.contains_key(key) {
                return Err(Failure::Usage(format!(
                    "--attack-set {key} is given more than once; give it once"
                )));
            }
            spec = spec.with(key, *value);
        }
        Attacks::default().complete(&mut spec).map_err(unusable)?;
        Ok(Some(spec))
    }
}

/// What the strategy needs of clients that honest ones have and these attackers do not; none if they have all.
fn lacking(job: &JobSpec, honest: &dyn TrainerFactory, attackers: &Attackers) -> Option<String> {
    // A strategy that only an embedder's program knows is judged when the run begins.
    let strategy = Catalogue::default()
        .make(job.strategy.name(), job.strategy.settings())
        .ok()?;
    let mut clients = Vec::new();
    for client in 0..job.clients? {
        clients.push(ClientInfo::new(ClientId(client), 1));
    }
    let delta = PayloadSpec::model(DELTA, Roles::TRAINED);
    let mut round = RoundContext::new(RoundId(1), &clients, &job.training, &delta);
    let numbers = strategy.state().numbers;
    round.numbers = &numbers;
    let plan = strategy.plan(&round).ok()?;
    let mut needed = Vec::from_iter(plan.objective.capability());
    for payload in &plan.expects {
        needed.push(format!("payload:{}", payload.name));
    }
    let (had, left) = (honest.capabilities(), attackers.capabilities());
    needed
        .into_iter()
        .find(|name| had.contains(name) && !left.contains(name))
}

/// An attack that does not go with the job's strategy.
pub(super) fn unfit(attack: &str, strategy: &str, lacks: &str) -> Failure {
    Failure::Usage(format!(
        "--attack {attack} does not go with --strategy {strategy}: the attackers lack {lacks}. Attackers that collude can't act for \
         clients that keep state, nor those that train nothing for clients that report more than a delta: choose another attack, \
         or a strategy with the objective plain or proximal"
    ))
}

fn unusable(error: AttackError) -> Failure {
    Failure::unusable("--attack", &error)
}

/// The attack of a run.
pub(super) struct AttackRun {
    spec: AttackSpec,
    attackers: Arc<Attackers>,
    goal: Option<Arc<dyn TrainerFactory>>,
    job: JobDescription,
    clients: u32,
}

impl AttackRun {
    /// Chooses the attackers, and poisons their data.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if the attack does not fit the job or its data.
    pub fn prepare(
        spec: AttackSpec,
        job: &JobSpec,
        devices: &[DeviceSpec],
        trainers: &TrainerArgs,
        honest: Arc<dyn TrainerFactory>,
    ) -> Result<Self, Failure> {
        let attack = Attacks::default().make(&spec).map_err(unusable)?;
        let mut goal = None;
        let attackers = if attack.needs().poisoned_data {
            let clean = trainers.dataset(&job.dataset)?;
            let data = poisoned(&*attack, &clean, job.seed).map_err(unusable)?;
            let factory = trainers.trainers_of(devices, &job.dataset, data)?;
            if let Some(data) = attack.goal(&clean).map_err(unusable)? {
                goal = Some(trainers.trainers_of(devices, &job.dataset, data)?);
            }
            Attackers::with_poisoned(job, attack, &spec.who, honest.clone(), factory)
        } else {
            Attackers::new(job, attack, &spec.who, honest.clone())
        };
        let attackers = attackers.map_err(unusable)?;
        if let Some(lacks) = lacking(job, &*honest, &attackers) {
            return Err(unfit(&spec.kind, job.strategy.name(), &lacks));
        }
        Ok(Self {
            attackers: Arc::new(attackers),
            spec,
            goal,
            job: job.description(),
            clients: job.clients.unwrap_or_default(),
        })
    }

    /// The attack's name.
    pub fn kind(&self) -> &str {
        &self.spec.kind
    }

    /// What trains in this run.
    pub fn trainers(&self) -> Arc<dyn TrainerFactory> {
        self.attackers.clone()
    }

    /// What to say of it before anything is trained.
    pub fn warning(&self, job: &JobSpec) -> Option<String> {
        let attackers = self.attackers.clients().len();
        let attack = format!("{attackers} of {} attack", plural(self.clients, "client"));
        if self.attackers.are_majority() {
            return Some(format!(
                "{attack}: no reducer tolerates half of the clients or more"
            ));
        }
        let settings = job.strategy.settings();
        let made = Catalogue::default().make(job.strategy.name(), settings);
        let needs = made.ok()?.reducer_needs(&job.limits, job.clients)?;
        let tolerated = needs.faults?;
        if attackers.min(needs.cohort) <= tolerated {
            return None;
        }
        Some(format!(
            "{attack}, and the reducer tolerates {tolerated} in a round of {}: set a larger f if it has one, or choose another \
             reducer",
            plural(needs.cohort, "client")
        ))
    }

    /// The attack, without its success.
    pub fn summary(&self) -> AttackSummary {
        AttackSummary {
            spec: self.spec.clone(),
            attackers: self.attackers.clients().to_vec(),
            success_rate: None,
        }
    }

    /// The attack, with its success on this model if it has a goal.
    pub fn measured(&self, screen: &Screen, model: &Parameters) -> AttackSummary {
        let mut summary = self.summary();
        if let Some(goal) = &self.goal {
            match success_rate(&**goal, &self.job, model) {
                Ok(rate) => summary.success_rate = Some(rate),
                // The run and its results are worth more than this figure.
                Err(error) => screen.note(&format!(
                    "warning: the attack's success can't be measured: {}",
                    in_full(&error)
                )),
            }
        }
        summary
    }
}

/// The attack of a run, in its summary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackSummary {
    /// Its kind, whom it was asked for, and its parameters.
    #[serde(flatten)]
    pub spec: AttackSpec,
    /// The clients that attacked, in rising order.
    pub attackers: Vec<ClientId>,
    /// How well the attackers reached their goal with the final model, from 0 to 1; of a backdoor, the share of the test images of all
    /// other classes that the model takes for the target if they have the trigger. Left out if the attack has no such goal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_rate: Option<f64>,
}

/// A line for people.
impl fmt::Display for AttackSummary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.attackers.len();
        let named = self.attackers.iter().take(NAMED);
        let named: Vec<_> = named.map(ClientId::to_string).collect();
        write!(
            formatter,
            "attack {} by {} ({}",
            self.spec,
            plural(count, "client"),
            named.join(", ")
        )?;
        if count > NAMED {
            write!(formatter, " and {} more", count - NAMED)?;
        }
        formatter.write_str(")")?;
        if let Some(rate) = self.success_rate {
            write!(formatter, ", success rate {}", percent(rate))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::attack::AttackingClients;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        attack: AttackArgs,
    }

    fn spec(arguments: &[&str]) -> Result<Option<AttackSpec>, String> {
        let parsed = Command::try_parse_from([&["test"], arguments].concat());
        let command = parsed.map_err(|error| error.to_string())?;
        command.attack.spec().map_err(|error| error.to_string())
    }

    #[test]
    fn an_attack_has_all_its_parameters_and_flags_win() {
        assert_eq!(spec(&[]), Ok(None));
        let found = spec(&["--attack=free_rider:0.25", "--attack-set=sigma=0.5"]);
        let expected = AttackSpec::new("free_rider", AttackingClients::Fraction(0.25))
            .with("scale", 1.0)
            .with("sigma", 0.5);
        assert_eq!(found, Ok(Some(expected)));
    }

    #[test]
    fn what_can_not_be_is_refused_with_what_can() {
        for (arguments, expected) in [
            (&["--attack=alie"][..], "KIND:FRACTION"),
            (&["--attack=alie:2"], "above 0 and at most 1, not 2"),
            (
                &["--attack=alei:0.2"],
                "no attack \"alei\" is known here (did you mean alie?); known are alie, backdoor",
            ),
            (
                &["--attack=ipm:0.2", "--attack-set=eps=1"],
                "eps is not a parameter of it; it has epsilon",
            ),
            (
                &["--attack=ipm:0.2", "--attack-set=epsilon=-1"],
                "epsilon must be a number of at least 0, not -1",
            ),
            (
                &["--attack=ipm:0.2", "--attack-set=epsilon=NaN"],
                "neither NaN",
            ),
            (
                &["--attack=ipm:0.2", "--attack-set=epsilon=big"],
                "is not a number",
            ),
            (
                &["--attack=label_flip:0.2", "--attack-set=x=1"],
                "it has no parameters",
            ),
            (&["--attack-set=epsilon=1"], "--attack"),
        ] {
            let refused = spec(arguments).unwrap_err();
            assert!(refused.contains(expected), "{arguments:?}: {refused}");
        }
    }

    #[test]
    fn a_summary_is_a_line_for_people_and_whole_in_json() {
        let summary = AttackSummary {
            spec: AttackSpec::new("backdoor", AttackingClients::Fraction(0.5)).with("target", 3.0),
            attackers: (0..25).map(ClientId).collect(),
            success_rate: Some(0.934),
        };
        let line = summary.to_string();
        assert!(
            line.starts_with("attack backdoor target 3 by 25 clients (0, 1, ")
                && line.ends_with(" 19 and 5 more), success rate 93.40 %"),
            "{line}"
        );
        let json = serde_json::to_string(&summary).unwrap();
        assert!(json.starts_with(
            r#"{"kind":"backdoor","fraction":0.5,"settings":{"target":3.0},"attackers":[0,1,"#
        ));
        assert_eq!(
            serde_json::from_str::<AttackSummary>(&json).unwrap(),
            summary
        );
    }
}
