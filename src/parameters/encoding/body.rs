//! Takes a safetensors body in pieces and hands its payloads on, checked.
//!
//! It holds the header and one unfinished element, and never a payload: memory does not grow with the body.

use std::{ops::Range, sync::Arc};

use super::{BodyForm, BodySink, Encoding, EncodingError, expected::Expected, segments::Segments};
use crate::parameters::{
    Digest, Digesting, HeaderLimits,
    safetensors::{HeaderReader, SafetensorsError},
};

/// Takes a safetensors body in pieces of any size: checks payloads, layouts, length, finiteness and, at the end, the digest,
/// and hands the payloads on to a sink.
#[derive(Debug)]
pub struct BodyDecoder {
    expected: Expected,
    limit: u64,
    digest: Digesting,
    /// Bytes of the body that have been taken.
    taken: u64,
    phase: Phase,
}

/// How far a body has been taken.
#[derive(Debug)]
enum Phase {
    Header(HeaderReader),
    Values(Segments),
    Failed,
}

impl BodyDecoder {
    /// For a body that must be of this form: its payloads, no more and no fewer, of sparse ones at most as many entries.
    /// Frozen tensors that a payload has beyond its form are passed over.
    pub fn new(expected: Arc<BodyForm>) -> Self {
        let headers = expected.parts().iter().map(|part| part.form.layout());
        let header = HeaderReader::new(headers.map(|layout| &**layout));
        Self::with(Expected::Body(expected), header)
    }

    /// For a model of any layout, in this encoding. Roles are those that the file names; without them, BatchNorm's
    /// `running_mean` and `running_var` are buffers and all else is trainable. A sparse model can't be taken.
    pub fn any_model(encoding: Encoding) -> Self {
        Self::any_payload("", encoding)
    }

    /// For one payload with this name, of any layout, in this encoding, as a version offers it beside the model. Roles are as in
    /// [`BodyDecoder::any_model`].
    pub fn any_payload(name: &str, encoding: Encoding) -> Self {
        let expected = Expected::Any(name.to_string(), encoding);
        Self::with(expected, HeaderReader::new([]))
    }

    fn with(expected: Expected, header: HeaderReader) -> Self {
        Self {
            expected,
            limit: u64::MAX,
            digest: Digesting::default(),
            taken: 0,
            phase: Phase::Header(header),
        }
    }

    /// Refuses a body whose header announces more than this many bytes of values, before space for them is taken.
    /// Set it for a model of any layout that comes from outside.
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Takes a header within these limits alone, for a body of any layout that comes from outside. The defaults count without
    /// it. To be called before the first piece.
    pub fn with_header_limits(mut self, limits: HeaderLimits) -> Self {
        self.phase = Phase::Header(HeaderReader::within(limits));
        self
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`EncodingError`], at the first piece that shows it; the decoder then stays failed.
    pub fn push(&mut self, piece: &[u8], sink: &mut dyn BodySink) -> Result<(), EncodingError> {
        // Before anything else: the digest is of all bytes, header included, as they came.
        self.digest.update(piece);
        let result = self.try_push(piece, sink);
        if result.is_err() {
            // What was handed on of this body is worth nothing, and a later piece must not continue it.
            self.phase = Phase::Failed;
        } else {
            self.taken += piece.len() as u64;
        }
        result
    }

    /// How many bytes of the body have been taken, header included.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// The digest of the bytes that have been taken.
    pub fn digest_so_far(&self) -> Digest {
        self.digest.clone().finish()
    }

    /// The places, among the stored bytes, of the body's next bytes: as many as follow each other there. None before the
    /// header is whole, after the last byte, and for bytes that are passed over. Whoever has stored what a
    /// [`BodySink`] was given can give a new decoder the same body again by it.
    pub fn next_stored(&self) -> Option<Range<u64>> {
        match &self.phase {
            Phase::Values(segments) => segments.next_stored(),
            Phase::Header(_) | Phase::Failed => None,
        }
    }

    fn try_push(&mut self, mut piece: &[u8], sink: &mut dyn BodySink) -> Result<(), EncodingError> {
        if let Phase::Header(header) = &mut self.phase {
            let Some(metadata) = header.push(&mut piece)? else {
                return Ok(());
            };
            let announced = metadata.data_len() as u64;
            if announced > self.limit {
                let limit = self.limit;
                return Err(SafetensorsError::TooLarge { announced, limit }.into());
            }
            let segments = Segments::new(self.expected.form(&metadata)?, &metadata)?;
            sink.header(header.bytes())?;
            sink.begin(segments.form())?;
            self.phase = Phase::Values(segments);
        }
        match &mut self.phase {
            Phase::Values(segments) => segments.push(piece, sink),
            Phase::Header(_) | Phase::Failed => Err(SafetensorsError::failed_before().into()),
        }
    }

    /// The form of the body, once all of it has been taken, if it has the digest that was announced, if any.
    ///
    /// # Errors
    ///
    /// [`SafetensorsError::Truncated`] if the body ended early, [`SafetensorsError::Digest`] if it is not the one that was sent.
    pub fn finish(self, announced: Option<Digest>) -> Result<BodyForm, EncodingError> {
        let segments = match self.phase {
            Phase::Values(segments) => segments,
            Phase::Header(_) => return Err(SafetensorsError::Truncated { missing: 1 }.into()),
            Phase::Failed => return Err(SafetensorsError::failed_before().into()),
        };
        // Before the digest: "ended early" says more than "is not the one that was sent", and both are true of such a
        // body.
        let form = segments.finish()?;
        let found = self.digest.finish();
        if let Some(announced) = announced
            && announced != found
        {
            return Err(SafetensorsError::Digest { announced, found }.into());
        }
        Ok(form)
    }
}
