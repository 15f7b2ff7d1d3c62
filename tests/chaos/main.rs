//! Coordinators and workers that are killed at any moment and started again: nothing is lost, nothing counts twice, and the
//! model is the one of an undisturbed run.
//!
//! With feature `testing`, `kill_points` has processes abort before and after each durable step.
//!
//! One seed draws everything: the jobs, the workers, and what is killed when. `just chaos` makes a thousand kills and more; a
//! test run makes a few. The instant of a kill is the only thing here that is a wait for time.
//!
//! | variable | meaning |
//! |---|---|
//! | `FEDAVG_CHAOS_SEED` | the seed of the first run; the next run has the next seed |
//! | `FEDAVG_CHAOS_RUNS` | how many runs |
//! | `FEDAVG_CHAOS_KILLS` | further runs until this many coordinators and as many workers were killed |

#![cfg(unix)]

#[path = "../shared/binaries.rs"]
mod binaries;
mod checks;
#[cfg(feature = "testing")]
mod copy_kill_points;
mod draw;
mod end_of_workers;
#[cfg(feature = "testing")]
mod kill_points;
mod kills;
mod links;
mod phase;
mod plan;
#[path = "../shared/process.rs"]
#[allow(dead_code, reason = "the other test programs use more of it")]
mod process;
#[path = "../shared/proxy.rs"]
#[allow(dead_code, reason = "the other test programs use more of it")]
mod proxy;
mod restarts;
#[cfg_attr(
    not(feature = "testing"),
    allow(dead_code, reason = "the kill points use more of it")
)]
mod site;
