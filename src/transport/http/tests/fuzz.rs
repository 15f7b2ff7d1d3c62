//! What comes in requests and answers, with changed bytes: JSON bodies and headers, `Range`, entity tags, links, tokens, addresses.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Request,
    header::{AUTHORIZATION, CONTENT_RANGE, ETAG, IF_NONE_MATCH, IF_RANGE, LINK, RANGE},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    job::JobSpec,
    protocol::{
        Failure, Heartbeat, JobMessage, LoggedEvent, NewToken, Poll, Registered, Registration,
        ShareEvaluation,
    },
    report::ReportMetadata,
    testing::fuzz::Target,
    transport::http::{
        api::{DIGEST_HEADER, REPORT_HEADER, UPLOAD_OFFSET_HEADER, ascii_json},
        client::{Address, Parser},
        content::digest,
        credentials::Bearer,
        etag, json, link,
        range::{self, Selection},
        routes::integer,
        tls::Fingerprint,
    },
};

/// Headers with this one; none if no header can have such a value.
fn with(name: HeaderName, bytes: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.append(name, HeaderValue::from_bytes(bytes).ok()?);
    Some(headers)
}

/// Reads a value as a route does, and checks that what was read is written as what reads the same.
fn read_json<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> String {
    let read = match json::from_json::<T>(bytes) {
        Ok(read) => read,
        Err(problem) => {
            assert!([400, 422].contains(&problem.status), "{problem:?}");
            return problem.detail;
        }
    };
    let written = serde_json::to_string(&read).unwrap();
    let again: T = match serde_json::from_str(&written) {
        Ok(again) => again,
        Err(error) => panic!("{error}: {written}"),
    };
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
    let in_header = ascii_json(&read).unwrap();
    assert!(HeaderValue::from_str(&in_header).is_ok(), "{in_header}");
    let again: T = serde_json::from_str(&in_header).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
    "read".to_string()
}

fn json_target<T: DeserializeOwned + Serialize>(name: &'static str) {
    let words = [
        "null", "true", "{}", "[]", "\"", ":", ",", "{\"", "\\u0000", "\\ud800", "[[[[[[[[",
    ];
    Target::new(name).words(&words).run(read_json::<T>);
}

#[test]
fn json_registration() {
    json_target::<Registration>("json_registration");
}

#[test]
fn json_heartbeat() {
    json_target::<Heartbeat>("json_heartbeat");
}

#[test]
fn json_poll() {
    json_target::<Poll>("json_poll");
}

#[test]
fn json_failure() {
    json_target::<Failure>("json_failure");
}

#[test]
fn json_evaluation() {
    json_target::<ShareEvaluation>("json_evaluation");
}

#[test]
fn json_token() {
    json_target::<NewToken>("json_token");
}

/// What a worker reads of a coordinator.
#[test]
fn json_answers() {
    Target::new("json_answers").run(|bytes| {
        let what = read_json::<Registered>(bytes);
        let job = read_json::<JobMessage>(bytes);
        let event = read_json::<LoggedEvent>(bytes);
        format!("{what} {job} {event}")
    });
}

#[test]
fn json_job() {
    let words = [
        "\"strategy\":",
        "\"kind\":\"custom\"",
        "\"partition\":",
        "\"training\":{",
        "1e308",
    ];
    Target::new("json_job").words(&words).run(|bytes| {
        let what = read_json::<JobSpec>(bytes);
        let Ok(spec) = json::from_json::<JobSpec>(bytes) else {
            return what;
        };
        match spec.validate() {
            Ok(()) => {
                let _ = (spec.description(), spec.strategy.to_string());
                let rate = spec.training_at(crate::ids::ModelVersion(7)).lr;
                assert!(rate.is_finite() && rate >= 0.0, "{rate}");
                "valid".to_string()
            }
            Err(error) => error.to_string(),
        }
    });
}

