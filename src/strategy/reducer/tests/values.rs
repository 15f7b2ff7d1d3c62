//! What rules make of reports that are made for one purpose: huge ones, and ones of several blocks.

use super::*;

/// What a rule with these settings says of reports with these values.
fn aggregated(asked: Value, values: &[Vec<f32>]) -> Aggregation {
    made(asked, values).0
}

/// The same with the next model, whose values were 0 before.
fn made(asked: Value, values: &[Vec<f32>]) -> (Aggregation, Vec<f32>) {
    let strategy = Catalogue::default().make("fedavg", asked.as_object().unwrap());
    let layout = layout(values[0].len());
    let mut reports = Vec::new();
    let mut clients = Vec::new();
    for (client, values) in values.iter().enumerate() {
        let delta = Parameters::new(layout.clone(), values.clone()).unwrap();
        reports.push(report(RoundId(1), client as u32, 1, delta));
        clients.push(ClientInfo::new(ClientId(client as u32), 1));
    }
    let model = Parameters::zeros(layout);
    let training = TrainingSettings::default();
    let strategy = Arc::new(strategy.unwrap());
    let mut rounds = MemoryRounds::new(strategy, model, clients, training).unwrap();
    let plan = rounds.plan(RoundId(1)).unwrap();
    let aggregation = rounds.aggregate(RoundId(1), &plan, &reports, &Threads::new(2));
    (aggregation.unwrap(), rounds.model().values().to_vec())
}

/// Nine honest reports of a length of about 1, and six attackers': as long as this, each times a factor of its own.
fn with_long_ones(length: f64, own: impl Fn(usize) -> f64) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for client in 0..15 {
        let factor = if client % 5 < 2 {
            -length * own(client)
        } else {
            1.0
        };
        let mut values = Vec::new();
        for place in 0..40 {
            let noise = ((place * 31 + client * 7919) % 1013) as f64 / 1013.0 - 0.5;
            values.push((factor * (0.15 + 0.1 * noise)) as f32);
        }
        all.push(values);
    }
    all
}

fn length(values: &[f32]) -> f64 {
    let squares = values.iter().map(|value| f64::from(*value).powi(2));
    squares.sum::<f64>().sqrt()
}

#[test]
fn attackers_of_two_fifths_move_the_geometric_median_little_however_long_their_reports_are() {
    for (length_of_all, what) in [1e2, 1e5, 1e10, 1e17, 1e25, 1e38].into_iter().zip(1..) {
        for own in [
            |_| 1.0,
            |client| 1.0 + client as f64 / 10.0,
            |client: usize| 10f64.powi(-(client as i32)),
        ] {
            let reports = with_long_ones(length_of_all, own);
            let (found, model) = made(json!({ "reducer": "geometric_median" }), &reports);
            // Honest reports have a length of 1, and differ by 0.26.
            let (_, among_honest) = made(json!({ "reducer": "geometric_median" }), &reports[2..5]);
            let mut moved = model.clone();
            for (value, honest) in moved.iter_mut().zip(among_honest) {
                *value -= honest;
            }
            assert!(length(&moved) < 0.6, "{what}: {} {found:?}", length(&moved));
            assert!(found.metrics["iterations"] < 100.0, "{what}: {found:?}");
        }
    }
}

#[test]
fn more_iterations_of_centered_clipping_hold_beside_huge_reports() {
    // One iteration's lengths are to the center alone; later ones are to a sum with tiny shares of the huge reports.
    for iterations in [1, 5] {
        let asked =
            json!({ "reducer": "centered_clipping", "radius": 2, "iterations": iterations });
        let (found, model) = made(asked, &with_long_ones(1e25, |_| 1.0));
        assert_eq!(found.metrics["clipped"], 6.0);
        assert_eq!(found.metrics["radius"], 2.0);
        assert!(length(&model) < 2.0, "{}", length(&model));
    }
    let asked = json!({ "reducer": "centered_clipping", "radius": 2 });
    let honest = &with_long_ones(1.0, |_| 1.0)[2..5];
    assert_eq!(aggregated(asked, honest).metrics["clipped"], 0.0);
}

#[test]
fn a_round_that_zeroing_leaves_out_whole_says_what_to_do() {
    let asked = json!({ "reducer": "zeroing", "initial": 0.1, "increment": 0 });
    let some = [vec![0.1; 3], vec![0.5; 3]];
    let excluded = aggregated(asked.clone(), &some).excluded;
    assert!(!excluded[0].1.contains("raise"), "{excluded:?}");
    let all = [vec![0.4; 3], vec![0.5; 3]];
    let excluded = aggregated(asked, &all).excluded;
    assert_eq!(excluded.len(), 2);
    assert!(
        excluded[0].1.contains("raise `initial` or `increment`"),
        "{excluded:?}"
    );
}

#[test]
fn norms_and_distances_are_of_all_blocks() {
    // Three blocks, in each of which the largest value is 0.5.
    let values = vec![vec![0.5; 150_000]; 5];
    let norm = (150_000f64 * 0.25).sqrt();
    let found = aggregated(json!({ "reducer": "norm_clipping" }), &values);
    assert!((found.metrics["norm_bound"] - norm).abs() < 1e-9 * norm);
    let zeroing = |estimate: f64| json!({ "reducer": "zeroing", "initial": estimate, "multiplier": 1, "increment": 0 });
    assert_eq!(aggregated(zeroing(0.75), &values).excluded, []);
    let two = [vec![0.5; 150_000], vec![0.0; 150_000]];
    let excluded = aggregated(zeroing(0.45), &two).excluded;
    assert_eq!(excluded.len(), 1);
    assert_eq!(excluded[0].0, ClientId(0));

    // Alike in the first block; in the last one, clients 1 and 3 are the two that are closest to each other.
    let mut values = vec![vec![0.25; 150_000]; 5];
    for (client, last) in [8.0, 1.0, -9.0, 2.0, 30.0].into_iter().enumerate() {
        values[client][149_999] = last;
    }
    let found = aggregated(json!({ "reducer": "krum", "f": 1 }), &values);
    // With two neighbours each: 1 has 1 + 49, 3 has 1 + 36.
    assert_eq!(found.folded, [ClientId(3)]);
}
