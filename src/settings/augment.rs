//! Whether and how training images are varied, and how a job spells that: as a flag, or as the name of a padding.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};
#[cfg(feature = "http")]
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

/// Whether training images are flipped and cropped at random, and what surrounds an image that is cropped. In JSON `false`,
/// `true` (black, raw zeros) or `"reflect"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Augment {
    /// Images as they are.
    #[default]
    Off,
    /// Flip, and crop after padding by 4 with raw zeros.
    Zeros,
    /// Flip, and crop after padding by 4 with the image mirrored at its edge, as `torchvision`'s `padding_mode="reflect"`.
    Reflect,
}

impl From<bool> for Augment {
    fn from(is_on: bool) -> Self {
        if is_on { Self::Zeros } else { Self::Off }
    }
}

impl Serialize for Augment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::Zeros => serializer.serialize_bool(true),
            Self::Reflect => serializer.serialize_str("reflect"),
        }
    }
}

impl<'de> Deserialize<'de> for Augment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherSpelling)
    }
}

struct EitherSpelling;

impl Visitor<'_> for EitherSpelling {
    type Value = Augment;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(r#"true, false or "reflect""#)
    }

    fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Augment, E> {
        Ok(is_on.into())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Augment, E> {
        match text {
            "reflect" => Ok(Augment::Reflect),
            other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
        }
    }
}

/// Either spelling, as the OpenAPI document shows it.
#[cfg(feature = "http")]
pub(crate) struct AugmentSpelling;

#[cfg(feature = "http")]
impl PartialSchema for AugmentSpelling {
    fn schema() -> RefOr<Schema> {
        let flag = ObjectBuilder::new()
            .schema_type(Type::Boolean)
            .title(Some("AugmentFlag"))
            .description(Some(
                "Whether images are varied; a crop shows raw zeros outside of the image.",
            ));
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .title(Some("AugmentPadding"))
            .description(Some(
                "Images are varied; a crop shows the image mirrored at its edge.",
            ))
            .enum_values(Some(["reflect"]));
        OneOfBuilder::new()
            .item(flag)
            .item(text)
            .description(Some(
                "Flip, and crop after padding by 4, of the training images.",
            ))
            .into()
    }
}

#[cfg(feature = "http")]
impl ToSchema for AugmentSpelling {}
