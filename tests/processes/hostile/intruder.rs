//! An attacker with a valid worker token: it registers, takes tasks, and does as it likes with them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{
    victim::Victim,
    wire::{answer, json_headers, request, request_with},
};

/// Slots that it claims to have.
const SLOTS: usize = 64;

pub struct Intruder {
    pub from: [u8; 4],
    to: SocketAddr,
    pub worker: u64,
    pub token: String,
}

impl Intruder {
    /// Registers with the datasets that honest workers have said. It reads and writes f32 alone.
    pub fn join(victim: &Victim, from: [u8; 4], name: &str) -> Self {
        let workers = victim.get("/workers").json();
        let body = json!({
            "protocol": 2, "name": name, "slots": SLOTS,
            "datasets": workers[0]["registration"]["datasets"],
        });
        let headers = json_headers(&victim.join_token);
        let body = body.to_string();
        let bytes = request_with("POST /api/v1/workers", &headers, body.as_bytes());
        let registered = answer(from, victim.to, &bytes);
        assert_eq!(registered.status(), 201, "{registered:?}");
        let registered = registered.json();
        Self {
            from,
            to: victim.to,
            worker: registered["worker"].as_u64().unwrap(),
            token: registered["token"].as_str().unwrap().to_string(),
        }
    }

    /// Takes as many training tasks as it gets, this many at most; one at least.
    pub fn tasks(&self, most: usize) -> Vec<Value> {
        let line = format!("POST /api/v1/workers/{}/poll", self.worker);
        let mut tasks = Vec::new();
        while tasks.len() < most {
            // The job may begin a moment after the first poll.
            let wait = if tasks.is_empty() { 20_000 } else { 100 };
            let body = json!({ "busy": tasks, "wait_ms": wait }).to_string();
            let bytes = request_with(&line, &json_headers(&self.token), body.as_bytes());
            let polled = answer(self.from, self.to, &bytes);
            if polled.status() == 204 {
                break;
            }
            assert_eq!(polled.status(), 200, "{polled:?}");
            tasks.push(polled.json());
        }
        assert!(!tasks.is_empty());
        tasks
    }

    /// The headers of each of its requests.
    pub fn headers(&self) -> String {
        format!(
            "authorization: Bearer {}\r\nfedavg-worker: {}\r\n",
            self.token, self.worker
        )
    }

    /// The head of a task's report, but for the length of its body.
    pub fn report(&self, task: &Value) -> (String, String) {
        let (job, round, client) = (&task["job"], &task["round"], &task["client"]);
        let line = format!("PUT /api/v1/jobs/{job}/rounds/{round}/reports/{client}");
        let headers = format!(
            "{}fedavg-report: {{\"base_version\":{},\"examples\":1,\"steps\":1}}\r\ncontent-type: application/octet-stream\r\n",
            self.headers(),
            task["version"]
        );
        (line, headers)
    }

    /// The body of a report that a task's job takes, of zeros.
    pub fn body(&self, task: &Value) -> Vec<u8> {
        let line = format!(
            "GET /api/v1/jobs/{}/models/{}",
            task["job"], task["version"]
        );
        let model = answer(self.from, self.to, &request(&line, &self.headers()));
        assert_eq!(model.status(), 200, "{model:?}");
        let (length, rest) = model.body.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&rest[..length]).unwrap();
        let mut named = serde_json::Map::new();
        for (name, tensor) in header.as_object().unwrap() {
            if name != "__metadata__" {
                named.insert(format!("delta/{name}"), tensor.clone());
            }
        }
        let header = Value::Object(named).to_string();
        let mut body = (header.len() as u64).to_le_bytes().to_vec();
        body.extend_from_slice(header.as_bytes());
        body.resize(body.len() + rest.len() - length, 0);
        body
    }
}
