//! Which attacks and jobs go together, and what is said of those that do not.

use super::*;
use crate::strategy::PartInfo;
use crate::{
    job::InnerState,
    partition::{Capacity, PartitionSpec},
};

fn refused(change: impl FnOnce(&mut JobSpec)) -> String {
    let mut job = digits_job(10, 1);
    change(&mut job);
    let who = AttackingClients::Fraction(0.4);
    let made = Attackers::new(&job, Arc::new(Alie::new()), &who, digits_trainers());
    made.map(|_| "taken".to_string())
        .unwrap_or_else(|error| error.to_string())
}

#[test]
fn jobs_that_colluders_can_not_be_in_are_refused_with_the_reason() {
    assert_eq!(refused(|_| {}), "taken");
    let with = |partition| refused(move |job| job.partition = partition);
    for partition in [
        PartitionSpec::Dirichlet { alpha: 0.5 },
        PartitionSpec::Shard {
            labels_per_client: 2,
        },
    ] {
        assert_eq!(with(partition), "taken");
    }
    for (said, expected) in [
        (
            with(PartitionSpec::Proportional {
                by: Capacity::Measured,
            }),
            "proportional:measured deals the data by speeds",
        ),
        (
            with(PartitionSpec::Proportional { by: Capacity::Gpus }),
            "attackers that collude deal the job's data themselves",
        ),
        (with(PartitionSpec::Local), "partition local"),
        (
            refused(|job| job.training.inner_state = InnerState::Keep),
            "inner_state \"keep\"",
        ),
        (
            refused(|job| job.personal = vec!["fc2.*".to_string()]),
            "personal tensors",
        ),
        (
            refused(|job| job.clients = None),
            "must say its number of clients",
        ),
        (
            refused(|job| job.clients = Some(4)),
            "one attacker has no deviation",
        ),
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn an_attack_on_data_without_the_data_is_refused() {
    let who = AttackingClients::Fraction(0.4);
    let made = Attackers::new(
        &digits_job(10, 1),
        Arc::new(LabelFlip),
        &who,
        digits_trainers(),
    );
    let refused = made.unwrap_err().to_string();
    assert!(refused.contains("Attackers::with_poisoned"), "{refused}");

    let mut short = crate::data::digits().unwrap();
    short.train = short.test.clone();
    let short = BurnTrainers::new(DeviceSpec::Cpu)
        .unwrap()
        .with_dataset("digits", short);
    let job = digits_job(10, 1);
    let made = Attackers::with_poisoned(
        &job,
        Arc::new(LabelFlip),
        &who,
        digits_trainers(),
        Arc::new(short),
    );
    let refused = made.unwrap_err().to_string();
    assert!(refused.contains("1442, and not 355"), "{refused}");
}

#[test]
fn attacks_have_names_and_parameters_and_an_embedder_adds_more() {
    let attacks = Attacks::default();
    let names: Vec<_> = attacks
        .infos()
        .iter()
        .map(|info| info.name.as_str())
        .collect();
    let expected = [
        "alie",
        "backdoor",
        "free_rider",
        "gaussian",
        "ipm",
        "label_flip",
        "lazy",
        "sign_flip",
    ];
    assert_eq!(names, expected);
    for info in attacks.infos() {
        assert!(!info.about.is_empty(), "{}", info.name);
        for parameter in &info.parameters {
            assert!(!parameter.about.is_empty(), "{}", parameter.name);
        }
        let mut spec: AttackSpec = format!("{}:0.5", info.name).parse().unwrap();
        attacks.make(&spec).unwrap();
        attacks.complete(&mut spec).unwrap();
        let with_default = info
            .parameters
            .iter()
            .filter(|parameter| parameter.default.is_some());
        assert_eq!(spec.settings.len(), with_default.count(), "{}", info.name);
    }
    let refused = |text: &str, settings: &[(&str, f64)]| {
        let mut spec: AttackSpec = text.parse().unwrap();
        for (key, value) in settings {
            spec = spec.with(*key, *value);
        }
        attacks.make(&spec).map(drop).unwrap_err().to_string()
    };
    assert!(refused("mine:0.5", &[]).contains("known are alie, backdoor, free_rider"));
    let said = refused("backdoor:0.5", &[("target", 1.5)]);
    assert!(
        said.contains("target must be a whole number of at most 4294967295, not 1.5"),
        "{said}"
    );
    let said = refused("backdoor:0.5", &[("share", 1.5)]);
    assert!(
        said.contains("share must be a number of at least 0 and at most 1, not 1.5"),
        "{said}"
    );

    let info = PartInfo::new("mine", "a panic");
    let attacks = attacks.with(info, |_| -> Result<SignFlip, String> { panic!("no idea") });
    let spec: AttackSpec = "mine:0.5".parse().unwrap();
    let said = attacks.make(&spec).map(drop).unwrap_err().to_string();
    assert!(said.contains("attack mine: no idea"), "{said}");
}
