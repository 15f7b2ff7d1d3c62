//! The commands that ask a coordinator.

mod access;
mod follow;
mod jobs;
mod submit;
mod wait;
mod workers;

use std::io;

use clap::Args;

pub use access::{AuditArgs, TokenCommand};
pub use jobs::{CancelArgs, DeleteArgs, PauseArgs, ResultsArgs, StatusArgs, WatchArgs};
pub use submit::SubmitArgs;
pub use wait::{CloneArgs, LogsArgs, WaitArgs};
pub use workers::{HealthArgs, WorkersArgs};

use super::{
    ClientTlsArgs, Failure, OperatorTokenArgs,
    values::{DEFAULT_COORDINATOR, coordinator_url},
};
use crate::{
    ids::CoordinatorId,
    report::{Refusal, RefusalKind},
    transport::{BodyError, Caller, Operator, OperatorError, TransportError, http::OperatorClient},
};

/// The coordinator's address, and the operator's token.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Coordinator")]
pub struct ConnectArgs {
    /// The coordinator's address; without a port, 8000
    #[arg(long, value_name = "URL", env = "FEDAVG_COORDINATOR", default_value = DEFAULT_COORDINATOR, value_parser = coordinator_url)]
    pub coordinator: String,
    /// The token to show.
    #[command(flatten)]
    pub token: OperatorTokenArgs,
    /// TLS, or plain HTTP.
    #[command(flatten)]
    pub tls: ClientTlsArgs,
}

/// A coordinator to ask.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Client {
    pub operator: OperatorClient,
    /// Whose token is the client's.
    pub caller: Caller,
    address: String,
}

impl ConnectArgs {
    /// The client of the coordinator.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let token = self.token.token()?;
        let operator = OperatorClient::new(
            &self.coordinator,
            token,
            self.tls.config(&self.coordinator)?,
        );
        Ok(Client {
            operator: operator.map_err(|error| Failure::Usage(error.to_string()))?,
            caller: Caller::in_process(),
            address: self.coordinator.clone(),
        })
    }
}

impl Client {
    /// Which coordinator it is.
    pub async fn coordinator(&self) -> Result<CoordinatorId, Failure> {
        let health = self.operator.health().await;
        Ok(health.map_err(|error| self.failure(error))?.coordinator)
    }

    /// Why there is no answer.
    pub fn failure(&self, error: OperatorError) -> Failure {
        match error {
            OperatorError::Refused(refusal) => Failure::Refused(refusal),
            OperatorError::Transport(
                error @ (TransportError::Protocol(_) | TransportError::Untrusted(_)),
            ) => Failure::because(format!("{} gives no usable answer", self.address), error),
            OperatorError::Transport(error) => Failure::Unreachable {
                coordinator: self.address.clone(),
                source: error.into(),
            },
            // The reader of a pipe has seen enough.
            OperatorError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Failure::OutputClosed
            }
            // Its text says what is damaged and what to do; to ask again is of no use.
            OperatorError::Body(BodyError::Damaged(damage)) => {
                Failure::Refused(Refusal::new(RefusalKind::Storage, damage.to_string()))
            }
            error @ OperatorError::Body(_) => {
                Failure::because("the answer is lost, so try again", error)
            }
            error @ OperatorError::Write(_) => Failure::because("the download broke off", error),
            error => Failure::because("the answer is lost", error),
        }
    }
}
