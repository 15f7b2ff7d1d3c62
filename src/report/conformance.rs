//! What every [`Spool`] must keep, for this crate's own and for a third party's.
//!
//! Call [`everything`] from a test with an empty spool that has room for a few megabytes, and the threads to read with. A
//! broken guarantee panics with what is wrong; each function names the numbers of [`Spool`]'s contract that it checks. Each property uses a job of its own, so that they can be called alone too.

mod bodies;
mod partials;

use std::sync::Arc;

use bodies::{
    ROUND, assert_missing, assert_same, begin, delta, form, key, layout, metadata, one, parameters,
    upload,
};
pub use partials::*;
use serde_json::json;

use super::{DELTA, DELTA_PREFIX, Executor, Spool, SpoolError, SpoolKey};
use crate::{
    ids::{JobId, RequestId},
    parameters::{
        Block, BlockBuffer, BodyForm, DType, Digest, Encoded, Encoding, Form, Layout, Parameters,
        PayloadSpec, Payloads, Role, Roles, Values, encode, safetensors::SafetensorsError,
    },
};

/// Asserts the whole contract of [`Spool`].
///
/// # Panics
///
/// If the contract is broken.
pub fn everything(spool: &dyn Spool, executor: &dyn Executor) {
    gives_back_what_was_uploaded(spool, executor);
    takes_tensors_in_any_order(spool);
    keeps_several_payloads(spool);
    takes_what_is_in_memory(spool);
    refuses_what_is_no_report(spool);
    shows_a_report_from_its_finish_on(spool);
    keeps_the_uploads_of_a_client_apart(spool);
    forgets_one_report(spool);
    discards_one_round(spool);
    keeps_readable_what_is_held(spool, executor);
    goes_on_where_an_upload_broke_off(spool, executor);
    goes_on_for_the_same_upload_alone(spool);
    begins_again_after_another_digest(spool, executor);
    takes_an_upload_over(spool, executor);
    keeps_one_part_of_each_sender(spool);
    removes_parts_that_nobody_needs(spool);
}

/// Guarantees 2 and 7: a report reads back to the bit, in every encoding, whatever the pieces that it came in.
///
/// # Panics
///
/// If it doesn't.
pub fn gives_back_what_was_uploaded(spool: &dyn Spool, executor: &dyn Executor) {
    let top_k = Encoding::TopK { fraction: 0.01 };
    let encodings = [
        Encoding::F32,
        Encoding::F16,
        Encoding::Bf16,
        Encoding::Int8,
        top_k,
    ];
    for (job, encoding) in (1000..).zip(encodings) {
        for (client, size) in (0..).zip([1, 3, 7, 4096, 100_000, usize::MAX]) {
            let key = key(job, client);
            let delta = delta(encoding, client);
            upload(spool, key, &delta, size).expect("an upload in pieces");
            let report = one(spool, key).expect("a stored report");
            assert_eq!((report.client, report.round), (key.client, key.round));
            assert_eq!(report.metadata, metadata(client), "metadata in {encoding}");
            assert_same(&report, &delta, executor);
        }
        spool.discard(JobId(job), ROUND);
    }
}

/// Guarantee 2: the tensors of a body may come in any order.
///
/// # Panics
///
/// If they may not.
pub fn takes_tensors_in_any_order(spool: &dyn Spool) {
    let parameters = parameters(5);
    let (mut tensors, mut values, mut end) = (serde_json::Map::new(), Vec::new(), 0);
    for spec in parameters.layout().tensors().iter().rev() {
        let bytes: &[u8] = bytemuck::cast_slice(&parameters.values()[spec.range()]);
        let offsets = [end, end + bytes.len()];
        end = offsets[1];
        let info = json!({ "dtype": "F32", "shape": spec.shape, "data_offsets": offsets });
        tensors.insert(format!("{DELTA_PREFIX}{}", spec.name), info);
        values.extend_from_slice(bytes);
    }
    let header = json!(tensors).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let body = [&length, header.as_bytes(), &values].concat();
    for (client, size) in [(0, 5), (1, 1000), (2, usize::MAX)] {
        let key = key(1010, client);
        let mut writer = begin(spool, key, Encoding::F32);
        for piece in body.chunks(size) {
            writer.push(piece).expect("a piece of a reversed body");
        }
        let finished = writer.finish(metadata(client), Some(Digest::of(&body)));
        finished.expect("a reversed body");
        let report = one(spool, key).expect("a stored report");
        let expected = Payloads::delta(Encoded::plain(parameters.clone()));
        assert_same(&report, &expected, &super::Serial);
    }
    spool.discard(JobId(1010), ROUND);
}