#[test]
fn report_header() {
    Target::new("report_header").run(|bytes| {
        let Some(headers) = with(HeaderName::from_static(REPORT_HEADER), bytes) else {
            return "no header".to_string();
        };
        match json::json_header::<ReportMetadata>(&headers, REPORT_HEADER) {
            Ok(metadata) => {
                let what = read_json::<ReportMetadata>(bytes);
                format!(
                    "{what} {:?}",
                    metadata.check().map_err(|refusal| refusal.detail)
                )
            }
            Err(problem) => problem.detail,
        }
    });
}

#[test]
fn ranges() {
    Target::new("ranges")
        .words(&["bytes=", "bytes ", "-", ",", "*/", "/*"])
        .run(|bytes| {
            let length = u64::from(crc32fast::hash(bytes)) % 3 * 10;
            let mut what = String::new();
            if let Some(headers) = with(RANGE, bytes) {
                let selection = Selection::of(&headers, length);
                if let Selection::Part(part) = &selection {
                    assert!(
                        part.start < part.end && part.end <= length,
                        "{part:?} of {length}"
                    );
                }
                what = format!("{selection:?}");
            }
            if let Some(headers) = with(CONTENT_RANGE, bytes)
                && let Some((part, whole)) = range::received(&headers)
            {
                assert!(part.start < part.end, "{part:?}");
                assert!(
                    whole.is_none_or(|whole| part.end <= whole),
                    "{part:?} of {whole:?}"
                );
                what.push_str(" received");
            }
            what
        });
}

#[test]
fn entity_tags() {
    let tag = "\"1-3-f32-cbf43926\"".parse().unwrap();
    Target::new("entity_tags")
        .words(&["W/", "\"", "*", ", ", "\"1-3-f32-cbf43926\""])
        .run(|bytes| {
            let Some(headers) = with(ETAG, bytes) else {
                return "no header".to_string();
            };
            let strong = etag::strong(&headers);
            let known =
                with(IF_NONE_MATCH, bytes).is_some_and(|headers| etag::is_known(&tag, &headers));
            let allows =
                with(IF_RANGE, bytes).is_some_and(|headers| etag::allows_part(&tag, &headers));
            // Only the very tag allows a part, and whoever has that is known.
            if allows {
                assert_eq!(strong.as_ref(), Some(&tag));
                assert!(known);
            }
            if let Some(strong) = &strong {
                let mut sent = HeaderMap::new();
                headers::HeaderMapExt::typed_insert(
                    &mut sent,
                    headers::IfRange::etag(strong.clone()),
                );
                assert!(etag::allows_part(strong, &sent));
            }
            format!("{} {known} {allows}", strong.is_some())
        });
}

#[test]
fn links() {
    Target::new("links")
        .words(&["rel=\"next\"", "<", ">;", "?after=", "&limit=", ","])
        .run(|bytes| {
            let next = with(LINK, bytes).and_then(|headers| link::next_page(&headers));
            if let Some(next) = next {
                let written = link::next_link("/api/v1/jobs", next, 10);
                let headers = with(LINK, written.as_bytes()).unwrap();
                assert_eq!(link::next_page(&headers), Some(next));
            }
            format!("{}", next.is_some())
        });
}

#[test]
fn authorization() {
    use axum::extract::FromRequestParts;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    Target::new("authorization")
        .words(&["Bearer ", "bearer\t", "Basic ", " "])
        .run(|bytes| {
            let Some(headers) = with(AUTHORIZATION, bytes) else {
                return "no header".to_string();
            };
            let (mut parts, ()) = Request::new(()).into_parts();
            parts.headers = headers;
            match runtime.block_on(Bearer::from_request_parts(&mut parts, &())) {
                Ok(Bearer(Some(token))) => {
                    // Sent again, it is the same token.
                    let text = format!("Bearer {}", token.0);
                    parts.headers = with(AUTHORIZATION, text.as_bytes()).unwrap();
                    let again = runtime.block_on(Bearer::from_request_parts(&mut parts, &()));
                    assert_eq!(again.unwrap().0, Some(token));
                    "a token".to_string()
                }
                Ok(Bearer(None)) => panic!("a header that is there was passed over"),
                Err(problem) => {
                    assert_eq!(problem.status, 401);
                    problem.detail
                }
            }
        });
}

