//! Connections, counted by address: all of them, and those of strangers, who have shown no valid credentials.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{
    CallerLimits, Received,
    address::AddressKey,
    table::{Remembered, Table},
};

/// The connections of each address.
pub(in crate::transport::http) struct Connections {
    limits: CallerLimits,
    start: Instant,
    table: Table<AddressKey, Open>,
}

/// Those of one address.
#[derive(Debug, Default)]
struct Open {
    all: AtomicUsize,
    strangers: AtomicUsize,
    received: std::sync::OnceLock<Arc<Received>>,
}

impl Remembered for Open {
    /// What came is forgotten with the last connection: a new one costs more than a burst gives.
    fn is_fresh(&self, _: Duration) -> bool {
        self.all.load(Ordering::Relaxed) == 0
    }
}

impl Connections {
    pub(in crate::transport::http) fn new(limits: CallerLimits) -> Self {
        Self {
            table: Table::new(limits.remembered),
            start: Instant::now(),
            limits,
        }
    }

    /// Counts a connection; none if there are too many of its address.
    pub(in crate::transport::http) fn admit(&self, address: IpAddr) -> Option<Arc<Admission>> {
        if self.limits.is_trusted_proxy(address) {
            return Some(Arc::new(Admission::new(self.start, None, None)));
        }
        let limits = self.limits.of(address);
        let open = self
            .table
            .get(AddressKey::of(address), self.start.elapsed());
        let all = open.all.fetch_add(1, Ordering::Relaxed);
        let strangers = open.strangers.fetch_add(1, Ordering::Relaxed);
        let received = (limits.received > 0).then(|| {
            let new = || Arc::new(Received::new(limits.received, self.start));
            open.received.get_or_init(new).clone()
        });
        // Counted before it is judged: dropped, it is counted out again.
        let admission = Admission::new(self.start, Some(open), received);
        let is_too_many =
            is_reached(all, limits.connections) || is_reached(strangers, limits.strangers);
        (!is_too_many).then(|| Arc::new(admission))
    }
}

/// Whether no more fit beside so many; a limit of 0 is none.
fn is_reached(count: usize, limit: usize) -> bool {
    limit > 0 && count >= limit
}

/// A connection that is counted until it is dropped.
pub(in crate::transport::http) struct Admission {
    /// None for a proxy's, which are not counted.
    open: Option<Arc<Open>>,
    pub(in crate::transport::http) received: Option<Arc<Received>>,
    is_stranger: AtomicBool,
    start: Instant,
    /// Requests that are being answered.
    answering: AtomicUsize,
    /// When the last one was answered, in milliseconds from `start`.
    quiet_since: AtomicU64,
}

impl fmt::Debug for Admission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Admission")
    }
}

impl Admission {
    fn new(start: Instant, open: Option<Arc<Open>>, received: Option<Arc<Received>>) -> Self {
        Self {
            open,
            received,
            is_stranger: AtomicBool::new(true),
            start,
            answering: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(start.elapsed().as_millis() as u64),
        }
    }

    /// Valid credentials were shown: the connection is no stranger's from here on.
    pub(in crate::transport::http) fn credentials_shown(&self) {
        // A load at first: this is on the way of each request, and is done once.
        if self.is_stranger.load(Ordering::Relaxed)
            && self.is_stranger.swap(false, Ordering::Relaxed)
            && let Some(open) = &self.open
        {
            open.strangers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// While the returned value lives, the connection is not idle.
    pub(in crate::transport::http) fn answering(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// Done once a stranger has been idle for so long.
    pub(in crate::transport::http) async fn idle_stranger(&self, limit: Duration) {
        loop {
            let quiet = Duration::from_millis(self.quiet_since.load(Ordering::Relaxed));
            let idle = self.start.elapsed().saturating_sub(quiet);
            let is_answering = self.answering.load(Ordering::Relaxed) > 0;
            if !self.is_stranger.load(Ordering::Relaxed) {
                // It never is one again.
                std::future::pending::<()>().await;
            }
            if is_answering {
                sleep(limit).await;
            } else if idle < limit {
                sleep(limit - idle).await;
            } else {
                return;
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.all.fetch_sub(1, Ordering::Relaxed);
            if *self.is_stranger.get_mut() {
                open.strangers.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// A request that is being answered.
pub(in crate::transport::http) struct Answering(Arc<Admission>);

impl Drop for Answering {
    fn drop(&mut self) {
        let now = self.0.start.elapsed().as_millis() as u64;
        self.0.quiet_since.store(now, Ordering::Relaxed);
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_counted_by_address_until_they_show_credentials_or_go() {
        let mut limits = CallerLimits::default();
        limits.address.strangers = 2;
        limits.address.connections = 4;
        let connections = Connections::new(limits);
        let here = "10.0.0.1".parse().unwrap();
        let first = connections.admit(here).unwrap();
        let _second = connections.admit(here).unwrap();
        assert!(connections.admit(here).is_none());
        assert!(connections.admit("10.0.0.2".parse().unwrap()).is_some());
        first.credentials_shown();
        first.credentials_shown();
        let third = connections.admit(here).unwrap();
        assert!(connections.admit(here).is_none());
        drop(third);
        let third = connections.admit(here).unwrap();
        third.credentials_shown();
        let fourth = connections.admit(here).unwrap();
        fourth.credentials_shown();
        // Four in all.
        assert!(connections.admit(here).is_none());
        drop(first);
        assert!(connections.admit(here).is_some());
    }
}
