//! Readers of a large model that read nothing, or a byte now and then.

use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

use super::{
    beside::repeated_while,
    intruder::Intruder,
    victim::{Honest, Victim},
    wire::{connect_with, json_headers, request},
};

/// Values of the model: 16 MB.
const PARAMETERS: &str = "--rehearse 4000000";

const REHEARSAL: Honest = Honest {
    worker: PARAMETERS,
    job: "--model noop --dataset noop --clients 1 --goal 1 --min-updates 1 --rounds 1 --evaluation never --encoding f16",
};

/// What the system of a reader takes of an answer before the reader does.
const ROOM: u32 = 8 << 10;

/// Of each kind.
const READERS: usize = 40;

#[test]
fn readers_that_do_not_read_a_large_model_take_no_memory_and_are_given_up() {
    let victim = Victim::with(
        &format!("{PARAMETERS} --rate-grace 2 --stall-timeout 3"),
        REHEARSAL,
    );
    let intruder = Intruder::join(&victim, [127, 0, 2, 1], "intruder");
    let latest = request(
        "GET /api/v1/jobs/1/models/latest",
        &json_headers(&victim.admin_token()),
    );
    let of_worker = request("GET /api/v1/jobs/1/models/1", &intruder.headers());
    let mut readers = Vec::new();
    for index in 0..READERS {
        for bytes in [&latest, &of_worker] {
            let from = [127, 0, 2, 2 + (index % 40) as u8];
            let mut stream = connect_with(from, victim.to, Some(ROOM)).unwrap();
            stream.write_all(bytes).unwrap();
            readers.push(stream);
        }
    }
    // Each is sent the model.
    for stream in &mut readers {
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        assert_eq!(status, *b"HTTP/1.1 200");
    }
    let reads = || {
        for stream in readers.iter_mut().step_by(3) {
            // An error means that it has been given up.
            let _ = stream.read(&mut [0]);
        }
        // The readers are what is slow here: nothing waits for this to pass.
        thread::sleep(Duration::from_millis(20));
    };
    repeated_while(reads, || {
        let attack = format!("{} readers of 16 MB, valid tokens", 2 * READERS);
        victim.withstands(&attack, 128);
        victim.is_rid_of_them();
    });
}
