//! Entity tags: which version of a body somebody has, <https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3>.

use axum::http::HeaderMap;
use headers::{ETag, HeaderMapExt, IfNoneMatch, IfRange};

use crate::{
    ids::{JobId, ModelVersion},
    parameters::StoredBody,
};

/// The strong entity tag of a model: two with the same tag are equal to the byte.
///
/// The digest in it can take a while to compute. It tells a job from the job of the same number of a coordinator that
/// forgot its jobs.
pub(super) fn of_model(
    job: JobId,
    version: ModelVersion,
    body: &dyn StoredBody,
) -> Result<ETag, headers::Error> {
    let (encoding, digest) = (body.encoding(), body.digest().crc32());
    let text = format!("\"{job}-{version}-{}-{digest:08x}\"", encoding.name());
    text.parse().map_err(|_| headers::Error::invalid())
}

/// Whether `If-None-Match` says that the sender has the body. A weak tag is good enough for that.
pub(super) fn is_known(tag: &ETag, headers: &HeaderMap) -> bool {
    match headers.typed_get::<IfNoneMatch>() {
        Some(known) => !known.precondition_passes(tag),
        None => false,
    }
}

/// Whether a part of the body is of use to the sender: there is no `If-Range`, or it names this very body. A weak tag
/// does not, a date never does, and what can't be read does not either.
pub(super) fn allows_part(tag: &ETag, headers: &HeaderMap) -> bool {
    match headers.typed_try_get::<IfRange>() {
        Ok(Some(condition)) => !condition.is_modified(Some(tag), None),
        Ok(None) => true,
        Err(_) => false,
    }
}

/// The entity tag of an answer if it is a strong one, which `If-Range` may have.
pub(super) fn strong(headers: &HeaderMap) -> Option<ETag> {
    let tag = headers.typed_get::<ETag>()?;
    let is_unmodified = !IfRange::etag(tag.clone()).is_modified(Some(&tag), None);
    // A weak tag never equals itself strongly.
    is_unmodified.then_some(tag)
}

#[cfg(test)]
mod tests {
    use axum::http::header::{ETAG, HeaderName, IF_NONE_MATCH, IF_RANGE};

    use super::*;

    fn tag() -> ETag {
        "\"1-3-f32-cbf43926\"".parse().unwrap()
    }

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn who_has_the_body_is_known_by_any_tag_of_the_list() {
        for (known, values) in [
            (true, &["\"1-3-f32-cbf43926\""][..]),
            (true, &["W/\"1-3-f32-cbf43926\""]),
            (true, &["*"]),
            (true, &["\"a,b\", W/\"\" ,,\t\"1-3-f32-cbf43926\""]),
            (true, &["\"other\"", "\"1-3-f32-cbf43926\""]),
            (false, &[]),
            (false, &[""]),
            (false, &["1-3-f32-cbf43926"]),
            (false, &["\"1-3-f32-cbf43926"]),
            (false, &["\"1-3-f32-cbf43927\""]),
            (false, &["\"a,1-3-f32-cbf43926,b\""]),
            (false, &["\"*\""]),
        ] {
            let headers = headers(IF_NONE_MATCH, values);
            assert_eq!(is_known(&tag(), &headers), known, "{values:?}");
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
        ] {
            let headers = headers(IF_RANGE, values);
            assert_eq!(allows_part(&tag(), &headers), allows, "{values:?}");
        }
    }

    #[test]
    fn strong_tags_are_told_from_weak_ones() {
        assert_eq!(strong(&headers(ETAG, &["\"a\""])), "\"a\"".parse().ok());
        for value in ["W/\"a\"", "a", "\"a", "\"a\"b", "\"a\", \"b\"", ""] {
            assert_eq!(strong(&headers(ETAG, &[value])), None, "{value}");
        }
    }
}
