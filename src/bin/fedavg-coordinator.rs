//! The coordinator.
//!
//! It keeps the system's allocator. The other two have mimalloc, which keeps memory that one thread allocates and another
//! frees, as bodies are: with eight workers and a model of 100 MB it took 590 MB, and the system's allocator 40 MB.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fedavg::cli::{
    COORDINATOR_EXIT_CODES, CoordinatorArgs, LogArgs, Screen, StateCommand, arguments, exit,
};

/// The coordinator of federated averaging: takes jobs, gives workers their tasks, and averages what they train.
#[derive(Parser)]
#[command(version, after_help = COORDINATOR_EXIT_CODES, max_term_width = 110, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    // First: it is for all commands, and would come under the last heading of the coordinator's arguments.
    #[command(flatten)]
    log: LogArgs,
    #[command(flatten)]
    coordinator: CoordinatorArgs,
}

#[derive(Subcommand)]
enum Command {
    #[command(subcommand)]
    State(StateCommand),
}

fn main() -> ExitCode {
    let arguments: Arguments = arguments();
    let screen = Screen::new();
    let usual = match arguments.command {
        Some(_) => "warn",
        None => "info",
    };
    arguments.log.start(usual, &screen);
    exit(match &arguments.command {
        Some(Command::State(command)) => command.run(&screen),
        None => arguments.coordinator.run(&screen),
    })
}
