//! The worker's connection as one thing: however many requests fail at once, one line says that it is lost, and one that it
//! is back.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ids::CoordinatorId,
    transport::{Request, Response, Transport, TransportError},
};

/// How often an outage that lasts is told again.
const REMINDER: Duration = Duration::from_secs(60);

/// A transport whose outages are told.
pub(super) struct Watched<T> {
    transport: T,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    told: Instant,
}

impl<T: Transport> Watched<T> {
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            outage: Mutex::new(None),
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self) {
        let Some(outage) = self.outage().take() else {
            return;
        };
        let seconds = outage.since.elapsed().as_secs();
        tracing::info!(seconds, "the coordinator answers again");
    }

    fn failed(&self, error: &TransportError) {
        let told = note_failure(&mut self.outage(), Instant::now());
        match told {
            Told::First => {
                tracing::warn!(%error, "no answer from the coordinator: trying again until there is one");
            }
            Told::Again { seconds } => {
                tracing::warn!(%error, seconds, "still no answer from the coordinator");
            }
            Told::Nothing => tracing::debug!(%error, "no answer"),
        }
    }
}

/// What the log says of a failed request.
#[derive(Debug, PartialEq)]
enum Told {
    First,
    Again { seconds: u64 },
    Nothing,
}

fn note_failure(outage: &mut Option<Outage>, now: Instant) -> Told {
    match outage {
        None => {
            *outage = Some(Outage {
                since: now,
                told: now,
            });
            Told::First
        }
        Some(outage) if now - outage.told >= REMINDER => {
            outage.told = now;
            let seconds = (now - outage.since).as_secs();
            Told::Again { seconds }
        }
        Some(_) => Told::Nothing,
    }
}

impl<T: Transport> Transport for Watched<T> {
    async fn send(&self, request: Request) -> Result<Response, TransportError> {
        let answer = self.transport.send(request).await;
        match &answer {
            // Also if it refuses: it is there.
            Ok(_) => self.answered(),
            Err(error) => self.failed(error),
        }
        answer
    }

    async fn coordinator(&self) -> Result<Option<CoordinatorId>, TransportError> {
        let answer = self.transport.coordinator().await;
        match &answer {
            Ok(_) => self.answered(),
            Err(error) => self.failed(error),
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::{ids::WorkerId, protocol::Token, transport::Credentials};

    #[test]
    fn an_outage_is_told_once_and_then_each_minute() {
        let start = Instant::now();
        let mut outage = None;
        let mut told = Vec::new();
        for seconds in [0, 1, 1, 30, 59, 60, 61, 119, 120] {
            let now = start + Duration::from_secs(seconds);
            told.push(note_failure(&mut outage, now));
        }
        let again = |seconds| Told::Again { seconds };
        let (none, minute, two) = (|| Told::Nothing, again(60), again(120));
        let expected = [
            Told::First,
            none(),
            none(),
            none(),
            none(),
            minute,
            none(),
            none(),
            two,
        ];
        assert_eq!(told, expected);
    }

    /// Answers, or does not.
    struct Flaky(AtomicBool);

    impl Transport for Flaky {
        async fn send(&self, _: Request) -> Result<Response, TransportError> {
            if self.0.load(Ordering::Relaxed) {
                Ok(Response::Idle)
            } else {
                Err(TransportError::TimedOut(1))
            }
        }
    }

    #[tokio::test]
    async fn any_answer_ends_an_outage() {
        let watched = Watched::new(Flaky(AtomicBool::new(false)));
        let ask = || {
            let credentials = Credentials {
                worker: WorkerId(1),
                token: Token(String::new()),
            };
            watched.send(Request::Leave { credentials })
        };
        assert!(ask().await.is_err());
        assert!(watched.outage().is_some());
        watched.transport.0.store(true, Ordering::Relaxed);
        assert!(ask().await.is_ok());
        assert!(watched.outage().is_none());
    }
}
