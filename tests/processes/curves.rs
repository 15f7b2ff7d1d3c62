//! A run's curves for people and for other programs.

use std::fs;

use super::deployment::{Deployment, fedavg};

#[test]
fn a_run_becomes_a_picture_a_table_and_an_event_file() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    for (name, seed) in [("first", 1), ("second", 2)] {
        let run = fedavg(&format!(
            "simulate --rounds 3 --seed {seed} --output {}",
            place(name)
        ));
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    let (first, second) = (place("first"), place("second"));
    for picture in ["curve.svg", "curve.png"] {
        let plot = fedavg(&format!("plot {first} {second} -o {}", place(picture)));
        assert_eq!(plot.code, Some(0), "{plot:?}");
    }
    let svg = fs::read_to_string(place("curve.svg")).unwrap();
    for text in ["first", "second", "test_accuracy", "train_loss"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(
        fs::read(place("curve.png"))
            .unwrap()
            .starts_with(b"\x89PNG")
    );
    let export = fedavg(&format!(
        "export {first} --csv {} --tensorboard {}",
        place("curve.csv"),
        place("board")
    ));
    assert_eq!(export.code, Some(0), "{export:?}");
    let csv = fs::read_to_string(place("curve.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    assert_eq!(fs::read_dir(place("board")).unwrap().count(), 1);
    for wrong in [
        format!("plot {first} -o {}", place("curve.pdf")),
        format!("plot {first} -o {} --metric no_such", place("curve.svg")),
        format!("plot {} -o {}", place("no-such"), place("curve.svg")),
        format!("export {first}"),
    ] {
        let refused = fedavg(&wrong);
        assert_eq!(refused.code, Some(2), "{refused:?}");
    }
}

#[test]
fn a_job_is_drawn_from_its_coordinator() {
    let deployment = Deployment::start();
    let _worker = deployment.worker("only");
    let job = deployment.submit("--rounds 2");
    let (_, code) = deployment.watch(job).finish();
    assert_eq!(code, Some(0));
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("job.svg");
    let plot = deployment.operator(&format!("plot {job} -o {}", picture.display()));
    assert_eq!(plot.code, Some(0), "{plot:?}");
    assert!(fs::read_to_string(picture).unwrap().contains("job 1"));
}
