//! In which phase a coordinator was killed: what its journal says, read before the next one writes there.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use fedavg::{
    ids::Timestamp,
    round::{Event, RoundMachine},
};
use rusqlite::Connection;
use serde::Deserialize;

use super::{process::Finished, site::Site};

/// How many were killed in each phase.
#[derive(Default)]
pub struct Tally {
    pub coordinators: usize,
    pub workers: usize,
    young_workers: usize,
    phases: BTreeMap<String, usize>,
    lines: BTreeMap<String, usize>,
}

impl Tally {
    /// Kills a site's coordinator, starts the next one, and counts: a phase for each job that ran.
    pub fn kill_coordinator(&mut self, site: &mut Site) {
        self.coordinators += 1;
        let (phases, line) =
            site.restart_coordinator(|state, killed| (phases(state, killed), last_line(killed)));
        for phase in phases {
            *self.phases.entry(phase).or_default() += 1;
        }
        *self.lines.entry(line).or_default() += 1;
    }

    /// Kills one of a site's workers, and starts the next one.
    pub fn kill_worker(&mut self, site: &mut Site, worker: usize) {
        self.workers += 1;
        let killed = site.restart_worker(worker);
        let is_registered = ["registered", "goes on as the worker"];
        if !is_registered.iter().any(|line| killed.err.contains(line)) {
            self.young_workers += 1;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (coordinators, workers, young) = (self.coordinators, self.workers, self.young_workers);
        writeln!(
            formatter,
            "{coordinators} coordinators and {workers} workers were killed, {young} of the workers before they were registered"
        )?;
        let tables = [
            ("the phase in the journal, for each job", &self.phases),
            ("the last that the coordinator logged", &self.lines),
        ];
        for (title, counted) in tables {
            writeln!(formatter, "  kills  {title}")?;
            for (name, kills) in counted {
                writeln!(formatter, "{kills:7}  {name}")?;
            }
        }
        Ok(())
    }
}

/// What a coordinator did last, as its log says. The journal may be behind it.
fn last_line(killed: &Finished) -> String {
    let known = [
        "RoundStarted",
        "TaskIssued",
        "ReportAccepted",
        "ReportRefused",
        "Leased",
        "Recovered",
        "Waiting",
        "round committed",
        "version evaluated",
        "job ended",
        "are kept in files",
        "the job goes on",
        "listening",
    ];
    let last = killed.err.lines().last().unwrap_or("nothing");
    let found = known.iter().find(|name| last.contains(**name));
    match (found, last) {
        (Some(name), _) => name.to_string(),
        (None, "nothing") => "nothing".to_string(),
        _ => "another line".to_string(),
    }
}

/// As the coordinator writes it.
#[derive(Deserialize)]
struct MachineRecord {
    time: Timestamp,
    event: Event,
}

/// The phases that a killed coordinator's jobs were in: those that the next one finds.
fn phases(state: &Path, killed: &Finished) -> Vec<String> {
    if !killed.out.contains("listening on ") {
        let has_opened = killed.err.contains("are kept in files");
        let phase = if has_opened {
            "reading the journal"
        } else {
            "starting"
        };
        return vec![phase.to_string()];
    }
    // A copy: to open it is to recover it, which is the next one's to do.
    let copy = tempfile::tempdir().unwrap();
    for file in ["journal.db", "journal.db-wal"] {
        // Without a log, all is in the database.
        let _ = fs::copy(state.join(file), copy.path().join(file));
    }
    let journal = Connection::open(copy.path().join("journal.db")).unwrap();
    let mut select = journal
        .prepare("SELECT job FROM jobs WHERE state <> 'ended'")
        .unwrap();
    let jobs = select.query_map([], |row| row.get(0)).unwrap();
    let mut phases = Vec::new();
    for job in jobs {
        phases.push(phase_of(&journal, job.unwrap()));
    }
    if phases.is_empty() {
        phases.push("no job runs".to_string());
    }
    phases
}

fn phase_of(journal: &Connection, job: i64) -> String {
    let snapshot: Option<Vec<u8>> = journal
        .query_row(
            "SELECT snapshot FROM streams WHERE stream = ?",
            [job],
            |row| row.get(0),
        )
        .unwrap();
    let Some(snapshot) = snapshot else {
        return "queued".to_string();
    };
    let mut machine: RoundMachine = rmp_serde::from_slice(&snapshot).unwrap();
    let sql = "SELECT body FROM records WHERE stream = ? ORDER BY position, part";
    let mut select = journal.prepare(sql).unwrap();
    let records = select
        .query_map([job], |row| row.get::<_, Vec<u8>>(0))
        .unwrap();
    for body in records {
        let record: MachineRecord = rmp_serde::from_slice(&body.unwrap()).unwrap();
        machine.handle(record.event, record.time);
        while machine.poll_command().is_some() {}
    }
    let sql = "SELECT count(*) FROM events WHERE job = ? AND event = ?";
    let count = |event: &str| -> i64 {
        let counted = journal.query_row(sql, (job, event), |row| row.get(0));
        counted.unwrap()
    };
    let is_evaluating = count("round_committed") > count("evaluated");
    let status = machine.status();
    let mut phase = status.phase.to_string();
    if phase == "collecting" {
        let reports = if status.accepted == 0 {
            "no report yet"
        } else {
            "some reports"
        };
        phase = format!("{phase}, {reports}");
    }
    if is_evaluating && phase != "finishing" {
        phase.push_str(", a version is evaluated");
    }
    phase
}
