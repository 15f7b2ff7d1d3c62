//! The files of a version: written in any order, readable for as long as they are held.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::{
    disk::{self, Site},
    parameters::{
        BlockError, Digest, Digesting, EncodedReader, Encoding, Form, PayloadSource, StoredBody,
    },
    store::{
        PublishedFile, StoreError,
        folder::{DataFolder, failed, private, unreadable, unwritable},
    },
};

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;

/// A safetensors file whose header has been written.
pub(super) struct NewFile {
    file: File,
    path: PathBuf,
    form: Form,
    header: u64,
    digest: Digest,
    /// What has been written of the payload: the digest and the length of each stretch, by its beginning.
    written: BTreeMap<u64, (Digest, u64)>,
}

impl NewFile {
    /// A new file of one payload. `prefix` goes in front of the names of its tensors.
    pub fn create(
        folder: &DataFolder,
        path: PathBuf,
        form: Form,
        prefix: &str,
    ) -> Result<Self, StoreError> {
        let header = form.header(prefix);
        let created = private()
            // A name that is there is a defect: two writers would mix their bytes.
            .create_new(true)
            .open(&path)
            .and_then(|file| {
                folder.write_at(Site::ModelWrite, (&file, &path), &header, 0)?;
                Ok(file)
            });
        Ok(Self {
            file: created.map_err(|error| failed(&path, error))?,
            path,
            form,
            header: header.len() as u64,
            digest: Digest::of(&header),
            written: BTreeMap::new(),
        })
    }

    pub fn form(&self) -> &Form {
        &self.form
    }

