//! Requests in the body of one that is refused, and behind it.

use std::io::Write;

use super::{
    victim::Victim,
    wire::{answer, connect, json_headers, request, request_with},
};

/// The head of a request after which the connection stays.
fn keep(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes()
}

/// A request that would make a token, hidden in the body of a refused one, and behind it.
#[test]
fn bytes_behind_a_refused_request_do_no_harm() {
    let victim = Victim::start("--stranger-idle 1");
    let tokens = || victim.get("/tokens").json().as_array().unwrap().len();
    let before = tokens();
    let admin = victim.admin_token();
    let body = br#"{"name":"hidden","kind":"join"}"#;
    let hidden = request_with("POST /api/v1/tokens", &json_headers(&admin), body);
    let wrong = json_headers("wrong-token-of-an-attacker");
    let last = request("GET /api/v1/health", "");
    let with_length = format!("{wrong}content-length: {}\r\n", hidden.len());
    let chunked = format!("{wrong}transfer-encoding: chunked\r\n");
    let size = format!("{:x}\r\n", hidden.len()).into_bytes();
    let chunk = [&size[..], &hidden, b"\r\n0\r\n\r\n"].concat();
    // It asks first, is refused, and sends a request in the place of the body.
    let asks_first = format!("{with_length}expect: 100-continue\r\n");
    for line in [
        "POST /api/v1/tokens",
        "POST /api/v1/workers",
        "POST /nothing",
    ] {
        for (headers, body) in [
            (&with_length, &hidden),
            (&chunked, &chunk),
            (&asks_first, &hidden),
        ] {
            let bytes = [&keep(line, headers)[..], body, &last].concat();
            let told = answer([127, 0, 2, 1], victim.to, &bytes);
            assert!([401, 404, 429].contains(&told.status()), "{told:?}");
        }
    }
    assert_eq!(tokens(), before, "a body was taken for a request");
    // By itself it is one.
    let told = answer([127, 0, 2, 1], victim.to, &hidden);
    assert_eq!(told.status(), 201, "{told:?}");

    // A hundred thousand requests in one go, of which nobody reads the answers.
    let many = keep("GET /api/v1/jobs", &wrong).repeat(100_000);
    let mut senders = Vec::new();
    for index in 0..20 {
        let mut stream = connect([127, 0, 2, 2 + index], victim.to).unwrap();
        stream.set_nonblocking(true).unwrap();
        // As much as the system takes.
        let mut sent = 0;
        while let Ok(count @ 1..) = stream.write(&many[sent..]) {
            sent += count;
        }
        senders.push(stream);
    }
    let attack = format!("{} connections full of refused requests", senders.len());
    victim.withstands(&attack, 64);
}
