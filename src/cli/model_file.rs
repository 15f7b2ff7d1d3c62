//! The bytes of a model file: as many as its header says, however long the file is, if it has an end at all.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::parameters::ModelFile;

/// Reads a file. Of one that is no safetensors file, the beginning alone: enough to say what it is.
///
/// # Errors
///
/// If it can't be read.
pub(super) fn read_model_bytes(path: &Path) -> io::Result<Vec<u8>> {
    /// This many bytes say whether it is a safetensors file.
    const START: u64 = 8;
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    read_up_to(&mut file, &mut bytes, START)?;
    let Some(header) = ModelFile::header_length(&bytes) else {
        return Ok(bytes);
    };
    read_up_to(&mut file, &mut bytes, header)?;
    let Some(length) = ModelFile::length(&bytes) else {
        return Ok(bytes);
    };
    // One more byte shows that the file goes on where it should end.
    read_up_to(&mut file, &mut bytes, length.saturating_add(1))?;
    Ok(bytes)
}

/// Reads on until there are this many bytes, or the file ends.
fn read_up_to(file: &mut File, bytes: &mut Vec<u8>, length: u64) -> io::Result<()> {
    let missing = length.saturating_sub(bytes.len() as u64);
    file.take(missing).read_to_end(bytes)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Layout, Parameters, Role, safetensors::encode};

    fn read(bytes: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, bytes).unwrap();
        read_model_bytes(&path).unwrap()
    }

    #[test]
    fn a_model_is_read_whole_and_what_follows_it_shows() {
        let layout = Layout::new([("w".to_string(), vec![3], Role::Trainable)]).unwrap();
        let model = encode(&Parameters::zeros(layout));
        assert_eq!(read(&model), model);
        let longer = [&model[..], &[0; 1000]].concat();
        assert_eq!(read(&longer).len(), model.len() + 1);
        assert!(ModelFile::parse(&read(&longer)).is_err());
        let shorter = &model[..model.len() - 1];
        assert_eq!(read(shorter), shorter);
    }

    #[test]
    fn of_another_file_the_beginning_is_read() {
        let pickle = [&b"PK\x03\x04"[..], &[7; 100_000]].concat();
        assert!(read(&pickle).len() < 100);
        let problem = ModelFile::parse(&read(&pickle)).unwrap_err().to_string();
        assert!(problem.contains("torch.save"), "{problem}");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_without_an_end_is_no_model() {
        let bytes = read_model_bytes(Path::new("/dev/zero")).unwrap();
        assert!(ModelFile::parse(&bytes).is_err());
    }
}
