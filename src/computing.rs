//! Counts the work that runs on blocking threads, so that the end of a run or a process can wait until nothing computes
//! any more: `exit` runs the destructors of C++ libraries, and a thread that still computes with one of them then writes
//! to memory that is being freed.
//!
//! It must never stop work itself: the code that starts the work has a flag for that.

use std::time::Duration;

use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

/// The work that computes at the moment. Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Computing(watch::Sender<usize>);

/// One piece of work, counted until this is dropped.
struct Counted(watch::Sender<usize>);

impl Default for Computing {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Computing {
    /// Runs work on a blocking thread of a runtime.
    pub fn spawn<R: Send + 'static>(
        &self,
        runtime: &Handle,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<R> {
        // Not `send`, which changes nothing as long as nobody waits.
        self.0.send_modify(|count| *count += 1);
        // Counted from here on, and not from when a thread is free: work that waits for a thread will compute, too.
        let counted = Counted(self.0.clone());
        runtime.spawn_blocking(move || {
            let result = work();
            drop(counted);
            result
        })
    }

    /// Waits until nothing computes, at most for this long. Returns whether that is so.
    pub async fn ended(&self, limit: Duration) -> bool {
        let mut count = self.0.subscribe();
        let ended = count.wait_for(|count| *count == 0);
        tokio::time::timeout(limit, ended).await.is_ok()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn an_end_waits_for_work_and_for_work_that_panics() {
        let computing = Computing::default();
        let runtime = Handle::current();
        assert!(computing.ended(Duration::ZERO).await);
        let (go_on, told) = channel::<()>();
        let work = computing.spawn(&runtime, move || told.recv().is_ok());
        assert!(!computing.ended(Duration::from_millis(1)).await);
        go_on.send(()).unwrap();
        assert!(computing.ended(Duration::from_secs(60)).await);
        assert!(work.await.unwrap());
        let died = computing.spawn(&runtime, || panic!("as a trainer might"));
        assert!(computing.ended(Duration::from_secs(60)).await);
        assert!(died.await.is_err());
    }
}
