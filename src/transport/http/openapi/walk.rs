//! Walks over a document: schemas with everything in them, and the operations of a path.

use utoipa::openapi::{
    RefOr, Schema,
    path::{Operation, PathItem},
    schema::{AdditionalProperties, ArrayItems},
};

/// Visits a schema, and then each schema in it.
pub(super) fn walk(schema: &mut RefOr<Schema>, visit: &mut dyn FnMut(&mut RefOr<Schema>)) {
    visit(schema);
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                walk(items, visit);
            }
        }
        Schema::Object(object) => {
            for property in object.properties.values_mut() {
                walk(property, visit);
            }
            if let Some(values) = &mut object.additional_properties
                && let AdditionalProperties::RefOr(values) = &mut **values
            {
                walk(values, visit);
            }
        }
        Schema::OneOf(one_of) => walk_all(&mut one_of.items, visit),
        Schema::AllOf(all_of) => walk_all(&mut all_of.items, visit),
        Schema::AnyOf(any_of) => walk_all(&mut any_of.items, visit),
        _ => {}
    }
}

fn walk_all(schemas: &mut [RefOr<Schema>], visit: &mut dyn FnMut(&mut RefOr<Schema>)) {
    for schema in schemas {
        walk(schema, visit);
    }
}

/// The operations of a path.
pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.head,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ]
    .into_iter()
    .flatten()
}
