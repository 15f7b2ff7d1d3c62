//! Requests, counted by address and by worker, and refused above the limits.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, StatusCode},
};

use super::{
    AddressLimits, Admission, CallerLimits,
    address::AddressKey,
    bucket::{Bucket, Rate},
    failures::Failures,
    proxies::forwarded_for,
    table::{Remembered, Table},
};
use crate::{
    ids::WorkerId,
    report::RefusalKind,
    text::printable,
    transport::{
        Peer,
        http::{problem::Problem, server::Connection},
    },
};

/// A registration is rare: five seconds' worth may come at once.
const REGISTRATION_BURST: f64 = 5.0;
/// The log warns of wrong credentials once a second for all addresses together, and of this many at once.
const WARNING_BURST: f64 = 10.0;
/// The most characters of a refusal's reason in the log.
const LONGEST_DETAIL: usize = 500;

/// What is counted of requests.
pub(in crate::transport::http) struct Requests {
    limits: CallerLimits,
    start: Instant,
    addresses: Table<AddressKey, OfAddress>,
    workers: Table<WorkerId, OfWorker>,
    registrations: Mutex<Bucket>,
    /// Warnings of wrong credentials, of all addresses.
    warnings: Mutex<Bucket>,
}

/// Of one address.
#[derive(Debug, Default)]
struct OfAddress {
    requests: Mutex<Bucket>,
    registrations: Mutex<Bucket>,
    failures: Mutex<Failures>,
}

impl Remembered for OfAddress {
    fn is_fresh(&self, now: Duration) -> bool {
        // The slowest rate that can be set: the buckets do not know theirs.
        let slow = Rate::new(1, 1.0);
        lock(&self.requests).is_full(slow, now)
            && lock(&self.registrations).is_full(slow, now)
            && lock(&self.failures).is_fresh(now)
    }
}

/// Of one worker.
#[derive(Debug, Default)]
struct OfWorker {
    requests: Mutex<Bucket>,
    uploads: AtomicUsize,
}

impl Remembered for OfWorker {
    fn is_fresh(&self, now: Duration) -> bool {
        self.uploads.load(Ordering::Relaxed) == 0
            && lock(&self.requests).is_full(Rate::new(1, 1.0), now)
    }
}

impl Requests {
    pub(in crate::transport::http) fn new(limits: CallerLimits) -> Self {
        Self {
            start: Instant::now(),
            addresses: Table::new(limits.remembered),
            workers: Table::new(limits.remembered),
            registrations: Mutex::default(),
            warnings: Mutex::default(),
            limits,
        }
    }

    /// Counts an upload of this worker while the returned value lives.
    pub(in crate::transport::http) fn upload(&self, worker: WorkerId) -> Result<Upload, Problem> {
        let found = self.workers.get(worker, self.start.elapsed());
        let others = found.uploads.fetch_add(1, Ordering::Relaxed);
        let upload = Upload(found);
        let most = self.limits.worker_uploads;
        if most > 0 && others >= most {
            let detail = format!("worker {worker} uploads {most} reports at once already");
            return Err(Problem::too_many(detail, Duration::from_secs(1)));
        }
        Ok(upload)
    }
}

/// An upload that is under way.
pub(in crate::transport::http) struct Upload(Arc<OfWorker>);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who asks, as an extension of the request.
#[derive(Clone)]
pub(in crate::transport::http) struct Asker {
    pub peer: Peer,
    requests: Arc<Requests>,
    address: Option<(IpAddr, Arc<OfAddress>)>,
    admission: Option<Arc<Admission>>,
}

impl Asker {
    /// Who sends this request.
    pub(in crate::transport::http) fn of(request: &Request, requests: &Arc<Requests>) -> Self {
        let connection = request.extensions().get::<Connection>();
        // What axum's own server says, if the router is mounted there.
        let foreign = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = match (connection, foreign) {
            (Some(connection), _) => requests.peer(
                connection.peer,
                connection
                    .certificate
                    .map(|certificate| certificate.bytes()),
                request.headers(),
            ),
            (None, Some(ConnectInfo(address))) => requests.peer(*address, None, request.headers()),
            (None, None) => Peer::Unknown,
        };
        let address = peer.address().map(|address| address.ip());
        // A proxy that does not say who asks is not counted: it may be anybody.
        let address = address.filter(|address| !requests.limits.is_trusted_proxy(*address));
        let address = address.map(|address| {
            let key = AddressKey::of(address);
            (
                address,
                requests.addresses.get(key, requests.start.elapsed()),
            )
        });
        Self {
            peer,
            requests: requests.clone(),
            address,
            admission: connection.map(|connection| connection.admission.clone()),
        }
    }

    /// The limits and the counts of its address, if it has one, and the time.
    fn counted(&self) -> Option<(&AddressLimits, &OfAddress, Duration)> {
        let (address, counts) = self.address.as_ref()?;
        let now = self.requests.start.elapsed();
        Some((self.requests.limits.of(*address), counts, now))
    }