    /// Writes bytes at a place of the payload, which nothing has been written to before.
    pub fn write(
        &mut self,
        folder: &DataFolder,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), BlockError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let length = bytes.len() as u64;
        // The last stretch that begins before the end of this one: if it reaches into this one, a fold has written a
        // block twice.
        let before = self.written.range(..offset + length).next_back();
        if before.is_some_and(|(start, (_, length))| start + length > offset) {
            let detail = format!("bytes from {offset} on are written more than once");
            return Err(BlockError::Unwritable(detail.into()));
        }
        folder
            .write_at(
                Site::ModelWrite,
                (&self.file, &self.path),
                bytes,
                self.header + offset,
            )
            .map_err(|error| unwritable(&self.path, error))?;
        // By stretch: blocks come in any order, and the digest of the whole is joined from theirs at the end.
        self.written.insert(offset, (Digest::of(bytes), length));
        Ok(())
    }

    /// Finishes several files, all at the same time: the disk then orders what it writes, and one commit of its journal serves
    /// several of them.
    pub fn finish_all(mut files: Vec<Self>) -> Result<Vec<UnplacedFile>, StoreError> {
        // Without a thread for the usual case.
        if files.len() == 1 {
            return files.drain(..).map(Self::finish).collect();
        }
        thread::scope(|scope| {
            let mut finishing = Vec::with_capacity(files.len());
            for file in files {
                finishing.push(scope.spawn(move || file.finish()));
            }
            let mut finished = Vec::with_capacity(finishing.len());
            for file in finishing {
                // All are joined, also after one that failed: the folder is removed then, and must have no writer.
                finished.push(file.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            finished.into_iter().collect()
        })
    }

    /// Brings it to the disk, once every byte has been written.
    fn finish(self) -> Result<UnplacedFile, StoreError> {
        let written: u64 = self.written.values().map(|(_, length)| length).sum();
        let bytes = self.form.bytes();
        // A fold that left a block out would publish a version with a hole of zeros.
        if written < bytes {
            return Err(StoreError::Incomplete {
                missing: (bytes - written) as usize,
                len: bytes as usize,
            });
        }
        // Before the version has its name: after a power failure, a named version is whole.
        let synced = disk::sync_data(Site::ModelSync, &self.file, &self.path);
        synced.map_err(|error| failed(&self.path, error))?;
        let mut digest = self.digest;
        // The map is in the order of the bytes, whatever order they were written in: so the digest is that of the
        // whole file.
        for (next, length) in self.written.values() {
            digest = digest.then(*next, *length);
        }
        Ok(UnplacedFile { file: self, digest })
    }
}

/// A whole file whose folder has not got its name yet.
pub(super) struct UnplacedFile {
    file: NewFile,
    digest: Digest,
}

impl UnplacedFile {
    /// The file in its place.
    pub fn place(self, folder: &Path) -> BodyFile {
        let NewFile {
            file,
            path,
            form,
            header,
            ..
        } = self.file;
        let path = path
            .file_name()
            // The folder has been renamed. The open file goes on under any name; the path is for messages.
            .map_or(path.clone(), |name| folder.join(name));
        let bytes = form.bytes();
        let name = path.file_name().map(|name| name.to_string_lossy());
        let name = name.unwrap_or_default().into_owned();
        let payload = PayloadOf(Arc::new(Open { file, path, header }));
        BodyFile {
            name,
            length: header + bytes,
            digest: self.digest,
            damaged: Mutex::default(),
            reader: EncodedReader::new(form, payload),
        }
    }
}

/// A whole safetensors file of a model.
pub(super) struct BodyFile {
    /// Its name in the version's folder.
    name: String,
    length: u64,
    digest: Digest,
    /// The digest that its bytes had when they were read last, if that was another one.
    damaged: Mutex<Option<Digest>>,
    reader: EncodedReader<PayloadOf>,
}

impl BodyFile {
    /// A file of a version that an earlier process published.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] if it is not there, or has another length than it had.
    pub fn open(
        folder: &Path,
        form: Form,
        prefix: &str,
        published: &PublishedFile,
    ) -> Result<Self, StoreError> {
        let path = folder.join(&published.name);
        let missing = |problem: String| StoreError::Missing {
            what: path.display().to_string(),
            problem,
        };
        let file = File::open(&path).map_err(|error| missing(error.to_string()))?;
        let found = file.metadata().map_err(|error| failed(&path, error))?.len();
        let header = form.header(prefix).len() as u64;
        let expected = header + form.bytes();
        // The digest is not checked here: to read all models would make a start take as long as they are large.
        // `state check` does.
        if found != expected || published.bytes != expected {
            return Err(missing(format!(
                "it has {found} bytes, and had {}",
                published.bytes
            )));
        }
        let payload = PayloadOf(Arc::new(Open { file, path, header }));
        Ok(Self {
            name: published.name.clone(),
            length: expected,
            digest: published.digest,
            damaged: Mutex::default(),
            reader: EncodedReader::new(form, payload),
        })
    }

    /// What [`BodyFile::open`] needs to open it again.
    pub fn published(&self) -> PublishedFile {
        PublishedFile {
            name: self.name.clone(),
            bytes: self.length,
            digest: self.digest,
        }
    }

    /// Its values, by block.
    pub fn reader(&self) -> &EncodedReader<PayloadOf> {
        &self.reader
    }
}

impl StoredBody for BodyFile {
    fn encoding(&self) -> Encoding {
        self.reader.form().encoding()
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn digest(&self) -> Digest {
        self.digest
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
        self.reader.source().0.read(offset, bytes)
    }

    fn compare(&self, found: Digest) -> Result<(), BlockError> {
        let found = (found != self.digest).then_some(found);
        *self.damaged.lock().unwrap_or_else(PoisonError::into_inner) = found;
        match self.damage() {
            Some(damage) => Err(BlockError::Unreadable(damage.into())),
            None => Ok(()),
        }
    }

    fn damage(&self) -> Option<String> {
        let damaged = *self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.map(|found| self.damage_of(found))
    }
}

impl BodyFile {
    /// What is told of a damaged file. It goes to other machines, so it has the path within the state folder alone.
    fn damage_of(&self, found: Digest) -> String {
        let path = &self.reader.source().0.path;
        // models/job-1/v3/model.safetensors
        let parts: Vec<_> = path.iter().collect();
        let within: PathBuf = parts[parts.len().saturating_sub(4)..].iter().collect();
        format!(
            "{} in the coordinator's state folder is damaged: its digest is {found}, and was {} when it was written. \
             \"fedavg-coordinator state check\" lists all damaged files; stop the coordinator and put this file back from a copy, \
             or download another version (--version) if one is kept",
            within.display(),
            self.digest
        )
    }
}

/// The part of a file behind its header.
pub(super) struct PayloadOf(Arc<Open>);

impl PayloadSource for PayloadOf {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
        self.0.read(self.0.header + offset, bytes)
    }
}

struct Open {
    file: File,
    path: PathBuf,
    header: u64,
}

impl Open {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), BlockError> {
        let read = self.file.read_exact_at(bytes, offset);
        read.map_err(|error| unreadable(&self.path, error))
    }
}

fn told(error: io::Error) -> String {
    error.to_string()
}

/// Reads a file of a version. An error is what is wrong with it.
pub(crate) fn check_file(path: &Path, published: &PublishedFile) -> Result<u64, String> {
    let mut file = File::open(path).map_err(told)?;
    let found = file.metadata().map_err(told)?.len();
    if found != published.bytes {
        return Err(format!("it has {found} bytes, and had {}", published.bytes));
    }
    let mut digest = Digesting::default();
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = file.read(&mut buffer).map_err(told)?;
        if length == 0 {
            break;
        }
        digest.update(&buffer[..length]);
    }
    let (found, expected) = (digest.finish(), published.digest);
    if found != expected {
        return Err(format!("its digest is {found}, and was {expected}"));
    }
    Ok(published.bytes)
}
