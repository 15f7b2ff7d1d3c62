//! From an address or a file to a local copy and its hash, within bounds of size and time.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{
    error::{DownloadError, file_error},
    origin::Origin,
    progress::Progress,
};

/// More than any archive of this dataset has. A stream without an end stops here.
const MOST_BYTES: u64 = 1 << 30;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other side may be silent.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// Copies `origin` to the file `to` and returns the SHA-256 of what was written.
pub(super) fn fetch(
    origin: &Origin,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<[u8; 32], DownloadError> {
    match origin {
        Origin::File(path) => {
            let file = File::open(path).map_err(file_error("read", path))?;
            let total = file.metadata().map_err(file_error("read", path))?.len();
            copy(file, Some(total), to, progress, |source| {
                file_error("read", path)(source)
            })
        }
        Origin::Url(url) => {
            let agent = ureq::Agent::config_builder()
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .timeout_recv_response(Some(SILENCE_TIMEOUT))
                // Of one read and not of the whole: a slow line may take hours, but it is never silent.
                .timeout_per_read(Some(SILENCE_TIMEOUT))
                .build()
                .new_agent();
            let response = agent
                .get(url)
                .call()
                .map_err(|error| not_fetched(url, error.to_string()))?;
            let total = response.body().content_length();
            let body = response.into_body().into_with_config().limit(MOST_BYTES);
            copy(body.reader(), total, to, progress, |error| {
                not_fetched(url, error.to_string())
            })
        }
    }
}

fn not_fetched(url: &str, reason: String) -> DownloadError {
    let url = url.to_owned();
    DownloadError::Fetch { url, reason }
}

fn copy(
    mut from: impl Read,
    total: Option<u64>,
    to: &Path,
    progress: &mut dyn FnMut(Progress),
    failed: impl Fn(std::io::Error) -> DownloadError,
) -> Result<[u8; 32], DownloadError> {
    let mut out = File::create(to).map_err(file_error("write", to))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut received = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        received += count as u64;
        // The body's limit is for addresses alone; a file or a pipe comes here, too.
        if received > MOST_BYTES {
            let reason = format!("it is larger than {MOST_BYTES} bytes");
            return Err(failed(std::io::Error::other(reason)));
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count])
            .map_err(file_error("write", to))?;
        progress(Progress { received, total });
    }
    // A connection that breaks off early would otherwise look like a wrong checksum.
    if let Some(total) = total
        && received < total
    {
        let reason = format!("it ended after {received} of {total} bytes");
        return Err(failed(std::io::Error::other(reason)));
    }
    Ok(hash.finalize().into())
}