    /// Counts a request of its address.
    pub(in crate::transport::http) fn count_request(&self) -> Result<(), Problem> {
        let Some((limits, counts, now)) = self.counted() else {
            return Ok(());
        };
        if limits.requests == 0 {
            return Ok(());
        }
        let rate = Rate::new(limits.requests, 1.0);
        let taken = lock(&counts.requests).take(1.0, rate, now);
        taken.map_err(|wait| {
            let detail = format!(
                "more than {} requests a second come from this address",
                limits.requests
            );
            Problem::too_many(detail, wait)
        })
    }

    /// Valid credentials were shown.
    pub(in crate::transport::http) fn credentials_shown(&self) {
        if let Some(admission) = &self.admission {
            admission.credentials_shown();
        }
    }

    /// Counts a request of this worker, whose credentials are valid.
    pub(in crate::transport::http) fn count_worker(&self, worker: WorkerId) -> Result<(), Problem> {
        self.credentials_shown();
        let Some((limits, _, now)) = self.counted() else {
            return Ok(());
        };
        if limits.worker_requests == 0 {
            return Ok(());
        }
        let rate = Rate::new(limits.worker_requests, 1.0);
        let found = self.requests.workers.get(worker, now);
        let taken = lock(&found.requests).take(1.0, rate, now);
        taken.map_err(|wait| {
            let detail = format!(
                "worker {worker} sends more than {} requests a second",
                limits.worker_requests
            );
            Problem::too_many(detail, wait)
        })
    }

    /// Counts a registration, whose credentials are valid.
    pub(in crate::transport::http) fn count_registration(&self) -> Result<(), Problem> {
        self.credentials_shown();
        let requests = &self.requests;
        let now = requests.start.elapsed();
        if let Some((limits, counts, now)) = self.counted() {
            let rate = Rate::new(limits.registrations, REGISTRATION_BURST);
            let taken = lock(&counts.registrations).take(1.0, rate, now);
            taken.map_err(|wait| {
                let most = limits.registrations;
                let detail =
                    format!("more than {most} workers a second register from this address");
                Problem::too_many(detail, wait)
            })?;
        }
        let rate = Rate::new(requests.limits.registrations, REGISTRATION_BURST);
        let taken = lock(&requests.registrations).take(1.0, rate, now);
        taken.map_err(|wait| {
            let most = requests.limits.registrations;
            let detail = format!("more than {most} workers a second register");
            Problem::new(RefusalKind::Busy, detail).retry_after(wait)
        })
    }

    /// What the caller is told whose request was refused. Wrong credentials are counted, and after some of them the caller
    /// is told to wait. The code stays: a worker whose token is not known any more registers again, and must learn it
    /// here, whatever its neighbours do.
    pub(in crate::transport::http) fn refused(&self, problem: Problem) -> Problem {
        if problem.status != StatusCode::UNAUTHORIZED.as_u16() {
            return problem;
        }
        let Some((limits, counts, now)) = self.counted() else {
            return problem;
        };
        let (wait, is_news) = {
            let mut failures = lock(&counts.failures);
            (failures.note(limits.failures, now), failures.tell(now))
        };
        if is_news {
            self.tell_of_failure(&problem.detail, now);
        }
        match wait {
            Some(wait) => problem
                .with_status(StatusCode::TOO_MANY_REQUESTS)
                .retry_after(wait),
            None => problem,
        }
    }

    /// Has the log tell of wrong credentials. Strangers with many addresses must not fill a disk by that.
    fn tell_of_failure(&self, detail: &str, now: Duration) {
        let Some((address, _)) = &self.address else {
            return;
        };
        let rate = Rate::new(1, WARNING_BURST);
        if lock(&self.requests.warnings).take(1.0, rate, now).is_ok() {
            let detail = printable(detail, LONGEST_DETAIL);
            tracing::warn!(
                from = %address.to_canonical(),
                "wrong credentials: {detail}; more of this address are logged at debug alone, for five minutes"
            );
        }
    }

    /// Counts an upload of this worker while the returned value lives.
    pub(in crate::transport::http) fn upload(&self, worker: WorkerId) -> Result<Upload, Problem> {
        self.requests.upload(worker)
    }
}

impl Requests {
    /// Who asks, if the connection comes from this address.
    fn peer(
        &self,
        address: SocketAddr,
        certificate: Option<[u8; 32]>,
        headers: &HeaderMap,
    ) -> Peer {
        let is_proxy = |address| self.limits.is_trusted_proxy(address);
        if is_proxy(address.ip()) {
            // Without a name, the proxy itself, and as one that is not here: an open coordinator on the machine of a proxy
            // must not be open to everybody. The certificate is the proxy's and no caller's.
            let caller = forwarded_for(headers, is_proxy);
            return Peer::Forwarded(caller.map_or(address, |caller| SocketAddr::new(caller, 0)));
        }
        match certificate {
            Some(certificate) => Peer::Certified {
                address,
                certificate,
            },
            None => Peer::Address(address),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is inside is whole after each step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
