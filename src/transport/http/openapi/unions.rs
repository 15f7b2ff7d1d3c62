//! Unions of objects, in a form that generators of clients understand.
//!
//! The derive writes the variants of an enum in place, without a discriminator, and an enum that serde flattens into a
//! structure as `allOf`. Here each variant becomes a schema of its own, whole, with a name made of the enum's and the
//! variant's; and the union gets a discriminator, which maps the values of the tag to these schemas.

use std::collections::BTreeMap;

use utoipa::openapi::{
    AllOf, OneOf, Ref, RefOr, Schema,
    schema::{AdditionalProperties, Discriminator, Object},
};

use super::walk::walk;

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Where references to schemas begin.
const PREFIX: &str = "#/components/schemas/";

/// Replaces each schema that is `allOf`: by one object, or by a union of objects. Unions that were only a part of these
/// are removed.
pub(super) fn flatten(schemas: &mut Schemas) {
    let mut flattened = Vec::new();
    let mut parts = Vec::new();
    for (name, schema) in schemas.iter() {
        let RefOr::T(Schema::AllOf(all_of)) = schema else {
            continue;
        };
        let Some(objects) = combinations(all_of, schemas) else {
            continue;
        };
        let whole = match <[Object; 1]>::try_from(objects) {
            Ok([mut object]) => {
                object.description.clone_from(&all_of.description);
                inline(object)
            }
            Err(objects) => {
                let mut union = OneOf::new();
                union.description.clone_from(&all_of.description);
                union.items = objects.into_iter().map(inline).collect();
                RefOr::T(Schema::OneOf(union))
            }
        };
        flattened.push((name.clone(), whole));
        parts.extend(all_of.items.iter().filter_map(referenced));
    }
    schemas.extend(flattened);
    for part in parts {
        if !is_referenced(&part, schemas) {
            schemas.remove(&part);
        }
    }
}

/// Gives each variant of each union of objects a schema of its own, and the union a discriminator.
pub(super) fn name_variants(schemas: &mut Schemas) {
    let names: Vec<String> = schemas.keys().cloned().collect();
    for name in names {
        let schema = &schemas[&name];
        let RefOr::T(Schema::OneOf(union)) = schema else {
            continue;
        };
        let Some(objects) = alternatives(schema, schemas) else {
            continue;
        };
        let description = union.description.clone();
        let mut named = named_union(&name, objects, schemas);
        named.description = description;
        schemas.insert(name, RefOr::T(Schema::OneOf(named)));
    }
}

/// The union of these objects. Their schemas are added under names that begin with this one.
fn named_union(name: &str, objects: Vec<Object>, schemas: &mut Schemas) -> OneOf {
    let Some(tag) = tag_of(&objects) else {
        return untagged_union(name, objects, schemas);
    };
    let mut groups: Vec<(String, Vec<Object>)> = Vec::new();
    for object in objects {
        let value = tag_value(&object, &tag).unwrap_or_default();
        match groups.iter_mut().find(|(found, _)| *found == value) {
            Some((_, group)) => group.push(object),
            None => groups.push((value, vec![object])),
        }
    }
    let mut union = OneOf::new();
    let mut discriminator = Discriminator::new(&tag);
    for (value, group) in groups {
        let variant = format!("{name}{}", pascal_case(&value));
        discriminator
            .mapping
            .insert(value, format!("{PREFIX}{variant}"));
        union.items.push(Ref::from_schema_name(&variant).into());
        schemas.insert(variant, inline(merge(group)));
    }
    union.discriminator = Some(discriminator);
    union
}

/// One object of several with the same tag, such as the ends of a job: what only some of them have, may be left out. A
/// generator can't follow a discriminator to a union.
fn merge(objects: Vec<Object>) -> Object {
    let mut merged = Object::new();
    for (index, object) in objects.into_iter().enumerate() {
        if index == 0 {
            merged = object;
            continue;
        }
        merged
            .required
            .retain(|field| object.required.contains(field));
        for (name, property) in object.properties {
            let Some(known) = merged.properties.get_mut(&name) else {
                merged.properties.insert(name, property);
                continue;
            };
            add_values(known, property);
        }
    }
    merged
}

