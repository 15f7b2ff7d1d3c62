//! The job that a worker has open: one at a time, fetched when its first task comes.

use std::sync::{Arc, Mutex};

use super::{
    failure::Failure,
    open_job::{OpenJob, locked},
    session::Session,
};
use crate::{
    ids::JobId,
    protocol::JobMessage,
    transport::{Request, Response, Transport},
};

/// The job that is open.
#[derive(Default)]
pub(super) struct OpenJobs {
    job: Mutex<Option<Arc<OpenJob>>>,
}

impl OpenJobs {
    /// Returns the job, fetched if it is not the one that is open. What was kept of the one before is dropped.
    pub async fn open<T: Transport>(
        &self,
        session: &Session<T>,
        id: JobId,
    ) -> Result<Arc<OpenJob>, Failure> {
        if let Some(job) = self.find(id) {
            return Ok(job);
        }
        let answer = session.ask(|| Request::Job {
            credentials: session.credentials(),
            job: id,
        });
        let described: JobMessage = match answer.await? {
            Response::Job(described) => described,
            other => return Err(Failure::of_answer(other)),
        };
        let mut open = locked(&self.job);
        // Another slot can have been quicker, and has perhaps trained a client already.
        if let Some(job) = open.as_ref()
            && job.id == id
        {
            return Ok(job.clone());
        }
        let job = Arc::new(OpenJob::new(
            id,
            described,
            session.trainers.clone(),
            session.computing.clone(),
        ));
        *open = Some(job.clone());
        Ok(job)
    }

    fn find(&self, id: JobId) -> Option<Arc<OpenJob>> {
        let open = locked(&self.job);
        open.as_ref().filter(|job| job.id == id).cloned()
    }
}
