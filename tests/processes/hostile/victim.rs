//! A coordinator that is attacked, with an honest worker and an operator, and what the attack costs them.

use std::{
    fs,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        deployment::{Deployment, binary},
        process::{LIMIT, Process},
    },
    wire::{Answer, answer, json_headers, request},
};

/// How much longer an honest job may take beside an attack.
const LONGER: Duration = Duration::from_secs(1);

/// How many descriptors more than before are as many as before: of files, and of honest connections.
const SPARE_DESCRIPTORS: usize = 32;

/// Victims come one after the other: they would measure each other's attacks.
static TURN: Mutex<()> = Mutex::new(());

/// What the honest ones do.
#[derive(Debug, Clone, Copy)]
pub struct Honest {
    pub worker: &'static str,
    pub job: &'static str,
}

/// Two rounds of two clients. Attackers that read and write f32 alone get none of them.
pub const DIGITS: Honest = Honest {
    worker: "",
    job: "--clients 2 --rounds 2 --encoding f16",
};

/// How it is without an attack.
#[derive(Debug, Default)]
struct Quiet {
    /// What the honest job takes.
    alone: Duration,
    mib: u64,
    descriptors: usize,
}

/// A closed coordinator with an honest worker.
pub struct Victim {
    pub deployment: Deployment,
    pub to: SocketAddr,
    pub join_token: String,
    /// What honest programs need to know of its certificate.
    pinned: String,
    honest: Honest,
    worker: Option<Process>,
    quiet: Quiet,
    _turn: MutexGuard<'static, ()>,
}

impl Victim {
    pub fn start(flags: &str) -> Self {
        Self::with(flags, DIGITS)
    }

    pub fn with(flags: &str, honest: Honest) -> Self {
        // A test that failed leaves nothing that another one needs.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut deployment =
            Deployment::with(&format!("--closed --bind 127.0.0.1:0 --log error {flags}"));
        let (_, address) = deployment.url.split_once("://").unwrap();
        let to = address.parse().unwrap();
        let line = deployment.line().unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let token = words
            .iter()
            .find_map(|word| word.strip_prefix("FEDAVG_JOIN_TOKEN="));
        let token = token.unwrap().to_string();
        let fingerprint = words.iter().find(|word| word.starts_with("sha256:"));
        let pinned = fingerprint.map_or(String::new(), |found| format!("--fingerprint {found}"));
        let mut victim = Self {
            deployment,
            to,
            join_token: token,
            pinned,
            honest,
            worker: None,
            quiet: Quiet::default(),
            _turn: turn,
        };
        victim.start_worker();
        // The first one also reads the data.
        victim.job();
        let alone = victim.job();
        victim.quiet = Quiet {
            alone,
            mib: victim.mib("VmRSS"),
            descriptors: victim.descriptors(),
        };
        // The peak is counted from here on.
        fs::write(format!("/proc/{}/clear_refs", victim.process()), "5").unwrap();
        victim
    }

    pub fn start_worker(&mut self) {
        self.start_worker_at(&self.deployment.url.clone());
    }

    /// The same for a worker that reaches the coordinator at this URL.
    pub fn start_worker_at(&mut self, url: &str) {
        let arguments = format!(
            "--coordinator {url} --in-memory --name honest {} {}",
            self.pinned, self.honest.worker
        );
        let mut command = binary(env!("CARGO_BIN_EXE_fedavg-worker"), &arguments);
        command.env("FEDAVG_JOIN_TOKEN", &self.join_token);
        let mut worker = Process::start(&mut command);
        worker.err.until("registered");
        self.worker = Some(worker);
    }

    /// The honest worker leaves.
    pub fn stop_worker(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.interrupt();
            worker.finish();
        }
    }

    pub fn admin_token(&self) -> String {
        let token = fs::read_to_string(self.deployment.admin_token()).unwrap();
        token.trim().to_string()
    }

    /// What an administrator gets at this path below `/api/v1`.
    pub fn get(&self, path: &str) -> Answer {
        let headers = json_headers(&self.admin_token());
        let line = format!("GET /api/v1{path}");
        answer([127, 0, 0, 1], self.to, &request(&line, &headers))
    }

    /// An honest job from its submission to its end.
    fn job(&self) -> Duration {
        let start = Instant::now();
        let submit = format!("submit {} --watch {}", self.honest.job, self.pinned);
        let end = self.deployment.operator(&submit);
        assert_eq!(end.code, Some(0), "{end:?}");
        start.elapsed()
    }

    fn process(&self) -> u32 {
        self.deployment.process_id()
    }

    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.process());
        fs::read_dir(folder).unwrap().count()
    }

    /// A field of `/proc/PID/status`, in MiB.
    fn mib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line
            .unwrap()
            .trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB");
        number.parse::<u64>().unwrap() >> 10
    }

    /// Runs an honest job beside an attack that is under way. The coordinator takes at most this much more memory.
    pub fn withstands(&self, attack: &str, most_mib: u64) {
        let quiet = &self.quiet;
        let beside = self.job();
        let (now, peak, descriptors) = (self.mib("VmRSS"), self.mib("VmHWM"), self.descriptors());
        println!(
            "| {attack} | {:.2} s | {:.2} s | {} MiB | {now} MiB | {peak} MiB | {} | {descriptors} |",
            quiet.alone.as_secs_f64(),
            beside.as_secs_f64(),
            quiet.mib,
            quiet.descriptors,
        );
        assert!(
            beside <= quiet.alone + LONGER,
            "{attack}: {beside:?} beside it, {quiet:?} alone"
        );
        assert!(
            peak <= quiet.mib + most_mib,
            "{attack}: {peak} MiB at most, {quiet:?} before"
        );
    }

    /// Waits until this is so.
    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < LIMIT, "not in time: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the attackers' connections are closed, whose own ends are open.
    pub fn is_rid_of_them(&self) {
        let most = self.quiet.descriptors + SPARE_DESCRIPTORS;
        self.until("the end of the attackers' connections", || {
            self.descriptors() <= most
        });
    }
}
