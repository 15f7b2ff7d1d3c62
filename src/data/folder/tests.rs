use super::*;

/// Grey, 2 x 1 pixels: 10, 20.
const GREY: &[u8] = b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x02\x00\x00\x00\x01\x08\x00\x00\x00\x00\xd1\x49\x20\x56\x00\x00\x00\x0b\x49\x44\x41\x54\x78\xda\x63\xe4\xe2\x02\x00\x00\x24\x00\x16\x10\xe8\x49\xd6\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";
/// Colour with transparency, 2 x 1 pixels: (1, 2, 3, 0), (4, 5, 6, 255).
const COLOUR: &[u8] = b"\x89\x50\x4e\x47\x0d\x0a\x1a\x0a\x00\x00\x00\x0d\x49\x48\x44\x52\x00\x00\x00\x02\x00\x00\x00\x01\x08\x06\x00\x00\x00\xf4\x22\x7f\x8a\x00\x00\x00\x11\x49\x44\x41\x54\x78\xda\x63\x64\x64\x62\x66\x60\x66\x66\xfe\x0f\x00\x01\x54\x01\x10\x1d\xdf\x97\x11\x00\x00\x00\x00\x49\x45\x4e\x44\xae\x42\x60\x82";

/// A bitmap of one row of colour pixels.
fn bitmap(row: &[[u8; 3]]) -> Vec<u8> {
    let padded = (row.len() * 3).next_multiple_of(4);
    let mut bytes = b"BM".to_vec();
    for field in [
        54 + padded as u32,
        0,
        54,
        40,
        row.len() as u32,
        1,
        1 | (24 << 16),
        0,
    ] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [padded as u32, 2835, 2835, 0, 0] {
        bytes.extend(field.to_le_bytes());
    }
    for [red, green, blue] in row {
        bytes.extend([blue, green, red]);
    }
    bytes.resize(54 + padded, 0);
    bytes
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn refused(root: &Path) -> String {
    let error = folder(root).unwrap_err();
    assert!(matches!(error, DataError::Malformed { .. }), "{error}");
    error.to_string()
}

#[test]
fn classes_come_from_train_and_images_become_planes() {
    let root = tempfile::tempdir().unwrap();
    let two = bitmap(&[[1, 2, 3], [4, 5, 6]]);
    write(root.path(), "train/ant/1.bmp", &two);
    write(root.path(), "train/bee/1.PNG", COLOUR);
    write(
        root.path(),
        "train/cat/2.bmp",
        &bitmap(&[[7, 8, 9], [9, 8, 7]]),
    );
    write(root.path(), "train/cat/1.png", GREY);
    write(root.path(), "train/cat/notes.txt", b"not an image");
    // No bee in the test images: the cat keeps its label.
    write(root.path(), "test/cat/1.bmp", &two);

    let data = folder(root.path()).unwrap();
    let classes = ["ant", "bee", "cat"];
    assert_eq!(data.train.classes(), classes);
    assert_eq!(data.test.classes(), classes);
    assert_eq!(data.train.labels(), [0, 1, 2, 2]);
    assert_eq!(data.test.labels(), [2]);
    assert_eq!(data.train.image(0), Some(&[1, 4, 2, 5, 3, 6][..]));
    assert_eq!(
        data.train.image(1),
        Some(&[1, 4, 2, 5, 3, 6][..]),
        "no transparency"
    );
    assert_eq!(
        data.train.image(2),
        Some(&[10, 20, 10, 20, 10, 20][..]),
        "grey as colour"
    );
    assert_eq!(data.train.image(3), Some(&[7, 9, 8, 8, 9, 7][..]));
    assert_eq!(
        data.normalization,
        Normalization::measure(&data.train, 255.0)
    );
}

#[test]
fn grey_images_alone_stay_grey() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "train/a/1.png", GREY);
    write(root.path(), "test/a/1.png", GREY);
    let data = folder(root.path()).unwrap();
    assert_eq!(data.train.shape().channels, 1);
    assert_eq!(data.train.image(0), Some(&[10, 20][..]));
}

#[test]
fn what_is_wrong_with_a_folder_is_named() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(folder(root.path()), Err(DataError::Read { .. })));
    write(root.path(), "train/a/notes.txt", b"");
    assert!(refused(root.path()).contains("no images"));
    write(root.path(), "train/a/1.png", GREY);
    write(root.path(), "test/a/1.png", GREY);
    assert!(folder(root.path()).is_ok());

    write(root.path(), "train/a/2.png", b"\x89PNG, or not");
    assert!(refused(root.path()).contains("2.png"));
    write(root.path(), "train/a/2.png", &GREY[..50]);
    assert!(refused(root.path()).contains("2.png"));
    fs::remove_file(root.path().join("train/a/2.png")).unwrap();

    write(root.path(), "train/a/3.bmp", &bitmap(&[[0, 0, 0]; 3]));
    assert!(refused(root.path()).contains("3.bmp"));
    fs::remove_file(root.path().join("train/a/3.bmp")).unwrap();

    write(root.path(), "test/b/1.png", GREY);
    assert!(refused(root.path()).contains("train/ does not have"));
}
