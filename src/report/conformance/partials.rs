//! Guarantees 8 to 12: uploads that broke off. A spool that keeps no parts has to say so, and takes each body from its beginning.

use std::sync::Arc;

use super::bodies::{ROUND, assert_missing, assert_same, delta, form, layout, metadata, one};
use crate::{
    ids::{ClientId, JobId, RequestId, RoundId, WorkerId},
    parameters::{BodyForm, Digest, Encoding, PayloadSpec, Payloads, Roles},
    report::{DELTA, Executor, PartialKey, Serial, Spool, SpoolError, SpoolWriter},
};

/// A body, with the key of its upload.
struct Body {
    partial: PartialKey,
    bytes: Vec<u8>,
    form: Arc<BodyForm>,
    delta: Payloads,
}

impl Body {
    fn new(job: u64, encoding: Encoding, seed: u32) -> Self {
        let delta = delta(encoding, seed);
        let bytes = delta.pieces().concat();
        let partial = PartialKey {
            job: JobId(job),
            round: ROUND,
            client: ClientId(seed),
            worker: WorkerId(7),
            digest: Digest::of(&bytes),
        };
        Self {
            partial,
            bytes,
            form: form(encoding),
            delta,
        }
    }

    fn begin(&self, spool: &dyn Spool, upload: u64) -> Box<dyn SpoolWriter> {
        let writer = spool.begin_resumable(RequestId(upload), self.partial, &self.form);
        writer.expect("an upload begins")
    }

    /// Begins an upload that breaks off after this many bytes; how many of them are kept.
    fn break_off(&self, spool: &dyn Spool, upload: u64, bytes: usize) -> u64 {
        let mut writer = self.begin(spool, upload);
        for piece in self.bytes[..bytes].chunks(5000) {
            writer.push(piece).expect("a piece of an honest body");
        }
        drop(writer);
        let kept = self.offset(spool);
        assert!(kept <= bytes as u64, "more is kept than came");
        kept
    }

    fn offset(&self, spool: &dyn Spool) -> u64 {
        let offset = spool.offset(self.partial, &self.form);
        offset.expect("an offset")
    }

    fn resume(
        &self,
        spool: &dyn Spool,
        upload: u64,
        offset: u64,
    ) -> Result<Box<dyn SpoolWriter>, SpoolError> {
        spool.resume(RequestId(upload), self.partial, &self.form, offset)
    }

    /// Sends the rest from this byte on, and looks at the report that comes of it.
    fn finish(&self, spool: &dyn Spool, upload: u64, offset: u64, executor: &dyn Executor) {
        let mut writer = match offset {
            0 => self.begin(spool, upload),
            _ => self
                .resume(spool, upload, offset)
                .expect("an upload goes on"),
        };
        for piece in self.bytes[offset as usize..].chunks(7001) {
            writer.push(piece).expect("a piece of the rest");
        }
        let finished = writer.finish(metadata(1), Some(self.partial.digest));
        finished.expect("a whole body");
        let key = self.partial.report(RequestId(upload));
        let report = one(spool, key).expect("a stored report");
        assert_same(&report, &self.delta, executor);
        assert_eq!(self.offset(spool), 0, "a part of a stored report is kept");
    }
}

fn nothing_kept(result: Result<Box<dyn SpoolWriter>, SpoolError>, what: &str) {
    let none = Some(SpoolError::Offset { kept: 0 });
    assert_eq!(result.err(), none, "an upload goes on {what}");
}

/// Guarantees 8 and 9: what comes of an upload that breaks off, at any byte and more than once, is the report of an unbroken one.
///
/// # Panics
///
/// If it isn't.
pub fn goes_on_where_an_upload_broke_off(spool: &dyn Spool, executor: &dyn Executor) {
    let top_k = Encoding::TopK { fraction: 0.1 };
    for (job, encoding) in (1100..).zip([Encoding::F32, Encoding::Bf16, Encoding::Int8, top_k]) {
        let body = Body::new(job, encoding, 1);
        let length = body.bytes.len();
        for (upload, end) in (1..).zip([0, 3, 9, 100, length / 3, length / 2 + 1, length]) {
            let kept = body.break_off(spool, 10 * upload, end);
            assert_missing(spool, body.partial.report(RequestId(10 * upload)), "broken");
            if kept == 0 {
                nothing_kept(body.resume(spool, 10 * upload + 1, 1), "without a part");
            }
            // A second break, a third of the way further.
            let mut from = kept;
            if kept > 0 {
                let mut writer = body.resume(spool, 10 * upload + 1, kept).expect("a part");
                let end = kept as usize + (length - kept as usize) / 3;
                let pushed = writer.push(&body.bytes[kept as usize..end]);
                pushed.expect("a piece of the rest");
                drop(writer);
                from = body.offset(spool);
                assert!((kept..=end as u64).contains(&from), "{from} bytes are kept");
            }
            body.finish(spool, 10 * upload + 2, from, executor);
        }
        spool.discard(body.partial.job, ROUND);
    }
    several_payloads(spool);
}

