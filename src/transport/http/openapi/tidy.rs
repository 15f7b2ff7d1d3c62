//! What the derives give and no reader of the document can use: defaults that are objects, links of rustdoc, and formats of
//! integers that no list of formats has.

use std::collections::BTreeMap;

use utoipa::openapi::{
    KnownFormat, OpenApi, RefOr, Schema, SchemaFormat, Type,
    path::Operation,
    schema::{Object, SchemaType},
};

use super::walk::{operations, walk};

/// Removes each default that is an object. Generators refuse it; and the fields of the object have the same defaults.
pub(super) fn drop_object_defaults(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    for schema in schemas.values_mut() {
        walk(schema, &mut |schema| {
            let RefOr::T(Schema::OneOf(one_of)) = &*schema else {
                return;
            };
            let has_object = one_of
                .default
                .as_ref()
                .is_some_and(|default| default.is_object());
            // The union is there for the default alone.
            if has_object && let [only] = &one_of.items[..] {
                *schema = only.clone();
            }
        });
    }
}

/// Makes "[`JobSpec`]" of rustdoc "`JobSpec`", which is the name of a schema.
pub(super) fn drop_links(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    for schema in schemas.values_mut() {
        walk(schema, &mut |schema| {
            if let Some(description) = description_of(schema) {
                *description = description.replace("[`", "`").replace("`]", "`");
            }
        });
    }
}

fn description_of(schema: &mut RefOr<Schema>) -> Option<&mut String> {
    match schema {
        RefOr::Ref(reference) => Some(&mut reference.description),
        RefOr::T(Schema::Array(array)) => array.description.as_mut(),
        RefOr::T(Schema::Object(object)) => object.description.as_mut(),
        RefOr::T(Schema::OneOf(one_of)) => one_of.description.as_mut(),
        RefOr::T(Schema::AllOf(all_of)) => all_of.description.as_mut(),
        RefOr::T(Schema::AnyOf(any_of)) => any_of.description.as_mut(),
        RefOr::T(_) => None,
    }
}

/// Makes a parameter that may be left out one that may not be null: neither a header nor a query has a null.
pub(super) fn drop_null_of_parameters(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for parameter in operation.parameters.iter_mut().flatten() {
                if let Some(schema) = &mut parameter.schema {
                    drop_null(schema);
                }
            }
        }
    }
}

fn drop_null(schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(types) = &mut object.schema_type {
                types.retain(|found| *found != Type::Null);
                if let [only] = &types[..] {
                    object.schema_type = SchemaType::Type(only.clone());
                }
            }
        }
        RefOr::T(Schema::OneOf(one_of)) => {
            // Null, and what it may be else.
            if let [_, RefOr::Ref(reference)] = &one_of.items[..] {
                *schema = RefOr::Ref(reference.clone());
            }
        }
        _ => {}
    }
}

/// Gives every integer the format of its width, by its name in the list of formats of OpenAPI.
pub(super) fn name_formats(document: &mut OpenApi) {
    if let Some(components) = &mut document.components {
        for schema in components.schemas.values_mut() {
            walk(schema, &mut name_format);
        }
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            name_formats_of(operation);
        }
    }
}

fn name_formats_of(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let Some(schema) = &mut parameter.schema {
            walk(schema, &mut name_format);
        }
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        for header in response.headers.values_mut() {
            walk(&mut header.schema, &mut name_format);
        }
    }
}

fn name_format(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else {
        return;
    };
    let name = match &object.format {
        Some(SchemaFormat::KnownFormat(KnownFormat::UInt16)) => "uint16",
        Some(SchemaFormat::KnownFormat(KnownFormat::UInt32)) => "uint32",
        Some(SchemaFormat::KnownFormat(KnownFormat::UInt64)) => "uint64",
        // A `usize`.
        None if is_integer(object) => "uint64",
        _ => return,
    };
    object.format = Some(SchemaFormat::Custom(name.to_string()));
}

fn is_integer(object: &Object) -> bool {
    match &object.schema_type {
        SchemaType::Type(found) => *found == Type::Integer,
        SchemaType::Array(found) => found.contains(&Type::Integer),
        SchemaType::AnyValue => false,
    }
}
