//! What every route has at hand, and the limits of the routes.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;

use super::callers::{CallerLimits, Requests};
use crate::{
    parameters::HeaderLimits,
    transport::{Handler, Operator},
};

/// The limits of the routes. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouterConfig {
    /// The largest JSON bodies.
    pub json: JsonLimits,
    /// The largest body with parameters, in bytes. The coordinator has limits of its own that know the model.
    pub max_body: u64,
    /// What the header of an initial model may have.
    pub header: HeaderLimits,
    /// The most initial models that are read at once, since each is in memory whole; further ones wait.
    pub max_submissions: usize,
    /// The most pieces (of 256 KiB) of models on disk that are in memory at once, over all downloads. If that many are
    /// on their way, the next ones are of 16 KiB.
    pub pieces: usize,
    /// A body of which nothing arrives for so long is broken off. A JSON body must be whole within this time.
    pub stall_timeout: Duration,
    /// The fewest bytes a second of a body, once it was waited for `upload_grace` in all; the time in which the coordinator
    /// itself is busy does not count. 0: any.
    pub min_upload_rate: u64,
    /// For how long of the time that a body is waited for its rate does not matter.
    pub upload_grace: Duration,
    /// The longest that a poll may ask to wait.
    pub max_wait: Duration,
    /// How often a silent stream of events gets a comment.
    pub keep_alive: Duration,
    /// The names, beside `localhost` and addresses, that a request without a token may name as its host. Others are refused:
    /// a web page could have made its own name mean this machine.
    pub hosts: Vec<String>,
    /// The URL that the OpenAPI document names as its server, `http://HOST:PORT`, if others reach this server by another than
    /// the one that they ask.
    pub advertised: Option<String>,
    /// What each caller may do. [`ServerConfig::callers`](super::ServerConfig::callers) has the limits of connections.
    pub callers: CallerLimits,
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            json: JsonLimits::default(),
            max_body: 8 << 30,
            header: HeaderLimits::default(),
            max_submissions: 4,
            pieces: 32,
            stall_timeout: Duration::from_secs(60),
            // Without a least rate, a byte each minute would hold an upload open within the stall limit.
            min_upload_rate: 1024,
            upload_grace: Duration::from_secs(10),
            max_wait: Duration::from_secs(300),
            // Well below the 60 s after which a client takes a silent stream for one that stalls.
            keep_alive: Duration::from_secs(15),
            hosts: Vec::new(),
            advertised: None,
            callers: CallerLimits::default(),
        }
    }
}

/// The largest JSON bodies, in bytes, by what they are. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JsonLimits {
    /// A worker's registration.
    pub registration: usize,
    /// A heartbeat or a poll: the tasks that the worker is busy with.
    pub tasks: usize,
    /// A client's failure or evaluation.
    pub outcome: usize,
    /// The specification of a job.
    pub job: usize,
    /// A token to make.
    pub token: usize,
}

impl Default for JsonLimits {
    fn default() -> Self {
        Self {
            registration: 64 << 10,
            tasks: 1 << 20,
            outcome: 64 << 10,
            job: 1 << 20,
            token: 4 << 10,
        }
    }
}

/// What every route has at hand.
#[derive(Clone)]
pub(super) struct App {
    pub handler: Arc<dyn Handler>,
    pub operator: Arc<dyn Operator>,
    pub config: Arc<RouterConfig>,
    /// A permit for each piece of a stored model that may be in memory.
    pub pieces: Arc<Semaphore>,
    /// A permit for each initial model that may be on its way.
    pub submissions: Arc<Semaphore>,
    /// What is counted of callers.
    pub requests: Arc<Requests>,
    /// The OpenAPI document.
    pub document: Arc<OpenApi>,
}
