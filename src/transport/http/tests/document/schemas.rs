//! The schemas of the document against what serde reads and writes.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::{document, for_each_object, schemas};
use crate::{
    job::{
        ContinuedVersion, Direction, EvaluationMode, InnerState, JobSpec, Normalize, OptimizerKind,
    },
    parameters::{DType, Encoding, Role},
    partition::{Capacity, PartitionSpec},
    protocol::{Admission, AuditAction, Scope, TokenKind},
    report::RefusalKind,
    round::{StopRule, WorkerState},
    settings::EvalSplit,
};

const PREFIX: &str = "#/components/schemas/";

#[test]
fn no_description_names_anything_of_rust() {
    let document = document();
    let schemas = schemas();
    let mut names: BTreeSet<String> = schemas.as_object().unwrap().keys().cloned().collect();
    // A header may be named as well: `Range`.
    for_each_object(&document, &mut |object| {
        if object.contains_key("in") {
            names.extend(object["name"].as_str().map(str::to_string));
        }
    });
    let mut count = 0;
    for_each_object(&document, &mut |object| {
        for field in ["description", "summary"] {
            let Some(text) = object.get(field).and_then(Value::as_str) else {
                continue;
            };
            count += 1;
            for foreign in ["[`", "`]", "::", "crate"] {
                assert!(!text.contains(foreign), "{text}");
            }
            // What is in backticks and looks like a type is the name of a schema.
            for word in text.split('`').skip(1).step_by(2) {
                let is_type = word.starts_with(|letter: char| letter.is_ascii_uppercase())
                    && word.contains(|letter: char| letter.is_ascii_lowercase())
                    && word.chars().all(|letter| letter.is_ascii_alphanumeric());
                assert!(!is_type || names.contains(word), "{word}: {text}");
            }
        }
    });
    assert!(count > 300, "{count}");
}

/// The values of an enum, as serde writes them.
fn written<T: Serialize>(values: &[T]) -> BTreeSet<String> {
    let text = |value| {
        serde_json::to_value(value)
            .unwrap()
            .as_str()
            .unwrap()
            .to_string()
    };
    values.iter().map(text).collect()
}

#[test]
fn values_of_enums_are_those_on_the_wire() {
    let expected = [
        ("RefusalKind", written(RefusalKind::ALL)),
        (
            "OptimizerKind",
            written(&[
                OptimizerKind::Sgd,
                OptimizerKind::Adam,
                OptimizerKind::AdamW,
            ]),
        ),
        (
            "EvaluationMode",
            written(&[
                EvaluationMode::Auto,
                EvaluationMode::Coordinator,
                EvaluationMode::Workers,
                EvaluationMode::Never,
            ]),
        ),
        (
            "WorkerState",
            written(&[WorkerState::Live, WorkerState::Lost, WorkerState::Left]),
        ),
        (
            "DType",
            written(&[DType::F32, DType::F64, DType::U32, DType::U64]),
        ),
        (
            "Role",
            written(&[Role::Trainable, Role::Buffer, Role::Frozen]),
        ),
        (
            "Admission",
            written(&[
                Admission::Admitted,
                Admission::Pending,
                Admission::Quarantined,
                Admission::Revoked,
            ]),
        ),
        ("Scope", written(&Scope::ALL)),
        (
            "TokenKind",
            written(&[TokenKind::Join, TokenKind::Operator]),
        ),
        ("AuditAction", written(AuditAction::ALL)),
        ("Capacity", written(&[Capacity::Gpus, Capacity::Measured])),
        ("InnerState", written(&[InnerState::New, InnerState::Keep])),
        ("Direction", written(&[Direction::Max, Direction::Min])),
        (
            "ContinuedVersion",
            written(&[ContinuedVersion::Final, ContinuedVersion::Best]),
        ),
        (
            "EvalSplit",
            written(&[EvalSplit::Test, EvalSplit::Validation]),
        ),
        (
            "StopRule",
            written(&[
                StopRule::Target,
                StopRule::Patience,
                StopRule::Time,
                StopRule::Energy,
                StopRule::Divergence,
            ]),
        ),
        (
            "Normalize",
            written(&[Normalize::Channels, Normalize::None]),
        ),
    ];
    let schemas = schemas();
    let mut found = BTreeSet::new();
    for (name, schema) in schemas.as_object().unwrap() {
        if schema.get("enum").is_some() {
            found.insert(name.as_str());
        }
    }
    let named: BTreeSet<&str> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, named);
    for (name, values) in &expected {
        let documented: BTreeSet<String> =
            serde_json::from_value(schemas[name]["enum"].clone()).unwrap();
        assert_eq!(&documented, values, "{name}");
    }
    let codes: Vec<&str> = RefusalKind::ALL.iter().map(|kind| kind.code()).collect();
    assert_eq!(schemas["RefusalKind"]["enum"], json!(codes));
}

