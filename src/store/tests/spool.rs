use super::*;
use crate::{
    coordinator::Threads,
    parameters::DType,
    report::conformance,
    store::spool::{PayloadTrailer, Trailer},
};

#[test]
fn the_file_spool_conforms() {
    let configs = [
        FileSpoolConfig::default(),
        FileSpoolConfig {
            max_open: 1,
            sync_every: 4096,
            gather: 0,
        },
    ];
    for config in configs {
        let disk = Disk::new();
        conformance::everything(&disk.spool(config), &Threads::new(3));
        assert_eq!(
            below(&disk.path().join("spool")),
            [""; 0],
            "what was discarded is still there"
        );
    }
}

#[test]
fn a_broken_upload_leaves_no_file() {
    let (disk, layout) = (Disk::new(), layout(10_000));
    let spool = disk.spool(FileSpoolConfig::default());
    let delta = delta(&layout, Encoding::Int8, 0);
    let body = delta.pieces().concat();
    let mut writer = spool
        .begin(key(0), &report_form(&layout, Encoding::Int8))
        .unwrap();
    writer.push(&body[..body.len() / 2]).unwrap();
    assert_eq!(
        below(&disk.path().join("spool")),
        ["job-1", "job-1/round-1", "job-1/round-1/client-0-100.part"]
    );
    drop(writer);
    assert_eq!(below(&disk.path().join("spool")), [""; 0]);
    upload(&spool, 0, &delta).unwrap();
    assert_eq!(
        below(&disk.path().join("spool")),
        [
            "job-1",
            "job-1/round-1",
            "job-1/round-1/client-0-100.report"
        ]
    );
}

#[test]
fn the_file_alone_says_what_it_is() {
    let (disk, layout) = (Disk::new(), layout(10_000));
    let spool = disk.spool(FileSpoolConfig::default());
    let delta = delta(&layout, Encoding::TopK { fraction: 0.1 }, 4);
    upload(&spool, 4, &delta).unwrap();
    let path = "spool/job-1/round-1/client-4-104.report";
    let mut file = fs::read(disk.path().join(path)).unwrap();
    let payload = delta.pieces()[1].clone();
    assert_eq!(file[..payload.len()], payload);
    let expected = Trailer {
        job: 1,
        round: 1,
        client: 4,
        upload: 104,
        metadata: metadata(),
        payloads: vec![PayloadTrailer {
            name: DELTA.to_string(),
            dtype: DType::F32,
            roles: Roles::TRAINED,
            encoding: "top_k:0.1".to_string(),
            entries: 666,
            start: 0,
            bytes: 8 * 666 + 4 * 7,
        }],
        bytes: 8 * 666 + 4 * 7,
        digest: Digest::of(&payload).to_string(),
    };
    assert_eq!(Trailer::of_file(&file), Some(expected));
    assert_eq!(Trailer::of_file(&file[..file.len() - 1]), None);
    assert_eq!(Trailer::of_file(&file[4..]), None);
    let end = payload.len() + 1;
    file[end] ^= 1;
    assert_eq!(Trailer::of_file(&file), None);
}

#[test]
fn the_digest_is_the_payloads_whatever_the_order_of_the_body() {
    let layout = layout(100_000);
    let values = parameters(&layout, 1);
    let [first, second] = ["a", "c"].map(|name| values.tensor(name).unwrap());
    let payload: Vec<u8> = bytemuck::cast_slice(&[first, second].concat()).to_vec();
    let tensors = [("a", first.len()), ("c", second.len())];
    let layout =
        Layout::new(tensors.map(|(name, len)| (name.to_string(), vec![len], Role::Trainable)));
    let split = 4 * second.len();
    let header = serde_json::json!({
        "delta/a": { "dtype": "F32", "shape": [first.len()], "data_offsets": [split, payload.len()] },
        "delta/c": { "dtype": "F32", "shape": [second.len()], "data_offsets": [0, split] },
    })
    .to_string();

    let disk = Disk::new();
    let spool = disk.spool(FileSpoolConfig::default());
    let mut writer = spool
        .begin(key(0), &report_form(&layout.unwrap(), Encoding::F32))
        .unwrap();
    writer.push(&(header.len() as u64).to_le_bytes()).unwrap();
    for piece in [
        header.as_bytes(),
        &payload[payload.len() - split..],
        &payload[..payload.len() - split],
    ] {
        piece
            .chunks(1000)
            .for_each(|piece| writer.push(piece).unwrap());
    }
    writer.finish(metadata(), None).unwrap();
    let file = fs::read(disk.path().join("spool/job-1/round-1/client-0-100.report")).unwrap();
    assert!(file.starts_with(&payload));
    let digest = Trailer::of_file(&file).unwrap().digest;
    assert_eq!(digest, Digest::of(&payload).to_string());
}

