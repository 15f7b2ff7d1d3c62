//! The operator's tool: trains in one process, or drives a coordinator.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fedavg::cli::{EXIT_CODES, Failure, LogArgs, Screen, SimulateArgs, data::DataArgs, exit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Federated averaging: train one model on several machines without moving their data.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand)]
enum Command {
    Simulate(Box<SimulateArgs>),
    Data(DataArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new();
    arguments.log.start("warn", &screen);
    exit(run(&arguments.command, &screen))
}

fn run(command: &Command, screen: &Screen) -> Result<(), Failure> {
    match command {
        Command::Simulate(arguments) => arguments.run(screen),
        Command::Data(arguments) => arguments.run(screen),
    }
}
