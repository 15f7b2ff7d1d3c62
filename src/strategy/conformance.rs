//! The properties that every strategy must have, with a function for each: for tests of your own strategies and parts.
//!
//! ```
//! use std::sync::Arc;
//! use fedavg::strategy::{Composition, conformance, server_optimizer::Momentum};
//!
//! let strategy = Arc::new(Composition::default().optimizer(Momentum::new(0.5, 0.9)));
//! conformance::holds(strategy, &Default::default());
//! ```

use std::sync::Arc;

use rand::RngExt;

use super::{ClientInfo, FederatedStrategy, RoundPlan, StrategyError, testing::MemoryRounds};
use crate::{
    ids::{ClientId, RoundId},
    parameters::{
        BlockError, BlockReader, FOLD_BLOCK, Layout, Parameters, PayloadSpec, Role, Shape,
    },
    report::{DELTA, Executor, Report, ReportMetadata, Serial},
    rng::{ChaCha8Rng, Purpose, streamed},
    settings::TrainingSettings,
};

/// How many clients there are.
const CLIENTS: u32 = 5;

/// How many rounds a test runs.
const ROUNDS: u64 = 4;

/// Checks all properties that every strategy must have.
///
/// # Panics
///
/// If one of them is missing.
pub fn holds(strategy: Arc<dyn FederatedStrategy>, training: &TrainingSettings) {
    zero_deltas_leave_the_model(strategy.clone(), training);
    who_sends_what_does_not_matter(strategy.clone(), training);
    threads_change_no_bit(strategy.clone(), training);
    a_failed_round_leaves_no_trace(strategy, training);
}

/// If all deltas are zero, the first round does not change the model.
///
/// # Panics
///
/// If the model changes.
pub fn zero_deltas_leave_the_model(
    strategy: Arc<dyn FederatedStrategy>,
    training: &TrainingSettings,
) {
    let mut subject = Subject::new(strategy, training);
    let before = subject.rounds.model().clone();
    let script = Script {
        scale: 0.0,
        ..Script::default()
    };
    subject.round(1, &script, &Serial).expect("an aggregation");
    assert_eq!(subject.rounds.model().values(), before.values());
}

/// With one client and a server learning rate of 1, the next model is the client's model. This is so for strategies that average,
/// and not for adaptive optimizers.
///
/// # Panics
///
/// If the next model is not the client's.
pub fn one_client_gives_its_model(
    strategy: Arc<dyn FederatedStrategy>,
    training: &TrainingSettings,
) {
    let mut subject = Subject::with_clients(strategy, training, 1);
    let before = subject.rounds.model().clone();
    let reports = subject
        .round(1, &Script::default(), &Serial)
        .expect("an aggregation");
    let delta = values_of(&reports[0], DELTA);
    for ((next, before), delta) in subject
        .rounds
        .model()
        .values()
        .iter()
        .zip(before.values())
        .zip(delta)
    {
        assert_close(*next, before + delta);
    }
}

/// If clients exchange their reports, the model is the same, up to the rounding of sums in another order.
///
/// # Panics
///
/// If the model depends on who sends what.
pub fn who_sends_what_does_not_matter(
    strategy: Arc<dyn FederatedStrategy>,
    training: &TrainingSettings,
) {
    let turned = Script {
        turn: 2,
        ..Script::default()
    };
    let once = run(&strategy, training, &Script::default(), &Serial);
    let again = run(&strategy, training, &turned, &Serial);
    assert_alike(&once, &again);
}

/// If all weights are multiplied by the same number, the model is the same. This is so for strategies that normalize weights.
///
/// # Panics
///
/// If the scale of weights matters.
pub fn the_scale_of_weights_does_not_matter(
    strategy: Arc<dyn FederatedStrategy>,
    training: &TrainingSettings,
) {
    let scaled = Script {
        weights: 8,
        ..Script::default()
    };
    let once = run(&strategy, training, &Script::default(), &Serial);
    let again = run(&strategy, training, &scaled, &Serial);
    assert_alike(&once, &again);
}

/// Any order of blocks, which depends on the threads, gives the same bits in the model and in the state.
///
/// # Panics
///
/// If a bit differs.
pub fn threads_change_no_bit(strategy: Arc<dyn FederatedStrategy>, training: &TrainingSettings) {
    let once = run(&strategy, training, &Script::default(), &Serial);
    for threads in [2, 3] {
        let again = run(&strategy, training, &Script::default(), &Threads(threads));
        assert_eq!(once, again, "with {threads} threads");
    }
}

