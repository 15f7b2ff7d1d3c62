//! Every attack against `scripts/attack_reference.py`, which computes what is sent from the papers' formulas.

use std::{collections::BTreeMap, sync::Arc};

use rand::SeedableRng;
use serde::Deserialize;

use super::*;
use crate::{
    data::{Augmentation, Dataset, ImageSet, ImageShape, Normalization},
    ids::{ClientId, RoundId},
    job::TrainingSettings,
    parameters::{Layout, Parameters, Role},
    rng::ChaCha8Rng,
    worker::{LocalUpdate, Partition, TrainTask},
};

const FIXTURE: &str = include_str!("../../../tests/fixtures/attacks.json");

#[derive(Deserialize)]
struct Fixture {
    updates: Vec<Case>,
    data: Images,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    settings: BTreeMap<String, f64>,
    clients: u32,
    attackers: u32,
    trainable: usize,
    training: TrainingSettings,
    partition: u64,
    global: Vec<f32>,
    previous: Option<Vec<f32>>,
    honest: Vec<Vec<f32>>,
    delta: Vec<f64>,
    examples: u64,
    steps: u64,
}

#[derive(Deserialize)]
struct Images {
    shape: (usize, usize, usize),
    classes: usize,
    max: f32,
    train: Vec<u8>,
    labels: Vec<u16>,
    test: Vec<u8>,
    test_labels: Vec<u16>,
    flipped: Vec<u16>,
    target: u16,
    size: usize,
    triggered: Vec<u8>,
    goal: Vec<u8>,
    goal_labels: Vec<u16>,
}

impl Case {
    fn parameters(&self, values: &[f32]) -> Parameters {
        let buffers = values.len() - self.trainable;
        let layout = Layout::new([
            (
                "a.weight".to_string(),
                vec![self.trainable],
                Role::Trainable,
            ),
            ("b.running_mean".to_string(), vec![buffers], Role::Buffer),
        ]);
        Parameters::new(layout.unwrap(), values.to_vec()).unwrap()
    }

    /// What the first attacker sends.
    fn sent(&self) -> LocalUpdate {
        let spec = AttackSpec {
            kind: self.kind.clone(),
            who: AttackingClients::Fraction(0.5),
            settings: self.settings.clone(),
        };
        let attack = Attacks::default().make(&spec).unwrap();
        let global = self.parameters(&self.global);
        let partition = Partition::Indices((0..self.partition as u32).collect());
        let mut task = TrainTask::new(RoundId(1), ClientId(0), partition);
        task.training = self.training.clone();
        let mut local = global.clone();
        if attack.needs().effort != Effort::Nothing {
            for (value, change) in local.values_mut().iter_mut().zip(&self.honest[0]) {
                *value += change;
            }
        }
        let mut update = LocalUpdate::new(local, self.partition);
        // Two passes over 90 examples in batches of 16; a lazy client takes as many as it is set to.
        update.steps = match attack.needs().effort {
            Effort::Steps(steps) => u64::from(steps),
            _ => 12,
        };
        let mut colluders = Vec::new();
        for honest in &self.honest {
            colluders.push(Arc::new(self.parameters(honest)));
        }
        let previous = self.previous.as_ref().map(|values| self.parameters(values));
        let mut round = AttackRound::new(&task, &global);
        round.previous = previous.as_ref();
        round.colluders = &colluders;
        (round.clients, round.attackers) = (self.clients, self.attackers);
        attack.update(&mut update, &round).unwrap();
        update
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(FIXTURE).unwrap()
}

#[test]
fn every_attacker_sends_what_its_paper_says() {
    let cases = fixture().updates;
    for case in &cases {
        let name = format!("{} {:?}", case.kind, case.settings);
        let sent = case.sent();
        let values = sent.parameters.values().iter().zip(&case.global);
        for ((local, global), expected) in values.zip(&case.delta) {
            let found = f64::from(*local) - f64::from(*global);
            // The model is kept in f32, whose rounding is 6e-8 of a value.
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                "{name}: {found} and not {expected}"
            );
        }
        assert_eq!(
            (sent.examples, sent.steps),
            (case.examples, case.steps),
            "{name}"
        );
    }
    // All attacks are in the fixture, but for noise and for labels.
    for info in Attacks::default().infos() {
        let is_there = cases.iter().any(|case| case.kind == info.name);
        let is_elsewhere = ["gaussian", "label_flip"].contains(&info.name.as_str());
        assert!(is_there || is_elsewhere, "{}", info.name);
    }
}

impl Images {
    fn set(&self, pixels: &[u8], labels: &[u16]) -> ImageSet {
        let (channels, height, width) = self.shape;
        let shape = ImageShape {
            channels,
            height,
            width,
        };
        let classes = (0..self.classes).map(|class| class.to_string()).collect();
        ImageSet::new("fixture", shape, classes, pixels.to_vec(), labels.to_vec()).unwrap()
    }

