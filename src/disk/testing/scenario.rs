//! Which syncs each scenario of a power failure shows to be needed, and the check of one.

use std::path::Path;

use super::power::Power;
use crate::disk::Site;

/// A scenario: what is written, and what is promised of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scenario {
    Reports,
    Models,
    Journal,
    Import,
    Worker,
    Output,
    Dataset,
}

impl Scenario {
    pub(super) const ALL: [Self; 7] = [
        Self::Reports,
        Self::Models,
        Self::Journal,
        Self::Import,
        Self::Worker,
        Self::Output,
        Self::Dataset,
    ];

    /// The syncs without which a power failure breaks a promise of this scenario.
    pub(super) fn needs(self) -> &'static [Site] {
        match self {
            Self::Reports => &[
                Site::FolderAboveSync,
                Site::FolderPartsSync,
                Site::ReportSync,
                Site::ReportRoundSync,
                Site::ReportJobSync,
                Site::ReportsSync,
            ],
            Self::Models => &[
                Site::ModelSync,
                Site::NumbersSync,
                Site::VersionSync,
                Site::ModelJobSync,
                Site::ModelsSync,
            ],
            Self::Journal => &[Site::JournalSync],
            Self::Import => &[
                Site::ImportSync,
                Site::ImportTreeSync,
                Site::ImportFolderSync,
            ],
            Self::Worker => &[
                Site::WorkerAboveSync,
                Site::WorkerSync,
                Site::WorkerRegistrationSync,
                Site::ClientSync,
            ],
            Self::Output => &[Site::OutputSync],
            Self::Dataset => &[Site::DatasetSync, Site::DatasetFolderSync],
        }
    }

    /// Runs the scenario in an empty folder: no power failure may break a promise. Then runs it without each of its syncs: some
    /// power failure must.
    pub(crate) fn check(self, run: impl Fn(&Path, &Power)) {
        let (violation, moments) = violation(None, &run);
        assert_eq!(violation, None, "{self:?}");
        println!("{self:?}: the power failed at {moments} moments");
        for site in self.needs() {
            let (violation, _) = self::violation(Some(*site), &run);
            let found = violation
                .unwrap_or_else(|| panic!("{self:?} does not need the sync {}", site.name()));
            println!("without {}: {found}", site.name());
        }
    }
}

/// The first broken promise, and how many moments there were.
fn violation(without: Option<Site>, run: &impl Fn(&Path, &Power)) -> (Option<String>, usize) {
    let root = tempfile::tempdir().unwrap();
    let (power, _watch) = Power::watch(root.path(), without);
    run(root.path(), &power);
    if let Some(site) = without {
        assert!(power.visited().contains(&site), "{}", site.name());
    }
    let moments = power.moments();
    (power.violation(), moments)
}
