//! Senders that are slow: each sends a few bytes now and then, so that its request never ends.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use super::{
    beside::repeated_while,
    intruder::Intruder,
    victim::Victim,
    wire::{
        answer, answer_on, connect, is_silent, json_headers, model_headers, request, request_with,
    },
};

/// How often each sends something. The senders are what is slow here: nothing waits for this to pass.
const TICK: Duration = Duration::from_millis(20);

/// What a sender that is above `--min-upload-rate` sends at each tick: about 5 KiB a second.
const ABOVE: usize = 100;

/// Uploads that one worker may have (`--worker-uploads`), and workers of the attacker: twice what is received at once.
const UPLOADS: usize = 32;
const INTRUDERS: u8 = 4;

/// What is told who asks before it sends a body.
const CONTINUE: &[u8; 25] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A request that has begun, and the rest of it.
struct Sender {
    stream: TcpStream,
    rest: Vec<u8>,
    at_once: usize,
}

impl Sender {
    fn new(from: [u8; 4], victim: &Victim, head: &[u8], rest: Vec<u8>, at_once: usize) -> Self {
        let mut stream = connect(from, victim.to).unwrap();
        stream.write_all(head).unwrap();
        Self {
            stream,
            rest,
            at_once,
        }
    }

    /// Waits until its body is read, if it has asked for that.
    fn wait_until_read(&mut self) {
        let mut told = [0; CONTINUE.len()];
        self.stream.read_exact(&mut told).unwrap();
        assert_eq!(&told, CONTINUE);
    }

    fn tick(&mut self) {
        let count = self.at_once.min(self.rest.len());
        let piece: Vec<u8> = self.rest.drain(..count).collect();
        // An error means that it has been ended.
        let _ = self.stream.write_all(&piece);
    }
}

/// Has each of them send something.
fn tick(senders: &mut [Sender]) {
    senders.iter_mut().for_each(Sender::tick);
    thread::sleep(TICK);
}

/// As many uploads as an attacker with a join token gets, all of them above the least rate.
#[test]
fn uploads_just_above_the_least_rate_keep_no_place_that_an_honest_worker_needs() {
    let mut victim = Victim::start("");
    victim.stop_worker();
    let mut intruders = Vec::new();
    for index in 0..INTRUDERS {
        let name = format!("intruder-{index}");
        intruders.push(Intruder::join(&victim, [127, 0, 2, index + 1], &name));
    }
    let clients = UPLOADS * intruders.len();
    let job = victim.deployment.submit(&format!(
        "--clients {clients} --goal {clients} --min-updates {clients} --min-workers {INTRUDERS} --rounds 1 --round-timeout 300"
    ));
    let mut senders = Vec::new();
    for intruder in &intruders {
        let tasks = intruder.tasks(UPLOADS);
        let body = intruder.body(&tasks[0]);
        for task in tasks {
            let (line, headers) = intruder.report(&task);
            let length = format!("{headers}content-length: {}\r\n", body.len());
            let head = request(&line, &length);
            senders.push(Sender::new(
                intruder.from,
                &victim,
                &head,
                body.clone(),
                ABOVE,
            ));
        }
    }
    assert!(senders.len() > 64, "{} uploads", senders.len());
    victim.start_worker();
    let attack = format!("{} uploads of 5 KiB a second, valid tokens", senders.len());
    repeated_while(|| tick(&mut senders), || victim.withstands(&attack, 128));
    // None was ended: they are within the limits.
    let open = senders.iter().filter(|sender| is_silent(&sender.stream));
    assert_eq!(open.count(), senders.len());
    let cancelled = victim.deployment.operator(&format!("cancel {job}"));
    assert_eq!(cancelled.code, Some(0), "{cancelled:?}");
    for sender in &mut senders {
        let _ = sender.stream.write_all(&sender.rest);
    }
    victim.is_rid_of_them();
}

/// Reports, registrations and submissions.
#[test]
fn bodies_below_the_least_rate_are_ended_and_hold_nobody_up() {
    let mut victim = Victim::start("--rate-grace 1 --stall-timeout 2");
    victim.stop_worker();
    let intruder = Intruder::join(&victim, [127, 0, 2, 1], "intruder");
    victim.deployment.submit(&format!(
        "--clients {UPLOADS} --goal {UPLOADS} --min-updates {UPLOADS} --rounds 1 --round-timeout 300"
    ));
    let mut senders = Vec::new();
    let tasks = intruder.tasks(UPLOADS);
    let body = intruder.body(&tasks[0]);
    for task in &tasks {
        let (line, headers) = intruder.report(task);
        let length = format!(
            "{headers}expect: 100-continue\r\ncontent-length: {}\r\n",
            body.len()
        );
        let head = request(&line, &length);
        let mut sender = Sender::new(intruder.from, &victim, &head, body.clone(), 1);
        sender.wait_until_read();
        senders.push(sender);
    }
    // One more than a worker may have at once is told so.
    let (line, headers) = intruder.report(&tasks[0]);
    let one_more = answer(
        intruder.from,
        victim.to,
        &request_with(&line, &headers, &body),
    );
    assert_eq!(one_more.problem(), (429, "too_many".to_string()));
    assert!(one_more.head.contains("retry-after: 1"), "{one_more:?}");

    let joins = json_headers(&victim.join_token);
    let submits = json_headers(&victim.admin_token());
    let brings = model_headers(&victim.admin_token());
    let spaces = vec![b' '; 60_000];
    // A header of as many bytes as there are after its length.
    let header = [&59_992_u64.to_le_bytes()[..], &spaces[8..]].concat();
    for (line, headers, body, count) in [
        ("POST /api/v1/workers", &joins, &spaces, 128),
        ("POST /api/v1/jobs", &submits, &spaces, 64),
        ("POST /api/v1/jobs", &brings, &header, 4),
    ] {
        let head = request(
            line,
            &format!("{headers}content-length: {}\r\n", body.len()),
        );
        for _ in 0..count {
            senders.push(Sender::new([127, 0, 2, 2], &victim, &head, body.clone(), 1));
        }
    }
    victim.start_worker();
    let attack = format!(
        "{} bodies of 50 bytes a second, valid tokens",
        senders.len()
    );
    let is_over = |senders: &[Sender]| !senders.iter().any(|sender| is_silent(&sender.stream));
    repeated_while(|| tick(&mut senders), || victim.withstands(&attack, 128));
    while !is_over(&senders) {
        tick(&mut senders);
    }
    for sender in &mut senders {
        // The end of its bytes: otherwise it would be heard on for a while.
        let _ = sender.stream.shutdown(Shutdown::Write);
        let told = answer_on(&mut sender.stream);
        assert_eq!(told.problem(), (400, "truncated".to_string()), "{told:?}");
    }
    victim.is_rid_of_them();
}
