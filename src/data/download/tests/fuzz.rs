//! An archive of a dataset with changed bytes: it chooses among the expected names, and nothing else.

use std::{
    fs,
    io::{Read, Write},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::{super::archive::unpack, archive};
use crate::{
    data::{
        cifar10::{FOLDER, TEST_BATCH, TRAIN_BATCHES},
        download::Origin,
    },
    testing::{fuzz::Target, tar::mend_sums},
};

#[test]
fn dataset_archives() {
    let names: Vec<_> = TRAIN_BATCHES
        .into_iter()
        .chain([TEST_BATCH])
        .map(|name| format!("{FOLDER}/{name}"))
        .collect();
    let mut files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &[7; 20][..]))
        .collect();
    files.push(("../escaped.txt", b"no"));
    let zipped = archive(&files);
    let mut plain = Vec::new();
    GzDecoder::new(&zipped[..]).read_to_end(&mut plain).unwrap();
    // The first byte: 0 changes the packed bytes, 1 those inside, 2 those inside with the sums of their headers put right.
    let mut target = Target::new("dataset_archives")
        .words(&["../", "./", "L", "x", "K", "g"])
        .runs(150);
    for (choice, bytes) in [(0, &zipped), (1, &plain), (2, &plain)] {
        target = target.seed([&[choice], &bytes[..]].concat());
    }
    target.run(|bytes| {
        let Some((choice, bytes)) = bytes.split_first() else {
            return String::new();
        };
        let mut bytes = bytes.to_vec();
        if choice % 3 == 2 {
            mend_sums(&mut bytes);
        }
        if choice % 3 > 0 {
            let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
            zipped.write_all(&bytes).unwrap();
            bytes = zipped.finish().unwrap();
        }
        let around = tempfile::tempdir().unwrap();
        let (file, to) = (around.path().join("cifar.tar.gz"), around.path().join("to"));
        fs::write(&file, bytes).unwrap();
        let unpacked = unpack(&file, &Origin::File(file.clone()), &to);
        assert_eq!(
            fs::read_dir(around.path()).unwrap().count(),
            2,
            "a file beside the folder"
        );
        for entry in fs::read_dir(&to).unwrap() {
            let entry = entry.unwrap();
            assert!(entry.file_type().unwrap().is_file(), "{entry:?}");
        }
        match unpacked {
            Ok(()) => "unpacked".to_string(),
            // Without the folder, which differs each time.
            Err(error) => error
                .to_string()
                .replace(&around.path().display().to_string(), ""),
        }
    });
}
