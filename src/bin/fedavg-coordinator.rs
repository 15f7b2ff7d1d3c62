//! The coordinator.

use std::process::ExitCode;

use clap::Parser;
use fedavg::cli::{CoordinatorArgs, EXIT_CODES, LogArgs, Screen, exit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The coordinator of federated averaging: owns jobs, hands out work, folds what the workers report.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    coordinator: CoordinatorArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new();
    arguments.log.start("info", &screen);
    exit(arguments.coordinator.run(&screen))
}