/// Between two payloads are bytes that are stored and do not travel.
fn several_payloads(spool: &dyn Spool) {
    let mut body = Body::new(1105, Encoding::F32, 1);
    let specs = [
        PayloadSpec::model(DELTA, Roles::TRAINED),
        PayloadSpec::model("control", Roles::TRAINABLE),
    ];
    body.form = Arc::new(BodyForm::of(&specs, &layout()));
    let control = delta(Encoding::F32, 9);
    let delta = body.delta.find(DELTA).expect("a delta").clone();
    let control = control.find(DELTA).expect("a delta").decode();
    let control = control.expect("values in memory");
    let form = body.form.parts()[1].form.clone();
    let control = crate::parameters::encode(&form, &control).expect("finite values");
    body.delta = Payloads::new(vec![
        (DELTA.to_string(), delta),
        ("control".to_string(), control),
    ]);
    body.bytes = body.delta.pieces().concat();
    body.partial.digest = Digest::of(&body.bytes);
    let length = body.bytes.len();
    for (upload, end) in (1..).zip([length / 2 - 1, length / 2 + 200, length - 1]) {
        let kept = body.break_off(spool, 2 * upload, end);
        body.finish(spool, 2 * upload + 1, kept, &Serial);
    }
    spool.discard(body.partial.job, ROUND);
}

/// Guarantee 9: another job, round, client, worker or digest has no part, and a part is gone on with from its end alone.
///
/// # Panics
///
/// If that is not so.
pub fn goes_on_for_the_same_upload_alone(spool: &dyn Spool) {
    let body = Body::new(1110, Encoding::F32, 1);
    let kept = body.break_off(spool, 1, 100_000);
    let other = |change: fn(&mut PartialKey)| {
        let mut partial = body.partial;
        change(&mut partial);
        assert_eq!(spool.offset(partial, &body.form), Ok(0), "{partial:?}");
        let resumed = spool.resume(RequestId(2), partial, &body.form, kept.max(1));
        nothing_kept(resumed, "with another key");
    };
    other(|partial| partial.job = JobId(1111));
    other(|partial| partial.round = ROUND.next());
    other(|partial| partial.client = ClientId(2));
    other(|partial| partial.worker = WorkerId(8));
    other(|partial| partial.digest = Digest::of(b"another body"));
    for wrong in [0, 1, kept.wrapping_sub(1), kept + 1, u64::MAX] {
        let resumed = body.resume(spool, 2, wrong);
        let expected = Some(SpoolError::Offset { kept });
        assert_eq!(resumed.err(), expected, "an upload goes on at {wrong}");
    }
    // None of that changed anything.
    assert_eq!(body.offset(spool), kept);
    body.finish(spool, 3, kept, &Serial);
    spool.discard(body.partial.job, ROUND);
}

/// Guarantee 10: a rest that does not belong to the part is refused, and the next upload begins at 0.
///
/// # Panics
///
/// If it is stored, or if its part is kept.
pub fn begins_again_after_another_digest(spool: &dyn Spool, executor: &dyn Executor) {
    let body = Body::new(1120, Encoding::Int8, 1);
    let kept = body.break_off(spool, 1, body.bytes.len() / 2);
    if kept > 0 {
        let mut writer = body.resume(spool, 2, kept).expect("an upload goes on");
        let mut rest = body.bytes[kept as usize..].to_vec();
        let last = rest.len() - 1;
        rest[last] ^= 1;
        writer.push(&rest).expect("values that are finite");
        let finished = writer.finish(metadata(1), Some(body.partial.digest));
        assert!(
            matches!(finished, Err(SpoolError::Malformed(_))),
            "{finished:?}"
        );
        assert_missing(
            spool,
            body.partial.report(RequestId(2)),
            "of another digest",
        );
        assert_eq!(body.offset(spool), 0, "a part that is wrong is kept");
    }
    body.finish(spool, 3, 0, executor);
    spool.discard(body.partial.job, ROUND);
}

