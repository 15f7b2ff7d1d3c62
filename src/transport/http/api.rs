//! The names of paths, headers and media types. What is in bodies is [`crate::protocol`]'s.

use serde::Serialize;

/// What all paths begin with.
pub(super) const BASE: &str = "/api/v1";
/// The worker that asks, on routes whose path doesn't name it.
pub(super) const WORKER_HEADER: &str = "fedavg-worker";
/// [`crate::report::ReportMetadata`] as JSON, beside the body of a report.
pub(super) const REPORT_HEADER: &str = "fedavg-report";
/// A body's [`crate::parameters::Digest`].
pub(super) const DIGEST_HEADER: &str = "fedavg-digest";
/// [`crate::job::JobSpec`] as JSON, beside an initial model.
pub(super) const JOB_HEADER: &str = "fedavg-job";
/// Makes a submission safe to repeat: see [`crate::transport::SubmissionKey`]. As in "The Idempotency-Key HTTP Header Field"
/// (draft-ietf-httpapi-idempotency-key-header), but without quotes.
pub(super) const KEY_HEADER: &str = "idempotency-key";
/// The version of the model in the body.
pub(super) const VERSION_HEADER: &str = "fedavg-model-version";
/// The media type of parameters.
pub(super) const SAFETENSORS: &str = "application/octet-stream";

/// The media type of the rest of a body. This name and the next ones are from "Resumable Uploads for HTTP"
/// (draft-ietf-httpbis-resumable-upload).
pub(super) const PARTIAL_UPLOAD: &str = "application/partial-upload";
/// Where in the whole body the rest begins, in bytes.
pub(super) const UPLOAD_OFFSET_HEADER: &str = "upload-offset";
/// Whether the body goes to the end of the whole one: `?1` or `?0`.
pub(super) const UPLOAD_COMPLETE_HEADER: &str = "upload-complete";
/// Bytes of the whole body.
pub(super) const UPLOAD_LENGTH_HEADER: &str = "upload-length";

/// The one control character that JSON has as it is, and no header may have.
const DELETE: u8 = 0x7f;

/// JSON that a header can have: ASCII alone.
pub(super) fn ascii_json<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let text = serde_json::to_string(value)?;
    if text.is_ascii() && !text.as_bytes().contains(&DELETE) {
        return Ok(text);
    }
    let mut ascii = String::with_capacity(text.len());
    // JSON's escapes are units of UTF-16: a character beyond 16 bits has two.
    for unit in text.encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii() && byte != DELETE => ascii.push(char::from(byte)),
            _ => ascii.push_str(&format!("\\u{unit:04x}")),
        }
    }
    Ok(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_gets_into_a_header() {
        let text = "a\u{7f}\u{1f}\u{e9}\u{7f}";
        let json = ascii_json(&text).unwrap();
        assert_eq!(json, r#""a\u007f\u001f\u00e9\u007f""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn json_in_a_header_reads_back_whatever_its_characters() {
        let text = "déjà \u{1F600} \"quoted\" \n";
        let header = ascii_json(&text).unwrap();
        assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        assert_eq!(serde_json::from_str::<String>(&header).unwrap(), text);
    }
}
