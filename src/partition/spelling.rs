//! The two spellings of a partition: a table that is tagged by `kind`, and the text of a command line.
//!
//! Both are read. The table alone is written, so that a program that reads answers needs to know one spelling.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};
#[cfg(feature = "http")]
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, Ref, RefOr, Schema, Type},
};

use super::PartitionSpec;

impl Serialize for PartitionSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The inherent function, which the derive makes for `remote`.
        PartitionSpec::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for PartitionSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EitherSpelling)
    }
}

struct EitherSpelling;

impl<'de> Visitor<'de> for EitherSpelling {
    type Value = PartitionSpec;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            r#"a partition, such as "dirichlet:0.5" or { kind = "dirichlet", alpha = 0.5 }"#,
        )
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PartitionSpec, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PartitionSpec, A::Error> {
        // The inherent function, as above.
        PartitionSpec::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Either spelling, as the OpenAPI document shows it.
#[cfg(feature = "http")]
pub(crate) struct PartitionSpelling;

#[cfg(feature = "http")]
impl PartialSchema for PartitionSpelling {
    fn schema() -> RefOr<Schema> {
        let number = r"[0-9.eE+-]+";
        let text = ObjectBuilder::new()
            .schema_type(Type::String)
            .title(Some("PartitionText"))
            .description(Some(
                "As on a command line: `iid`, `dirichlet:ALPHA`, `dirichlet:ALPHA:balanced`, `shard:LABELS`, `quantity_skew:ALPHA`, `proportional`, \
                 `proportional:measured` or `local`.",
            ))
            .pattern(Some(format!(
                "^(iid|dirichlet:{number}(:balanced(:[0-9]+)?)?|shard:[0-9]+|quantity_skew:{number}|proportional(:measured)?|local)$"
            )))
            .examples(["dirichlet:0.5"]);
        OneOfBuilder::new()
            .item(Ref::from_schema_name(PartitionSpec::name()))
            .item(text)
            .description(Some(
                "How the examples are dealt over the clients, in one of two spellings. Answers have the object.",
            ))
            .into()
    }
}

#[cfg(feature = "http")]
impl ToSchema for PartitionSpelling {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((PartitionSpec::name().into(), PartitionSpec::schema()));
        PartitionSpec::schemas(schemas);
    }
}
