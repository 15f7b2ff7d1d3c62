//! Log lines, to standard error.

use std::{env, panic, str::FromStr};

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::Screen;
use crate::backend::is_probing;

/// What is logged.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What to log: off, error, warn, info, debug or trace, or by module: `fedavg=debug,hyper=warn` [default: warn for
    /// fedavg, info for the coordinator and workers]
    #[arg(long, global = true, value_name = "FILTER", env = "RUST_LOG")]
    pub log: Option<LogFilter>,
}

/// A filter of log lines, as `RUST_LOG` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = tracing_subscriber::filter::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::builder().parse(text)?;
        Ok(Self(text.to_string()))
    }
}

impl LogArgs {
    /// Starts logging; `usual` is the filter if none was asked for. From here on, panics that only say that a device is
    /// missing are not shown.
    pub fn start(&self, usual: &str, screen: &Screen) {
        silence_probes();
        // An empty variable counts as unset.
        let asked = self.log.as_ref().filter(|filter| !filter.0.is_empty());
        let filter = asked.map_or(usual, |filter| &filter.0);
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        // An error means that a subscriber is there already, which then is the one to use.
        let _ = tracing_subscriber::fmt()
            // Nothing is passed over: `LogFilter` was parsed when the arguments were, and the usual filters are this
            // program's.
            .with_env_filter(EnvFilter::builder().parse_lossy(filter))
            // Module names mean nothing to most readers; `--log` still filters by them.
            .with_target(false)
            .with_ansi(screen.is_terminal() && !is_plain)
            .with_writer(screen.clone())
            .try_init();
    }
}

fn silence_probes() {
    // burn says by a panic that a device is missing. The panic is caught, and its message would look like a crash.
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !is_probing() {
            before(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked_when_they_are_given() {
        for text in ["info", "off", "fedavg=debug,hyper=warn"] {
            assert!(text.parse::<LogFilter>().is_ok(), "{text}");
        }
        assert!("fedavg=loud".parse::<LogFilter>().is_err());
    }
}
