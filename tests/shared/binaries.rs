//! The three binaries, each with its arguments.

use std::{fs, path::Path, process::Command};

use super::process::{Finished, Process};

/// A binary with these arguments, separated by white space, and nothing of the environment that it would listen to.
pub fn binary(path: &str, arguments: &str) -> Command {
    let mut command = Command::new(path);
    for variable in [
        "FEDAVG_COORDINATOR",
        "FEDAVG_FINGERPRINT",
        "FEDAVG_JOIN_TOKEN",
        "FEDAVG_PLAIN",
        "FEDAVG_TOKEN",
        "FEDAVG_TOKEN_FILE",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    command.env("FEDAVG_DATA", "/nowhere");
    // Several workers share this machine's cores: LibTorch's threads would wait for each other's time, spinning.
    command.env("OMP_NUM_THREADS", "1");
    command.args(arguments.split_whitespace());
    command
}

/// Runs `fedavg` to its end.
pub fn fedavg(arguments: &str) -> Finished {
    Process::start(&mut binary(env!("CARGO_BIN_EXE_fedavg"), arguments)).finish()
}

/// The model among a run's results.
pub fn model(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("model.safetensors")).unwrap()
}
