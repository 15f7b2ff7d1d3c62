//! The coordinator.
//!
//! It keeps the system's allocator. The other two have mimalloc, which keeps memory that one thread allocates and another
//! frees, as bodies are: with eight workers and a model of 100 MB it took 590 MB, and the system's allocator 40 MB.

use std::process::ExitCode;

use clap::Parser;
use fedavg::cli::{COORDINATOR_EXIT_CODES, CoordinatorArgs, LogArgs, Screen, exit};

/// The coordinator of federated averaging: takes jobs, gives workers their tasks, and averages what they train.
#[derive(Parser)]
#[command(version, after_help = COORDINATOR_EXIT_CODES, max_term_width = 110)]
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
