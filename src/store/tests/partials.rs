//! Uploads that broke off with their process, and parts that are damaged.

use super::*;
use crate::{ids::WorkerId, report::PartialKey};

/// As small as the files of these tests: what is noted after that many bytes survives the process.
const EVERY: u64 = 4096;

fn spool(disk: &Disk) -> FileSpool {
    disk.spool(FileSpoolConfig {
        sync_every: EVERY,
        gather: 1000,
        ..FileSpoolConfig::default()
    })
}

/// A body of 200 kB and its upload.
struct Body {
    bytes: Vec<u8>,
    form: Arc<BodyForm>,
    partial: PartialKey,
}

impl Body {
    fn new(encoding: Encoding) -> Self {
        let layout = layout(75_000);
        Self::of(
            delta(&layout, encoding, 3).pieces().concat(),
            report_form(&layout, encoding),
        )
    }

    fn of(bytes: Vec<u8>, form: Arc<BodyForm>) -> Self {
        let partial = PartialKey {
            job: JOB,
            round: ROUND,
            client: ClientId(0),
            worker: WorkerId(7),
            digest: Digest::of(&bytes),
        };
        Self {
            bytes,
            form,
            partial,
        }
    }

    /// The first half comes, and the process is killed. Returns how many bytes that are.
    fn half_in_an_earlier_process(&self, disk: &Disk, upload: u64) -> usize {
        let spool = spool(disk);
        let begun = spool.begin_resumable(RequestId(upload), self.partial, &self.form);
        let mut writer = begun.unwrap();
        let half = self.bytes.len() / 2;
        for piece in self.bytes[..half].chunks(777) {
            writer.push(piece).unwrap();
        }
        // As after kill -9.
        std::mem::forget(writer);
        half
    }

    fn offset(&self, spool: &FileSpool) -> u64 {
        spool.offset(self.partial, &self.form).unwrap()
    }

    /// Sends the rest; the file of the report.
    fn finish(&self, disk: &Disk, spool: &FileSpool, upload: u64, offset: u64) -> Vec<u8> {
        let upload = RequestId(upload);
        let mut writer = match offset {
            0 => spool.begin_resumable(upload, self.partial, &self.form),
            _ => spool.resume(upload, self.partial, &self.form, offset),
        }
        .unwrap();
        for piece in self.bytes[offset as usize..].chunks(999) {
            writer.push(piece).unwrap();
        }
        writer.finish(metadata(), None).unwrap();
        let name = format!("job-1/round-1/client-0-{upload}.report");
        let folder = disk.path().join("spool");
        assert_eq!(below(&folder), ["job-1", "job-1/round-1", &name]);
        fs::read(folder.join(name)).unwrap()
    }

    /// The file of the report whose upload did not break.
    fn undisturbed(&self, upload: u64) -> Vec<u8> {
        let disk = Disk::new();
        self.finish(&disk, &spool(&disk), upload, 0)
    }
}

fn path(disk: &Disk, name: &str) -> PathBuf {
    disk.path().join("spool/job-1/round-1").join(name)
}

