//! Bugs on purpose, to show that the checker would catch them.
//!
//! The machine has none of them. What goes into it, or what comes out of it, is changed on its way, so that the checker
//! sees what it would see of a machine that has the bug.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    ids::{ClientId, ModelVersion, RequestId, RoundId},
    report::RefusalKind,
    round::{Command, Event, JobEvent, Response, TaskKind},
    strategy::Aggregation,
};

/// A bug that a machine could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A round commits with any report at all.
    QuorumIgnored,
    /// An upload that ends after the round has closed is called accepted.
    LateAccepted,
    /// A report that starts from another version is admitted.
    StaleAdmitted,
    /// A round commits whatever the strategy says of its aggregation.
    ExclusionIgnored,
    /// A commit moves the basis of the clients that it excluded, too.
    BasisOfExcluded,
}

/// What stands between the driver and the machine, and has one bug or none.
#[derive(Debug, Default)]
pub struct Planted {
    pub bug: Option<Bug>,
    /// The quorum of each round as it was planned.
    quorums: BTreeMap<RoundId, usize>,
    /// The examples of each report that was offered.
    offered: BTreeMap<(RoundId, ClientId), u64>,
    /// The uploads that were admitted and have not ended.
    admitted: BTreeSet<RequestId>,
    /// The request that tells of the end of one of them, if the last event did.
    end: Option<RequestId>,
    /// The clients whose reports are being aggregated.
    aggregated: Vec<ClientId>,
    /// The last committed round that had accepted a report of the client.
    committed: BTreeMap<ClientId, RoundId>,
}

impl Planted {
    /// What the machine gets instead of this event. `version` is its version at this moment.
    pub fn event(&mut self, mut event: Event, version: ModelVersion) -> Event {
        let Some(bug) = self.bug else {
            return event;
        };
        self.end = None;
        match (bug, &mut event) {
            (
                Bug::QuorumIgnored,
                Event::Planned {
                    round,
                    plan: Ok(plan),
                },
            ) => {
                self.quorums.insert(*round, plan.quorum);
                plan.quorum = plan.quorum.min(1);
            }
            (Bug::StaleAdmitted, Event::ReportOffered { metadata, .. }) => {
                metadata.base_version = version;
            }
            (
                Bug::LateAccepted,
                Event::ReportOffered {
                    round,
                    client,
                    metadata,
                    ..
                },
            ) => {
                self.offered.insert((*round, *client), metadata.examples);
            }
            (
                Bug::LateAccepted,
                Event::ReportStored {
                    request, upload, ..
                },
            ) if self.admitted.remove(upload) => self.end = Some(*request),
            (
                Bug::ExclusionIgnored,
                Event::Aggregated {
                    aggregation: Ok(aggregation),
                    ..
                },
            ) => {
                *aggregation = Aggregation {
                    folded: self.aggregated.clone(),
                    excluded: Vec::new(),
                    ..aggregation.clone()
                };
            }
            _ => {}
        }
        event
    }

    /// What the checker and the driver get instead of this command.
    pub fn command(&mut self, mut command: Command) -> Command {
        let Some(bug) = self.bug else {
            return command;
        };
        match &mut command {
            Command::Aggregate { accepted, .. } => {
                self.aggregated = accepted.iter().map(|(client, _)| *client).collect();
            }
            Command::Log(JobEvent::RoundStarted { round, quorum, .. }) => {
                if let Some(planned) = self.quorums.get(round) {
                    *quorum = *planned;
                }
            }
            Command::Log(JobEvent::RoundCommitted {
                round, accepted, ..
            }) => {
                for client in accepted {
                    self.committed.insert(*client, *round);
                }
            }
            Command::Log(event @ JobEvent::ReportRefused { .. }) if self.end.is_some() => {
                if let JobEvent::ReportRefused {
                    round,
                    client,
                    worker,
                    refusal,
                } = event
                    && refusal.kind == RefusalKind::Late
                    && let Some(examples) = self.offered.get(&(*round, *client))
                {
                    *event = JobEvent::ReportAccepted {
                        round: *round,
                        client: *client,
                        worker: *worker,
                        examples: *examples,
                    };
                }
            }
            Command::Respond { request, response } => match (bug, &mut *response) {
                (Bug::LateAccepted, Response::Admitted) => {
                    self.admitted.insert(*request);
                }
                (Bug::LateAccepted, Response::Refused(refusal))
                    if refusal.kind == RefusalKind::Late && self.end == Some(*request) =>
                {
                    *response = Response::Accepted;
                }
                (Bug::BasisOfExcluded, Response::Task(task)) => {
                    if let TaskKind::Train { basis, .. } = &mut task.kind {
                        *basis = self.committed.get(&task.client).copied();
                    }
                }
                _ => {}
            },
            _ => {}
        }
        command
    }
}
