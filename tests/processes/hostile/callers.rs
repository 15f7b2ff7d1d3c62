//! Limits of callers over sockets: behind proxies, of bytes, and of uploads.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    victim::Victim,
    wire::{Answer, answer, json_headers, model_headers, request, request_with},
};

const PROXY: [u8; 4] = [127, 0, 5, 1];
const STRANGER: [u8; 4] = [127, 0, 6, 1];
const WRONG: &str = "authorization: Bearer wrong-token-of-an-attacker\r\n";

/// Asks with a wrong token, for whom this header says.
fn asks_wrongly(victim: &Victim, from: [u8; 4], forwarded: &str) -> Answer {
    let headers = format!("{WRONG}{forwarded}");
    answer(from, victim.to, &request("GET /api/v1/jobs", &headers))
}

fn makes_a_token(victim: &Victim, from: [u8; 4], name: &str, forwarded: &str) {
    let headers = format!("{}{forwarded}", json_headers(&victim.admin_token()));
    let body = json!({ "name": name, "kind": "join" }).to_string();
    let bytes = request_with("POST /api/v1/tokens", &headers, body.as_bytes());
    let told = answer(from, victim.to, &bytes);
    assert_eq!(told.status(), 201, "{told:?}");
}

#[test]
fn only_a_trusted_proxy_says_for_whom_it_asks() {
    let victim = Victim::start("--limit-loopback --wrong-tokens 3 --trusted-proxy 127.0.5.0/24");
    // Another name each time does not help who is no proxy.
    for index in 0..3 {
        let forwarded = format!("x-forwarded-for: 203.0.113.{index}\r\n");
        let told = asks_wrongly(&victim, STRANGER, &forwarded);
        assert_eq!(told.status(), 401, "{told:?}");
    }
    let told = asks_wrongly(&victim, STRANGER, "x-forwarded-for: 203.0.113.200\r\n");
    assert_eq!(told.problem(), (429, "unauthorized".to_string()));

    // Behind the proxy, the last address counts that is none of its network's; what is before it can be made up.
    for index in 0..4 {
        let forwarded = format!("x-forwarded-for: 6.6.6.{index}, 203.0.113.9, 127.0.5.7\r\n");
        let told = asks_wrongly(&victim, PROXY, &forwarded);
        let expected = if index < 3 { 401 } else { 429 };
        assert_eq!(told.status(), expected, "{told:?}");
    }
    for forwarded in [
        "x-forwarded-for: 203.0.113.10\r\n",
        "forwarded: for=203.0.113.11\r\n",
        "forwarded: for=\"[2001:db8::1]:4711\"\r\n",
    ] {
        let told = asks_wrongly(&victim, PROXY, forwarded);
        assert_eq!(told.status(), 401, "{forwarded}: {told:?}");
    }
    let told = asks_wrongly(&victim, PROXY, "forwarded: for=203.0.113.9\r\n");
    assert_eq!(told.status(), 429, "{told:?}");

    // The audit has the caller, and not the proxy; and nobody can choose an address for it.
    makes_a_token(
        &victim,
        PROXY,
        "by-proxy",
        "x-forwarded-for: 203.0.113.77\r\n",
    );
    makes_a_token(
        &victim,
        STRANGER,
        "direct",
        "x-forwarded-for: 203.0.113.77\r\n",
    );
    let audit = victim.get("/audit").json();
    let of = |name: &str| {
        let entries = audit.as_array().unwrap();
        let entry = entries
            .iter()
            .find(|entry| entry["subject"].to_string().contains(name));
        entry.unwrap_or_else(|| panic!("{audit}"))["from"].clone()
    };
    assert_eq!(of("by-proxy"), "203.0.113.77");
    assert_eq!(of("direct"), "127.0.6.1");
    victim.withstands("wrong tokens with forged addresses", 64);
}

#[test]
fn bytes_of_an_address_above_its_rate_are_read_later_and_nothing_is_refused() {
    let rate = 1 << 20;
    let victim = Victim::start("--limit-loopback --address-bytes 1MiB");
    let values = 1 << 19;
    let header =
        json!({ "w": { "dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values] } });
    let header = header.to_string();
    let mut body = (header.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(header.as_bytes());
    body.resize(body.len() + 4 * values, 0);
    let headers = model_headers(&victim.admin_token());
    let bytes = request_with("POST /api/v1/jobs", &headers, &body);
    let start = Instant::now();
    std::thread::scope(|scope| {
        // Two connections of one address share its rate.
        let (to, bytes) = (victim.to, &bytes);
        let send = move || answer(STRANGER, to, bytes);
        let senders = [scope.spawn(send), scope.spawn(send)];
        // The honest worker is at another address.
        victim.withstands("4 MiB from an address with 1 MiB a second", 128);
        for sender in senders {
            let told = sender.join().unwrap();
            // The whole model was read: it is another one than the job's, which is what the answer is about.
            assert_eq!(told.problem(), (422, "invalid_job".to_string()), "{told:?}");
        }
    });
    // A second's worth passes at once, and after the last bytes nobody waits: a tenth for what is read at once.
    let least = 0.9 * (2 * body.len() - rate) as f64 / rate as f64;
    let took = start.elapsed();
    println!("4 MiB took {took:?}, {least:.1} s at least");
    assert!(took >= Duration::from_secs_f64(least), "{took:?}");
}
