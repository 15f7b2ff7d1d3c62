//! Why examples could not be dealt.

use crate::words::plural;

/// Why a partition was refused. Each is a mistake in the job or a mismatch between job and dataset; the
/// same seed is refused each time.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// The text names no partitioner.
    #[error(
        "unknown partition {text:?}: one of iid, dirichlet:ALPHA, dirichlet:ALPHA:balanced, shard:LABELS, quantity_skew:ALPHA, proportional, proportional:measured, local"
    )]
    Unknown {
        /// What was given.
        text: String,
    },
    /// `alpha` is not a positive, finite number.
    #[error("alpha must be a positive, finite number, not {alpha}")]
    Alpha {
        /// What was given.
        alpha: f64,
    },
    /// A shard partition of zero labels per client.
    #[error("shard needs at least 1 label per client, not 0: write shard:2, for example")]
    NoLabelsPerClient,
    /// A balanced partition whose smallest client would be empty.
    #[error("the least number of examples of a client must be at least 1, not 0")]
    NoLeast,
    /// There are no clients.
    #[error("examples can't be dealt to 0 clients: ask for at least 1")]
    NoClients,
    /// A client would get nothing.
    #[error(
        "{examples} examples can't be dealt to {clients} clients, since each needs at least one: ask for fewer clients"
    )]
    TooFewExamples {
        /// Examples in the dataset.
        examples: usize,
        /// Clients of the job.
        clients: usize,
    },
    /// Nothing can be kept for validation.
    #[error(
        "{examples} training examples are too few to keep a part of them for validation: at least 2 are needed"
    )]
    NothingToValidate {
        /// Examples in the training split.
        examples: usize,
    },
    /// Indices are 32 bits wide.
    #[error("{examples} examples are more than an index of 32 bits can name")]
    TooManyExamples {
        /// Examples in the dataset.
        examples: usize,
    },
    /// The partitioner deals by label, and labels are not known here.
    #[error(
        "{partitioner} deals by label, and the labels of these examples are not known here: use iid, quantity_skew or \
         proportional, or give the coordinator the data"
    )]
    LabelsUnknown {
        /// The partitioner's name.
        partitioner: &'static str,
    },
    /// A label would have no client, so that its examples would be left over.
    #[error(
        "{clients} clients with {} each cannot hold the {labels} labels of the data: ask for at least {least} labels per \
         client",
        plural(labels_per_client, "label")
    )]
    LabelsLeftOver {
        /// Clients of the job.
        clients: usize,
        /// Labels per client asked for.
        labels_per_client: usize,
        /// Different labels in the data.
        labels: usize,
        /// The fewest labels per client that would do.
        least: usize,
    },
    /// More labels per client than there are labels.
    #[error(
        "{} per client: more than the {labels} of the data; ask for at most {labels}",
        plural(labels_per_client, "label")
    )]
    TooManyLabelsPerClient {
        /// Labels per client asked for.
        labels_per_client: usize,
        /// Different labels in the data.
        labels: usize,
    },
    /// Fewer examples than the smallest clients must have together.
    #[error(
        "{examples} examples can't be dealt to {clients} clients with at least {min} each: ask for fewer clients or a smaller \
         least number (dirichlet:ALPHA:balanced:MIN)"
    )]
    LeastTooLarge {
        /// The least that a client must have.
        min: usize,
        /// Examples in the dataset.
        examples: usize,
        /// Clients of the job.
        clients: usize,
    },
    /// No draw gave each client its least.
    #[error(
        "none of {draws} draws gave each client at least {min} examples: ask for a larger alpha, fewer clients or a smaller \
         least number (dirichlet:ALPHA:balanced:MIN)"
    )]
    LeastNotReached {
        /// The least that a client must have.
        min: usize,
        /// How often the partition was drawn.
        draws: usize,
    },
    /// `proportional` without the clients' capacities.
    #[error("proportional needs the capacity of each client's worker")]
    CapacitiesUnknown,
    /// Not one capacity per client.
    #[error("{given} capacities were given for {clients} clients")]
    Capacities {
        /// How many were given.
        given: usize,
        /// Clients of the job.
        clients: usize,
    },
    /// A capacity is not a positive, finite number.
    #[error("the capacity of client {client} must be a positive number, not {capacity}")]
    Capacity {
        /// The client's place.
        client: usize,
        /// What was given.
        capacity: f64,
    },
    /// It was cancelled while the examples were dealt.
    #[error("dealing the examples was cancelled")]
    Cancelled,
    /// `local` data stays with its worker.
    #[error("local data is not dealt: each worker is one client and keeps its own examples")]
    Local,
}
