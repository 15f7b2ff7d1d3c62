//! How much of a broken upload is kept: what its sender asks before it goes on.

use super::{handle::Coordinator, upload::blocking, upload_refusals::refuse};
use crate::{
    report::{PartialKey, Refusal},
    round::RoundMachine,
    transport::{Credentials, Response},
};

impl Coordinator {
    /// How many bytes of this body are kept; or that its report has been accepted already.
    ///
    /// The sender that asks has given up its earlier upload of this report. That one may still be open here, over a connection that
    /// is half dead: it ends first, and what has come by then counts.
    pub(super) async fn upload_offset(
        &self,
        credentials: &Credentials,
        partial: PartialKey,
    ) -> Result<Response, Refusal> {
        let left = {
            let mut state = self.state();
            self.heard_of(&mut state, credentials)?;
            let under_way = state.job(partial.job)?.uploads.values();
            let left = under_way.filter(|upload| upload.is_of(partial));
            left.cloned().collect::<Vec<_>>()
        };
        for upload in left {
            upload.leave().await;
        }
        let form = {
            let state = self.state();
            let job = state.job(partial.job)?;
            let machine = job.machine.as_ref();
            if machine.and_then(RoundMachine::round_under_way) != Some(partial.round) {
                // The parts of a round end with it.
                return Ok(Response::UploadOffset(0));
            }
            let sender = (partial.client, partial.worker);
            let accepted = machine.map(RoundMachine::accepted).unwrap_or_default();
            let mut accepted = accepted.iter();
            if accepted.any(|(client, _, worker)| (*client, *worker) == sender) {
                return Ok(Response::Accepted);
            }
            job.report_form.clone()
        };
        let spool = self.0.spool.clone();
        let offset = blocking(move || spool.offset(partial, &form)).await?;
        Ok(Response::UploadOffset(offset.map_err(refuse)?))
    }
}
