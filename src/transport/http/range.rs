//! Which part of a body `Range` asks for, <https://www.rfc-editor.org/rfc/rfc9110#section-14>. One part alone is ever
//! sent: a request for several, or for something that can't be read, gets the whole, as the standard allows.

use std::ops::{Bound, Range};

use axum::http::HeaderMap;
use headers::{ContentRange, HeaderMapExt};

/// What a request's `Range` selects of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selection {
    /// All of it: nothing else was asked for, or nothing that is understood.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that the body does not have.
    Nothing,
}

impl Selection {
    /// Of a body with this many bytes.
    pub(super) fn of(headers: &HeaderMap, length: u64) -> Self {
        let Some(range) = headers.typed_get::<headers::Range>() else {
            return Self::Whole;
        };
        let mut ranges = range.satisfiable_ranges(length);
        let (Some((first, last)), None) = (ranges.next(), ranges.next()) else {
            return Self::Whole;
        };
        let Bound::Included(first) = first else {
            return Self::Whole;
        };
        let end = match last {
            // Not a valid range: the standard has it passed over.
            Bound::Included(last) if last < first => return Self::Whole,
            Bound::Included(last) => last.saturating_add(1).min(length),
            Bound::Excluded(end) => end.min(length),
            Bound::Unbounded => length,
        };
        if first < end {
            Self::Part(first..end)
        } else {
            Self::Nothing
        }
    }
}

/// The bytes that an answer says it has, and the length of the whole if it says that; none if they can't be.
pub(super) fn received(headers: &HeaderMap) -> Option<(Range<u64>, Option<u64>)> {
    let range = headers.typed_get::<ContentRange>()?;
    let (first, last) = range.bytes_range()?;
    // The other end sends this number: it can be the largest one.
    let end = last.checked_add(1)?;
    let whole = range.bytes_len();
    let is_possible = whole.is_none_or(|whole| end <= whole);
    is_possible.then_some((first..end, whole))
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    fn selected(range: &str, length: u64) -> Selection {
        let mut headers = HeaderMap::new();
        headers.append(header::RANGE, range.parse().unwrap());
        Selection::of(&headers, length)
    }

    #[test]
    fn one_range_of_bytes_is_a_part() {
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-9", 0..10),
            ("bytes=3-5", 3..6),
            ("bytes=9-", 9..10),
            ("bytes=0-", 0..10),
            ("bytes=3-10", 3..10),
            ("bytes=3-18446744073709551615", 3..10),
            ("bytes=-1", 9..10),
            ("bytes=-10", 0..10),
            ("bytes=1-2,", 1..3),
        ] {
            assert_eq!(selected(range, 10), Selection::Part(part), "{range}");
        }
    }

    #[test]
    fn bytes_past_the_end_are_nothing() {
        for range in ["bytes=10-", "bytes=10-10", "bytes=-0"] {
            assert_eq!(selected(range, 10), Selection::Nothing, "{range}");
        }
        assert_eq!(selected("bytes=0-", 0), Selection::Nothing);
    }

    #[test]
    fn what_is_not_one_range_of_bytes_is_passed_over() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=5",
            "bytes=a-b",
            "bytes=1--2",
            "bytes=--2",
            "bytes=1 - 2",
            "bytes=1.0-2",
            "bytes=5-3",
            "bytes=0-1,3-4",
            "bytes=-11",
            "bytes=99999999999999999999999-",
            "bytes 0-1",
            "items=0-1",
            "=0-1",
        ] {
            assert_eq!(selected(range, 10), Selection::Whole, "{range}");
        }
        assert_eq!(Selection::of(&HeaderMap::new(), 10), Selection::Whole);
        assert_eq!(selected("bytes=-5", 0), Selection::Whole);
    }

    #[test]
    fn only_possible_parts_are_received() {
        for (text, expected) in [
            ("bytes 0-0/1", Some((0..1, Some(1)))),
            ("bytes 5-9/10", Some((5..10, Some(10)))),
            ("bytes 5-9/*", Some((5..10, None))),
            ("bytes */10", None),
            ("", None),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("items 5-9/10", None),
            ("bytes 5-/10", None),
            ("bytes 0-18446744073709551615/*", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(header::CONTENT_RANGE, text.parse().unwrap());
            assert_eq!(received(&headers), expected, "{text}");
        }
    }
}
