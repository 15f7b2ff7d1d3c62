use super::{free_settings::MOST_SETTINGS, *};
use crate::parameters::Encoding;

#[test]
fn an_empty_document_is_a_job_with_the_seeds_defaults() {
    let spec: JobSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(spec, JobSpec::default());
    assert!(spec.validate().is_ok());
    let training = &spec.training;
    assert_eq!(
        (spec.rounds, training.local_epochs, training.batch_size),
        (20, 1.0, 64)
    );
    assert_eq!(
        (training.lr, training.momentum, training.weight_decay),
        (0.01, 0.9, 1e-4)
    );
    assert_eq!(
        (spec.limits.round_timeout, spec.limits.min_updates),
        (900, 1)
    );
}

#[test]
fn a_misspelt_field_is_refused() {
    for text in [
        r#"{"learning_rate":1}"#,
        r#"{"training":{"learning_rate":1}}"#,
        r#"{"encoding":{"learning_rate":"f32"}}"#,
        r#"{"limits":{"learning_rate":1}}"#,
        r#"{"strategy":{"kind":"custom","name":"a","learning_rate":1}}"#,
    ] {
        let error = serde_json::from_str::<JobSpec>(text).unwrap_err();
        assert!(error.to_string().contains("learning_rate"), "{error}");
    }
    let task: TrainingSettings = serde_json::from_str(r#"{"learning_rate":1,"lr":0.5}"#).unwrap();
    assert_eq!(task.lr, 0.5, "a task of a newer coordinator is read");
    let spec: JobSpec = serde_json::from_str(r#"{"training":{"lr":0.5}}"#).unwrap();
    assert_eq!((spec.training.batch_size, spec.training.lr), (64, 0.5));
}

#[test]
fn encodings_are_named_and_an_unknown_one_is_refused() {
    let read = |text: &str| serde_json::from_str::<JobSpec>(text);
    let spec = read(r#"{"encoding":{"reports":"top_k:0.05","models":"bf16"}}"#).unwrap();
    let expected = Encodings {
        reports: Encoding::TopK { fraction: 0.05 },
        models: Encoding::Bf16,
    };
    assert_eq!(spec.encoding, expected);
    let again = read(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(again, spec);
    let error = read(r#"{"encoding":{"reports":"int4"}}"#).unwrap_err();
    assert!(error.to_string().contains("int4"), "{error}");
}

#[test]
fn settings_travel_as_they_are_and_have_a_bound() {
    let text = r#"{"settings":{"depth":3},"strategy":{"kind":"custom","name":"adam","settings":{"betas":[0.9,0.99]}}}"#;
    let mut spec: JobSpec = serde_json::from_str(text).unwrap();
    assert_eq!(spec.settings["depth"], 3);
    let StrategySpec::Custom { name, settings } = &spec.strategy else {
        panic!("{spec:?}");
    };
    assert_eq!(
        (name.as_str(), &settings["betas"][1]),
        ("adam", &0.99.into())
    );
    let again: JobSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(again, spec);
    assert_eq!(spec.validate(), Ok(()));
    // With the name, the quotes, the colon and the braces: one byte more than the most.
    let long = "x".repeat(MOST_SETTINGS - 7);
    spec.settings = Settings::from_iter([("a".to_string(), long.into())]);
    let error = spec.validate().unwrap_err();
    assert_eq!(
        error.to_string(),
        "settings has 65537 bytes as JSON, and 65536 is the most"
    );
    let settings = std::mem::take(&mut spec.settings);
    let name = "adam".to_string();
    spec.strategy = StrategySpec::Custom { name, settings };
    assert_eq!(spec.validate().unwrap_err().field, "strategy.settings");
}

#[test]
fn a_sampler_that_waits_for_all_takes_neither_a_goal_nor_a_quorum() {
    let mut spec = JobSpec {
        strategy: StrategySpec::preset("fedavg").with("sampler", "poisson"),
        ..JobSpec::default()
    };
    assert_eq!(spec.validate(), Ok(()));
    spec.limits.goal = Some(3);
    let refused = spec.validate().unwrap_err().to_string();
    assert!(
        refused.starts_with("strategy does not go with the limits: sampler \"poisson\" waits"),
        "{refused}"
    );
    assert!(refused.ends_with("leave limits.goal out"), "{refused}");
    spec.limits.goal = None;
    spec.limits.min_updates = 2;
    let refused = spec.validate().unwrap_err().to_string();
    assert!(
        refused.ends_with("limits.min_updates can't be 2, leave it out"),
        "{refused}"
    );
    spec.strategy = StrategySpec::preset("fedavg").with("sampler", "round_robin");
    assert_eq!(spec.validate(), Ok(()));
}

#[test]
fn each_number_out_of_range_names_its_field() {
    let problem = |change: fn(&mut JobSpec)| {
        let mut spec = JobSpec::default();
        change(&mut spec);
        spec.validate().unwrap_err().field
    };
    let stop = |change: &dyn Fn(&mut StopSettings)| {
        let mut stop = StopSettings::default();
        change(&mut stop);
        let spec = JobSpec {
            stop: Some(stop),
            ..JobSpec::default()
        };
        spec.validate().map_err(|error| error.field.into_owned())
    };
    assert_eq!(stop(&|_| ()), Err("stop".to_string()));
    assert_eq!(
        stop(&|stop| stop.patience = Some(0)),
        Err("stop.patience".to_string())
    );
    assert_eq!(stop(&|stop| stop.at_least = Some(0.5)), Ok(()));
    let of_validation = |stop: &mut StopSettings| {
        stop.at_least = Some(0.5);
        stop.metric = Some("validation_accuracy".parse().unwrap());
    };
    assert_eq!(stop(&of_validation), Err("stop.metric".to_string()));
    assert_eq!(problem(|spec| spec.validation = 1.0), "validation");
    assert_eq!(problem(|spec| spec.evaluate_every = 0), "evaluate_every");
    assert_eq!(
        problem(|spec| {
            spec.validation = 0.1;
            spec.best.metric = Some("test_loss".parse().unwrap());
        }),
        "best.metric"
    );
    let without_evaluation = |spec: &mut JobSpec| {
        (spec.rounds, spec.evaluation) = (0, EvaluationMode::Never);
    };
    assert_eq!(problem(without_evaluation), "rounds");
    assert_eq!(problem(|spec| spec.training.lr = f64::NAN), "training.lr");
    assert_eq!(
        problem(|spec| spec.encoding.models = Encoding::TopK { fraction: 0.1 }),
        "encoding.models"
    );
    assert_eq!(
        problem(|spec| spec.training.batch_size = 0),
        "training.batch_size"
    );
    assert_eq!(
        problem(|spec| spec.strategy = StrategySpec::preset("fedavg").with("fraction", 0.0)),
        "strategy.fraction"
    );
    assert_eq!(
        problem(|spec| {
            spec.limits.min_updates = 5;
            spec.limits.goal = Some(4);
        }),
        "limits.goal"
    );
    assert_eq!(
        problem(|spec| {
            spec.limits.min_updates = 5;
            spec.clients = Some(4);
        }),
        "clients"
    );
}
