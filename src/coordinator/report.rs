//! What workers tell of their tasks: reports, failures, evaluations.

use super::{driver::refusal_of, handle::Coordinator, under_way::UnderWay, upload::Upload};
use crate::{
    ids::{ClientId, JobId, RequestId, RoundId},
    report::{Refusal, ReportMetadata, SpoolKey},
    round::{self, Event},
    transport::{Credentials, ReportBody, Response},
};

impl Coordinator {
    pub(super) async fn report(
        &self,
        credentials: &Credentials,
        job: JobId,
        round: RoundId,
        client: ClientId,
        mut metadata: ReportMetadata,
        body: ReportBody,
    ) -> Result<Response, Refusal> {
        let upload = {
            let mut state = self.state();
            self.heard_of(&mut state, credentials)?;
            let spec = &state.job(job)?.spec;
            // Nobody can count the examples of a worker's own data, and they are the report's weight: the limit keeps
            // one claim from outweighing all others. The client's size was cut in the same way (`local_examples`), so
            // that an honest report is not refused for having more.
            if spec.partition.is_local() {
                metadata.examples = metadata
                    .examples
                    .min(self.0.config.uploads.max_local_examples);
            }
            let request = state.next_request();
            let worker = credentials.worker;
            // Judged before anything of the body is read: a report that can't count costs no transfer.
            let event = Event::ReportOffered {
                request,
                worker,
                client,
                round,
                metadata: metadata.clone(),
            };
            match self.drive(&mut state, job, event) {
                Some(round::Response::Admitted) => {}
                // It was accepted before, and the answer may have been lost: the body need not come again.
                Some(round::Response::Accepted) => return Ok(Response::Accepted),
                answer => return Err(refusal_of(answer)),
            }
            let key = SpoolKey {
                job,
                round,
                client,
                upload: request,
            };
            let job = state.job_mut(job)?;
            let (under_way, signals) = UnderWay::new(key, worker);
            // Under the lock of the admission: if the round closes next, `Command::EndUpload` finds this upload.
            job.uploads.insert(request, under_way);
            Upload::new(self.clone(), key, worker, job.report_form.clone(), signals)
        };
        // Without the lock: a body may take minutes.
        upload.take(metadata, body).await
    }

    /// Sends an event about a job to its machine, and answers with what the machine says.
    pub(super) fn tell(
        &self,
        credentials: &Credentials,
        job: JobId,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<Response, Refusal> {
        let mut state = self.state();
        self.heard_of(&mut state, credentials)?;
        // `drive` gives no answer to an unknown job and none to one that has not started: tell them apart here.
        state.job(job)?;
        let request = state.next_request();
        match self.drive(&mut state, job, event(request)) {
            Some(round::Response::Accepted) => Ok(Response::Accepted),
            answer => Err(refusal_of(answer)),
        }
    }
}