#[test]
fn each_tagged_union_has_a_discriminator_that_maps_the_tags_of_its_variants() {
    let schemas = schemas();
    let mut tags = Vec::new();
    for (name, schema) in schemas.as_object().unwrap() {
        let Some(variants) = schema.get("oneOf") else {
            continue;
        };
        let Some(discriminator) = schema.get("discriminator") else {
            // These have no tag: the name of their one field tells, or the type of the JSON.
            let untagged = [
                "AugmentSpelling",
                "PartitionSpelling",
                "Shape",
                "ShareEvaluation",
            ];
            assert!(untagged.contains(&&**name), "{name} has no discriminator");
            continue;
        };
        let tag = discriminator["propertyName"].as_str().unwrap();
        let mapping = discriminator["mapping"].as_object().unwrap();
        assert_eq!(mapping.len(), variants.as_array().unwrap().len(), "{name}");
        for (value, reference) in mapping {
            let variant = reference.as_str().unwrap().strip_prefix(PREFIX).unwrap();
            assert!(
                variants.to_string().contains(&format!("{reference}")),
                "{variant}"
            );
            let variant = &schemas[variant];
            assert_eq!(variant["properties"][tag]["enum"], json!([value]));
            assert!(
                variant["required"]
                    .as_array()
                    .unwrap()
                    .contains(&json!(tag))
            );
            assert!(variant["description"].is_string(), "{name} {value}");
        }
        tags.push((name.as_str(), tag));
    }
    let expected = [
        ("LoggedEvent", "event"),
        ("Objective", "kind"),
        ("Outcome", "outcome"),
        ("PartitionSpec", "kind"),
        ("Schedule", "kind"),
        ("TaskMessage", "kind"),
    ];
    assert_eq!(tags, expected);
}

#[test]
fn unions_are_of_references_and_have_no_default_that_is_an_object() {
    for_each_object(&document(), &mut |object| {
        assert!(!object.contains_key("allOf"), "{object:?}");
        let Some(Value::Array(variants)) = object.get("oneOf") else {
            return;
        };
        let default = object.get("default").unwrap_or(&Value::Null);
        assert!(!default.is_object(), "{object:?}");
        for variant in variants {
            let is_plain = ["null", "string", "boolean"].map(|plain| variant["type"] == plain);
            assert!(
                is_plain.contains(&true) || variant["$ref"].is_string(),
                "{variant}"
            );
        }
    });
}

#[test]
fn the_end_of_a_job_is_one_object_of_the_log() {
    let ended = &schemas()["LoggedEventEnded"];
    let outcomes = json!(["completed", "stopped", "failed", "cancelled"]);
    assert_eq!(ended["properties"]["outcome"]["enum"], outcomes);
    let required = ended["required"].as_array().unwrap();
    assert!(!required.contains(&json!("reason")), "{ended}");
    assert!(required.contains(&json!("sequence")), "{ended}");
}

#[test]
fn every_integer_is_unsigned_and_says_its_width() {
    let mut count = 0;
    for_each_object(&document(), &mut |object| {
        let is_integer = match object.get("type") {
            Some(Value::Array(types)) => types.contains(&json!("integer")),
            Some(found) => *found == "integer",
            None => false,
        };
        if !is_integer {
            return;
        }
        count += 1;
        let format = object["format"].as_str().unwrap();
        assert!(
            ["uint16", "uint32", "uint64"].contains(&format),
            "{object:?}"
        );
        assert!(
            object["minimum"].as_f64().is_some_and(|least| least >= 0.0),
            "{object:?}"
        );
    });
    assert!(count > 50, "{count}");
}

/// Whether a job with this value in a field is one that may be asked for.
fn is_valid(within: &[&str], field: &str, value: f64) -> bool {
    let number = if value.fract() == 0.0 {
        json!(value as i64)
    } else {
        json!(value)
    };
    let mut job = json!({ field: number });
    if field == "min_improvement" {
        job["patience"] = json!(1);
    }
    for name in within.iter().rev() {
        job = json!({ *name: job });
    }
    serde_json::from_value::<JobSpec>(job).is_ok_and(|spec| spec.validate().is_ok())
}

