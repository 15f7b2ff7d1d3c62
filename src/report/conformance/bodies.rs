//! The bodies that the suite uploads, and how it compares what comes back.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    ids::{ClientId, JobId, ModelVersion, RequestId, RoundId},
    parameters::{
        BlockBuffer, BlockReader, BodyForm, Digest, Encoded, Encoding, Form, Layout, Parameters,
        Payloads, Role, Roles, encode,
    },
    report::{DELTA, Executor, Report, ReportMetadata, Spool, SpoolError, SpoolKey, SpoolWriter},
};

pub(super) const ROUND: RoundId = RoundId(1);

pub(super) fn key(job: u64, client: u32) -> SpoolKey {
    SpoolKey {
        job: JobId(job),
        round: ROUND,
        client: ClientId(client),
        upload: RequestId(1),
    }
}

pub(super) fn metadata(client: u32) -> ReportMetadata {
    ReportMetadata {
        base_version: ModelVersion(3),
        examples: 10 + u64::from(client),
        steps: 2,
        metrics: BTreeMap::from([("train_loss".to_string(), 0.1)]),
        ..ReportMetadata::default()
    }
}

/// A long tensor, a buffer, a tensor without values and a scalar.
pub(super) fn layout() -> Arc<Layout> {
    let tensors = [
        ("a", vec![70_000], Role::Trainable),
        ("b.running_mean", vec![2, 33], Role::Buffer),
        ("c", vec![0, 4], Role::Trainable),
        ("d", vec![], Role::Trainable),
    ];
    let tensors = tensors.map(|(name, shape, role)| (name.to_string(), shape, role));
    Layout::new(tensors).expect("a layout")
}

pub(super) fn parameters(seed: u32) -> Arc<Parameters> {
    let layout = layout();
    let mut values = Vec::with_capacity(layout.len());
    for index in 1..=layout.len() as u32 {
        let mixed = index
            .wrapping_mul(2_654_435_761)
            .wrapping_add(seed * 40_503);
        values.push(((mixed >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.125);
    }
    Arc::new(Parameters::new(layout, values).expect("values of the layout"))
}

/// The form of a report whose only payload is a delta.
pub(super) fn form(encoding: Encoding) -> Arc<BodyForm> {
    let form = Form::new(encoding, layout(), Roles::TRAINED);
    Arc::new(BodyForm::one(DELTA, form))
}

pub(super) fn delta(encoding: Encoding, seed: u32) -> Payloads {
    let form = Form::new(encoding, layout(), Roles::TRAINED);
    Payloads::delta(encode(&form, &parameters(seed)).expect("finite values"))
}

pub(super) fn begin(spool: &dyn Spool, key: SpoolKey, encoding: Encoding) -> Box<dyn SpoolWriter> {
    let writer = spool.begin(key, &form(encoding));
    writer.expect("an upload begins")
}

pub(super) fn upload(
    spool: &dyn Spool,
    key: SpoolKey,
    delta: &Payloads,
    size: usize,
) -> Result<(), SpoolError> {
    let encoding = delta
        .find(DELTA)
        .map_or(Encoding::F32, |delta| delta.form().encoding());
    let mut writer = begin(spool, key, encoding);
    let body = delta.pieces().concat();
    for piece in body.chunks(size) {
        writer.push(piece)?;
    }
    writer.finish(metadata(key.client.0), Some(Digest::of(&body)))
}

pub(super) fn one(spool: &dyn Spool, key: SpoolKey) -> Result<Report, SpoolError> {
    let mut reports = spool.reports(key.job, key.round, &[(key.client, key.upload)])?;
    assert_eq!(reports.len(), 1, "one report was asked for");
    Ok(reports.remove(0))
}

pub(super) fn assert_missing(spool: &dyn Spool, key: SpoolKey, what: &str) {
    let missing = SpoolError::Missing { client: key.client };
    assert_eq!(
        one(spool, key).err(),
        Some(missing),
        "a report {what} is there"
    );
}

/// Reads all payloads in blocks from all threads, and in ranges that begin and end anywhere.
pub(super) fn assert_same(report: &Report, expected: &Payloads, executor: &dyn Executor) {
    for (name, expected) in expected.iter() {
        let found = report.payload(name).expect("a payload that was sent");
        assert_payload(name, found, expected, executor);
    }
}

pub(super) fn assert_payload(
    name: &str,
    found: &(dyn BlockReader + Send + Sync),
    expected: &Encoded,
    executor: &dyn Executor,
) {
    let len = expected.layout().len();
    let check = |start: usize, end: usize| {
        let (mut left, mut right) = (vec![0.0f32; end - start], vec![0.0f32; end - start]);
        decode(expected, start, &mut left);
        decode(found, start, &mut right);
        let same = left.iter().map(|value| value.to_bits());
        assert!(
            same.eq(right.iter().map(|value| value.to_bits())),
            "values {start}..{end} of {name} in {} differ",
            expected.form().encoding()
        );
        found.read(start, &mut right).expect("stored values");
        assert!(left == right, "read and block differ at {start}..{end}");
    };
    const BLOCK: usize = 4096;
    executor.run(len.div_ceil(BLOCK), &|index| {
        check(index * BLOCK, len.min((index + 1) * BLOCK));
    });
    let ranges = [
        (0, len),
        (1, 2),
        (255, 513),
        (65_535, 65_538),
        (len - 1, len),
        (7, 7),
    ];
    for (start, end) in ranges {
        if start <= end && end <= len {
            check(start, end);
        }
    }
    assert!(found.read(len, &mut [0.0]).is_err(), "values past the end");
}

/// Decodes values block by block.
pub(super) fn decode(reader: &dyn BlockReader, offset: usize, out: &mut [f32]) {
    let mut buffer = BlockBuffer::default();
    let end = offset + out.len();
    let mut start = offset;
    while start < end {
        let stop = reader.uniform_end(start).min(end);
        let block = reader
            .block(start..stop, &mut buffer)
            .expect("a stored block");
        block.decode(&mut out[start - offset..stop - offset]);
        start = stop;
    }
}
