//! A coordinator over files and a journal in SQLite.

use std::path::Path;

use super::*;
use crate::store::{DataFolder, FileModels, FileSpool, FileSpoolConfig, SqliteJournal};

/// The places of a coordinator, which outlive it.
pub(super) struct Places {
    pub folder: Arc<DataFolder>,
    pub journal: Arc<SqliteJournal>,
}

impl Places {
    /// The places in this folder, or why there are none.
    pub fn open(root: &Path) -> Result<Self, String> {
        let folder = DataFolder::open(root.join("state")).map_err(|error| error.to_string())?;
        let journal = SqliteJournal::open(folder.clone()).map_err(|error| error.to_string())?;
        let journal = Arc::new(journal);
        Ok(Self { folder, journal })
    }

    /// A coordinator that runs one job at a time.
    pub async fn start(&self) -> Lab {
        let mut config = CoordinatorConfig::default();
        config.jobs.max_running = 1;
        self.start_with(config).await.unwrap()
    }

    pub async fn start_with(&self, config: CoordinatorConfig) -> Result<Lab, RecoveryError> {
        let trainers = Arc::new(NoopTrainers::new(SIZE, 100).unwrap());
        let spool = FileSpool::new(self.folder.clone(), FileSpoolConfig::default());
        let coordinator = Coordinator::builder(trainers.clone())
            .config(config)
            .spool(Arc::new(spool))
            .models(Arc::new(FileModels::new(self.folder.clone())))
            .recover(self.journal.clone())?;
        let (address, server) = serve_here(&coordinator).await;
        Ok(Lab {
            coordinator,
            address,
            trainers,
            spool: MemorySpool::new(0),
            _server: server,
        })
    }
}

/// Runs this on a runtime of its own.
pub(super) fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}
