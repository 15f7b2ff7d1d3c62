//! Ends the process at a step, for tests that start it again (feature `testing`).
//!
//! | variable | meaning |
//! |---|---|
//! | `FEDAVG_ABORT_AT=SITE:before:N` | abort before the Nth step at this site (`before` or `after`) |
//! | `FEDAVG_STEPS_FILE` | a file to which the name of each site is appended when a step there begins |

use std::{
    env,
    fs::File,
    io::Write,
    process::abort,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use super::Site;

/// Where to abort.
struct Point {
    site: Site,
    is_before: bool,
    number: u64,
    passed: AtomicU64,
}

/// What the environment asks for.
struct Asked {
    point: Option<Point>,
    steps: Option<File>,
}

/// A step begins.
pub(super) fn before(site: Site) {
    let asked = asked();
    if let Some(mut steps) = asked.steps.as_ref() {
        // In one write, so that lines of other processes and threads are not mixed into it.
        let written = steps.write_all(format!("{}\n", site.name()).as_bytes());
        assert!(written.is_ok(), "FEDAVG_STEPS_FILE can't be written");
    }
    pass(asked, site, true);
}

/// A step has ended.
pub(super) fn after(site: Site) {
    pass(asked(), site, false);
}

fn pass(asked: &Asked, site: Site, is_before: bool) {
    let Some(point) = &asked.point else {
        return;
    };
    if (point.site, point.is_before) == (site, is_before)
        && point.passed.fetch_add(1, Ordering::Relaxed) + 1 == point.number
    {
        // As a kill: no destructor runs, and nothing is flushed.
        abort();
    }
}

fn asked() -> &'static Asked {
    static ASKED: OnceLock<Asked> = OnceLock::new();
    ASKED.get_or_init(|| Asked {
        point: env::var("FEDAVG_ABORT_AT").ok().map(|text| {
            let point = point(&text);
            point.unwrap_or_else(|| panic!("FEDAVG_ABORT_AT={text} is not SITE:before:N"))
        }),
        steps: env::var_os("FEDAVG_STEPS_FILE").map(|path| {
            let opened = File::options().append(true).create(true).open(path);
            opened.unwrap_or_else(|error| panic!("FEDAVG_STEPS_FILE: {error}"))
        }),
    })
}

fn point(text: &str) -> Option<Point> {
    let (text, number) = text.rsplit_once(':')?;
    let (name, side) = text.rsplit_once(':')?;
    Some(Point {
        site: Site::ALL.iter().copied().find(|site| site.name() == name)?,
        is_before: match side {
            "before" => true,
            "after" => false,
            _ => return None,
        },
        number: number.parse().ok()?,
        passed: AtomicU64::new(0),
    })
}
