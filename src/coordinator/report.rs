//! What workers tell of their tasks: reports, failures, evaluations.

use super::{
    claims::KnownTask, driver::refusal_of, handle::Coordinator, under_way::UnderWay, upload::Upload,
};
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
        metadata: ReportMetadata,
        body: ReportBody,
    ) -> Result<Response, Refusal> {
        let taken = self.take_report(credentials, job, round, client, metadata, body);
        let taken = taken.await;
        if let Err(refusal) = &taken {
            self.note_refused_report(credentials.worker, refusal);
        }
        taken
    }

    async fn take_report(
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
            state.working(credentials, self.now())?;
            let found = state.job(job)?;
            let spec = &found.spec;
            // Nobody can count the examples of a worker's own data, and they are the report's weight: the limit keeps
            // one claim from outweighing all others. The client's size was cut in the same way (`local_examples`), so
            // that an honest report is not refused for having more.
            if spec.partition.is_local() {
                metadata.examples = metadata
                    .examples
                    .min(self.0.config.uploads.max_local_examples);
            }
            let worker = credentials.worker;
            // What is wrong with it is told by the verdict: no number is made good that is none.
            let mut notes = Vec::new();
            if metadata.check().is_ok() {
                let known = KnownTask::of(found, client, worker, self.now());
                notes = known.hold(&mut metadata, &self.0.config.claims);
            }
            let request = state.next_request();
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
            job.not_counted.insert(client, notes);
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
        state.working(credentials, self.now())?;
        // `drive` gives no answer to an unknown job and none to one that has not started: tell them apart here.
        state.job(job)?;
        let request = state.next_request();
        match self.drive(&mut state, job, event(request)) {
            Some(round::Response::Accepted) => Ok(Response::Accepted),
            answer => Err(refusal_of(answer)),
        }
    }
}
