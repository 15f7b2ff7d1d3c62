//! The control plane, transition by transition and then under random events.

mod bench;
mod ends;
mod evaluations;
mod folded;
mod random;
mod rounds;
mod scale;
mod verdicts;
mod workers;
