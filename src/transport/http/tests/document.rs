//! The OpenAPI document against the routes.

mod operations;
mod schemas;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Running;
use crate::transport::http::{openapi, problem::status_of, router};

const METHODS: [&str; 6] = ["get", "head", "put", "post", "delete", "patch"];

fn document() -> Value {
    serde_json::to_value(openapi()).unwrap()
}

fn schemas() -> Value {
    document()["components"]["schemas"].clone()
}

/// Visits every object of JSON, but for what is in examples.
fn for_each_object(value: &Value, visit: &mut dyn FnMut(&Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(map);
            for (name, value) in map {
                if !name.starts_with("example") || value["type"].is_string() {
                    for_each_object(value, visit);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                for_each_object(item, visit);
            }
        }
        _ => {}
    }
}

/// The operations of the document: method and path.
fn documented() -> BTreeSet<(String, String)> {
    let document = document();
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            found.insert((method.clone(), path.clone()));
        }
    }
    found
}

#[tokio::test]
async fn every_route_that_is_served_is_in_the_document() {
    let running = Running::open().await;
    // The router has no list of its routes but the one in its debug output. "/" is axum's own place for the fallback.
    let served: BTreeSet<String> = router::debug_router()
        .split('"')
        .filter(|text| text.starts_with('/') && *text != "/" && !text.contains('*'))
        .map(str::to_string)
        .collect();
    let documented = documented();
    let paths: BTreeSet<String> = documented.iter().map(|(_, path)| path.clone()).collect();
    assert!(served.len() >= 16, "{served:?}");
    assert_eq!(served, paths);
    for path in &served {
        for method in METHODS {
            let filled = path
                .split('/')
                .map(|part| if part.starts_with('{') { "1" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            let line = method.to_uppercase();
            let answer = running
                .raw(format!(
                    "{line} {filled} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                ))
                .await;
            let is_served = !answer.starts_with("HTTP/1.1 405");
            let is_in_document =
                |method: &str| documented.contains(&(method.to_string(), path.clone()));
            // What can be asked with GET can be asked with HEAD.
            let is_documented = is_in_document(method) || method == "head" && is_in_document("get");
            assert_eq!(is_served, is_documented, "{method} {path}: {answer}");
        }
    }
}

#[test]
fn the_document_has_what_the_protocol_promises() {
    let expected = [
        "delete /jobs/{job}",
        "delete /tokens/{token}",
        "delete /workers/{worker}",
        "get /access",
        "get /audit",
        "get /health",
        "get /jobs",
        "get /jobs/{job}",
        "get /jobs/{job}/description",
        "get /jobs/{job}/events",
        "get /jobs/{job}/models/{version}",
        "get /jobs/{job}/models/{version}/payloads/{payload}",
        "get /jobs/{job}/partitions/{client}",
        "get /jobs/{job}/rounds",
        "get /openapi.json",
        "get /tokens",
        "get /workers",
        "head /jobs/{job}/rounds/{round}/reports/{client}",
        "patch /jobs/{job}/rounds/{round}/reports/{client}",
        "post /jobs",
        "post /jobs/{job}/cancel",
        "post /jobs/{job}/pause",
        "post /jobs/{job}/resume",
        "post /jobs/{job}/rounds/{round}/failures/{client}",
        "post /tokens",
        "post /workers",
        "post /workers/{worker}/approve",
        "post /workers/{worker}/heartbeat",
        "post /workers/{worker}/poll",
        "post /workers/{worker}/revoke",
        "post /workers/{worker}/token",
        "put /jobs/{job}/models/{version}/evaluations/{client}",
        "put /jobs/{job}/rounds/{round}/reports/{client}",
    ];
    let found: Vec<_> = documented()
        .into_iter()
        .map(|(method, path)| format!("{method} {}", path.strip_prefix("/api/v1").unwrap()))
        .collect();
    assert_eq!(found, expected);
    let protocol = include_str!("../../../../docs/protocol.md");
    for operation in expected {
        let (method, path) = operation.split_once(' ').unwrap();
        let route = format!("{} {path}", method.to_uppercase());
        let known =
            protocol.contains(&route) || protocol.contains(&route.replace("{version}", "latest"));
        assert!(known, "docs/protocol.md lacks {route}");
    }
}

#[test]
fn every_reference_and_every_token_of_the_document_is_in_it() {
    let document = document();
    let mut references = Vec::new();
    for_each_object(&document, &mut |object| {
        if let Some(Value::String(reference)) = object.get("$ref") {
            references.push(reference.clone());
        }
    });
    assert!(references.len() > 30);
    for reference in references {
        let found = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(found.is_some(), "{reference}");
    }
    for (method, path) in documented() {
        let operation = &document["paths"][&path][&method];
        assert!(operation["summary"].is_string(), "{method} {path}");
        let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
        assert!(problem.is_object(), "{method} {path}");
        for token in operation["security"].as_array().unwrap() {
            for name in token.as_object().unwrap().keys() {
                let scheme = &document["components"]["securitySchemes"][name];
                assert_eq!(scheme["scheme"], "bearer", "{method} {path}");
            }
        }
    }
}

#[test]
fn bodies_of_parameters_are_binary() {
    let document = document();
    let report = &document["paths"]["/api/v1/jobs/{job}/rounds/{round}/reports/{client}"]["put"];
    let schema = &report["requestBody"]["content"]["application/octet-stream"]["schema"];
    let schema = document.pointer(schema["$ref"].as_str().unwrap().strip_prefix('#').unwrap());
    assert_eq!(schema.unwrap()["format"], "binary");
}

#[test]
fn every_refusal_is_in_the_protocol() {
    let protocol = include_str!("../../../../docs/protocol.md");
    for kind in crate::report::RefusalKind::ALL {
        let row = format!("| `{}` | {}", kind.code(), status_of(*kind).as_u16());
        assert!(protocol.contains(&row), "docs/protocol.md lacks {row}");
    }
}

#[test]
fn hardware_contributions_and_measures_have_schemas_of_their_own() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let hardware = &schemas["Registration"]["properties"]["hardware"];
    assert!(
        hardware
            .to_string()
            .contains("#/components/schemas/Hardware"),
        "{hardware}"
    );
    for (schema, property) in [
        ("Hardware", "libtorch"),
        ("Gpu", "compute_capability"),
        ("ReportMetadata", "energy_joules"),
        ("RoundRecord", "contributions"),
        ("RoundRecord", "by_client"),
        ("Excluded", "reason"),
        ("MeasuredClient", "metrics"),
        ("Contribution", "device"),
        ("WorkerSummary", "examples_per_second"),
    ] {
        let found = &schemas[schema]["properties"][property];
        assert!(
            found.is_object(),
            "{property} of {schema}: {}",
            schemas[schema]
        );
    }
}
