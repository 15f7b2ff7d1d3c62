//! What shells and manuals need of the programs.

use std::{fs, io, path::PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Failure, Screen};

/// Print a script that completes the commands and flags in a shell.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArgs {
    /// The shell: bash, zsh, fish, elvish or powershell. In bash: source <(fedavg completions bash)
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

impl CompletionsArgs {
    /// Prints the script of this command.
    ///
    /// # Errors
    ///
    /// Standard output can't be written.
    pub fn run(&self, screen: &Screen, mut command: Command) -> Result<(), Failure> {
        let name = command.get_name().to_string();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        screen.print(&String::from_utf8_lossy(&script))
    }
}

/// Write man pages into a folder.
#[derive(Debug, Clone, Args)]
pub struct ManArgs {
    /// The folder; it is made if it is missing
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

impl ManArgs {
    /// Writes a page for this command and one for each command below it.
    ///
    /// # Errors
    ///
    /// The folder can't be made or written to.
    pub fn run(&self, screen: &Screen, command: Command) -> Result<(), Failure> {
        let unusable = |error: io::Error| Failure::of_file(&self.folder, error);
        fs::create_dir_all(&self.folder).map_err(unusable)?;
        clap_mangen::generate_to(command, &self.folder).map_err(unusable)?;
        screen.note(&format!(
            "written into {}: man -l {}/fedavg.1",
            self.folder.display(),
            self.folder.display()
        ));
        Ok(())
    }
}