/// Guarantees 2 and 3: payloads of several types in one report read back as they were sent, uploaded or from memory; one that is missing is refused.
///
/// # Panics
///
/// If they don't.
pub fn keeps_several_payloads(spool: &dyn Spool) {
    let specs = [
        PayloadSpec::model(DELTA, Roles::TRAINED).with_encoding(Encoding::Int8),
        PayloadSpec::model("control", Roles::TRAINABLE),
        PayloadSpec::vector("counts", 3, DType::U64),
        PayloadSpec::vector("sums", 2, DType::F64),
    ];
    let form = Arc::new(BodyForm::of(&specs, &layout()));
    let counts = Values::U64(vec![1, u64::MAX, 3]);
    let sums = Values::F64(vec![0.1, -1e300]);
    let forms: Vec<Form> = form.parts().iter().map(|part| part.form.clone()).collect();
    let encoded = [
        encode(&forms[0], &parameters(3)).expect("finite values"),
        encode(&forms[1], &parameters(4)).expect("finite values"),
        Encoded::values(forms[2].clone(), counts).expect("three counts"),
        Encoded::values(forms[3].clone(), sums).expect("two sums"),
    ];
    let mut payloads = Vec::new();
    for (spec, encoded) in specs.iter().zip(encoded) {
        payloads.push((spec.name.clone(), encoded));
    }
    let payloads = Payloads::new(payloads);
    let body = payloads.pieces().concat();
    for (client, size) in [(0, 9), (1, 5000), (2, usize::MAX)] {
        let mut writer = spool
            .begin(key(1015, client), &form)
            .expect("an upload begins");
        for piece in body.chunks(size) {
            writer.push(piece).expect("a piece of four payloads");
        }
        let finished = writer.finish(metadata(client), Some(Digest::of(&body)));
        finished.expect("a body of four payloads");
    }
    let stored = spool.put(key(1015, 3), &form, metadata(3), payloads.clone());
    stored.expect("payloads in memory");
    for client in 0..4 {
        let report = one(spool, key(1015, client)).expect("a stored report");
        assert_same(&report, &payloads, &super::Serial);
        let mut buffer = BlockBuffer::default();
        let counts = report.payload("counts").expect("a payload");
        match counts.block(0..3, &mut buffer).expect("a stored block") {
            Block::U64(found) => assert_eq!(found, [1, u64::MAX, 3]),
            other => panic!("integers came back as {other:?}"),
        }
        let sums = report.payload("sums").expect("a payload");
        match sums.block(1..2, &mut buffer).expect("a stored block") {
            Block::F64(found) => assert_eq!(found, [-1e300]),
            other => panic!("doubles came back as {other:?}"),
        }
    }
    let fewer: Vec<_> = payloads
        .iter()
        .take(3)
        .map(|(name, one)| (name.to_string(), one.clone()))
        .collect();
    let stored = spool.put(key(1015, 4), &form, metadata(4), Payloads::new(fewer));
    assert!(
        matches!(stored, Err(SpoolError::Malformed(_))),
        "a payload is missing: {stored:?}"
    );
    spool.discard(JobId(1015), ROUND);
}

/// Guarantees 2 and 3: a delta in memory is stored as an upload of it is, and one that is no report is refused.
///
/// # Panics
///
/// If it isn't.
pub fn takes_what_is_in_memory(spool: &dyn Spool) {
    for (client, encoding) in [(0, Encoding::F32), (1, Encoding::Int8)] {
        let (key, delta) = (key(1020, client), delta(encoding, client));
        let stored = spool.put(key, &form(encoding), metadata(client), delta.clone());
        stored.expect("a delta in memory");
        let report = one(spool, key).expect("a stored report");
        assert_same(&report, &delta, &super::Serial);
    }
    let mut values = parameters(2).values().to_vec();
    values[70_001] = f32::NAN;
    let broken = Parameters::new(layout(), values).expect("values of the layout");
    let broken = Payloads::delta(Encoded::plain(Arc::new(broken)));
    let stored = spool.put(key(1020, 2), &form(Encoding::F32), metadata(2), broken);
    assert!(
        matches!(
            stored,
            Err(SpoolError::Malformed(SafetensorsError::NotFinite { .. }))
        ),
        "a value that is not finite was taken: {stored:?}"
    );
    spool.discard(JobId(1020), ROUND);
}

