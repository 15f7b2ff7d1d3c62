//! The places in this crate at which something becomes durable, or is removed.

/// What is done at a site.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Bytes are written to a file.
    Write,
    /// The bytes of a file are brought to the disk.
    SyncFile,
    /// The entries of a folder are brought to the disk.
    SyncFolder,
    /// A file or a folder gets another name.
    Rename,
    /// A file or a folder is removed.
    Remove,
    /// A transaction of the journal's database, which syncs its own files.
    Commit,
}

macro_rules! sites {
    ($($(#[$doc:meta])* $site:ident = $name:literal, $operation:ident;)*) => {
        /// A place in this crate at which something becomes durable, or is removed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[cfg_attr(
            not(feature = "cli"),
            allow(dead_code, reason = "the journal and the tool are not compiled then")
        )]
        pub enum Site {
            $($(#[$doc])* $site,)*
        }

        #[cfg(any(test, feature = "testing"))]
        impl Site {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$site,)*];

            /// Its name, such as `report.sync`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$site => $name,)*
                }
            }

            /// What is done there.
            pub fn operation(self) -> Operation {
                match self {
                    $(Self::$site => Operation::$operation,)*
                }
            }
        }
    };
}

sites! {
    /// The entries of the folders above a state folder that is new.
    FolderAboveSync = "folder.above.sync", SyncFolder;
    /// The entries of the parts of a coordinator's folder.
    FolderPartsSync = "folder.parts.sync", SyncFolder;
    /// The models of version 0.1 get out of the way.
    AsideRename = "folder.aside.rename", Rename;

    /// The payload of a report.
    ReportWrite = "report.write", Write;
    /// The trailer of a report.
    TrailerWrite = "report.trailer.write", Write;
    /// Whose upload it is, beside its bytes.
    NotesHeadWrite = "report.notes.head.write", Write;
    /// How far an upload is.
    NotesWrite = "report.notes.write", Write;
    /// What is noted of an upload that is whole.
    NotesRemove = "report.notes.remove", Remove;
    /// A part of a long report, so that its end does not wait for all of it.
    ReportPartSync = "report.part.sync", SyncFile;
    /// A whole report.
    ReportSync = "report.sync", SyncFile;
    /// A whole report gets its name.
    ReportRename = "report.rename", Rename;
    /// The entries of a round's folder of reports.
    ReportRoundSync = "report.round.sync", SyncFolder;
    /// The entries of a job's folder of reports.
    ReportJobSync = "report.job.sync", SyncFolder;
    /// The entries of the folder of all reports.
    ReportsSync = "reports.sync", SyncFolder;
    /// A report that nobody needs any more.
    ReportRemove = "report.remove", Remove;
    /// The folder of a round without reports.
    ReportRoundRemove = "report.round.remove", Remove;
    /// The folder of a job without reports.
    ReportJobRemove = "report.job.remove", Remove;
    /// At the start: a report that the journal does not name.
    OldReportRemove = "report.old.remove", Remove;
    /// At the start: the folder of a round without reports.
    OldReportRoundRemove = "report.old.round.remove", Remove;
    /// At the start: the folder of a job without reports.
    OldReportJobRemove = "report.old.job.remove", Remove;

    /// A model, or a tensor of a strategy's state.
    ModelWrite = "model.write", Write;
    /// A whole file of a model.
    ModelSync = "model.sync", SyncFile;
    /// The numbers of a strategy's state.
    NumbersWrite = "model.numbers.write", Write;
    /// The numbers of a strategy's state.
    NumbersSync = "model.numbers.sync", SyncFile;
    /// The entries of a version's folder.
    VersionSync = "model.version.sync", SyncFolder;
    /// A version that is there already gets out of the way of the new one.
    VersionAsideRename = "model.version.aside.rename", Rename;
    /// A whole version gets its name.
    VersionRename = "model.version.rename", Rename;
    /// The entries of a job's folder of models.
    ModelJobSync = "model.job.sync", SyncFolder;
    /// The entries of the folder of all models.
    ModelsSync = "models.sync", SyncFolder;
    /// A version comes back, since the new one could not be made durable.
    VersionBackRename = "model.version.back.rename", Rename;
    /// A version that nobody needs, or all versions of a job.
    VersionRemove = "model.version.remove", Remove;
    /// The folder of a job without models.
    ModelJobRemove = "model.job.remove", Remove;
    /// At the start: a version that the journal does not name.
    OldVersionRemove = "model.old.version.remove", Remove;
    /// At the start: the folder of a job without models.
    OldModelJobRemove = "model.old.job.remove", Remove;
    /// At the start: what a crash left between two renames.
    OldVersionRename = "model.old.version.rename", Rename;

    /// A part of a job's log that memory does not hold.
    LogWrite = "log.write", Write;
    /// The file of a job's log.
    LogRemove = "log.remove", Remove;
    /// The folder of a job's logs.
    LogFolderRemove = "log.folder.remove", Remove;
    /// At the start: the logs of an earlier process.
    OldLogRemove = "log.old.remove", Remove;

    /// The entry of a new journal.
    JournalSync = "journal.sync", SyncFolder;
    /// A transaction of the journal.
    JournalCommit = "journal.commit", Commit;
    /// The time at which the coordinator is alive.
    AliveWrite = "journal.alive.write", Write;

    /// A file of a state that is imported.
    ImportSync = "import.file.sync", SyncFile;
    /// The entries of a folder of a state that is imported.
    ImportTreeSync = "import.tree.sync", SyncFolder;
    /// A part of a state that is imported gets its place.
    ImportRename = "import.rename", Rename;
    /// The entries of a folder that a state was imported into.
    ImportFolderSync = "import.folder.sync", SyncFolder;
    /// A part of an import that failed.
    ImportRemove = "import.remove", Remove;
    /// A part of a copy of a state folder that is made again, or was left by an earlier process.
    ExportRemove = "export.remove", Remove;

    /// The entries of the folders above a worker's folder that is new.
    WorkerAboveSync = "worker.above.sync", SyncFolder;
    /// A file of a worker's state.
    WorkerWrite = "worker.write", Write;
    /// A whole file of a worker's state.
    WorkerSync = "worker.sync", SyncFile;
    /// A whole file of a worker's state gets its name.
    WorkerRename = "worker.rename", Rename;
    /// The entries of a worker's folder with its registration.
    WorkerRegistrationSync = "worker.registration.sync", SyncFolder;
    /// The entries of a client's folder.
    ClientSync = "worker.client.sync", SyncFolder;
    /// A file that a worker could not finish.
    WorkerPartRemove = "worker.part.remove", Remove;
    /// The registration of a worker that has left.
    WorkerRegistrationRemove = "worker.registration.remove", Remove;
    /// A state of a client that does not count any more.
    ClientFileRemove = "worker.client.file.remove", Remove;
    /// All states of a client.
    ClientRemove = "worker.client.remove", Remove;
    /// What a worker kept of a job that has ended.
    WorkerJobRemove = "worker.job.remove", Remove;

    /// A file for a person: results, a model, an export.
    OutputSync = "output.sync", SyncFile;
    /// Such a file gets its name.
    OutputRename = "output.rename", Rename;
    /// Such a file that could not be finished, or is out of date.
    OutputRemove = "output.remove", Remove;

    /// A file of a dataset.
    DatasetSync = "dataset.sync", SyncFile;
    /// The entries of the folder of a dataset.
    DatasetFolderSync = "dataset.folder.sync", SyncFolder;
    /// A whole dataset gets its name.
    DatasetRename = "dataset.rename", Rename;
    /// What a download leaves, or has left.
    DatasetRemove = "dataset.remove", Remove;
}
