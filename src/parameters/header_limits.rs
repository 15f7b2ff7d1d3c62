//! How large the header of a safetensors file may be that comes from outside, checked before anything is made of it.
//!
//! A header is JSON: one that is parsed takes several times its own bytes. So its length is checked before it is read, and
//! what it has (tensors, names, shapes) in a pass that keeps nothing.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

/// What a header may have at most. Each limit has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderLimits {
    /// Its bytes. The format itself allows 100 MB.
    pub bytes: usize,
    /// The tensors that it names.
    pub tensors: usize,
    /// The bytes of a tensor's name.
    pub name: usize,
    /// The dimensions of a tensor.
    pub dimensions: usize,
}

impl Default for HeaderLimits {
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            tensors: 100_000,
            name: 1024,
            dimensions: 64,
        }
    }
}

/// Why a header is not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// It is too long.
    #[error("the safetensors header has {length} bytes, and {limit} is the most")]
    TooLong {
        /// What the body claims.
        length: u64,
        /// What is taken.
        limit: usize,
    },
    /// It names too many tensors.
    #[error("the safetensors header names more than {limit} tensors, which is the most")]
    Tensors {
        /// What is taken.
        limit: usize,
    },
    /// It has a name that is too long.
    #[error(
        "the safetensors header has a tensor's name of {length} bytes, and {limit} is the most"
    )]
    Name {
        /// The name's bytes.
        length: usize,
        /// What is taken.
        limit: usize,
    },
    /// It has a tensor of too many dimensions.
    #[error(
        "the safetensors header has a tensor of more than {limit} dimensions, which is the most"
    )]
    Dimensions {
        /// What is taken.
        limit: usize,
    },
    /// It is not JSON, or not of tensors.
    #[error("malformed safetensors header: {0}")]
    Malformed(String),
}

impl HeaderLimits {
    /// Whether a header may be this long.
    ///
    /// # Errors
    ///
    /// [`HeaderError::TooLong`].
    pub fn check_length(&self, length: u64) -> Result<(), HeaderError> {
        let limit = self.bytes;
        if length > limit as u64 {
            return Err(HeaderError::TooLong { length, limit });
        }
        Ok(())
    }

    /// Counts what the header has. Takes no memory, and stops at the first thing that is too much.
    ///
    /// # Errors
    ///
    /// [`HeaderError`], all but `TooLong`.
    pub fn check(&self, json: &[u8]) -> Result<(), HeaderError> {
        let mut counter = Counter {
            limits: self,
            tensors: 0,
            problem: None,
        };
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        // A pass that keeps nothing: as parsed tensors, a header takes several times its bytes.
        let counted = deserializer.deserialize_map(&mut counter);
        // The limit first: serde only knows that the visitor failed, at some column.
        match (counter.problem, counted) {
            // serde knows only that something was too much; what it was is here.
            (Some(problem), _) => Err(problem),
            (None, Err(error)) => Err(HeaderError::Malformed(error.to_string())),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// Walks through a header.
struct Counter<'a> {
    limits: &'a HeaderLimits,
    tensors: usize,
    /// What was too much: serde would make a text of it.
    problem: Option<HeaderError>,
}

impl Counter<'_> {
    fn refuse<T, E: serde::de::Error>(&mut self, problem: HeaderError) -> Result<T, E> {
        self.problem = Some(problem);
        Err(E::custom("too much"))
    }
}

impl<'de> Visitor<'de> for &mut Counter<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(NameLength)? {
            // The metadata's texts are passed over without being kept, whatever their length.
            let Some(length) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // Counted before the entry is looked at: the count bounds all the work that follows.
            self.tensors += 1;
            let (tensors, limit) = (self.limits.tensors, self.limits.name);
            if self.tensors > tensors {
                return self.refuse(HeaderError::Tensors { limit: tensors });
            }
            if length > limit {
                return self.refuse(HeaderError::Name { length, limit });
            }
            map.next_value_seed(Entry(self))?;
        }
        Ok(())
    }
}

/// The length of a tensor's name; none for the key of the file's metadata.
struct NameLength;

impl<'de> DeserializeSeed<'de> for NameLength {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameLength {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a tensor's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok((name != "__metadata__").then_some(name.len()))
    }
}

/// What the header says of one tensor.
struct Entry<'a, 'b>(&'a mut Counter<'b>);

impl<'de> DeserializeSeed<'de> for Entry<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Entry<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a tensor's type, shape and place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(is_shape) = map.next_key_seed(IsShape)? {
            if is_shape {
                map.next_value_seed(Dimensions(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Whether a key is that of the shape.
struct IsShape;

impl<'de> DeserializeSeed<'de> for IsShape {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsShape {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == "shape")
    }
}

/// The sides of a tensor.
struct Dimensions<'a, 'b>(&'a mut Counter<'b>);

impl<'de> DeserializeSeed<'de> for Dimensions<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Dimensions<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a shape")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sides: A) -> Result<(), A::Error> {
        let limit = self.0.limits.dimensions;
        let mut dimensions = 0;
        while sides.next_element::<IgnoredAny>()?.is_some() {
            dimensions += 1;
            if dimensions > limit {
                return self.0.refuse(HeaderError::Dimensions { limit });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> HeaderLimits {
        HeaderLimits {
            bytes: 100,
            tensors: 2,
            name: 4,
            dimensions: 3,
        }
    }

    /// A header of tensors of these names and shapes.
    fn header(tensors: &[(&str, &str)]) -> String {
        let mut entries = vec![r#""__metadata__":{"a key that is long":"b"}"#.to_string()];
        for (name, shape) in tensors {
            entries.push(format!(
                r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[0,4]}}"#
            ));
        }
        format!("{{{}}}", entries.join(","))
    }

    fn check(tensors: &[(&str, &str)]) -> Result<(), HeaderError> {
        limits().check(header(tensors).as_bytes())
    }

    #[test]
    fn each_limit_is_the_most_that_passes() {
        assert_eq!(limits().check_length(100), Ok(()));
        let (length, limit) = (101, 100);
        let too_long = Err(HeaderError::TooLong { length, limit });
        assert_eq!(limits().check_length(101), too_long);
        assert_eq!(check(&[("abcd", "[1,2,3]"), ("b", "[]")]), Ok(()));
        let three = [("a", "[]"), ("b", "[]"), ("c", "[]")];
        assert_eq!(check(&three), Err(HeaderError::Tensors { limit: 2 }));
        let (length, limit) = (5, 4);
        let long = Err(HeaderError::Name { length, limit });
        assert_eq!(check(&[("abcde", "[]")]), long);
        let deep = Err(HeaderError::Dimensions { limit: 3 });
        assert_eq!(check(&[("a", "[1,1,1,1]")]), deep);
    }

    #[test]
    fn what_is_no_header_is_malformed() {
        for text in [
            "",
            "[]",
            "{",
            "{\"a\":1}",
            "{\"a\":{\"shape\":1}}",
            "{\"a\":{}",
        ] {
            let checked = limits().check(text.as_bytes());
            assert!(matches!(checked, Err(HeaderError::Malformed(_))), "{text}");
        }
    }
}
