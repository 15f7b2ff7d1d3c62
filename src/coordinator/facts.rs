//! What the coordinator writes down beside the machines' events, and in which form. All of it is JSON but the partitions, which
//! are numbers.
//!
//! | stream | fact | what |
//! |---|---|---|
//! | coordinator | `coordinator` | [`CoordinatorFact`] |
//! | coordinator | `worker/N` | [`WorkerFact`] of worker N |
//! | coordinator | `token/N` | [`KnownToken`](crate::access::KnownToken): token N, without its secret |
//! | job | `job` | [`JobFact`] |
//! | job | `layout` | names, shapes and roles of the model's tensors |
//! | job | `data` | [`DataFact`] |
//! | job | `partitions` | the examples of each client, if they were dealt |
//! | job | `version/N` | [`PublishedVersion`](crate::store::PublishedVersion): the files of version N |
//!
//! The coordinator's stream has the log `audit`. The logs of a job's stream are `events` and `rounds`, its records the machine's events ([`MachineRecord`]), its snapshot the
//! machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    continuation::Continuation, submission_key::SubmittedOnce, worker_access::WorkerAccess,
};
use crate::{
    access::TokenHash,
    ids::{CoordinatorId, JobId, Timestamp, TokenId, WorkerId},
    job::JobSpec,
    parameters::{Digest, Layout, Role},
    protocol::Registration,
    round::{EvaluationBy, Event, Outcome, WorkerState},
    worker::Partition,
};

/// The names of facts.
pub(super) const COORDINATOR: &str = "coordinator";
pub(super) const WORKER: &str = "worker/";
pub(super) const TOKEN: &str = "token/";
pub(super) const JOB: &str = "job";
pub(super) const LAYOUT: &str = "layout";
pub(super) const DATA: &str = "data";
pub(super) const PARTITIONS: &str = "partitions";
pub(super) const VERSION: &str = "version/";

/// Which coordinator it is, and the numbers that it has given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CoordinatorFact {
    pub identity: CoordinatorId,
    /// How often it has started. The numbers of requests begin with it, so that none is given twice.
    pub term: u64,
    /// The last job and the last worker that got a number.
    pub last_job: JobId,
    pub last_worker: WorkerId,
    /// The last token that was made.
    #[serde(default)]
    pub last_token: TokenId,
}

/// A worker that is remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct WorkerFact {
    pub registration: Arc<Registration>,
    pub protocol: u32,
    pub token: TokenHash,
    pub registered: Timestamp,
    pub state: WorkerState,
    pub replaces: Option<WorkerId>,
    #[serde(default)]
    pub access: WorkerAccess,
}

/// A job, as far as it does not change with its rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JobFact {
    pub spec: JobSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub once: Option<SubmittedOnce>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<Continuation>,
    pub evaluation: EvaluationBy,
    /// The seed that never leaves the coordinator, in hexadecimal digits.
    pub secret: String,
    pub initial_digest: Digest,
    pub stage: Stage,
    pub submitted: Timestamp,
    pub ended: Option<Timestamp>,
    pub outcome: Option<Outcome>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Queued,
    Running,
    Ended,
}

/// Whose data a job trains on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DataFact {
    pub fingerprint: String,
    pub owners: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pinned: BTreeMap<WorkerId, String>,
    pub generation: u64,
    /// How many clients have all data of their worker; 0 if the data was dealt.
    pub local_clients: usize,
}

/// A record of a job's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct MachineRecord {
    pub time: Timestamp,
    pub event: Event,
}

/// Bytes from their hexadecimal digits.
pub(super) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, index) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(index..index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A fact's bytes. What is written down here has text alone as keys and finite numbers, so that there always are some.
pub(super) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// A fact from its bytes.
///
/// # Errors
///
/// What is wrong with them.
pub(super) fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))
}

/// A layout's tensors.
pub(super) fn layout_fact(layout: &Layout) -> Vec<u8> {
    let mut tensors = Vec::new();
    for spec in layout.tensors() {
        tensors.push((&spec.name, &spec.shape, spec.role));
    }
    json(&tensors)
}

pub(super) fn parse_layout(bytes: &[u8]) -> Result<Arc<Layout>, String> {
    let tensors: Vec<(String, Vec<usize>, Role)> = parse(LAYOUT, bytes)?;
    Layout::new(tensors).map_err(|error| error.to_string())
}

/// Partitions as little-endian numbers of 32 bits: the number of clients, the number of examples of each, and the examples.
pub(super) fn partitions_fact(partitions: &[Partition]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(partitions.len() as u32).to_le_bytes());
    for partition in partitions {
        bytes.extend_from_slice(&(indices(partition).len() as u32).to_le_bytes());
    }
    for partition in partitions {
        bytes.extend_from_slice(bytemuck::cast_slice(indices(partition)));
    }
    bytes
}

fn indices(partition: &Partition) -> &[u32] {
    match partition {
        Partition::Indices(indices) => indices,
        Partition::Everything => &[],
    }
}

pub(super) fn parse_partitions(bytes: &[u8]) -> Option<Vec<Partition>> {
    let (words, []) = bytes.as_chunks::<4>() else {
        return None;
    };
    let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
    let clients = words.next()? as usize;
    let lengths: Vec<u32> = words.by_ref().take(clients).collect();
    if lengths.len() != clients {
        return None;
    }
    let mut partitions = Vec::with_capacity(clients);
    for length in lengths {
        let indices: Vec<u32> = words.by_ref().take(length as usize).collect();
        if indices.len() != length as usize {
            return None;
        }
        partitions.push(Partition::Indices(Arc::from(indices)));
    }
    words.next().is_none().then_some(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::hex;

    #[test]
    fn partitions_read_back_and_a_part_of_them_does_not() {
        let some = |indices: &[u32]| Partition::Indices(Arc::from(indices));
        let partitions = vec![some(&[3, 1, u32::MAX]), some(&[]), some(&[7])];
        let bytes = partitions_fact(&partitions);
        assert_eq!(parse_partitions(&bytes), Some(partitions));
        for length in 0..bytes.len() {
            assert_eq!(parse_partitions(&bytes[..length]), None, "{length}");
        }
        assert_eq!(parse_partitions(&[&bytes[..], &[0; 4]].concat()), None);
    }

    #[test]
    fn a_secret_reads_back_from_its_digits() {
        let secret: [u8; 32] = std::array::from_fn(|index| 7 * index as u8);
        assert_eq!(from_hex(&hex(&secret)), Some(secret));
        assert_eq!(from_hex::<32>(&hex(&secret[1..])), None);
        assert_eq!(from_hex::<2>("12x4"), None);
        assert_eq!(from_hex::<2>("€1"), None);
    }
}