/// A round that fails after some blocks does not change the model or the state: later rounds give the same as without it.
///
/// # Panics
///
/// If something has changed.
pub fn a_failed_round_leaves_no_trace(
    strategy: Arc<dyn FederatedStrategy>,
    training: &TrainingSettings,
) {
    let once = run(&strategy, training, &Script::default(), &Serial);
    let mut subject = Subject::new(strategy, training);
    for round in 1..=ROUNDS {
        let broken = Script {
            fails: true,
            ..Script::default()
        };
        let failed = subject.round(round, &broken, &Serial);
        assert!(
            failed.is_err(),
            "a report that can't be read ends the round"
        );
        let gone = subject.round(round, &Script::default(), &Serial);
        gone.expect("an aggregation");
    }
    assert_eq!(once, subject.values());
}

/// The model's values, and those of each state tensor.
type Everything = Vec<Vec<f32>>;

fn run(
    strategy: &Arc<dyn FederatedStrategy>,
    training: &TrainingSettings,
    script: &Script,
    executor: &dyn Executor,
) -> Everything {
    let mut subject = Subject::new(strategy.clone(), training);
    for round in 1..=ROUNDS {
        let done = subject.round(round, script, executor);
        done.expect("an aggregation");
    }
    subject.values()
}

/// What clients report in a round.
struct Script {
    /// What deltas are multiplied by.
    scale: f32,
    /// Client `i` sends the report of client `i + turn`.
    turn: u32,
    /// What numbers of examples are multiplied by.
    weights: u64,
    /// Whether the last report breaks off.
    fails: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            scale: 1.0,
            turn: 0,
            weights: 1,
            fails: false,
        }
    }
}

/// A strategy with its model.
struct Subject {
    rounds: MemoryRounds,
    layout: Arc<Layout>,
}

impl Subject {
    fn new(strategy: Arc<dyn FederatedStrategy>, training: &TrainingSettings) -> Self {
        Self::with_clients(strategy, training, CLIENTS)
    }

    fn with_clients(
        strategy: Arc<dyn FederatedStrategy>,
        training: &TrainingSettings,
        clients: u32,
    ) -> Self {
        // Several blocks, and one that begins inside of a tensor; each role.
        let layout = Layout::new([
            ("a".to_string(), vec![FOLD_BLOCK + 17], Role::Trainable),
            ("b".to_string(), vec![3], Role::Frozen),
            ("c".to_string(), vec![9], Role::Buffer),
            ("d".to_string(), vec![50], Role::Trainable),
        ]);
        let layout = layout.expect("a layout");
        let mut generator = streamed(1, Purpose::Initialize, RoundId(0), 0);
        let model = drawn(&layout, &mut generator, |_| 1.0);
        // All alike, so that a sampler that goes by size draws the same cohort under any weights.
        let clients = (0..clients).map(|id| ClientInfo::new(ClientId(id), 10));
        let rounds = MemoryRounds::new(strategy, model, clients.collect(), training.clone());
        Self {
            rounds: rounds.expect("a state that fits"),
            layout,
        }
    }

    fn values(&self) -> Everything {
        let mut values = vec![self.rounds.model().values().to_vec()];
        for state in self.rounds.states() {
            values.push(state.values().to_vec());
        }
        values
    }

    /// Plans and aggregates a round: its reports.
    fn round(
        &mut self,
        round: u64,
        script: &Script,
        executor: &dyn Executor,
    ) -> Result<Vec<Report>, StrategyError> {
        let round = RoundId(round);
        let plan = self.rounds.plan(round)?;
        let mut reports = Vec::new();
        let clients: Vec<_> = plan.clients().collect();
        for (place, client) in clients.iter().enumerate() {
            let author = (place + script.turn as usize) % clients.len();
            let is_broken = script.fails && place + 1 == clients.len();
            reports.push(self.report(round, *client, author as u64, &plan, script, is_broken));
        }
        self.rounds.aggregate(round, &plan, &reports, executor)?;
        Ok(reports)
    }

    /// The report that `author` makes, sent by `client`.
    fn report(
        &self,
        round: RoundId,
        client: ClientId,
        author: u64,
        plan: &RoundPlan,
        script: &Script,
        is_broken: bool,
    ) -> Report {
        let mut generator = streamed(2, Purpose::Strategy, round, author);
        let mut metadata = ReportMetadata::new(Default::default(), (author + 1) * script.weights);
        metadata.steps = 3 + author;
        let mut payloads = Vec::new();
        for spec in &plan.expects {
            let values = self.payload(spec, &mut generator, script);
            let reader: Arc<dyn BlockReader + Send + Sync> = if is_broken {
                Arc::new(Broken(values))
            } else {
                Arc::new(values)
            };
            payloads.push((spec.name.clone(), reader));
        }
        Report::new(client, round, metadata, payloads)
    }

