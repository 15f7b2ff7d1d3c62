//! The coordinator: carries out what the round machine orders, and answers workers and operators.

mod config;

pub use config::CoordinatorConfig;
