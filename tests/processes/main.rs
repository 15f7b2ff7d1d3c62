//! The three binaries as a user runs them: processes over loopback, and some over namespaces' networks, killed, interrupted and started again.
//!
//! Nothing here sleeps to wait for something: tests wait for a line, an event or an end, and fail after [`LIMIT`].
//! Training is long enough to be interrupted if a test needs that, and short everywhere else.
//!
//! [`LIMIT`]: process::LIMIT

#![cfg(unix)]

mod access;
mod advice;
mod attacks;
#[path = "../shared/binaries.rs"]
mod binaries;
mod curves;
mod deployment;
mod digests;
mod ends;
mod failures;
mod files;
#[cfg(target_os = "linux")]
mod hostile;
mod jobs;
mod namespaces;
mod personal;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "the other test programs use more of it")]
mod process;
#[path = "../shared/proxy.rs"]
#[allow(dead_code, reason = "the other test programs use more of it")]
mod proxy;
mod reproducible;
mod restarts;
mod secrets;
mod state_dir;
mod tailnet;
mod tls;
mod together;
mod uploads;
mod versions;
mod whole_run;