/// Adds the values that a field may have in another object.
fn add_values(known: &mut RefOr<Schema>, other: RefOr<Schema>) {
    let RefOr::T(Schema::Object(known)) = known else {
        return;
    };
    let RefOr::T(Schema::Object(other)) = other else {
        return;
    };
    if let (Some(values), Some(more)) = (&mut known.enum_values, other.enum_values) {
        for value in more {
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
}

/// A union of objects that the name of their one field tells apart.
fn untagged_union(name: &str, objects: Vec<Object>, schemas: &mut Schemas) -> OneOf {
    let mut union = OneOf::new();
    for mut object in objects {
        let field = object.required.first().cloned().unwrap_or_default();
        let variant = format!("{name}{}", pascal_case(&field));
        // Otherwise an object with the fields of two variants would be both.
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        union.items.push(Ref::from_schema_name(&variant).into());
        schemas.insert(variant, inline(object));
    }
    union
}

/// The field that has one value in each of the objects, and not the same in all of them.
fn tag_of(objects: &[Object]) -> Option<String> {
    let first = objects.first()?;
    let mut fields = first.required.iter();
    let tag = fields.find(|field| {
        let value = tag_value(first, field);
        let differs = objects
            .iter()
            .any(|object| tag_value(object, field) != value);
        let in_all = objects
            .iter()
            .all(|object| tag_value(object, field).is_some());
        in_all && differs
    });
    tag.cloned()
}

/// The one value that a field may have.
fn tag_value(object: &Object, field: &str) -> Option<String> {
    let RefOr::T(Schema::Object(values)) = object.properties.get(field)? else {
        return None;
    };
    match &values.enum_values.as_ref()?[..] {
        [value] => value.as_str().map(str::to_string),
        _ => None,
    }
}

/// The objects of which a value of this schema is one; none if it may be something else.
fn alternatives(schema: &RefOr<Schema>, schemas: &Schemas) -> Option<Vec<Object>> {
    match schema {
        RefOr::Ref(_) => alternatives(schemas.get(&referenced(schema)?)?, schemas),
        RefOr::T(Schema::Object(object)) if object.properties.is_empty() => None,
        RefOr::T(Schema::Object(object)) => Some(vec![object.clone()]),
        RefOr::T(Schema::OneOf(one_of)) => {
            let mut objects = Vec::new();
            for item in &one_of.items {
                objects.extend(alternatives(item, schemas)?);
            }
            Some(objects)
        }
        RefOr::T(Schema::AllOf(all_of)) => {
            let mut objects = combinations(all_of, schemas)?;
            for object in &mut objects {
                object.description.clone_from(&all_of.description);
            }
            Some(objects)
        }
        RefOr::T(_) => None,
    }
}

/// The objects that have all the parts of `allOf`, with the descriptions of the parts.
fn combinations(all_of: &AllOf, schemas: &Schemas) -> Option<Vec<Object>> {
    let mut objects = vec![Object::new()];
    for item in &all_of.items {
        let parts = alternatives(item, schemas)?;
        objects = combine(&objects, &parts);
    }
    Some(objects)
}

/// Each object together with each part.
fn combine(objects: &[Object], parts: &[Object]) -> Vec<Object> {
    let mut combined = Vec::with_capacity(objects.len() * parts.len());
    for object in objects {
        for part in parts {
            let mut both = object.clone();
            both.properties.extend(part.properties.clone());
            both.required.extend(part.required.iter().cloned());
            if both.description.is_none() {
                both.description.clone_from(&part.description);
            }
            combined.push(both);
        }
    }
    combined
}

fn inline(object: Object) -> RefOr<Schema> {
    RefOr::T(Schema::Object(object))
}

/// The name of the schema that a reference leads to.
fn referenced(schema: &RefOr<Schema>) -> Option<String> {
    let RefOr::Ref(reference) = schema else {
        return None;
    };
    let name = reference.ref_location.strip_prefix(PREFIX)?;
    Some(name.to_string())
}

fn is_referenced(name: &str, schemas: &mut Schemas) -> bool {
    let mut is_found = false;
    for schema in schemas.values_mut() {
        walk(schema, &mut |schema| {
            is_found |= referenced(schema).is_some_and(|found| found == name);
        });
    }
    is_found
}

/// `RoundCommitted` of `round_committed`.
fn pascal_case(text: &str) -> String {
    let mut pascal = String::with_capacity(text.len());
    for word in text.split('_') {
        let mut letters = word.chars();
        if let Some(first) = letters.next() {
            pascal.extend(first.to_uppercase());
            pascal.push_str(letters.as_str());
        }
    }
    pascal
}
