//! What workers say of themselves and nobody can check: it counts within bounds, and the record says what does not.

use super::*;

/// The reports of two workers: the second one says this of itself.
async fn with_claims(claim: impl FnOnce(&mut ReportMetadata)) -> RoundRecord {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (first, second) = (lab.worker("first").await, lab.worker("second").await);
    let job = lab.submit(|spec| spec.limits.min_updates = 2).await;
    let (task, other) = (
        lab.poll(&first, Vec::new()).await,
        lab.poll(&second, Vec::new()).await,
    );
    lab.coordinator.0.clock.skip(Duration::from_secs(2));
    let mut honest = lab.metadata(&task);
    (honest.seconds, honest.energy_joules) = (Some(0.5), Some(20.0));
    honest.metrics.insert("train_loss".to_string(), 0.25);
    let mut claimed = lab.metadata(&other);
    claimed.metrics.insert("train_loss".to_string(), 0.75);
    claim(&mut claimed);
    let body = lab.body(1.0);
    for (worker, task, said) in [(&first, &task, &honest), (&second, &other, &claimed)] {
        let answer = lab.put_report(worker, task, said, &body).await;
        assert_eq!(answer.0, 204, "{answer:?}");
    }
    let (_, mut rounds, _) = lab.finished(job).await;
    rounds.remove(0)
}

fn reasons(record: &RoundRecord) -> Vec<&str> {
    let notes = record.not_counted.iter();
    notes.map(|note| note.reason.as_str()).collect()
}

#[tokio::test]
async fn what_can_be_true_is_in_the_record_as_it_was_said() {
    let record = with_claims(|said| {
        (said.seconds, said.energy_joules) = (Some(1.5), Some(40.0));
    })
    .await;
    assert!(record.not_counted.is_empty(), "{record:?}");
    assert_eq!(record.energy_joules, Some(60.0));
    assert_eq!(record.train_loss, Some(0.5));
    assert_eq!(record.client_metrics["train_loss"], 0.5);
}

#[tokio::test]
async fn one_worker_destroys_no_sum_and_no_mean() {
    let record = with_claims(|said| {
        (said.seconds, said.energy_joules) = (Some(1e300), Some(1e300));
        said.steps = 1_000_000_000_000;
        said.metrics.insert("train_loss".to_string(), 1e300);
    })
    .await;
    assert_eq!(record.folded.len(), 2);
    // As long as it had the task: the clock was moved by two seconds, and no test takes a thousand.
    let seconds = record.contributions[1].seconds.unwrap();
    assert!((2.0..1000.0).contains(&seconds), "{seconds}");
    assert_eq!(record.energy_joules, Some(20.0));
    assert_eq!(record.train_loss, Some(0.25));
    assert_eq!(record.client_metrics["train_loss"], 0.25);
    let reasons = reasons(&record);
    let expected = [
        "its training time of 1.000e300 s is longer than it had the task",
        "its energy of 1.000e300 J is more than 10000 W for the ",
        "its 1.000e12 steps are more than its task has: 1 count",
        "its train_loss of 1.000e300 is far from the others'",
    ];
    assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.starts_with(expected), "{reason}");
    }
    assert!(
        record
            .not_counted
            .iter()
            .all(|note| note.client == record.folded[1]),
        "{record:?}"
    );
}

#[tokio::test]
async fn a_report_without_examples_or_with_too_many_is_refused() {
    let lab = Lab::open(CoordinatorConfig::default()).await;
    let (first, second) = (lab.worker("first").await, lab.worker("second").await);
    for examples in [0, 51, 1_000_000_000_000] {
        let job = lab.submit(|_| {}).await;
        let (task, other) = (
            lab.poll(&first, Vec::new()).await,
            lab.poll(&second, Vec::new()).await,
        );
        let said = ReportMetadata {
            examples,
            ..lab.metadata(&other)
        };
        let answer = lab.put_report(&second, &other, &said, &lab.body(1.0)).await;
        assert_eq!(answer, (422, "examples_exceeded".to_string()));
        assert_eq!(lab.report(&first, &task).await.0, 204);
        let (_, rounds, _) = lab.finished(job).await;
        assert_eq!(rounds[0].folded, [task.client]);
    }
}
