//! What every route has at hand, and the limits of the routes.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use utoipa::openapi::OpenApi;

use crate::transport::{Handler, Operator};

/// The limits of the routes. Each has a default.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RouterConfig {
    /// The largest JSON body, in bytes.
    pub max_json: usize,
    /// The largest body with parameters, in bytes. The coordinator has limits of its own that know the model.
    pub max_body: u64,
    /// The most pieces (of 256 KiB) of models on disk that are in memory at once, over all downloads. If so many are
    /// on their way, the next ones are of 16 KiB.
    pub pieces: usize,
    /// A body of which nothing arrives for so long is broken off. A JSON body must be whole within this time.
    pub stall_timeout: Duration,
    /// The fewest bytes a second of a body, once it was waited for 10 s in all; the time in which the coordinator itself is
    /// busy does not count. 0: any.
    pub min_upload_rate: u64,
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
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            max_json: 1 << 20,
            max_body: 8 << 30,
            pieces: 32,
            stall_timeout: Duration::from_secs(60),
            min_upload_rate: 1024,
            max_wait: Duration::from_secs(300),
            keep_alive: Duration::from_secs(15),
            hosts: Vec::new(),
            advertised: None,
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
    /// The OpenAPI document.
    pub document: Arc<OpenApi>,
}
