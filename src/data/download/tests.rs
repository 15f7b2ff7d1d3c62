mod fuzz;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::*;
use crate::data::cifar10::{TEST_BATCH, TRAIN_BATCHES};
use crate::data::open;
use crate::disk::testing::Scenario;

const RECORD: usize = 3073;

/// A `tar.gz` of these files. `append_data` would refuse paths that climb, so that names are written as they are.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Whole training batches, and a test batch of two images.
fn good_archive() -> Vec<u8> {
    let batch = vec![1; 10_000 * RECORD];
    let names = TRAIN_BATCHES.map(|name| format!("{FOLDER}/{name}"));
    let test = format!("{FOLDER}/{TEST_BATCH}");
    let mut files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &batch[..]))
        .collect();
    files.push((&test, &batch[..2 * RECORD]));
    files.push(("../escaped.txt", b"no"));
    files.push(("cifar-10-batches-bin/../../escaped.txt", b"no"));
    archive(&files)
}

fn download(origin: Origin, bytes: &[u8]) -> Download {
    Download {
        origin,
        checksum: hex(&Sha256::digest(bytes)).parse().unwrap(),
    }
}

/// Answers one request on the loopback interface with `response`, and then hangs up.
fn serve(response: Vec<u8>) -> (Origin, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/cifar.tar.gz", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        // The client may hang up first, and does if it has seen enough.
        let _ = stream.write_all(&response);
    });
    (Origin::Url(url), server)
}

fn ok(body: &[u8], length: usize) -> Vec<u8> {
    let mut response =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
            .into_bytes();
    response.extend_from_slice(body);
    response
}

/// Runs a download that must fail and must leave nothing behind.
fn failing(download: &Download) -> DownloadError {
    let root = tempfile::tempdir().unwrap();
    let error = cifar10(download, root.path(), &mut |_| {}).unwrap_err();
    let left: Vec<_> = fs::read_dir(root.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    error
}

#[test]
fn a_lock_file_that_was_removed_is_not_the_one_at_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lock");
    let first = File::create(&path).unwrap();
    assert!(is_at(&first, &path));
    fs::remove_file(&path).unwrap();
    assert!(!is_at(&first, &path));
    let second = File::create(&path).unwrap();
    assert!(!is_at(&first, &path) && is_at(&second, &path));
}

#[test]
fn a_good_archive_becomes_a_dataset_over_http_and_from_a_file() {
    let bytes = good_archive();
    let (origin, server) = serve(ok(&bytes, bytes.len()));
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("data");
    // What a download that was killed left behind is no obstacle.
    fs::create_dir_all(root.join(WORK_FOLDER).join("unpacked")).unwrap();
    fs::write(root.join(WORK_FOLDER).join("archive.tar.gz"), "half").unwrap();

    let mut last = None;
    let folder = cifar10(&download(origin, &bytes), &root, &mut |progress| {
        last = Some(progress)
    })
    .unwrap();
    server.join().unwrap();
    assert_eq!(folder, root.join(FOLDER));
    assert_eq!(
        last,
        Some(Progress {
            received: bytes.len() as u64,
            total: Some(bytes.len() as u64)
        })
    );
    let data = open("cifar10", &root).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (50_000, 2));
    // The batches alone: nothing beside them, and nothing above.
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 6);
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);

    // A second download has nothing to do, and does not ask the server, which is gone.
    let gone = download(Origin::Url("http://127.0.0.1:9/".to_owned()), &bytes);
    assert_eq!(cifar10(&gone, &root, &mut |_| {}).unwrap(), folder);
    // Unless what is there is damaged.
    fs::write(folder.join(TRAIN_BATCHES[0]), "half").unwrap();
    assert!(matches!(
        cifar10(&gone, &root, &mut |_| {}),
        Err(DownloadError::Batches { .. })
    ));

    let file = outer.path().join("archive.tar.gz");
    fs::write(&file, &bytes).unwrap();
    let other = tempfile::tempdir().unwrap();
    cifar10(
        &download(Origin::File(file), &bytes),
        other.path(),
        &mut |_| {},
    )
    .unwrap();
    assert_eq!(
        open("cifar10", other.path()).unwrap().fingerprint(),
        data.fingerprint()
    );
}