    fn payload(
        &self,
        spec: &PayloadSpec,
        generator: &mut ChaCha8Rng,
        script: &Script,
    ) -> Parameters {
        match &spec.shape {
            Shape::Model(roles) => drawn(&self.layout, generator, |role| {
                if roles.contains(role) {
                    0.1 * script.scale
                } else {
                    0.0
                }
            }),
            // A vector is of measurements: positive.
            Shape::Vector(len) => {
                let shape = vec![*len];
                let layout = Layout::new([(spec.name.clone(), shape, Role::Trainable)]);
                let values = (0..*len).map(|_| 0.5 + generator.random::<f32>());
                Parameters::new(layout.expect("a layout"), values.collect()).expect("a value each")
            }
        }
    }
}

/// Values in (-1, 1) times what their role has; those of buffers are not negative, since variances are not.
fn drawn(
    layout: &Arc<Layout>,
    generator: &mut ChaCha8Rng,
    scale: impl Fn(Role) -> f32,
) -> Parameters {
    let mut parameters = Parameters::zeros(layout.clone());
    for tensor in layout.tensors() {
        for value in &mut parameters.values_mut()[tensor.range()] {
            let drawn = generator.random::<f32>() * 2.0 - 1.0;
            let signed = if tensor.role == Role::Buffer {
                drawn.abs()
            } else {
                drawn
            };
            *value = signed * scale(tensor.role);
        }
    }
    parameters
}

fn values_of(report: &Report, payload: &str) -> Vec<f32> {
    let reader = report.payload(payload).expect("the payload");
    let mut values = vec![0.0; reader.layout().len()];
    reader.read(0, &mut values).expect("values");
    values
}

fn assert_alike(once: &Everything, again: &Everything) {
    for (once, again) in once.iter().zip(again) {
        for (once, again) in once.iter().zip(again) {
            assert_close(*once, *again);
        }
    }
}

fn assert_close(found: f32, expected: f32) {
    let distance = (found - expected).abs();
    assert!(
        distance <= 1e-5 * expected.abs().max(1.0),
        "{found} and not {expected}"
    );
}

/// Values of which only the first block can be read.
struct Broken(Parameters);

impl BlockReader for Broken {
    fn layout(&self) -> &Arc<Layout> {
        self.0.layout()
    }

    fn read(&self, offset: usize, out: &mut [f32]) -> Result<(), BlockError> {
        let end = offset + out.len();
        if end > FOLD_BLOCK || self.0.layout().len() < FOLD_BLOCK {
            return Err(BlockError::Unreadable("it breaks off".into()));
        }
        self.0.read(offset, out)
    }
}

/// Runs the blocks in an order that several threads could have: the last one first, in steps of the number of threads.
struct Threads(usize);

impl Executor for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        for first in (0..self.0).rev() {
            for index in (first..count).step_by(self.0).rev() {
                work(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::strategy::{Catalogue, PartKind};

    /// Each preset, and the plain one with each part.
    fn subjects() -> Vec<(String, Arc<dyn FederatedStrategy>)> {
        let catalogue = Catalogue::default();
        let mut found: Vec<(String, Arc<dyn FederatedStrategy>)> = Vec::new();
        for preset in catalogue.presets() {
            let made = catalogue.make(preset.name, &Map::new()).unwrap();
            found.push((preset.name.to_string(), Arc::new(made)));
        }
        for kind in PartKind::ALL {
            for part in catalogue.parts(kind) {
                let asked = json!({ kind.key(): part.name });
                let made = catalogue.make("fedavg", asked.as_object().unwrap());
                found.push((part.name.clone(), Arc::new(made.unwrap())));
            }
        }
        found
    }

    #[test]
    fn every_preset_and_every_part_holds() {
        let training = TrainingSettings::default();
        for (name, strategy) in subjects() {
            println!("{name}");
            // A round of Poisson sampling may have nobody, and then there is no report that breaks off.
            if name == "poisson" {
                threads_change_no_bit(strategy, &training);
            } else {
                holds(strategy, &training);
            }
        }
    }

    #[test]
    fn averaging_strategies_give_one_clients_model_and_normalize_weights() {
        let training = TrainingSettings::default();
        for (name, strategy) in subjects() {
            println!("{name}");
            let is_average = ["fedavg", "fedavgm", "fedprox", "scaffold", "fednova"];
            if is_average.contains(&&*name) {
                one_client_gives_its_model(strategy.clone(), &training);
            }
            if name != "poisson" && name != "capped" {
                the_scale_of_weights_does_not_matter(strategy, &training);
            }
        }
    }
}
