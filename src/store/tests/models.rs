use super::*;
use crate::{
    parameters::{BlockError, safetensors},
    store::{FileModels, MemoryModels, ModelForm, ModelStore, StateForm, StoreError, conformance},
};

const VERSION: ModelVersion = ModelVersion(2);

/// A model with the state tensor "m".
fn with_state(layout: &Arc<Layout>, encoding: Encoding) -> ModelForm {
    let mut form = form(layout, encoding);
    form.states.push(StateForm::new("m", Roles::TRAINED));
    form
}

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
    let mut writer = models
        .begin(JOB, VERSION, &with_state(&layout, Encoding::F16))
        .unwrap();
    let values = parameters(&layout, 1);
    writer.write(0, values.values()).unwrap();
    let momentum = parameters(&layout, 2);
    writer.write_state(0, 0, momentum.values()).unwrap();
    let files = ["frozen", "model", "sent", "state-m"].map(|name| format!("{name}.safetensors"));
    let within = |folder: &str, last: &[&str]| {
        let mut expected = vec!["job-1".to_string(), format!("job-1/{folder}")];
        expected.extend(files.iter().map(|file| format!("job-1/{folder}/{file}")));
        expected.extend(last.iter().map(|file| format!("job-1/{folder}/{file}")));
        expected
    };
    assert_eq!(below(&folder), within("v2.0.next", &[]));
    let numbers = BTreeMap::from([("rounds".to_string(), 3.0)]);
    let stored = writer.publish(&numbers).unwrap();
    assert_eq!(below(&folder), within("v2", &["state.json"]));
    let read = |name: &str| fs::read(folder.join("job-1/v2").join(name)).unwrap();
    let file = safetensors::decode(&read("model.safetensors")).unwrap();
    assert_eq!(file, *values);
    let file = safetensors::decode(&read("state-m.safetensors")).unwrap();
    for name in ["a", "c"] {
        assert_eq!(file.tensor(&format!("m/{name}")), momentum.tensor(name));
    }
    assert_eq!(file.tensor("m/b"), None);
    let file = safetensors::decode(&read("frozen.safetensors")).unwrap();
    assert_eq!(file.values(), values.tensor("b").unwrap());
    let text = String::from_utf8(read("state.json")).unwrap();
    assert_eq!(text, r#"{"numbers":{"rounds":3.0}}"#);
    assert_eq!(stored.numbers(), &numbers);
    let mut found = vec![0.0; layout.len()];
    stored.state("m").unwrap().read(0, &mut found).unwrap();
    let mut expected = momentum.values().to_vec();
    expected[layout.find("b").unwrap().range()].fill(0.0);
    assert_eq!(found, expected);
    assert!(stored.payload("m").is_none(), "it is not offered");
    models.remove(JOB, Some(VERSION));
    assert_eq!(below(&folder), ["job-1"]);
}

#[test]
fn a_dropped_writer_leaves_what_was_there() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let models = FileModels::new(disk.folder.clone());
    let begin = || {
        models
            .begin(JOB, VERSION, &form(&layout, Encoding::F32))
            .unwrap()
    };
    let folder = disk.path().join("models");
    let mut dropped = begin();
    dropped.write(0, &[1.0; 10]).unwrap();
    drop(dropped);
    assert_eq!(below(&folder), [""; 0]);

    let mut writer = begin();
    writer.write(0, parameters(&layout, 1).values()).unwrap();
    let published = writer.publish(&BTreeMap::new()).unwrap();
    let before = below(&folder);
    drop(begin());
    assert_eq!(below(&folder), before);
    assert_eq!(published.parameters().unwrap(), parameters(&layout, 1));
}

#[test]
fn every_value_is_written_exactly_once() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let models = FileModels::new(disk.folder.clone());
    let mut writer = models
        .begin(JOB, VERSION, &form(&layout, Encoding::F32))
        .unwrap();
    writer.write(100, &[1.0; 100]).unwrap();
    for offset in [1, 100, 199] {
        let again = writer.write(offset, &[2.0; 100]);
        assert!(matches!(again, Err(BlockError::Unwritable(_))), "{offset}");
    }
    let past = writer.write(950, &[1.0; 51]);
    assert!(matches!(past, Err(BlockError::OutOfRange { .. })));
    writer.write(200, &[1.0; 800]).unwrap();
    let missing = writer.publish(&BTreeMap::new()).err();
    let expected = StoreError::Incomplete {
        missing: 400,
        len: 4000,
    };
    assert_eq!(missing, Some(expected));
    assert_eq!(below(&disk.path().join("models")), [""; 0]);
}

#[test]
fn a_block_that_cuts_a_group_of_int8_is_an_error() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let models = FileModels::new(disk.folder.clone());
    let mut writer = models
        .begin(JOB, VERSION, &form(&layout, Encoding::Int8))
        .unwrap();
    assert!(writer.write(1, &[1.0; 255]).is_err());
    assert!(writer.write(0, &[1.0; 255]).is_err());
    writer.write(768, &[1.0; 232]).unwrap();
    let top_k = Encoding::TopK { fraction: 0.1 };
    let refused = models.begin(JOB, VERSION, &form(&layout, top_k)).err();
    assert!(matches!(refused, Some(StoreError::Encoding(_))));
}

#[test]
fn a_full_disk_fails_the_model_and_leaves_nothing() {
    let (disk, layout) = (Disk::new(), layout(10_000));
    let models = FileModels::new(disk.folder.clone());
    let values = parameters(&layout, 1);
    disk.leave_room(Some(50));
    let refused = models
        .begin(JOB, VERSION, &form(&layout, Encoding::F32))
        .err();
    assert!(
        matches!(refused, Some(StoreError::Full { .. })),
        "{refused:?}"
    );

    disk.leave_room(Some(30_000));
    let mut writer = models
        .begin(JOB, VERSION, &form(&layout, Encoding::F32))
        .unwrap();
    let full = writer.write(0, values.values());
    assert!(matches!(full, Err(BlockError::Full(_))), "{full:?}");
    drop(writer);

    disk.leave_room(Some(90_000));
    let mut writer = models
        .begin(JOB, VERSION, &with_state(&layout, Encoding::F32))
        .unwrap();
    writer.write(0, values.values()).unwrap();
    let full = writer.write_state(0, 0, values.values());
    assert!(matches!(full, Err(BlockError::Full(_))), "{full:?}");
    drop(writer);
    assert_eq!(below(&disk.path().join("models")), [""; 0]);
}
