//! `fedavg plot`: the curves of runs as a picture.

mod draw;

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use draw::{Curve, Panel, Picture};

use super::{
    Failure, Screen,
    export::{Series, rounds_of, series_of},
    operator::ConnectArgs,
    whole_file::WholeFile,
};
use crate::text::printable;

/// The longest name of a run in a legend, in characters.
const LONGEST_NAME: usize = 60;
/// The most runs in one picture: more colours can't be told apart.
const MOST_RUNS: usize = 8;

/// Draw the curves of one run, or of several to compare them.
#[derive(Debug, Clone, Args)]
pub struct PlotArgs {
    /// Jobs' numbers, or folders that "fedavg simulate --output" or "fedavg results --output" wrote
    #[arg(value_name = "JOB|FOLDER", required = true, num_args = 1..)]
    pub runs: Vec<String>,
    /// The picture: a file that ends with .svg or .png
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What to draw, a part of the picture each: train_loss, test_accuracy, client/NAME, …; can be given several times [default:
    /// accuracy and loss of the validation split if there is one, else of the test split, and the training loss]
    #[arg(long, value_name = "NAME")]
    pub metric: Vec<String>,
    /// The width of the picture, in pixels
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(200..=10_000))]
    pub width: u32,
    /// The height of each part, in pixels
    #[arg(long, value_name = "N", default_value = "400", value_parser = clap::value_parser!(u32).range(100..=5_000))]
    pub height: u32,
    /// The coordinator.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// A run's name, and its curves.
struct Run {
    name: String,
    series: Vec<Series>,
}

impl PlotArgs {
    /// Draws the picture.
    ///
    /// # Errors
    ///
    /// No such job or folder, no such metric, a file that can't be written or is no .svg or .png.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let is_svg = match self.output.extension().and_then(OsStr::to_str) {
            Some("svg") => true,
            Some("png") => false,
            _ => {
                let problem = "must end with .svg or .png: no other picture can be drawn";
                return Err(Failure::of_file(&self.output, problem));
            }
        };
        if self.runs.len() > MOST_RUNS {
            let problem = format!("{MOST_RUNS} runs are the most that one picture can have");
            return Err(Failure::Usage(problem));
        }
        let mut runs = Vec::new();
        for source in &self.runs {
            runs.push(Run {
                name: name_of(source),
                series: series_of(&rounds_of(source, &self.connect)?),
            });
        }
        let picture = Picture {
            width: self.width,
            height: self.height,
            panels: self.panels(&runs)?,
        };
        let unusable = |problem: String| Failure::of_file(&self.output, problem);
        let bytes = if is_svg {
            picture.svg().map_err(unusable)?.into_bytes()
        } else {
            picture.png().map_err(unusable)?
        };
        let mut file = WholeFile::create(&self.output)?;
        file.write_all(&bytes)
            .map_err(|error| Failure::of_file(&self.output, error))?;
        file.put_in_place()?;
        screen.note(&format!("written to {}", self.output.display()));
        Ok(())
    }

    fn panels(&self, runs: &[Run]) -> Result<Vec<Panel>, Failure> {
        let metrics = if self.metric.is_empty() {
            usual_metrics(runs)
        } else {
            self.metric.clone()
        };
        let mut panels = Vec::new();
        for metric in metrics {
            let mut curves = Vec::new();
            for (run, color) in runs.iter().zip(0..) {
                let found = run.series.iter().find(|series| series.name == metric);
                if let Some(series) = found {
                    curves.push(Curve {
                        name: run.name.clone(),
                        color,
                        points: series.points.clone(),
                    });
                }
            }
            if curves.is_empty() {
                return Err(Failure::Usage(no_such_metric(&metric, runs)));
            }
            panels.push(Panel { metric, curves });
        }
        Ok(panels)
    }
}

/// What is drawn if nothing is said.
fn usual_metrics(runs: &[Run]) -> Vec<String> {
    let is_measured = |name: &str| {
        let mut series = runs.iter().flat_map(|run| &run.series);
        series.any(|series| series.name == name)
    };
    let split = if is_measured("validation_loss") {
        "validation"
    } else {
        "test"
    };
    let mut metrics = vec![format!("{split}_accuracy"), format!("{split}_loss")];
    metrics.push("train_loss".to_string());
    metrics.retain(|name| is_measured(name));
    metrics
}

fn no_such_metric(metric: &str, runs: &[Run]) -> String {
    let mut known = Vec::new();
    for series in runs.iter().flat_map(|run| &run.series) {
        if !known.contains(&series.name.as_str()) {
            known.push(&series.name);
        }
    }
    format!(
        "no run has the metric {:?}; there are: {}",
        printable(metric, LONGEST_NAME),
        printable(&known.join(", "), 1000)
    )
}

/// How a run is called in the legend: a job by its number, a folder by its name.
fn name_of(source: &str) -> String {
    let name = match source.parse::<u64>() {
        Ok(job) => format!("job {job}"),
        Err(_) => {
            let name = Path::new(source).file_name();
            name.unwrap_or(OsStr::new(source)).display().to_string()
        }
    };
    printable(&name, LONGEST_NAME).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::export::Point;

    fn run(name: &str, metric: &str) -> Run {
        let points = (1..=20).map(|round| Point {
            round,
            value: 1.0 / round as f64,
        });
        Run {
            name: name.to_string(),
            series: vec![Series {
                name: metric.to_string(),
                points: points.collect(),
            }],
        }
    }

    fn arguments(metric: &[&str]) -> PlotArgs {
        use clap::Parser;
        #[derive(Parser)]
        struct Command {
            #[command(flatten)]
            plot: PlotArgs,
        }
        let mut words = vec!["plot", "1", "-o", "x.svg"];
        for name in metric {
            words.extend(["--metric", name]);
        }
        Command::parse_from(words).plot
    }

    #[test]
    fn a_picture_has_a_part_a_metric_and_a_name_a_run() {
        let runs = [run("first <&>", "test_loss"), run("second", "test_loss")];
        let panels = arguments(&[]).panels(&runs).unwrap();
        assert_eq!(panels.len(), 1);
        let picture = Picture {
            width: 600,
            height: 300,
            panels,
        };
        let svg = picture.svg().unwrap();
        for text in ["test_loss", "first &lt;&amp;&gt;", "second", "round"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        let png = picture.png().unwrap();
        assert!(png.starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_metric_that_no_run_has_is_said_with_those_that_there_are() {
        let runs = [run("one", "test_loss")];
        let failure = arguments(&["accuracy"]).panels(&runs).unwrap_err();
        assert_eq!(failure.code(), 2);
        assert!(failure.to_string().contains("there are: test_loss"));
    }

    #[test]
    fn one_point_is_a_picture_too() {
        let mut one = run("one", "test_loss");
        one.series[0].points.truncate(1);
        let picture = Picture {
            width: 400,
            height: 200,
            panels: arguments(&[]).panels(&[one]).unwrap(),
        };
        picture.svg().unwrap();
    }
}