#[test]
fn the_least_and_the_most_of_a_jobs_numbers_are_those_that_are_checked() {
    let schemas = schemas();
    let places: [(&str, &[&str]); 4] = [
        ("JobSpec", &[]),
        ("TrainingSettings", &["training"]),
        ("RoundLimits", &["limits"]),
        ("StopSettings", &["stop"]),
    ];
    let mut count = 0;
    for (name, within) in places {
        for (field, schema) in schemas[name]["properties"].as_object().unwrap() {
            if field == "seed" {
                continue;
            }
            let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
            if let Some(least) = bound("minimum") {
                assert!(is_valid(within, field, least), "{name}.{field} of {least}");
                assert!(
                    !is_valid(within, field, least - 1.0),
                    "{name}.{field} below {least}"
                );
                count += 1;
            }
            if let Some(limit) = bound("exclusiveMinimum") {
                assert!(!is_valid(within, field, limit), "{name}.{field} of {limit}");
                assert!(
                    is_valid(within, field, limit + 0.125),
                    "{name}.{field} above {limit}"
                );
                count += 1;
            }
            if let Some(most) = bound("maximum") {
                assert!(is_valid(within, field, most), "{name}.{field} of {most}");
                assert!(
                    !is_valid(within, field, most + 0.125),
                    "{name}.{field} above {most}"
                );
                count += 1;
            }
        }
    }
    assert_eq!(count, 27);
}

#[test]
fn partitions_and_encodings_are_described_as_they_are_written() {
    let schemas = schemas();
    let text = schemas["PartitionSpelling"]["oneOf"][1].clone();
    let kinds = schemas["PartitionSpec"]["discriminator"]["mapping"]
        .as_object()
        .unwrap();
    let mut written = BTreeSet::new();
    for text in [
        "iid",
        "dirichlet:0.5",
        "dirichlet:0.5:balanced",
        "shard:2",
        "quantity_skew:0.1",
        "proportional:measured",
        "local",
    ] {
        let spec: PartitionSpec = text.parse().unwrap();
        let table = serde_json::to_value(spec).unwrap();
        let kind = table["kind"].as_str().unwrap();
        let variant = kinds[kind].as_str().unwrap().strip_prefix(PREFIX).unwrap();
        for field in table.as_object().unwrap().keys() {
            assert!(
                schemas[variant]["properties"][field].is_object(),
                "{variant}.{field}"
            );
        }
        written.insert(kind.to_string());
    }
    assert_eq!(written, kinds.keys().cloned().collect());
    for kind in &written {
        // Its text is that of `dirichlet` with one word more.
        let kind = if kind == "balanced_dirichlet" {
            ":balanced"
        } else {
            kind
        };
        assert!(
            text["pattern"].as_str().unwrap().contains(kind),
            "{kind}: {text}"
        );
        assert!(
            text["description"].as_str().unwrap().contains(kind),
            "{kind}: {text}"
        );
    }
    for name in Encoding::NAMES {
        for field in ["pattern", "description"] {
            let found = schemas["Encoding"][field].as_str().unwrap();
            assert!(found.contains(name), "{name}: {found}");
        }
    }
    let reports = &schemas["Encodings"]["properties"]["reports"];
    assert_eq!(reports["oneOf"][0]["$ref"], format!("{PREFIX}Encoding"));
    let partition = &schemas["JobSpec"]["properties"]["partition"];
    assert_eq!(partition["$ref"], format!("{PREFIX}PartitionSpelling"));
    let shape = &schemas["PayloadSpec"]["properties"]["shape"];
    assert_eq!(shape["$ref"], format!("{PREFIX}Shape"));
}

#[test]
fn the_deltas_sign_the_fingerprint_and_the_scaling_are_said_here_and_in_the_protocol() {
    // Words of the two are the same, but for where lines break.
    let protocol = include_str!("../../../../../docs/protocol.md");
    let words = |text: &str| {
        text.split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .replace('`', "")
    };
    let protocol = words(protocol);
    let document = document();
    let report = &document["paths"]["/api/v1/jobs/{job}/rounds/{round}/reports/{client}"]["put"];
    let schemas = schemas();
    let places = [
        (
            &report["description"],
            &["**local minus global** parameters"][..],
        ),
        (
            &schemas["DatasetInfo"]["properties"]["fingerprint"]["description"],
            &[
                "the text fedavg image set 1 and a line feed; channels, height, width, number of classes and number of examples, \
                 each as a little-endian 64-bit integer; the labels as little-endian 16-bit integers; the pixels' bytes, image by \
                 image, channel by channel, row by row",
            ],
        ),
        (
            &schemas["JobDescription"]["properties"]["dataset"]["description"],
            &[
                "(x / 16 - 0.3051) / 0.3762",
                "(x / 255 - mean) / deviation",
                ".4914 .4822 .4465",
                ".2470 .2435 .2616",
            ],
        ),
    ];
    for (description, phrases) in places {
        let description = words(description.as_str().unwrap());
        for phrase in phrases {
            assert!(description.contains(phrase), "{phrase}: {description}");
            assert!(protocol.contains(phrase), "docs/protocol.md lacks {phrase}");
        }
    }
}