/// Guarantees 1 and 3: a body that is broken in any way is refused, is not there afterwards, and can be uploaded again.
///
/// # Panics
///
/// If one is taken, or leaves something behind.
pub fn refuses_what_is_no_report(spool: &dyn Spool) {
    let key = key(1030, 0);
    let delta = delta(Encoding::F32, 0);
    let body = delta.pieces().concat();
    let mut infinite = body.clone();
    let end = infinite.len();
    infinite[end - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let mut flipped = body.clone();
    flipped[end - 4] ^= 1;
    let other = Layout::new([("a".to_string(), vec![2], Role::Trainable)]).expect("a layout");
    let other = Payloads::delta(Encoded::plain(Arc::new(Parameters::zeros(other))));
    let bodies: [(&str, Vec<u8>); 6] = [
        ("truncated", body[..end - 1].to_vec()),
        ("without a payload", body[..100].to_vec()),
        ("too long", [&body[..], &[0]].concat()),
        ("not finite", infinite),
        ("of another digest", flipped),
        ("of another layout", other.pieces().concat()),
    ];
    for (what, broken) in bodies {
        let mut writer = begin(spool, key, Encoding::F32);
        let pushed = broken.chunks(4096).try_for_each(|piece| writer.push(piece));
        let result = pushed.and_then(|()| writer.finish(metadata(0), Some(Digest::of(&body))));
        assert!(
            matches!(result, Err(SpoolError::Malformed(_))),
            "a body {what} came to {result:?}"
        );
        assert_missing(spool, key, what);
    }
    upload(spool, key, &delta, 4096).expect("the upload that is whole");
    assert!(one(spool, key).is_ok());
    spool.discard(JobId(1030), ROUND);
}

/// Guarantee 1: before its end an upload is not there, and a dropped one never is.
///
/// # Panics
///
/// If it is.
pub fn shows_a_report_from_its_finish_on(spool: &dyn Spool) {
    let (key, delta) = (key(1040, 0), delta(Encoding::F32, 0));
    let body = delta.pieces().concat();
    let mut dropped = begin(spool, key, Encoding::F32);
    dropped.push(&body).expect("a body");
    assert_missing(spool, key, "under way");
    drop(dropped);
    assert_missing(spool, key, "dropped");
    let mut writer = begin(spool, key, Encoding::F32);
    writer.push(&body).expect("a body");
    writer.finish(metadata(0), None).expect("a whole body");
    assert!(one(spool, key).is_ok(), "a finished upload is not there");
    spool.discard(JobId(1040), ROUND);
}

/// Guarantee 4: several uploads of one client do not affect each other.
///
/// # Panics
///
/// If they do.
pub fn keeps_the_uploads_of_a_client_apart(spool: &dyn Spool) {
    let first = key(1050, 0);
    let second = SpoolKey {
        upload: RequestId(2),
        ..first
    };
    let deltas = [delta(Encoding::F32, 1), delta(Encoding::F32, 2)];
    let bodies = deltas.each_ref().map(|delta| delta.pieces().concat());
    let mut writers = [first, second].map(|key| begin(spool, key, Encoding::F32));
    let halves = bodies.iter().map(|body| body.len() / 2);
    for ((writer, body), half) in writers.iter_mut().zip(&bodies).zip(halves.clone()) {
        writer.push(&body[..half]).expect("the first half");
    }
    for ((mut writer, body), half) in writers.into_iter().zip(&bodies).zip(halves) {
        writer.push(&body[half..]).expect("the second half");
        writer.finish(metadata(0), None).expect("a whole body");
    }
    for (key, delta) in [(first, &deltas[0]), (second, &deltas[1])] {
        let report = one(spool, key).expect("a stored report");
        assert_same(&report, delta, &super::Serial);
    }
    spool.discard(JobId(1050), ROUND);
}

/// Guarantee 5: a forgotten report is gone, and no other; to forget it again is no error.
///
/// # Panics
///
/// If that is not so.
pub fn forgets_one_report(spool: &dyn Spool) {
    let keys = [0, 1].map(|client| key(1060, client));
    for key in keys {
        upload(spool, key, &delta(Encoding::F16, key.client.0), 4096).expect("an upload");
    }
    spool.forget(keys[0]);
    assert_missing(spool, keys[0], "forgotten");
    assert!(one(spool, keys[1]).is_ok(), "another report is gone");
    spool.forget(keys[0]);
    spool.discard(JobId(1060), ROUND);
}

/// Guarantee 5: a discarded round is gone, and no other, not even if an upload of it is under way.
///
/// # Panics
///
/// If that is not so.
pub fn discards_one_round(spool: &dyn Spool) {
    let key = key(1070, 0);
    let later = SpoolKey {
        round: ROUND.next(),
        ..key
    };
    let elsewhere = SpoolKey {
        job: JobId(1071),
        ..key
    };
    let delta = delta(Encoding::F32, 0);
    for key in [key, later, elsewhere] {
        upload(spool, key, &delta, 4096).expect("an upload");
    }
    let late = SpoolKey {
        upload: RequestId(2),
        ..key
    };
    let mut writer = begin(spool, late, Encoding::F32);
    spool.discard(key.job, key.round);
    assert_missing(spool, key, "discarded");
    for key in [later, elsewhere] {
        assert!(one(spool, key).is_ok(), "another round's report is gone");
    }
    for piece in delta.pieces() {
        writer.push(&piece).expect("an upload of a discarded round");
    }
    writer.finish(metadata(0), None).expect("a late upload");
    assert!(one(spool, late).is_ok());
    spool.forget(late);
    spool.discard(later.job, later.round);
    spool.discard(elsewhere.job, elsewhere.round);
}

/// Guarantee 6: a report that was handed out stays readable when the spool has forgotten it.
///
/// # Panics
///
/// If it doesn't.
pub fn keeps_readable_what_is_held(spool: &dyn Spool, executor: &dyn Executor) {
    let (key, delta) = (key(1080, 0), delta(Encoding::Bf16, 0));
    upload(spool, key, &delta, 4096).expect("an upload");
    let held = one(spool, key).expect("a stored report");
    spool.discard(key.job, key.round);
    assert_missing(spool, key, "discarded");
    assert_same(&held, &delta, executor);
}
