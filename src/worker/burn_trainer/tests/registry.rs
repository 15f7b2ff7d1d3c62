//! Models and datasets by name.

use super::*;
use crate::backend::DeviceError;

#[test]
fn a_job_that_names_something_unknown_is_told_what_is_known() {
    for factory in factories() {
        let factory = factory.with_learner("line", "points", Line);
        let Err(error) = factory.trainer(&job("resnet")) else {
            panic!("there is no resnet");
        };
        let expected = "no model \"resnet\" is known here; known are cifar_cnn, lenet, mlp, tiny_cnn, line on points";
        assert_eq!(error.to_string(), expected);

        // The images of the digits are too small for LeNet.
        let error = factory.initial(&job("lenet")).unwrap_err();
        assert!(error.to_string().contains("at least 16 pixels"), "{error}");

        let error = factory.dataset("mnist").unwrap_err();
        assert!(matches!(error, TrainError::UnknownDataset { .. }));
        assert!(error.to_string().contains("digits"), "{error}");
    }
}

#[test]
fn the_initial_model_follows_from_the_seed_and_needs_no_data_of_a_known_dataset() {
    let nowhere = tempfile::tempdir().unwrap();
    let cifar10 = JobDescription {
        dataset: "cifar10".to_string(),
        ..job("cifar_cnn")
    };
    let mut first: Option<Parameters> = None;
    for factory in factories() {
        let factory = factory.with_data_dir(nowhere.path());
        let initial = factory.initial(&cifar10).unwrap();
        assert_eq!(
            initial.layout().find("fc1.weight").unwrap().shape,
            [256, 8192]
        );
        assert_eq!(
            &initial,
            first.get_or_insert(initial.clone()),
            "the same on every device"
        );
        let other = JobDescription {
            seed: 1,
            ..cifar10.clone()
        };
        assert_ne!(factory.initial(&other).unwrap(), initial);

        let Err(error) = factory.trainer(&cifar10) else {
            panic!("there is no data to train on");
        };
        assert!(
            error.to_string().contains("fedavg data download cifar10"),
            "{error}"
        );
        let here: Vec<String> = factory
            .datasets()
            .into_iter()
            .map(|info| info.name)
            .collect();
        assert_eq!(here, ["digits"]);
    }
}

#[test]
fn a_module_that_draws_its_own_initial_values_draws_them_from_the_seed() {
    for factory in factories() {
        let factory = factory.with_learner("line", "points", Line);
        let job = |seed| JobDescription {
            dataset: "points".to_string(),
            seed,
            ..job("line")
        };
        let initial = factory.initial(&job(5)).unwrap();
        assert_eq!(factory.initial(&job(5)).unwrap(), initial);
        assert_ne!(factory.initial(&job(6)).unwrap(), initial);
        assert_eq!(initial.layout().tensors()[0].role, Role::Trainable);
    }
}

#[test]
fn datasets_are_described_by_counts_fingerprint_and_labels() {
    for factory in factories() {
        let factory = factory
            .with_dataset("mine", varied_digits())
            .with_learner("line", "points", Line);
        let digits = digits().unwrap();
        let info = factory.dataset("digits").unwrap();
        assert_eq!(info.fingerprint, digits.fingerprint());
        assert_eq!((info.train_examples, info.test_examples), (1442, 355));
        assert_eq!(*factory.labels("digits").unwrap(), *digits.train.labels());
        assert_eq!(
            factory.dataset("mine").unwrap().fingerprint,
            info.fingerprint
        );

        let points = factory.dataset("points").unwrap();
        assert_eq!((points.train_examples, points.test_examples), (32, 32));
        assert_eq!(points.fingerprint.len(), 64);
        let error = factory.labels("points").unwrap_err();
        assert!(error.to_string().contains("no labels"), "{error}");
        let names: Vec<String> = factory
            .datasets()
            .into_iter()
            .map(|info| info.name)
            .collect();
        assert!(
            ["digits", "mine", "points"]
                .iter()
                .all(|name| names.contains(&name.to_string()))
        );
    }
}

#[test]
fn trainers_are_spread_over_the_devices_and_say_where_they_are() {
    let here = |name: &&str| name.parse::<DeviceSpec>().unwrap().device().is_ok();
    let known = ["flex", "ndarray", "libtorch"];
    let names: Vec<_> = known.into_iter().filter(here).collect();
    let factory = BurnTrainers::on(names.iter().map(|name| name.parse().unwrap())).unwrap();
    let device = |trainer: &dyn LocalTrainer| trainer.device().unwrap();
    let mut trainers: Vec<_> = (0..2 * names.len())
        .map(|_| factory.trainer(&job("mlp")).unwrap())
        .collect();
    for (index, trainer) in trainers.iter().enumerate() {
        assert_eq!(device(&**trainer), names[index % names.len()]);
        assert!(trainer.meter().is_none(), "CPUs have no meter");
    }
    // The one that goes leaves its place to the next.
    let gone = device(&*trainers.pop().unwrap());
    assert_eq!(device(&*factory.trainer(&job("mlp")).unwrap()), gone);
}

#[test]
fn no_device_and_a_device_that_is_named_again_are_refused() {
    let on = |devices: &[&str]| {
        let devices = devices.iter().map(|name| name.parse().unwrap());
        BurnTrainers::on(devices).map(drop).unwrap_err()
    };
    assert_eq!(on(&[]), DeviceError::NoDevice);
    let device = DeviceSpec::Cpu.resolve().unwrap();
    assert_eq!(
        on(&["cpu", &device.to_string()]),
        DeviceError::Duplicate { device }
    );
    let missing = on(&["cpu", "libtorch:mps"]);
    assert!(missing.to_string().contains("libtorch:mps"), "{missing}");
}
