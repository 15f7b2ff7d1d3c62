//! An upload under way, as other requests see it.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::{
    ids::{ClientId, RoundId, WorkerId},
    report::{PartialKey, SpoolKey},
};

/// What others can do with an upload under way.
#[derive(Debug, Clone)]
pub(super) struct UnderWay {
    round: RoundId,
    client: ClientId,
    worker: WorkerId,
    end: Arc<Notify>,
    left: Arc<Notify>,
    closed: watch::Receiver<()>,
}

/// What the upload itself hears. Dropped once the machine has been told of its end.
#[derive(Debug)]
pub(super) struct Signals {
    /// Nobody needs the report any more.
    pub end: Arc<Notify>,
    /// Its sender has given up this connection, and asks to go on over another one.
    pub left: Arc<Notify>,
    _closed: watch::Sender<()>,
}

impl UnderWay {
    /// Both sides of an upload that begins.
    pub fn new(key: SpoolKey, worker: WorkerId) -> (Self, Signals) {
        let (end, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (sender, closed) = watch::channel(());
        let under_way = Self {
            round: key.round,
            client: key.client,
            worker,
            end: end.clone(),
            left: left.clone(),
            closed,
        };
        let signals = Signals {
            end,
            left,
            _closed: sender,
        };
        (under_way, signals)
    }

    /// Whether it has the same round, client and worker.
    pub fn is_of(&self, partial: PartialKey) -> bool {
        let of = (partial.round, partial.client, partial.worker);
        (self.round, self.client, self.worker) == of
    }

    /// Ends it, since nobody needs its report any more.
    pub fn end(&self) {
        // `notify_one` leaves a permit: the upload may not be waiting yet. As in the next one.
        self.end.notify_one();
    }

    /// Ends it as one that broke off, and waits until the machine has been told.
    pub async fn leave(mut self) {
        self.left.notify_one();
        // An error says that the other side is gone: that is what this waits for.
        while self.closed.changed().await.is_ok() {}
    }
}
