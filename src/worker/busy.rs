//! The tasks that a worker has under way, each with the flag that stops it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::protocol::TaskMessage;

/// The tasks under way.
#[derive(Default)]
pub(super) struct BusyTasks(Mutex<Vec<(TaskMessage, Arc<AtomicBool>)>>);

/// A task that is under way until this is dropped. What still computes for it is then told to stop: the task that waited for
/// the result is gone, and the thread must not go on without it.
pub(super) struct BusyTask {
    tasks: Arc<BusyTasks>,
    pub message: TaskMessage,
    pub stop: Arc<AtomicBool>,
}

impl BusyTasks {
    pub fn begin(self: &Arc<Self>, message: TaskMessage) -> BusyTask {
        let stop = Arc::new(AtomicBool::new(false));
        self.locked().push((message.clone(), stop.clone()));
        BusyTask {
            tasks: self.clone(),
            message,
            stop,
        }
    }

    pub fn messages(&self) -> Vec<TaskMessage> {
        let mut messages = Vec::new();
        for (message, _) in self.locked().iter() {
            messages.push(message.clone());
        }
        messages
    }

    /// Tells a task to stop, if it is under way.
    pub fn stop(&self, message: &TaskMessage) {
        for (busy, stop) in self.locked().iter() {
            if busy == message {
                // Relaxed: the flag is all that is said, and no other value is read because of it.
                stop.store(true, Ordering::Relaxed);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, Vec<(TaskMessage, Arc<AtomicBool>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BusyTask {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // By its flag, not by its message: the same task may have been given again meanwhile.
        let stop = &self.stop;
        self.tasks
            .locked()
            .retain(|(_, busy)| !Arc::ptr_eq(busy, stop));
    }
}
