//! A body of parameters, as the document shows it.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

/// The schema of a safetensors file.
pub(in crate::transport::http) struct Safetensors;

impl PartialSchema for Safetensors {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .description(Some(
                "A safetensors file: https://github.com/huggingface/safetensors. Names, shapes and memory layout are \
                 PyTorch's, values are little-endian.",
            ))
            .into()
    }
}

impl ToSchema for Safetensors {}
