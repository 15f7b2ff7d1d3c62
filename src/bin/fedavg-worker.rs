//! The worker.

use std::process::ExitCode;

use clap::Parser;
use fedavg::cli::{LogArgs, Screen, WORKER_EXIT_CODES, WorkerArgs, arguments, exit};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A worker of federated averaging: trains for a coordinator, on the data of this machine.
#[derive(Parser)]
#[command(version, after_help = WORKER_EXIT_CODES, max_term_width = 110)]
struct Arguments {
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn main() -> ExitCode {
    let arguments: Arguments = arguments();
    let screen = Screen::new();
    arguments.log.start("info", &screen);
    exit(arguments.worker.run(&screen))
}
