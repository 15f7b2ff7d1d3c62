use super::*;
use crate::parameters::Role;

/// A state of two files: values that depend on this number, one of them not finite.
fn kept(value: f32) -> Kept {
    let layout = Layout::new([
        ("w".to_string(), vec![2, 1], Role::Trainable),
        ("bn.running_var".to_string(), vec![1], Role::Trainable),
        ("frozen".to_string(), vec![1], Role::Frozen),
    ]);
    let values = vec![value, -value, f32::INFINITY, 0.5];
    let parameters = Parameters::new(layout.unwrap(), values).unwrap();
    Kept {
        state: BTreeMap::from([("a/b".to_string(), parameters.clone())]),
        residuals: BTreeMap::from([("delta".to_string(), parameters)]),
        personal: None,
    }
}

fn files(folder: &tempfile::TempDir) -> ClientFiles {
    ClientFiles::new(folder.path().join("jobs/job-1/client-0"))
}

fn count(files: &ClientFiles) -> usize {
    fs::read_dir(&files.folder).unwrap().count()
}

fn prepared(round: u64, value: f32) -> Prepared {
    (RoundId(round), kept(value))
}

#[test]
fn states_read_back_to_the_bit_and_older_ones_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    assert_eq!(files.read(), (None, None));
    assert!(!files.folder.exists(), "reading makes nothing");
    files.write(None, RoundId(1), &kept(1.0)).unwrap();
    assert_eq!(files.read(), (None, Some(prepared(1, 1.0))));
    let first = prepared(1, 1.0);
    files.write(Some(&first), RoundId(2), &kept(2.0)).unwrap();
    assert_eq!(files.read(), (Some(first), Some(prepared(2, 2.0))));
    let second = prepared(2, 2.0);
    // An empty state counts as one: the client has cleared it.
    let empty = Kept::default();
    files.write(Some(&second), RoundId(3), &empty).unwrap();
    assert_eq!(files.read(), (Some(second), Some((RoundId(3), empty))));
    assert_eq!(count(&files), 3, "the index, and the files of one state");
    files.clear().unwrap();
    assert_eq!(files.read(), (None, None));
}

#[test]
fn personal_tensors_read_back_to_the_bit_beside_the_other_state() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    let with_own = |value: f32| {
        let mut kept = kept(value);
        kept.personal = kept.state.get("a/b").cloned();
        kept
    };
    files.write(None, RoundId(1), &with_own(1.0)).unwrap();
    let first = (RoundId(1), with_own(1.0));
    files
        .write(Some(&first), RoundId(2), &with_own(2.0))
        .unwrap();
    let second = (RoundId(2), with_own(2.0));
    assert_eq!(files.read(), (Some(first), Some(second)));
    assert_eq!(count(&files), 7, "the index, and three files of each state");
}

#[test]
fn a_state_that_stays_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    files.write(None, RoundId(1), &kept(1.0)).unwrap();
    let first = prepared(1, 1.0);
    for round in 2..5 {
        files
            .write(Some(&first), RoundId(round), &kept(2.0))
            .unwrap();
    }
    assert!(files.folder.join("1-1.safetensors").exists());
    // A state that the disk has lost is written again.
    let third = prepared(3, 3.0);
    files.write(Some(&third), RoundId(5), &kept(5.0)).unwrap();
    assert_eq!(files.read(), (Some(third), Some(prepared(5, 5.0))));
}

#[test]
fn a_broken_file_loses_its_state_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    files.write(None, RoundId(1), &kept(1.0)).unwrap();
    let first = prepared(1, 1.0);
    files.write(Some(&first), RoundId(2), &kept(2.0)).unwrap();
    let path = files.folder.join("2-1.safetensors");
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for bytes in [
        &whole[..0],
        &whole[..7],
        &whole[..whole.len() - 1],
        &damaged,
    ] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(files.read(), (Some(first.clone()), None));
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(files.read(), (Some(first), None));
    let index = files.folder.join(INDEX);
    let text = fs::read(&index).unwrap();
    for bytes in [&text[..0], &text[..text.len() / 2], b"[]"] {
        fs::write(&index, bytes).unwrap();
        assert_eq!(files.read(), (None, None));
    }
    // What is written then counts.
    files.write(None, RoundId(7), &kept(7.0)).unwrap();
    assert_eq!(files.read(), (None, Some(prepared(7, 7.0))));
}

#[test]
fn a_process_that_is_killed_while_it_writes_leaves_the_states_before() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    files.write(None, RoundId(1), &kept(1.0)).unwrap();
    // All that comes before the index: a whole file, and a half one.
    let mut new = NewFiles {
        folder: &files.folder,
        write: 2,
        count: 0,
    };
    new.write_state(RoundId(2), &kept(2.0)).unwrap();
    fs::write(files.folder.join("states.json.new"), "{").unwrap();
    assert_eq!(files.read(), (None, Some(prepared(1, 1.0))));
    files.write(None, RoundId(3), &kept(3.0)).unwrap();
    assert_eq!(files.read(), (None, Some(prepared(3, 3.0))));
    assert_eq!(count(&files), 3);
}

#[test]
fn a_write_that_fails_says_where_and_leaves_the_states_before() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder);
    files.write(None, RoundId(1), &kept(1.0)).unwrap();
    for name in ["2-2.safetensors", INDEX] {
        // A folder in the place of a file that is written first: it can't be written.
        let beside = files.folder.join(format!("{name}.new"));
        fs::create_dir(&beside).unwrap();
        let problem = files.write(None, RoundId(2), &kept(2.0)).unwrap_err();
        let path = files.folder.join(name).display().to_string();
        assert!(problem.to_string().starts_with(&path), "{problem}");
        assert_eq!(files.read(), (None, Some(prepared(1, 1.0))));
        assert_eq!(
            count(&files),
            3,
            "what was written before it failed is gone"
        );
    }
}