    fn dataset(&self) -> Dataset {
        let mut normalization = Normalization::scale(self.shape.0, 255.0);
        normalization.max = self.max;
        Dataset {
            train: self.set(&self.train, &self.labels),
            test: self.set(&self.test, &self.test_labels),
            normalization,
            augmentation: Augmentation::NONE,
        }
    }
}

#[test]
fn data_are_poisoned_as_the_papers_say() {
    let images = fixture().data;
    let clean = images.dataset();
    let mut generator = ChaCha8Rng::seed_from_u64(1);

    let flipped = LabelFlip.poison(&clean, &mut generator).unwrap();
    assert_eq!(flipped.train.labels(), images.flipped);
    assert_eq!(flipped.train.pixels(), clean.train.pixels());
    assert_eq!(flipped.test.fingerprint(), clean.test.fingerprint());

    let mut backdoor = Backdoor::new(images.target);
    (backdoor.share, backdoor.size) = (1.0, images.size);
    let poisoned = backdoor.poison(&clean, &mut generator).unwrap();
    assert_eq!(poisoned.train.pixels(), images.triggered);
    assert_eq!(
        poisoned.train.labels(),
        vec![images.target; images.labels.len()]
    );
    assert_eq!(poisoned.test.fingerprint(), clean.test.fingerprint());
    let goal = backdoor.goal(&clean).unwrap().unwrap();
    assert_eq!(goal.test.pixels(), images.goal);
    assert_eq!(goal.test.labels(), images.goal_labels);
    assert_eq!(goal.train.fingerprint(), clean.train.fingerprint());
}

#[test]
fn a_share_of_the_images_has_the_trigger_and_the_others_are_clean() {
    let clean = crate::data::digits().unwrap();
    let backdoor = Backdoor::new(7);
    let poisoned = super::super::poisoned(&backdoor, &clean, 1).unwrap();
    let mut triggered = 0;
    for index in 0..clean.train.len() {
        let (before, after) = (clean.train.image(index), poisoned.train.image(index));
        if before == after {
            assert_eq!(poisoned.train.labels()[index], clean.train.labels()[index]);
            continue;
        }
        triggered += 1;
        assert_eq!(poisoned.train.labels()[index], 7);
        let image = after.unwrap();
        // The lower right corner, as bright as can be.
        assert_eq!([image[63], image[45], image[61]], [16; 3]);
        assert_eq!(&image[..40], &before.unwrap()[..40]);
    }
    // 1442 * 20 / 64.
    assert_eq!(triggered, 451);
    let other = super::super::poisoned(&backdoor, &clean, 2).unwrap();
    assert_ne!(other.train.fingerprint(), poisoned.train.fingerprint());
}

#[test]
fn a_backdoor_that_does_not_fit_the_images_is_refused() {
    let clean = crate::data::digits().unwrap();
    let mut backdoor = Backdoor::new(10);
    let refused = |backdoor: &Backdoor| backdoor.goal(&clean).unwrap_err().to_string();
    assert!(refused(&backdoor).contains("target 10 is not a class"));
    (backdoor.target, backdoor.size) = (9, 9);
    assert!(refused(&backdoor).contains("size 9 does not fit images of 1 x 8 x 8"));
}

/// Noise has the deviation that was asked for, is another one for each client and round, and does not depend on the honest change.
#[test]
fn noise_is_normal_and_drawn_for_each_client_and_round() {
    const VALUES: usize = 40_000;
    let layout = Layout::new([("w".to_string(), vec![VALUES], Role::Trainable)]).unwrap();
    let global = Parameters::zeros(layout.clone());
    let draw = |kind: &str, round, client| {
        let (attack, _) = made(kind, &[("sigma", 3.0)]);
        let partition = Partition::Indices(Arc::from([0]));
        let task = TrainTask::new(RoundId(round), ClientId(client), partition);
        let mut update = LocalUpdate::new(global.clone(), 1);
        update.parameters.values_mut().fill(5.0);
        attack
            .update(&mut update, &AttackRound::new(&task, &global))
            .unwrap();
        update.parameters.into_values()
    };
    for kind in ["gaussian:0.5", "free_rider:0.5"] {
        let values = draw(kind, 1, 0);
        let count = VALUES as f64;
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
        let squares = values
            .iter()
            .map(|value| f64::from(*value).powi(2))
            .sum::<f64>()
            / count;
        // Five standard errors: 3 / sqrt(40 000), and 9 * sqrt(2 / 40 000).
        assert!(mean.abs() < 0.075, "{kind}: {mean}");
        assert!((squares - 9.0).abs() < 0.32, "{kind}: {squares}");
        // A normal value is beyond two deviations in 4.55 % of the draws.
        let far = values.iter().filter(|value| value.abs() > 6.0).count() as f64 / count;
        assert!((far - 0.0455).abs() < 0.006, "{kind}: {far}");
        assert_eq!(draw(kind, 1, 0), values);
        assert_ne!(draw(kind, 2, 0), values);
        assert_ne!(draw(kind, 1, 1), values);
    }
}
