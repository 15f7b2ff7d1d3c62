//! Parts of a body: what `Range` asks for and `Content-Range` says, <https://www.rfc-editor.org/rfc/rfc9110#section-14>.
//! One part alone is ever sent: whoever asks for several gets the whole, as the standard allows.

use std::{fmt, ops::Range, str::FromStr};

use axum::http::{HeaderMap, header};

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
    /// Of a body with so many bytes.
    pub(super) fn of(headers: &HeaderMap, length: u64) -> Self {
        let mut values = headers.get_all(header::RANGE).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => parse(value.as_bytes(), length).unwrap_or(Self::Whole),
            _ => Self::Whole,
        }
    }
}

/// `None` if it is not one range of bytes.
fn parse(value: &[u8], length: u64) -> Option<Selection> {
    let (unit, set) = std::str::from_utf8(value).ok()?.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty elements of a list count for nothing.
    let mut elements = set
        .split(',')
        .map(|element| element.trim_matches([' ', '\t']))
        .filter(|element| !element.is_empty());
    let (first, last) = elements.next()?.split_once('-')?;
    if elements.next().is_some() {
        return None;
    }
    let bytes = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        // The last so many; all, if there are fewer.
        (None, Some(count)) if first.is_empty() => length.saturating_sub(count)..length,
        _ => return None,
    };
    match bytes.is_empty() {
        // Not even a body without bytes has fewer than the last few of it, but no part of it can be named.
        true if first.is_empty() && length == 0 => Some(Selection::Whole),
        true => Some(Selection::Nothing),
        false => Some(Selection::Part(bytes)),
    }
}

/// Digits alone. A number beyond all lengths is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `Content-Range`: which bytes of a body with how many, if that is known, an answer has; none, if the ones that
/// were asked for are not in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub bytes: Option<Range<u64>>,
    pub whole: Option<u64>,
}

impl fmt::Display for ContentRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bytes {
            Some(bytes) => write!(formatter, "bytes {}-{}/", bytes.start, bytes.end - 1)?,
            None => formatter.write_str("bytes */")?,
        }
        match self.whole {
            Some(whole) => write!(formatter, "{whole}"),
            None => formatter.write_str("*"),
        }
    }
}

impl FromStr for ContentRange {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (unit, range) = text.split_once(' ').ok_or(())?;
        let (bytes, whole) = range.split_once('/').ok_or(())?;
        let exact = |text: &str| match number(text) {
            Some(u64::MAX) | None => Err(()),
            Some(number) => Ok(number),
        };
        let star = |text: &str| match text {
            "*" => Ok(None),
            number => exact(number).map(Some),
        };
        let whole = star(whole)?;
        let bytes = match bytes {
            "*" => None,
            bytes => {
                let (first, last) = bytes.split_once('-').ok_or(())?;
                Some(exact(first)?..exact(last)? + 1)
            }
        };
        let end = bytes.as_ref().map_or(0, |bytes| bytes.end);
        let is_valid = unit.eq_ignore_ascii_case("bytes")
            && bytes.as_ref().is_none_or(|bytes| !bytes.is_empty())
            && whole.is_none_or(|whole| end <= whole);
        is_valid.then_some(Self { bytes, whole }).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(ranges: &[&str], length: u64) -> Selection {
        let mut headers = HeaderMap::new();
        for range in ranges {
            headers.append(header::RANGE, range.parse().unwrap());
        }
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
            ("bytes=3-99999999999999999999999", 3..10),
            ("bytes=-1", 9..10),
            ("bytes=-10", 0..10),
            ("bytes=-11", 0..10),
            ("bytes=-99999999999999999999999", 0..10),
            ("Bytes=1-2", 1..3),
            ("bytes=01-002", 1..3),
            ("bytes=1-2,", 1..3),
            ("bytes=, ,1-2 ,", 1..3),
        ] {
            assert_eq!(selected(&[range], 10), Selection::Part(part), "{range}");
        }
    }

    #[test]
    fn bytes_past_the_end_are_nothing() {
        for range in [
            "bytes=10-",
            "bytes=10-10",
            "bytes=99999999999999999999999-",
            "bytes=-0",
        ] {
            assert_eq!(selected(&[range], 10), Selection::Nothing, "{range}");
        }
        assert_eq!(selected(&["bytes=0-"], 0), Selection::Nothing);
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
            "bytes=1-b",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=--2",
            "bytes=1 - 2",
            "bytes=0x1-2",
            "bytes=1.0-2",
            "bytes=5-3",
            "bytes=0-1,3-4",
            "bytes=0-1,nonsense",
            "bytes 0-1",
            "items=0-1",
            "=0-1",
        ] {
            assert_eq!(selected(&[range], 10), Selection::Whole, "{range}");
        }
        assert_eq!(selected(&[], 10), Selection::Whole);
        assert_eq!(selected(&["bytes=0-1", "bytes=3-4"], 10), Selection::Whole);
        assert_eq!(selected(&["bytes=-5"], 0), Selection::Whole);
    }

    #[test]
    fn content_ranges_read_back() {
        for (text, bytes, whole) in [
            ("bytes 0-0/1", Some(0..1), Some(1)),
            ("bytes 5-9/10", Some(5..10), Some(10)),
            ("bytes 5-9/*", Some(5..10), None),
            ("bytes */10", None, Some(10)),
        ] {
            let range = ContentRange { bytes, whole };
            assert_eq!(range.to_string(), text);
            assert_eq!(text.parse(), Ok(range));
        }
        for text in [
            "",
            "bytes",
            "bytes 5-9",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "items 5-9/10",
            "bytes 5/10",
            "bytes 5-/10",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(text.parse::<ContentRange>(), Err(()), "{text}");
        }
    }
}
