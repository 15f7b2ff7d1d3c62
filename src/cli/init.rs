//! `fedavg init`: a job file to begin with.

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{Failure, Screen, whole_file::WholeFile};

/// Write a job file with comments, to change as you like.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The file to write; /dev/stdout prints it
    #[arg(value_name = "FILE", default_value = "job.toml")]
    pub file: PathBuf,
    /// What the job is for
    #[arg(long, value_enum, value_name = "KIND", default_value = "simulation")]
    pub kind: Template,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
}

/// A job file to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// All clients in one process, on the built-in digits
    Simulation,
    /// Workers of a coordinator, with validation and a stopping rule
    Coordinator,
    /// CIFAR-10 with uneven labels, and small reports
    Cifar10,
    /// Clients whose data differs much: SCAFFOLD
    Uneven,
    /// Some clients may lie: Krum and a bound of norms
    Robust,
}

impl Template {
    /// The file's text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Simulation => include_str!("init/simulation.toml"),
            Self::Coordinator => include_str!("init/coordinator.toml"),
            Self::Cifar10 => include_str!("init/cifar10.toml"),
            Self::Uneven => include_str!("init/uneven.toml"),
            Self::Robust => include_str!("init/robust.toml"),
        }
    }

    /// The command that runs it.
    fn command(self) -> &'static str {
        match self {
            Self::Coordinator => "submit --watch",
            Self::Simulation | Self::Cifar10 | Self::Uneven | Self::Robust => "simulate",
        }
    }
}

impl InitArgs {
    /// Writes the file.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if the file is there already, and there is no --force.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        // A pipe or a terminal can't be replaced, and loses nothing.
        if self.file.is_file() && !self.force {
            return Err(Failure::of_file(
                &self.file,
                "is there already; give another name, or --force to replace it",
            ));
        }
        let mut file = WholeFile::create(&self.file)?;
        let is_stream = file.is_stream();
        file.write_all(self.kind.text().as_bytes())
            .map_err(|error| Failure::of_file(&self.file, error))?;
        file.put_in_place()?;
        if !is_stream {
            let (file, command) = (self.file.display(), self.kind.command());
            screen.note(&format!("written: {file}. Next: fedavg {command} {file}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::job::parse_job;

    #[test]
    fn each_template_is_a_job_that_may_be_asked_for() {
        for template in Template::value_variants() {
            let job = parse_job(Path::new("job.toml"), template.text()).unwrap();
            job.validate().unwrap();
        }
    }

    #[test]
    fn a_file_that_is_there_is_not_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let mut arguments = InitArgs {
            file: folder.path().join("job.toml"),
            kind: Template::Simulation,
            force: false,
        };
        arguments.run(&Screen::new()).unwrap();
        arguments.kind = Template::Uneven;
        let refused = arguments.run(&Screen::new()).unwrap_err();
        assert_eq!(refused.code(), 2);
        arguments.force = true;
        arguments.run(&Screen::new()).unwrap();
        let text = std::fs::read_to_string(&arguments.file).unwrap();
        assert_eq!(text, Template::Uneven.text());
    }
}
