//! The two that send requests: a worker's transport and an operator's client.

mod address;
mod connection;
mod download;
mod events;
mod operator;
mod requests;
mod upload;
mod worker;

pub use address::AddressError;
pub use connection::ClientConfig;
pub use operator::OperatorClient;
pub use worker::HttpTransport;
