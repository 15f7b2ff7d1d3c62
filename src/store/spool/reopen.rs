//! Reports that an earlier process stored.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use super::{
    place::Place,
    replay::Nowhere,
    spooled::SpooledFile,
    stored::Stored,
    trailer::{FOOTER, Trailer},
};
use crate::{
    Cause,
    parameters::{BodyDecoder, BodyForm, Digest, Digesting, EncodedReader},
    report::{SpoolError, SpoolKey},
    store::folder::storage,
};

/// Bytes that are read at once.
pub(super) const CHUNK: usize = 256 * 1024;

/// Reads a stored report as if it came from its sender once more: so all of it is checked, and what is known of it is the same.
pub(super) fn reopen(
    place: &Arc<Place>,
    key: SpoolKey,
    form: &Arc<BodyForm>,
) -> Result<Stored, SpoolError> {
    let path = place.rounds.stored(key);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let client = key.client;
            return Err(SpoolError::Missing { client });
        }
        Err(error) => return Err(storage(&path, error)),
    };
    let trailer = read_trailer(&file).map_err(|error| storage(&path, error))?;
    let trailer = trailer.filter(|trailer| trailer.is_of(key));
    let trailer = trailer.ok_or_else(|| damaged(&path))?;
    let entries: Vec<_> = trailer.payloads.iter().map(|part| part.entries).collect();
    let form = form.with_entries(&entries).ok_or_else(|| damaged(&path))?;
    if form.stored_bytes() != trailer.bytes {
        return Err(damaged(&path));
    }
    let (form, digest) = read_again(&file, &path, form)?;
    if digest.to_string() != trailer.digest {
        return Err(damaged(&path));
    }
    let file = SpooledFile::new(place.clone(), key, path);
    let mut payloads = Vec::with_capacity(form.parts().len());
    for (part, base) in form.parts().iter().zip(form.bases()) {
        let reader = EncodedReader::at(part.form.clone(), file.clone(), base);
        payloads.push((part.name.clone(), reader));
    }
    Ok(Stored {
        metadata: trailer.metadata,
        payloads,
    })
}

/// The trailer, if the file ends in one.
pub(super) fn read_trailer(file: &File) -> io::Result<Option<Trailer>> {
    let length = file.metadata()?.len();
    let Some(start) = length.checked_sub(FOOTER as u64) else {
        return Ok(None);
    };
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, start)?;
    let Some(json) = Trailer::length(&footer) else {
        return Ok(None);
    };
    let Some(start) = start.checked_sub(json) else {
        return Ok(None);
    };
    let mut bytes = vec![0; (length - start) as usize];
    file.read_exact_at(&mut bytes, start)?;
    Ok(Trailer::decode(&bytes, start))
}

/// Decodes the stored payloads, and gives their form with all that its indices say, and their digest.
fn read_again(file: &File, path: &Path, form: BodyForm) -> Result<(BodyForm, Digest), SpoolError> {
    let bases = form.bases();
    let form = Arc::new(form);
    let mut decoder = BodyDecoder::new(form.clone());
    decoder.push(&form.header(), &mut Nowhere)?;
    let mut buffer = vec![0; CHUNK];
    let mut digest = Digesting::default();
    for (part, base) in form.parts().iter().zip(bases) {
        let (mut offset, end) = (base, base + part.form.bytes());
        while offset < end {
            let length = (end - offset).min(CHUNK as u64) as usize;
            let chunk = &mut buffer[..length];
            file.read_exact_at(chunk, offset)
                .map_err(|error| storage(path, error))?;
            digest.update(chunk);
            decoder.push(chunk, &mut Nowhere)?;
            offset += length as u64;
        }
    }
    Ok((decoder.finish(None)?, digest.finish()))
}

fn damaged(path: &Path) -> SpoolError {
    SpoolError::Storage(Cause::from(format!("{}: it is damaged", path.display())))
}