#[test]
fn upload_headers() {
    Target::new("upload_headers")
        .words(&["crc32=", "?1"])
        .run(|bytes| {
            let name = HeaderName::from_static(DIGEST_HEADER);
            let Some(headers) = with(name, bytes) else {
                return "no header".to_string();
            };
            let digest = digest(&headers);
            if let Ok(Some(digest)) = &digest {
                assert_eq!(
                    digest.to_string().as_bytes().to_ascii_lowercase(),
                    bytes.to_ascii_lowercase()
                );
            }
            let offset = with(HeaderName::from_static(UPLOAD_OFFSET_HEADER), bytes).unwrap();
            let offset = integer(&offset, UPLOAD_OFFSET_HEADER);
            if let Ok(Some(offset)) = &offset {
                // Structured fields have fifteen digits.
                assert!(*offset < 1_000_000_000_000_000);
            }
            format!("{} {}", digest.is_ok(), offset.is_ok())
        });
}

#[test]
fn fingerprints() {
    Target::new("fingerprints")
        .words(&["sha256:", ":", "sha256 Fingerprint=", "é"])
        .run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let read = text.parse::<Fingerprint>();
            if let Ok(read) = &read {
                assert_eq!(read.to_string().parse(), Ok(*read));
            }
            format!("{}", read.is_ok())
        });
}

#[test]
fn coordinator_addresses() {
    let words = [
        "http://", "https://", "[::1]", ":8000", "/api/v1", "@", "?", "%",
    ];
    Target::new("coordinator_addresses")
        .words(&words)
        .run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            match Address::parse(&text) {
                Ok(address) => {
                    // Whatever is an address makes the address of each path, with a host and a port.
                    let uri = address.uri("/jobs/1?after=2");
                    let uri = uri.unwrap_or_else(|error| panic!("{text:?}: {error}"));
                    assert!(uri.port_u16().is_some_and(|port| port > 0), "{uri}");
                    assert!(!address.host().is_empty(), "{text:?}");
                    assert_eq!(uri.query(), Some("after=2"), "{text:?}");
                    let again =
                        Address::parse(uri.to_string().strip_suffix("/jobs/1?after=2").unwrap())
                            .unwrap();
                    assert_eq!(again.uri("/jobs/1?after=2").unwrap(), uri);
                    "an address".to_string()
                }
                Err(error) => error.problem,
            }
        });
}

#[test]
fn events() {
    const LIMIT: usize = 512;
    let parse = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut parser = Parser::new(LIMIT);
        let mut found = Vec::new();
        for piece in pieces {
            match parser.push(piece) {
                Ok(more) => found.extend(more),
                Err(error) => return (found, Some(error.to_string())),
            }
        }
        (found, None)
    };
    Target::new("events")
        .words(&[
            "data:",
            "data: ",
            "\n\n",
            "\r\n",
            "id: 1\n",
            ":\n",
            "event: x\n",
        ])
        .run(|bytes| {
            let size = 1 + crc32fast::hash(bytes) as usize % 40;
            let (whole, problem) = parse(&mut std::iter::once(bytes));
            let (in_pieces, again) = parse(&mut bytes.chunks(size));
            assert_eq!(problem, again);
            // What a piece had before an error is not handed on, so that an error comes after more or fewer events.
            if problem.is_none() {
                assert_eq!(whole, in_pieces);
            }
            let mut read = 0;
            for data in &in_pieces {
                assert!(data.len() <= LIMIT);
                read += usize::from(serde_json::from_slice::<LoggedEvent>(data).is_ok());
            }
            format!("{problem:?} {} {read}", "x".repeat(whole.len().min(5)))
        });
}
