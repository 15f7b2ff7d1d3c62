//! An encoding as the OpenAPI document shows it: a text, which [`Encoding`] is on the wire.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type},
};

use super::Encoding;

impl PartialSchema for Encoding {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(
                "How trainable values stand in bytes; buffers are always f32. `f32`: as they are. `f16`: IEEE half \
                 precision. `bf16`: the upper half of an f32. `int8`: integers of -127 to 127 with a scale for each 256 \
                 values. `top_k:FRACTION`: the largest values in absolute value and their places, of reports alone; \
                 `FRACTION` is above 0 and at most 1, and 0.01 if left out.",
            ))
            .pattern(Some(r"^(f32|f16|bf16|int8|top_k(:[0-9.eE+-]+)?)$"))
            .examples(["f32", "int8", "top_k:0.01"])
            .into()
    }
}

impl ToSchema for Encoding {}
