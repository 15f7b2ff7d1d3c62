//! The files of the spool with changed bytes: a crash or a bad disk may leave anything.

use super::{notes, trailer::Trailer};
use crate::{
    ids::{ClientId, JobId, ModelVersion, RequestId, RoundId},
    parameters::{BodyForm, Digest, Encoding, Form, Layout, Role, Roles},
    report::{ReportMetadata, SpoolKey},
    testing::fuzz::Target,
};

fn trailer() -> Trailer {
    let layout = Layout::new([("w".to_string(), vec![2], Role::Trainable)]).unwrap();
    let form = BodyForm::one("delta", Form::new(Encoding::F32, layout, Roles::TRAINED));
    let key = SpoolKey {
        job: JobId(1),
        round: RoundId(2),
        client: ClientId(3),
        upload: RequestId(4),
    };
    Trailer::new(
        key,
        &ReportMetadata::new(ModelVersion(1), 10),
        &form,
        Digest::of(&[0; 8]),
    )
}

/// What is decoded is what was written, whatever is in front of it.
#[test]
fn fuzz_trailers() {
    let written = trailer().encode().unwrap();
    let file = [&[0; 8], &*written].concat();
    // An odd first byte: the sum and the length are put right, since no change would be looked at otherwise.
    let target = Target::new("trailers").seed([&[0], &*file].concat());
    target.seed([&[1], &*file].concat()).run(|bytes| {
        let Some((choice, file)) = bytes.split_first() else {
            return String::new();
        };
        let mut file = file.to_vec();
        if choice & 1 == 1 && file.len() > 24 {
            let end = file.len() - 16;
            let sum = Digest::of(&file[8..end]).crc32().to_le_bytes();
            file[end..end + 4].copy_from_slice(&sum);
            let length = (end - 8) as u32;
            file[end + 4..end + 8].copy_from_slice(&length.to_le_bytes());
        }
        let Some(read) = Trailer::of_file(&file) else {
            return "none".to_string();
        };
        let again = [&vec![0; read.bytes as usize], &*read.encode().unwrap()].concat();
        assert_eq!(Trailer::of_file(&again).as_ref(), Some(&read));
        format!(
            "read, of {} payloads",
            "x".repeat(read.payloads.len().min(5))
        )
    });
}

#[test]
fn fuzz_notes() {
    let head = r#"{"partial":{"job":1,"round":2,"client":3,"worker":4,"digest":"crc32=cbf43926"},"header":4}"#;
    let seed = [head.as_bytes(), b"\nabcd", &[7; 24]].concat();
    Target::new("notes").seed(seed).run(|bytes| {
        let Some(read) = notes::parse(bytes) else {
            return "none".to_string();
        };
        assert!(read.header.len() + 12 * read.notes.len() <= bytes.len());
        format!("{} notes", "x".repeat(read.notes.len().min(5)))
    });
}
