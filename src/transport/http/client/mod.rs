//! The two that send requests: a worker's transport and an operator's client.

mod address;
mod connection;
mod connector;
mod download;
mod events;
mod no_answer;
mod operator;
mod requests;
mod upload;
mod worker;

pub use address::{Address, AddressError};
pub use connection::ClientConfig;
#[cfg(test)]
pub(super) use events::Parser;
pub use operator::OperatorClient;
pub use worker::HttpTransport;