/// Guarantee 11: an upload whose connection is half dead is taken over, and its writer adds nothing any more.
///
/// # Panics
///
/// If that is not so.
pub fn takes_an_upload_over(spool: &dyn Spool, executor: &dyn Executor) {
    let body = Body::new(1130, Encoding::F32, 1);
    let mut before = body.begin(spool, 1);
    before.push(&body.bytes[..90_000]).expect("a piece");
    let kept = body.offset(spool);
    assert!(kept <= 90_000);
    if kept > 0 {
        let late = before.push(&body.bytes[90_000..]);
        assert_eq!(
            late,
            Err(SpoolError::TakenOver),
            "two writers add to a part"
        );
        assert_eq!(body.offset(spool), kept);
        let mut next = body.resume(spool, 2, kept).expect("an upload goes on");
        next.push(&body.bytes[kept as usize..150_000])
            .expect("a piece");
        let finished = before.finish(metadata(1), Some(body.partial.digest));
        assert_eq!(finished, Err(SpoolError::TakenOver));
        let kept = body.offset(spool);
        assert_eq!(next.push(&[0]).err(), Some(SpoolError::TakenOver));
        let last = body.resume(spool, 3, kept).expect("an upload goes on");
        // Without a question before.
        let again = body.resume(spool, 4, kept).expect("an upload goes on");
        drop((next, last, again));
        body.finish(spool, 5, kept, executor);
    } else {
        drop(before);
        body.finish(spool, 5, 0, executor);
    }
    spool.discard(body.partial.job, ROUND);
}

/// Guarantees 4 and 12: of each sender there is one part, and those of two senders do not affect each other.
///
/// # Panics
///
/// If that is not so.
pub fn keeps_one_part_of_each_sender(spool: &dyn Spool) {
    let first = Body::new(1140, Encoding::F32, 1);
    let mut second = Body::new(1140, Encoding::F32, 2);
    second.partial.client = first.partial.client;
    let mut elsewhere = Body::new(1140, Encoding::F32, 3);
    elsewhere.partial.client = first.partial.client;
    elsewhere.partial.worker = WorkerId(8);
    first.break_off(spool, 1, 100_000);
    let of_other = elsewhere.break_off(spool, 2, 50_000);
    let kept = second.break_off(spool, 3, 80_000);
    assert_eq!(first.offset(spool), 0, "two parts of a sender are kept");
    nothing_kept(first.resume(spool, 4, 100_000), "whose part was replaced");
    assert_eq!(second.offset(spool), kept);
    second.finish(spool, 5, kept, &Serial);
    assert_eq!(elsewhere.offset(spool), of_other, "another sender's part");
    elsewhere.finish(spool, 6, of_other, &Serial);
    spool.discard(first.partial.job, ROUND);
}

/// Guarantees 1 and 12: a part goes with its round, and when it is dropped, whether it has a writer or not, and no other part goes
/// with it. An upload that was not begun to be gone on with leaves none.
///
/// # Panics
///
/// If that is not so.
pub fn removes_parts_that_nobody_needs(spool: &dyn Spool) {
    let bodies = [1, 2].map(|client| Body::new(1150, Encoding::F32, client));
    let mut later = Body::new(1150, Encoding::F32, 3);
    later.partial.round = RoundId(2);
    let end = |first_upload: u64, what: &str, end: &dyn Fn()| {
        let kept = bodies[0].break_off(spool, first_upload, 60_000);
        let mut open = bodies[1].begin(spool, first_upload + 1);
        open.push(&bodies[1].bytes[..70_000]).expect("a piece");
        let of_later = later.break_off(spool, first_upload + 2, 80_000);
        end();
        assert_eq!(bodies[0].offset(spool), 0, "{what}: a part is kept");
        let resumed = bodies[0].resume(spool, first_upload + 3, kept.max(1));
        nothing_kept(resumed, what);
        if kept > 0 {
            let pushed = open.push(&bodies[1].bytes[70_000..]);
            assert_eq!(pushed, Err(SpoolError::TakenOver), "{what}");
        }
        drop(open);
        assert_eq!(bodies[1].offset(spool), 0, "{what}: an open part is kept");
        assert_eq!(later.offset(spool), of_later, "{what}: of another round");
    };
    end(10, "its round is discarded", &|| {
        spool.discard(JobId(1150), ROUND)
    });
    end(20, "its client is done", &|| {
        spool.drop_partials(JobId(1150), ROUND, ClientId(1));
        spool.drop_partials(JobId(1150), ROUND, ClientId(2));
        spool.drop_partials(JobId(1150), ROUND, ClientId(3));
    });
    spool.discard(JobId(1150), RoundId(2));
    let body = &bodies[0];
    let writer = spool.begin(body.partial.report(RequestId(5)), &body.form);
    let mut writer = writer.expect("an upload begins");
    writer.push(&body.bytes[..60_000]).expect("a piece");
    drop(writer);
    assert_eq!(body.offset(spool), 0, "a part of a plain upload is kept");
}
