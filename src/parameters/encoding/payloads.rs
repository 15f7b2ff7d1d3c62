//! Several payloads in one safetensors body: a report.

use std::sync::Arc;

use bytes::Bytes;

use super::{Encoded, Form, form};
use crate::parameters::{Digest, Digesting, Layout, PayloadSpec};

/// A payload begins at a multiple of this many stored bytes, so that its values are aligned once they are in memory.
const ALIGNMENT: u64 = 8;

/// The form of a safetensors body: of one payload, or of several that follow each other.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyForm {
    parts: Vec<Part>,
}

/// One payload of a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// The payload's name; empty for a model, whose tensors have no prefix.
    pub name: String,
    /// Its form.
    pub form: Form,
}

impl Part {
    /// What is in front of each tensor's name in the body.
    pub fn prefix(&self) -> String {
        prefix_of(&self.name)
    }
}

/// What is in front of the names of a payload's tensors in a body.
pub(super) fn prefix_of(payload: &str) -> String {
    if payload.is_empty() {
        String::new()
    } else {
        format!("{payload}/")
    }
}

impl BodyForm {
    /// The body of a report with these payloads, of a model with this layout.
    pub fn of(specs: &[PayloadSpec], layout: &Arc<Layout>) -> Self {
        let mut parts = Vec::with_capacity(specs.len());
        for spec in specs {
            parts.push(Part {
                name: spec.name.clone(),
                form: Form::of(spec, layout),
            });
        }
        Self { parts }
    }

    /// The body of one payload; of a model, if the name is empty.
    pub fn one(name: impl Into<String>, form: Form) -> Self {
        let name = name.into();
        Self {
            parts: vec![Part { name, form }],
        }
    }

    /// The same with this many entries in each payload that is sparse, one number for each payload; none if a payload can't
    /// have so many.
    pub(crate) fn with_entries(&self, entries: &[usize]) -> Option<Self> {
        if entries.len() != self.parts.len() {
            return None;
        }
        let mut parts = self.parts.clone();
        for (part, entries) in parts.iter_mut().zip(entries) {
            if *entries > part.form.entries() {
                return None;
            }
            if part.form.is_sparse() {
                part.form = part.form.clone().sparse(*entries, Vec::new());
            }
        }
        Some(Self { parts })
    }

    pub(super) fn new(parts: Vec<Part>) -> Self {
        Self { parts }
    }

    /// The payloads, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The offset of each payload among the stored bytes: one after the other, each at a multiple of eight.
    pub fn bases(&self) -> Vec<u64> {
        let mut bases = Vec::with_capacity(self.parts.len());
        let mut next = 0u64;
        for part in &self.parts {
            bases.push(next);
            next = (next + part.form.bytes()).next_multiple_of(ALIGNMENT);
        }
        bases
    }

    /// Bytes of all payloads as they are stored, with the gaps between them.
    pub fn stored_bytes(&self) -> u64 {
        match (self.bases().last(), self.parts.last()) {
            (Some(base), Some(part)) => base + part.form.bytes(),
            _ => 0,
        }
    }

    /// Bytes of all payloads as they travel, without gaps.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.form.bytes()).sum()
    }

    /// The bytes of a safetensors body before the payloads.
    pub fn header(&self) -> Vec<u8> {
        let prefixes: Vec<_> = self.parts.iter().map(Part::prefix).collect();
        let parts = prefixes.iter().map(String::as_str);
        let parts: Vec<_> = parts
            .zip(self.parts.iter().map(|part| &part.form))
            .collect();
        form::header_of(&parts)
    }

    /// The most bytes that a body of this form may have, with all that an honest header has beside the names.
    pub fn longest_body(&self) -> u64 {
        self.parts.iter().map(|part| part.form.longest_body()).sum()
    }
}

/// The payloads of a report in memory. Clones share them.
#[derive(Debug, Clone)]
pub struct Payloads(Vec<(String, Encoded)>);

impl Payloads {
    /// These payloads, each with its name, in the order in which they travel.
    pub fn new(payloads: Vec<(String, Encoded)>) -> Self {
        Self(payloads)
    }

    /// The payload `delta` alone.
    pub fn delta(delta: Encoded) -> Self {
        Self(vec![("delta".to_string(), delta)])
    }

    /// A model alone, whose tensors have no prefix.
    pub fn model(model: Encoded) -> Self {
        Self(vec![(String::new(), model)])
    }

    /// The payloads, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Encoded)> {
        self.0
            .iter()
            .map(|(name, encoded)| (name.as_str(), encoded))
    }

    /// One of them.
    pub fn find(&self, name: &str) -> Option<&Encoded> {
        let found = self.0.iter().find(|(found, _)| found == name);
        found.map(|(_, encoded)| encoded)
    }

    /// The form of their body.
    pub fn form(&self) -> BodyForm {
        let mut parts = Vec::with_capacity(self.0.len());
        for (name, encoded) in &self.0 {
            parts.push(Part {
                name: name.clone(),
                form: encoded.form().clone(),
            });
        }
        BodyForm { parts }
    }

    /// The whole body as pieces, without a copy of the payloads: the header, then each payload.
    pub fn pieces(&self) -> Vec<Bytes> {
        let mut pieces = vec![Bytes::from(self.form().header())];
        for (_, encoded) in &self.0 {
            pieces.push(Bytes::from_owner(encoded.source().clone()));
        }
        pieces
    }

    /// Bytes of all payloads, without the header.
    pub fn bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|(_, encoded)| encoded.form().bytes())
            .sum()
    }

    /// The digest of the whole body. Reads all of the payloads, which takes a while if they are large.
    pub fn digest(&self) -> Digest {
        let mut digest = Digesting::default();
        for piece in self.pieces() {
            digest.update(&piece);
        }
        digest.finish()
    }
}