#[test]
fn a_dataset_is_whole_after_a_power_failure_or_not_there() {
    let mut names = TRAIN_BATCHES.to_vec();
    names.push(TEST_BATCH);
    let paths: Vec<_> = names
        .iter()
        .map(|name| format!("{FOLDER}/{name}"))
        .collect();
    let files: Vec<_> = paths.iter().map(|path| (&path[..], &b"some"[..])).collect();
    let archive = archive(&files);
    let outer = tempfile::tempdir().unwrap();
    let file = outer.path().join("archive.tar.gz");
    fs::write(&file, archive).unwrap();
    Scenario::Dataset.check(|root, power| {
        let names = names.clone();
        power.promise("it is whole", move |root| {
            let target = root.join("dataset");
            let is_whole = |name| fs::read(target.join(name)).is_ok_and(|bytes| bytes == b"some");
            if !target.exists() || names.iter().all(is_whole) {
                Ok(())
            } else {
                Err("files are missing or empty".to_string())
            }
        });
        let unpacked = root.join("unpacked");
        archive::unpack(&file, &Origin::File(file.clone()), &unpacked).unwrap();
        put_in_place(&unpacked, &root.join("dataset")).unwrap();
    });
}

#[test]
fn a_wrong_checksum_is_refused() {
    let (origin, server) = serve(ok(b"something else", 14));
    let error = failing(&download(origin, b"what was meant"));
    server.join().unwrap();
    assert!(matches!(&error, DownloadError::Checksum { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains(&hex(&Sha256::digest(b"something else"))),
        "{message}"
    );
}

#[test]
fn a_connection_cut_half_way_is_an_error_even_where_the_checksum_would_fit() {
    let half = vec![7; 100_000];
    let (origin, server) = serve(ok(&half, 200_000));
    let error = failing(&download(origin, &half));
    server.join().unwrap();
    assert!(matches!(error, DownloadError::Fetch { .. }), "{error}");
}

#[test]
fn a_server_that_has_no_such_file_and_no_server_at_all_are_errors() {
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngone";
    let (origin, server) = serve(not_found.into());
    let error = failing(&download(origin, b""));
    server.join().unwrap();
    let message = error.to_string();
    assert!(
        message.contains("404") && message.contains("--from FILE"),
        "{message}"
    );

    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = failing(&download(Origin::Url(format!("http://{nobody}/")), b""));
    assert!(matches!(error, DownloadError::Fetch { .. }), "{error}");
    let error = failing(&download(Origin::File("/no/such/file".into()), b""));
    assert!(matches!(error, DownloadError::File { .. }), "{error}");
}

#[test]
fn archives_of_something_else_are_refused() {
    let batch = format!("{FOLDER}/{}", TRAIN_BATCHES[0]);
    let from = tempfile::tempdir().unwrap();
    for bytes in [
        b"no archive at all".to_vec(),
        archive(&[("README", b"hello")]),
        archive(&[(&batch, &[0; RECORD])]),
        archive(&[("elsewhere/data_batch_1.bin", &[0; RECORD])]),
        good_archive()[..20_000].to_vec(),
    ] {
        let file = from.path().join("archive.tar.gz");
        fs::write(&file, &bytes).unwrap();
        let error = failing(&download(Origin::File(file), &bytes));
        assert!(matches!(error, DownloadError::Archive { .. }), "{error}");
    }
}

#[test]
fn batches_of_a_wrong_size_are_refused_though_archive_and_checksum_are_right() {
    let names = TRAIN_BATCHES.map(|name| format!("{FOLDER}/{name}"));
    let test = format!("{FOLDER}/{TEST_BATCH}");
    let mut files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &[0; RECORD][..]))
        .collect();
    files.push((&test, &[0; RECORD]));
    let bytes = archive(&files);
    let from = tempfile::tempdir().unwrap();
    let file = from.path().join("archive.tar.gz");
    fs::write(&file, &bytes).unwrap();
    let error = failing(&download(Origin::File(file), &bytes));
    assert!(matches!(error, DownloadError::Batches { .. }), "{error}");
}

#[test]
fn two_downloads_at_once_do_not_meet() {
    let root = tempfile::tempdir().unwrap();
    let work = WorkFolder::create(root.path()).unwrap();
    let second = Download::default();
    assert!(matches!(
        cifar10(&second, root.path(), &mut |_| {}),
        Err(DownloadError::Busy { .. })
    ));
    drop(work);
    assert!(WorkFolder::create(root.path()).is_ok());
}

#[test]
fn origins_and_checksums_are_parsed() {
    let origin = |text: &str| text.parse::<Origin>().unwrap();
    assert_eq!(origin("https://a/b"), Origin::Url("https://a/b".to_owned()));
    assert_eq!(origin("a/b.tar.gz"), Origin::File("a/b.tar.gz".into()));
    assert_eq!(
        CIFAR10_SHA256.parse::<Checksum>().unwrap(),
        Download::default().checksum
    );
    assert_eq!(
        CIFAR10_SHA256.to_uppercase().parse::<Checksum>().unwrap(),
        Download::default().checksum
    );
    for text in ["", "c32a1d4ab5d03f1284b67883e8d87530", &"g".repeat(64)] {
        assert!(matches!(
            text.parse::<Checksum>(),
            Err(DownloadError::NoChecksum { .. })
        ));
    }
}