#[test]
fn a_full_disk_refuses_one_report_and_harms_no_other() {
    let (disk, layout) = (Disk::new(), layout(100_000));
    let spool = disk.spool(FileSpoolConfig::default());
    let deltas = [0, 1, 2].map(|client| delta(&layout, Encoding::F32, client));
    upload(&spool, 0, &deltas[0]).unwrap();
    let mut under_way = spool
        .begin(key(2), &report_form(&layout, Encoding::F32))
        .unwrap();
    let pieces = deltas[2].pieces();
    let (header, payload) = (pieces[0].clone(), pieces[1].clone());
    under_way.push(&header).unwrap();
    under_way.push(&payload[..200_000]).unwrap();

    disk.leave_room(Some(200_000));
    let refused = upload(&spool, 1, &deltas[1]).unwrap_err();
    let SpoolError::Storage(detail) = &refused else {
        panic!("{refused:?}");
    };
    assert!(detail.to_string().contains("client-1-101.part"), "{detail}");
    disk.leave_room(None);

    under_way.push(&payload[200_000..]).unwrap();
    under_way.finish(metadata(), None).unwrap();
    let missing = spool.reports(JOB, ROUND, &accepted(3)).err();
    let client = ClientId(1);
    assert_eq!(missing, Some(SpoolError::Missing { client }));
    let stored = [(ClientId(0), upload_of(0)), (ClientId(2), upload_of(2))];
    for (report, delta) in spool
        .reports(JOB, ROUND, &stored)
        .unwrap()
        .iter()
        .zip([&deltas[0], &deltas[2]])
    {
        let mut values = vec![0.0; layout.len()];
        let payload = report.payload(DELTA).unwrap();
        payload.read(0, &mut values).unwrap();
        assert_eq!(
            values,
            delta.find(DELTA).unwrap().decode().unwrap().values()
        );
    }
    assert_eq!(below(&disk.path().join("spool")).len(), 4);
    upload(&spool, 1, &deltas[1]).unwrap();
}

#[test]
fn a_disk_that_is_full_at_the_very_end_refuses_the_report() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let spool = disk.spool(FileSpoolConfig::default());
    // Enough for the values, which are 2668 bytes, but not for the trailer too.
    disk.leave_room(Some(2700));
    let refused = upload(&spool, 0, &delta(&layout, Encoding::F32, 0));
    assert!(
        matches!(refused, Err(SpoolError::Storage(_))),
        "{refused:?}"
    );
    assert_eq!(below(&disk.path().join("spool")), [""; 0]);
}

#[test]
fn many_uploads_at_once_begin_and_break_off_in_one_folder() {
    let (disk, layout) = (Disk::new(), layout(1000));
    let spool = disk.spool(FileSpoolConfig::default());
    let delta = delta(&layout, Encoding::F32, 0);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (spool, delta, layout) = (&spool, &delta, &layout);
            scope.spawn(move || {
                for _ in 0..10 {
                    drop(
                        spool
                            .begin(key(client), &report_form(layout, Encoding::F32))
                            .unwrap(),
                    );
                    upload(spool, client, delta).unwrap();
                    spool.forget(key(client));
                }
            });
        }
    });
    assert_eq!(below(&disk.path().join("spool")), [""; 0]);
}
