//! Entity tags: which version of a body somebody has, <https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3>.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::{
    ids::{JobId, ModelVersion},
    parameters::StoredBody,
};

/// The strong entity tag of a body: two with the same tag are equal to the byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntityTag(String);

impl EntityTag {
    /// Of a model. Its digest is taken, which can take a while. It is what tells a job from that of the same number of a
    /// coordinator that forgot its jobs.
    pub(super) fn of_model(job: JobId, version: ModelVersion, body: &dyn StoredBody) -> Self {
        let (encoding, digest) = (body.encoding(), body.digest().crc32());
        Self(format!("{job}-{version}-{}-{digest:08x}", encoding.name()))
    }

    /// As the value of `ETag`.
    pub(super) fn header(&self) -> HeaderValue {
        // Its characters are letters, digits and hyphens.
        HeaderValue::try_from(format!("\"{}\"", self.0))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }

    /// Whether `If-None-Match` says that the sender has the body. A weak tag is good enough for that.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
        values.any(|value| match value.as_bytes().trim_ascii() {
            b"*" => true,
            list => Tags(list).any(|tag| tag == self.0.as_bytes()),
        })
    }

    /// Whether a part of the body is of use to the sender: there is no `If-Range`, or it names this very body. A weak
    /// tag does not, and a date never does.
    pub(super) fn allows_part(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::IF_RANGE).iter();
        match (values.next(), values.next()) {
            (None, _) => true,
            (Some(value), None) => *value == self.header(),
            _ => false,
        }
    }
}

/// Whether a value of `ETag` is a strong entity tag, which may stand in `If-Range`.
pub(super) fn is_strong(value: &HeaderValue) -> bool {
    let opaque = value.as_bytes().strip_prefix(b"\"");
    let opaque = opaque.and_then(|opaque| opaque.strip_suffix(b"\""));
    opaque.is_some_and(|opaque| !opaque.contains(&b'"'))
}

/// The entity tags of a list, up to what is none: what stands between their quotes. A comma there is a part of it.
struct Tags<'a>(&'a [u8]);

impl<'a> Iterator for Tags<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let is_gap = |byte: &u8| matches!(byte, b' ' | b'\t' | b',');
        let start = self.0.iter().position(|byte| !is_gap(byte))?;
        let list = &self.0[start..];
        let quoted = list.strip_prefix(b"W/").unwrap_or(list);
        // Once something is no tag, so is all that follows.
        self.0 = &[];
        let opaque = quoted.strip_prefix(b"\"")?;
        let end = opaque.iter().position(|byte| *byte == b'"')?;
        let after = &opaque[end + 1..];
        if after.first().is_none_or(is_gap) {
            self.0 = after;
        }
        Some(&opaque[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> EntityTag {
        EntityTag("1-3-f32-cbf43926".to_string())
    }

    fn headers(name: header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn who_has_the_body_is_known_by_any_tag_of_the_list() {
        for (is_known, values) in [
            (true, &["\"1-3-f32-cbf43926\""][..]),
            (true, &["W/\"1-3-f32-cbf43926\""]),
            (true, &["*"]),
            (true, &[" * "]),
            (true, &["\"a,b\", W/\"\" ,,\t\"1-3-f32-cbf43926\""]),
            (true, &["\"other\"", "\"1-3-f32-cbf43926\""]),
            (false, &[]),
            (false, &[""]),
            (false, &["1-3-f32-cbf43926"]),
            (false, &["\"1-3-f32-cbf43926"]),
            (false, &["w/\"1-3-f32-cbf43926\""]),
            (false, &["\"1-3-f32-cbf43927\""]),
            (false, &["\"a,1-3-f32-cbf43926,b\""]),
            (false, &["\"a\"\"1-3-f32-cbf43926\""]),
            (false, &["\"*\""]),
        ] {
            let headers = headers(header::IF_NONE_MATCH, values);
            assert_eq!(tag().is_known(&headers), is_known, "{values:?}");
        }
    }

    #[test]
    fn a_part_is_for_who_has_the_very_same_body() {
        for (allows, values) in [
            (true, &[][..]),
            (true, &["\"1-3-f32-cbf43926\""]),
            (false, &["W/\"1-3-f32-cbf43926\""]),
            (false, &["\"1-3-f32-cbf43927\""]),
            (false, &["Sat, 29 Oct 1994 19:43:31 GMT"]),
            (false, &["*"]),
            (false, &["\"1-3-f32-cbf43926\"", "\"1-3-f32-cbf43926\""]),
        ] {
            let headers = headers(header::IF_RANGE, values);
            assert_eq!(tag().allows_part(&headers), allows, "{values:?}");
        }
    }

    #[test]
    fn strong_tags_are_told_from_weak_ones() {
        assert!(is_strong(&tag().header()));
        for value in ["W/\"a\"", "a", "\"a", "\"a\"b", "\"a\", \"b\"", ""] {
            assert!(!is_strong(&HeaderValue::from_static(value)), "{value}");
        }
    }
}