/// Something that happens on the disk between two processes, and its name.
type DiskDamage = (&'static str, fn(&Disk));

/// Something that happens to the bytes of a file, and its name.
type FileDamage = (&'static str, fn(&mut Vec<u8>));

/// A spool that goes on with what is on the disk, and takes no report for an accepted one.
fn again(disk: &Disk) -> FileSpool {
    let spool = spool(disk);
    spool.retain(&|_| false, &|_| true).unwrap();
    spool
}

#[test]
fn an_upload_goes_on_in_the_next_process_and_the_file_is_the_same() {
    for encoding in ["f32", "f16", "bf16", "int8", "top_k:0.5"] {
        let body = Body::new(encoding.parse().unwrap());
        let disk = Disk::new();
        let came = body.half_in_an_earlier_process(&disk, 5) as u64;
        let names = ["client-0-5.part", "client-0-5.resume"];
        assert!(names.iter().all(|name| path(&disk, name).exists()));
        let spool = again(&disk);
        let kept = body.offset(&spool);
        assert!(
            kept <= came && kept > came - 2 * EVERY,
            "{kept} of {came} bytes in {encoding}"
        );
        let file = body.finish(&disk, &spool, 6, kept);
        assert!(file == body.undisturbed(6), "{encoding}");
    }
}

#[test]
fn an_upload_survives_a_second_process_that_ends_too() {
    let body = Body::new(Encoding::F32);
    let disk = Disk::new();
    body.half_in_an_earlier_process(&disk, 5);
    let second = again(&disk);
    let first_kept = body.offset(&second);
    let mut writer = second
        .resume(RequestId(6), body.partial, &body.form, first_kept)
        .unwrap();
    let more = first_kept as usize + 40_000;
    for piece in body.bytes[first_kept as usize..more].chunks(777) {
        writer.push(piece).unwrap();
    }
    std::mem::forget(writer);
    let third = again(&disk);
    let kept = body.offset(&third);
    assert!(kept > first_kept + 30_000, "{kept} after {first_kept}");
    let file = body.finish(&disk, &third, 7, kept);
    assert!(file == body.undisturbed(7));
}

#[test]
fn what_was_damaged_is_sent_again_and_nothing_before_it() {
    let body = Body::new(Encoding::F32);
    let damages: [DiskDamage; 4] = [
        ("a byte of the part", |disk| {
            let part = path(disk, "client-0-5.part");
            let mut bytes = fs::read(&part).unwrap();
            // The lowest byte of a value: it stays finite.
            bytes[40_000] ^= 1;
            fs::write(part, bytes).unwrap();
        }),
        ("the end of the part", |disk| {
            let part = path(disk, "client-0-5.part");
            let file = fs::File::options().write(true).open(part).unwrap();
            file.set_len(40_001).unwrap();
        }),
        ("the end of the notes", |disk| {
            let notes = path(disk, "client-0-5.resume");
            let bytes = fs::read(&notes).unwrap();
            fs::write(notes, &bytes[..bytes.len() - 14 * 12 - 5]).unwrap();
        }),
        ("zeros in the notes", |disk| {
            let notes = path(disk, "client-0-5.resume");
            let mut bytes = fs::read(&notes).unwrap();
            let end = bytes.len();
            bytes[end - 14 * 12..].fill(0);
            fs::write(notes, bytes).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let disk = Disk::new();
        body.half_in_an_earlier_process(&disk, 5);
        damage(&disk);
        let spool = again(&disk);
        let kept = body.offset(&spool);
        assert!((20_000..41_000).contains(&kept), "{what}: {kept}");
        let file = body.finish(&disk, &spool, 6, kept);
        assert!(file == body.undisturbed(6), "{what}");
    }
}

#[test]
fn a_part_whose_notes_are_damaged_is_removed() {
    let body = Body::new(Encoding::F32);
    let damages: [FileDamage; 5] = [
        ("cut off", |bytes| bytes.truncate(20)),
        ("empty", Vec::clear),
        ("another header", |bytes| {
            let at = bytes.windows(7).position(|part| part == b"delta/a");
            bytes[at.unwrap() + 6] = b'x';
        }),
        ("another client", |bytes| {
            let at = bytes.windows(10).position(|part| part == b"\"client\":0");
            bytes[at.unwrap() + 9] = b'1';
        }),
        ("no note", |bytes| {
            let line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            let head: serde_json::Value = serde_json::from_slice(&bytes[..line]).unwrap();
            let header = head["header"].as_u64().unwrap() as usize;
            bytes.truncate(line + 1 + header);
        }),
    ];
    for (what, damage) in damages {
        let disk = Disk::new();
        body.half_in_an_earlier_process(&disk, 5);
        let notes = path(&disk, "client-0-5.resume");
        let mut bytes = fs::read(&notes).unwrap();
        damage(&mut bytes);
        fs::write(&notes, bytes).unwrap();
        let spool = again(&disk);
        assert_eq!(body.offset(&spool), 0, "{what}");
        assert!(!path(&disk, "client-0-5.part").exists(), "{what}");
        let file = body.finish(&disk, &spool, 6, 0);
        assert!(file == body.undisturbed(6), "{what}");
    }
}

#[test]
fn damage_between_the_question_and_the_rest_costs_what_comes_after_it() {
    let body = Body::new(Encoding::F32);
    let disk = Disk::new();
    let spool = spool(&disk);
    let mut writer = spool
        .begin_resumable(RequestId(5), body.partial, &body.form)
        .unwrap();
    for piece in body.bytes[..100_000].chunks(1000) {
        writer.push(piece).unwrap();
    }
    drop(writer);
    assert_eq!(body.offset(&spool), 100_000);
    let part = path(&disk, "client-0-5.part");
    let mut bytes = fs::read(&part).unwrap();
    bytes[40_000] ^= 1;
    fs::write(part, bytes).unwrap();
    let resumed = spool.resume(RequestId(6), body.partial, &body.form, 100_000);
    let kept = body.offset(&spool);
    assert!((30_000..41_000).contains(&kept), "{kept}");
    assert_eq!(resumed.err(), Some(SpoolError::Offset { kept }));
    let file = body.finish(&disk, &spool, 7, kept);
    assert!(file == body.undisturbed(7));
}

#[test]
fn parts_that_no_open_round_needs_and_what_has_no_notes_go_at_the_start() {
    let body = Body::new(Encoding::F32);
    let disk = Disk::new();
    body.half_in_an_earlier_process(&disk, 5);
    // The one that took its place, in the same process or in another one.
    body.half_in_an_earlier_process(&disk, 12);
    fs::write(path(&disk, "client-3-9.part"), "a plain upload").unwrap();
    fs::write(path(&disk, "client-4-9.resume"), "notes alone").unwrap();
    let next = again(&disk);
    assert_eq!(
        below(&path(&disk, "")),
        ["client-0-12.part", "client-0-12.resume"]
    );
    assert!(body.offset(&next) > 0);
    let next = spool(&disk);
    next.retain(&|_| true, &|_| false).unwrap();
    assert_eq!(below(&disk.path().join("spool")), [""; 0]);
    assert_eq!(body.offset(&next), 0);
}

#[test]
fn a_part_of_an_earlier_process_ends_with_its_round() {
    let body = Body::new(Encoding::F32);
    let disk = Disk::new();
    body.half_in_an_earlier_process(&disk, 5);
    let spool = again(&disk);
    spool.discard(JOB, ROUND);
    assert_eq!(below(&disk.path().join("spool")), [""; 0]);
    assert_eq!(body.offset(&spool), 0);
}

#[test]
fn a_trailer_that_an_earlier_process_wrote_is_not_left_behind_the_next_one() {
    let body = Body::new(Encoding::F32);
    let disk = Disk::new();
    body.half_in_an_earlier_process(&disk, 5);
    let part = path(&disk, "client-0-5.part");
    let file = fs::File::options().write(true).open(part).unwrap();
    file.set_len(body.bytes.len() as u64 + 100_000).unwrap();
    let spool = again(&disk);
    let kept = body.offset(&spool);
    let file = body.finish(&disk, &spool, 6, kept);
    assert!(file == body.undisturbed(6));
}

/// A body of another program: the tensors in another order, and one that is passed over.
fn of_another_program() -> Body {
    let layout = layout(75_000);
    let values = parameters(&layout, 1);
    let mut tensors = serde_json::Map::new();
    let (mut bytes, mut end) = (Vec::new(), 0);
    for name in ["c", "a", "b"] {
        let part: &[u8] = bytemuck::cast_slice(values.tensor(name).unwrap());
        let info = serde_json::json!({
            "dtype": "F32", "shape": [part.len() / 4], "data_offsets": [end, end + part.len()],
        });
        tensors.insert(format!("delta/{name}"), info);
        end += part.len();
        bytes.extend_from_slice(part);
    }
    let header = serde_json::Value::from(tensors).to_string();
    let length = (header.len() as u64).to_le_bytes();
    let body = [&length, header.as_bytes(), &bytes].concat();
    Body::of(body, report_form(&layout, Encoding::F32))
}

/// Goes on with an upload that broke off in the frozen tensor, the last one, whose bytes are not stored.
fn goes_on_before_the_frozen_tensor(body: &Body, disk: &Disk, spool: &FileSpool) {
    let stored = body.bytes.len() as u64 - 4 * 25_000;
    let kept = body.offset(spool);
    assert!(
        kept > stored - 2 * EVERY && kept <= stored,
        "{kept} of {stored}"
    );
    let file = body.finish(disk, spool, 7, kept);
    assert!(file == body.undisturbed(7));
}

#[test]
fn a_body_in_another_order_goes_on_up_to_a_tensor_that_is_not_stored() {
    let body = of_another_program();
    let disk = Disk::new();
    let came = body.half_in_an_earlier_process(&disk, 5) as u64;
    let spool = again(&disk);
    let kept = body.offset(&spool);
    assert!(kept > came - 2 * EVERY, "{kept} of {came}");
    // In the midst of the frozen tensor, whose bytes nobody has.
    let mut writer = spool
        .resume(RequestId(6), body.partial, &body.form, kept)
        .unwrap();
    let end = body.bytes.len() - 10_000;
    for piece in body.bytes[kept as usize..end].chunks(777) {
        writer.push(piece).unwrap();
    }
    std::mem::forget(writer);
    let spool = again(&disk);
    goes_on_before_the_frozen_tensor(&body, &disk, &spool);
}

#[test]
fn a_break_in_a_tensor_that_is_not_stored_goes_on_before_it() {
    let body = of_another_program();
    let disk = Disk::new();
    let spool = spool(&disk);
    let mut writer = spool
        .begin_resumable(RequestId(5), body.partial, &body.form)
        .unwrap();
    for piece in body.bytes[..body.bytes.len() - 10_000].chunks(777) {
        writer.push(piece).unwrap();
    }
    drop(writer);
    let told = body.offset(&spool);
    let resumed = spool.resume(RequestId(6), body.partial, &body.form, told);
    let kept = body.offset(&spool);
    assert_eq!(resumed.err(), Some(SpoolError::Offset { kept }));
    goes_on_before_the_frozen_tensor(&body, &disk, &spool);
}

#[test]
fn a_disk_that_is_full_keeps_no_part() {
    let body = Body::new(Encoding::F32);
    let disk = Disk::new();
    let spool = spool(&disk);
    let begin = || {
        spool
            .begin_resumable(RequestId(5), body.partial, &body.form)
            .unwrap()
    };
    let mut writer = begin();
    writer.push(&body.bytes[..50_000]).unwrap();
    disk.leave_room(Some(20_000));
    let full = writer.push(&body.bytes[50_000..]);
    assert!(matches!(full, Err(SpoolError::Storage(_))), "{full:?}");
    drop(writer);
    assert_eq!(below(&disk.path().join("spool")), [""; 0]);
    disk.leave_room(None);
    // The last bytes before the break wait to be written.
    let mut writer = begin();
    writer.push(&body.bytes[..50_000]).unwrap();
    writer.push(&body.bytes[50_000..50_500]).unwrap();
    disk.leave_room(Some(0));
    drop(writer);
    assert_eq!(below(&disk.path().join("spool")), [""; 0]);
    assert_eq!(body.offset(&spool), 0);
    disk.leave_room(None);
    body.finish(&disk, &spool, 6, 0);
}
