//! What an earlier process stored, as the next one finds it.

use super::*;
use crate::{
    parameters::PayloadSpec,
    store::{FileModels, ModelStore, StateForm, StoreError},
};

/// All values of a report's delta.
fn values(spool: &FileSpool, client: u32) -> Vec<f32> {
    let reports = spool
        .reports(JOB, ROUND, &[(ClientId(client), upload_of(client))])
        .unwrap();
    let delta = reports[0].payload(DELTA).unwrap();
    let mut values = vec![0.0; delta.layout().len()];
    delta.read(0, &mut values).unwrap();
    values
}

fn again(disk: &Disk) -> FileSpool {
    disk.spool(FileSpoolConfig::default())
}

#[test]
fn a_report_of_an_earlier_process_is_the_same_in_every_encoding() {
    for encoding in ["f32", "f16", "bf16", "int8", "top_k:0.1"] {
        let encoding: Encoding = encoding.parse().unwrap();
        let (disk, layout) = (Disk::new(), layout(100_000));
        let spool = again(&disk);
        upload(&spool, 0, &delta(&layout, encoding, 5)).unwrap();
        let before = values(&spool, 0);
        // As after kill -9.
        std::mem::forget(spool);
        let spool = again(&disk);
        spool.retain(&|found| found == key(0), &|_| false).unwrap();
        let form = report_form(&layout, encoding);
        spool.reopen(key(0), &form).unwrap();
        assert_eq!(values(&spool, 0), before, "{encoding}");
        assert_eq!(
            spool.reopen(key(1), &form),
            Err(SpoolError::Missing {
                client: ClientId(1)
            })
        );
        spool.discard(JOB, ROUND);
        assert_eq!(below(&disk.path().join("spool")), [""; 0]);
    }
}

#[test]
fn several_payloads_are_reopened_together() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let specs = [
        PayloadSpec::model(DELTA, Roles::TRAINED),
        PayloadSpec::model("control", Roles::TRAINABLE),
    ];
    let form = Arc::new(BodyForm::of(&specs, &layout));
    let spool = again(&disk);
    let mut writer = spool.begin(key(0), &form).unwrap();
    writer.push(&form.header()).unwrap();
    for index in 0..form.bytes() / 4 {
        writer.push(&(index as f32).to_le_bytes()).unwrap();
    }
    writer.finish(metadata(), None).unwrap();
    let before = values(&spool, 0);
    std::mem::forget(spool);
    let spool = again(&disk);
    spool.reopen(key(0), &form).unwrap();
    assert_eq!(values(&spool, 0), before);
    // One that a plan did not ask for.
    let other = report_form(&layout, Encoding::F32);
    assert!(spool.reopen(key(0), &other).is_err());
}

#[test]
fn a_damaged_report_is_found_whatever_is_damaged() {
    let (disk, layout) = (Disk::new(), layout(2000));
    let spool = again(&disk);
    upload(&spool, 0, &delta(&layout, Encoding::F32, 5)).unwrap();
    std::mem::forget(spool);
    let path = disk.path().join("spool/job-1/round-1/client-0-100.report");
    let whole = fs::read(&path).unwrap();
    let form = report_form(&layout, Encoding::F32);
    for place in (0..whole.len())
        .step_by(61)
        .chain(whole.len() - 20..whole.len())
    {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert!(again(&disk).reopen(key(0), &form).is_err(), "byte {place}");
    }
    for length in [0, 1, 15, 16, 100, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(
            again(&disk).reopen(key(0), &form).is_err(),
            "{length} bytes"
        );
    }
    fs::write(&path, &whole).unwrap();
    again(&disk).reopen(key(0), &form).unwrap();
}

#[test]
fn a_version_of_an_earlier_process_is_the_same_with_its_state() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let mut form = form(&layout, Encoding::F16);
    form.states
        .push(StateForm::new("m", Roles::TRAINED).offered());
    let version = ModelVersion(2);
    let models = FileModels::new(disk.folder.clone());
    let mut writer = models.begin(JOB, version, &form).unwrap();
    writer.write(0, parameters(&layout, 1).values()).unwrap();
    writer
        .write_state(0, 0, parameters(&layout, 2).values())
        .unwrap();
    let numbers = BTreeMap::from([("rounds".to_string(), 3.0)]);
    let before = writer.publish(&numbers).unwrap();
    let published = before.published();
    // One that never got its name, and one that nobody needs.
    let unfinished = models.begin(JOB, ModelVersion(3), &form).unwrap();
    std::mem::forget(unfinished);
    fs::create_dir(disk.path().join("models/job-1/v9")).unwrap();
    let models = FileModels::new(disk.folder.clone());
    models.retain(&|_, kept| kept == version).unwrap();
    assert_eq!(
        below(&disk.path().join("models"))
            .into_iter()
            .filter(|path| !path.contains('.'))
            .collect::<Vec<_>>(),
        ["job-1", "job-1/v2"]
    );
    let after = models.open(JOB, version, &form, &published).unwrap();
    assert_eq!(after.published(), published);
    assert_eq!(after.numbers(), &numbers);
    assert_eq!(after.parameters(), before.parameters());
    assert_eq!(after.body().digest(), before.body().digest());
    assert_eq!(after.body().length(), before.body().length());
    let mut state = vec![0.0; layout.len()];
    after.state("m").unwrap().read(0, &mut state).unwrap();
    assert!(after.payload("m").is_some() && after.frozen().is_some());
    let path = disk.path().join("models/job-1/v2/model.safetensors");
    fs::write(&path, b"short").unwrap();
    let refused = models.open(JOB, version, &form, &published).err();
    assert!(
        matches!(refused, Some(StoreError::Missing { .. })),
        "{refused:?}"
    );
    fs::remove_file(&path).unwrap();
    let refused = models.open(JOB, version, &form, &published).err();
    assert!(
        matches!(refused, Some(StoreError::Missing { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_version_whose_replacement_did_not_get_its_place_is_put_back() {
    let (disk, layout) = (Disk::new(), layout(100));
    let models = FileModels::new(disk.folder.clone());
    let form = form(&layout, Encoding::F32);
    let mut writer = models.begin(JOB, ModelVersion(1), &form).unwrap();
    writer.write(0, parameters(&layout, 1).values()).unwrap();
    let published = writer.publish(&BTreeMap::new()).unwrap().published();
    let job = disk.path().join("models/job-1");
    // A crash between the two renames.
    fs::rename(job.join("v1"), job.join("v1.7.old")).unwrap();
    let models = FileModels::new(disk.folder.clone());
    models.retain(&|_, _| true).unwrap();
    let found = models
        .open(JOB, ModelVersion(1), &form, &published)
        .unwrap();
    assert_eq!(found.parameters().unwrap(), parameters(&layout, 1));
    // And one after them.
    fs::create_dir(job.join("v1.8.old")).unwrap();
    models.retain(&|_, _| true).unwrap();
    assert!(
        below(&job)
            .iter()
            .all(|path| path == "v1" || path.starts_with("v1/"))
    );
}
