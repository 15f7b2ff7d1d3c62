use super::*;
use crate::{
    parameters::{BlockError, safetensors},
    store::{FileModels, MemoryModels, ModelStore, StoreError, conformance},
    strategy::StrategyState,
};

const VERSION: ModelVersion = ModelVersion(2);

#[test]
fn both_stores_conform() {
    let disk = Disk::new();
    conformance::everything(&FileModels::new(disk.folder.clone()));
    assert_eq!(below(&disk.path().join("models")), [""; 0]);
    conformance::everything(&MemoryModels);
}

#[test]
fn a_version_and_its_state_appear_together() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let models = FileModels::new(disk.folder.clone());
    let folder = disk.path().join("models");
    let mut writer = models.begin(JOB, VERSION, &layout, Encoding::F16).unwrap();
    let values = parameters(&layout, 1);
    writer.write(0, values.values()).unwrap();
    assert_eq!(
        below(&folder),
        [
            "job-1",
            "job-1/v2.0.next",
            "job-1/v2.0.next/model.safetensors",
            "job-1/v2.0.next/sent.safetensors"
        ]
    );
    let momentum = parameters(&layout, 2);
    let state = StrategyState {
        numbers: BTreeMap::from([("rounds".to_string(), 3.0)]),
        parameters: BTreeMap::from([("../m".to_string(), momentum.clone())]),
    };
    writer.publish(&state).unwrap();
    assert_eq!(
        below(&folder),
        [
            "job-1",
            "job-1/v2",
            "job-1/v2/model.safetensors",
            "job-1/v2/sent.safetensors",
            "job-1/v2/state-%2e%2e%2fm.safetensors",
            "job-1/v2/state.json"
        ]
    );
    let read = |name: &str| fs::read(folder.join("job-1/v2").join(name)).unwrap();
    let stored = safetensors::decode(&read("model.safetensors")).unwrap();
    assert_eq!(stored, *values);
    let stored = safetensors::decode(&read("state-%2e%2e%2fm.safetensors")).unwrap();
    assert_eq!(stored, *momentum);
    assert_eq!(
        String::from_utf8(read("state.json")).unwrap(),
        r#"{"numbers":{"rounds":3.0},"parameters":["../m"]}"#
    );
    models.remove(JOB, Some(VERSION));
    assert_eq!(below(&folder), ["job-1"]);
}

#[test]
fn a_dropped_writer_leaves_what_was_there() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let models = FileModels::new(disk.folder.clone());
    let begin = || models.begin(JOB, VERSION, &layout, Encoding::F32).unwrap();
    let folder = disk.path().join("models");
    let mut dropped = begin();
    dropped.write(0, &[1.0; 10]).unwrap();
    drop(dropped);
    assert_eq!(below(&folder), [""; 0]);

    let mut writer = begin();
    writer.write(0, parameters(&layout, 1).values()).unwrap();
    let published = writer.publish(&StrategyState::default()).unwrap();
    let before = below(&folder);
    drop(begin());
    assert_eq!(below(&folder), before);
    assert_eq!(published.parameters().unwrap(), parameters(&layout, 1));
}

#[test]
fn every_value_is_written_exactly_once() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let models = FileModels::new(disk.folder.clone());
    let mut writer = models.begin(JOB, VERSION, &layout, Encoding::F32).unwrap();
    writer.write(100, &[1.0; 100]).unwrap();
    for offset in [1, 100, 199] {
        let again = writer.write(offset, &[2.0; 100]);
        assert!(matches!(again, Err(BlockError::Unwritable(_))), "{offset}");
    }
    let past = writer.write(950, &[1.0; 51]);
    assert!(matches!(past, Err(BlockError::OutOfRange { .. })));
    writer.write(200, &[1.0; 800]).unwrap();
    let missing = writer.publish(&StrategyState::default()).err();
    let expected = StoreError::Incomplete {
        missing: 100,
        len: 1000,
    };
    assert_eq!(missing, Some(expected));
    assert_eq!(below(&disk.path().join("models")), [""; 0]);
}

#[test]
fn a_block_that_cuts_a_group_of_int8_is_an_error() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let models = FileModels::new(disk.folder.clone());
    let mut writer = models.begin(JOB, VERSION, &layout, Encoding::Int8).unwrap();
    assert!(writer.write(1, &[1.0; 255]).is_err());
    assert!(writer.write(0, &[1.0; 255]).is_err());
    writer.write(768, &[1.0; 232]).unwrap();
    let top_k = Encoding::TopK { fraction: 0.1 };
    let refused = models.begin(JOB, VERSION, &layout, top_k).err();
    assert!(matches!(refused, Some(StoreError::Encoding(_))));
}

#[test]
fn a_full_disk_fails_the_model_and_leaves_nothing() {
    let (disk, layout) = (Disk::new(), layout(10_000));
    let models = FileModels::new(disk.folder.clone());
    let values = parameters(&layout, 1);
    let state = StrategyState {
        numbers: BTreeMap::new(),
        parameters: BTreeMap::from([("m".to_string(), values.clone())]),
    };
    disk.leave_room(Some(50));
    let refused = models.begin(JOB, VERSION, &layout, Encoding::F32).err();
    assert!(
        matches!(refused, Some(StoreError::Io { .. })),
        "{refused:?}"
    );

    disk.leave_room(Some(30_000));
    let mut writer = models.begin(JOB, VERSION, &layout, Encoding::F32).unwrap();
    let full = writer.write(0, values.values());
    assert!(matches!(full, Err(BlockError::Full(_))), "{full:?}");
    drop(writer);

    disk.leave_room(Some(60_000));
    let mut writer = models.begin(JOB, VERSION, &layout, Encoding::F32).unwrap();
    writer.write(0, values.values()).unwrap();
    let failed = writer.publish(&state).err();
    assert!(
        matches!(&failed, Some(StoreError::Io { path, .. }) if path.ends_with("state-m.safetensors")),
        "{failed:?}"
    );
    assert_eq!(below(&disk.path().join("models")), [""; 0]);
}
