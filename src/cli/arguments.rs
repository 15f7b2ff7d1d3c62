//! The command line of a program.

use clap::{Command, Parser};

/// Reads the command line. What looks like a negative number is the value of the option before it, so that the option says which
/// numbers it takes, and not that there is no option `-1`.
pub fn arguments<A: Parser>() -> A {
    let mut command = taking_negative_numbers(A::command());
    command.build();
    let mut command = with_whole_usage(command);
    let mut matches = command.get_matches_mut();
    let read = A::from_arg_matches_mut(&mut matches);
    read.unwrap_or_else(|error| error.format(&mut command).exit())
}

fn taking_negative_numbers(command: Command) -> Command {
    let command = command.mut_args(|argument| {
        let takes_values = argument.get_action().takes_values();
        if takes_values {
            argument.allow_negative_numbers(true)
        } else {
            argument
        }
    });
    command.mut_subcommands(taking_negative_numbers)
}

/// Has errors show the same usage line as the help. clap would show each option as given that has its value from the environment.
/// The command must be built: its usage has the names of those above it.
fn with_whole_usage(mut command: Command) -> Command {
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim_start().to_string();
    command
        .override_usage(usage)
        .mut_subcommands(with_whole_usage)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Parser)]
    enum Program {
        Keep {
            #[arg(long)]
            jobs: u32,
            #[arg(long)]
            all: bool,
            /// Cargo sets this one.
            #[arg(long, env = "CARGO_PKG_NAME", default_value = "x")]
            name: String,
        },
    }

    #[test]
    fn what_the_environment_gives_is_not_shown_as_needed() {
        let mut command = Program::command().name("test");
        command.build();
        let command = with_whole_usage(command);
        let refused = command.try_get_matches_from(["test", "keep"]);
        let told = refused.unwrap_err().to_string();
        assert!(
            told.contains("Usage: test keep [OPTIONS] --jobs <JOBS>"),
            "{told}"
        );
    }

    #[test]
    fn a_negative_number_is_a_value_of_its_option() {
        let command = taking_negative_numbers(Program::command());
        let refused = command.try_get_matches_from(["test", "keep", "--jobs", "-1"]);
        let told = refused.unwrap_err().to_string();
        assert!(told.contains("'-1' for '--jobs"), "{told}");
    }
}
