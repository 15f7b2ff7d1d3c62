//! The operations of the document: their problems, and their examples against the types.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{METHODS, document};
use crate::{
    job::JobSpec,
    parameters::Digest,
    protocol::{
        Alive, AuditEntry, CreatedToken, DatasetPartition, Failure, Health, Heartbeat, JobMessage,
        JobSummary, LoggedEvent, NewToken, OwnAccess, Poll, Registered, Registration, Rotated,
        RoundRecord, ShareEvaluation, TaskMessage, TokenSummary, WorkerSummary,
    },
    report::{RefusalKind, ReportMetadata},
    transport::http::Problem,
};

/// The operations: their identifiers, and what the document says of each.
fn operations() -> Vec<(String, Value)> {
    let document = document();
    let mut operations = Vec::new();
    for item in document["paths"].as_object().unwrap().values() {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                let name = operation["operationId"].as_str().unwrap();
                operations.push((name.to_string(), operation.clone()));
            }
        }
    }
    assert_eq!(operations.len(), 33);
    operations
}

/// The examples of a body or an answer.
fn examples(content: &Value) -> Vec<Value> {
    let mut found: Vec<Value> = content.get("example").cloned().into_iter().collect();
    if let Some(named) = content["examples"].as_object() {
        found.extend(named.values().map(|example| example["value"].clone()));
    }
    found
}

#[test]
fn each_operation_names_its_problems_by_status_and_code() {
    for (name, operation) in operations() {
        let responses = operation["responses"].as_object().unwrap();
        let mut expected = Vec::new();
        if !["get_health", "get_openapi"].contains(&&*name) {
            expected.extend(["401", "403"]);
        }
        let parameters = operation["parameters"].to_string();
        if parameters.contains(r#""in":"path""#) {
            expected.push("404");
        }
        if operation["requestBody"].is_object() {
            expected.extend(["400", "413", "415", "422"]);
        }
        for status in expected {
            assert!(responses.contains_key(status), "{name} lacks {status}");
        }
        for (status, response) in responses {
            let content = &response["content"]["application/problem+json"];
            let Ok(number) = status.parse::<u16>() else {
                assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem");
                continue;
            };
            if number < 400 {
                continue;
            }
            assert_eq!(
                content["schema"]["$ref"], "#/components/schemas/Problem",
                "{name} {status}"
            );
            for example in examples(content) {
                let problem: Problem = serde_json::from_value(example).unwrap();
                assert_eq!(problem.status, number, "{name}: {problem:?}");
                let description = response["description"].as_str().unwrap();
                assert!(description.contains(&problem.code), "{name}: {description}");
            }
        }
    }
}

#[test]
fn no_header_and_no_query_may_be_null() {
    for (name, operation) in operations() {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let schema = parameter["schema"].to_string();
            assert!(!schema.contains("null"), "{name}: {parameter}");
        }
    }
}

#[test]
fn each_refusal_belongs_to_an_operation() {
    let document = document().to_string();
    for kind in RefusalKind::ALL {
        let example = format!(r#""code":"{}""#, kind.code());
        assert!(document.contains(&example), "no operation has {example}");
    }
}

fn parse<T: DeserializeOwned>(name: &str, example: Value) {
    let read = serde_json::from_value::<T>(example.clone());
    assert!(read.is_ok(), "{name}: {:?} of {example}", read.err());
}

/// Reads an example as the type of this schema.
fn read(schema: &str, example: Value) {
    match schema {
        "JobSpec" => {
            let spec: JobSpec = serde_json::from_value(example).unwrap();
            spec.validate().unwrap();
        }
        "Registration" => parse::<Registration>(schema, example),
        "Heartbeat" => parse::<Heartbeat>(schema, example),
        "Poll" => parse::<Poll>(schema, example),
        "Failure" => parse::<Failure>(schema, example),
        "ShareEvaluation" => parse::<ShareEvaluation>(schema, example),
        "Alive" => parse::<Alive>(schema, example),
        "DatasetPartition" => parse::<DatasetPartition>(schema, example),
        "Health" => parse::<Health>(schema, example),
        "JobMessage" => parse::<JobMessage>(schema, example),
        "JobSummary" => parse::<JobSummary>(schema, example),
        "Registered" => parse::<Registered>(schema, example),
        "TaskMessage" => parse::<TaskMessage>(schema, example),
        "WorkerSummary" => parse::<WorkerSummary>(schema, example),
        "RoundRecord" => parse::<RoundRecord>(schema, example),
        "AuditEntry" => parse::<AuditEntry>(schema, example),
        "CreatedToken" => parse::<CreatedToken>(schema, example),
        "NewToken" => parse::<NewToken>(schema, example),
        "OwnAccess" => parse::<OwnAccess>(schema, example),
        "Rotated" => parse::<Rotated>(schema, example),
        "TokenSummary" => parse::<TokenSummary>(schema, example),
        other => panic!("no type for {other}"),
    }
}

/// The name of the schema that a reference leads to.
fn named(schema: &Value) -> &str {
    let reference = schema["$ref"].as_str().unwrap();
    reference.strip_prefix("#/components/schemas/").unwrap()
}

#[test]
fn each_body_of_json_has_an_example_that_is_read_as_its_type() {
    let mut bodies = 0;
    for (name, operation) in operations() {
        let content = &operation["requestBody"]["content"]["application/json"];
        if !content.is_object() {
            continue;
        }
        let found = examples(content);
        assert!(!found.is_empty(), "{name}");
        for example in found {
            read(named(&content["schema"]), example);
        }
        bodies += 1;
    }
    assert_eq!(bodies, 7);
}

#[test]
fn the_examples_of_answers_are_read_as_their_types() {
    let mut answers = 0;
    for (_, operation) in operations() {
        for response in operation["responses"].as_object().unwrap().values() {
            let content = &response["content"]["application/json"];
            for example in examples(content) {
                answers += 1;
                let schema = &content["schema"];
                if schema["type"] != "array" {
                    read(named(schema), example);
                    continue;
                }
                for item in example.as_array().unwrap() {
                    read(named(&schema["items"]), item.clone());
                }
            }
        }
    }
    assert_eq!(answers, 17);
}

#[test]
fn the_examples_of_headers_and_of_events_are_read_as_what_they_are() {
    let mut headers = 0;
    for (name, operation) in operations() {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let Some(text) = parameter["example"].as_str() else {
                continue;
            };
            match parameter["name"].as_str().unwrap() {
                "Fedavg-Report" => {
                    parse::<ReportMetadata>(&name, serde_json::from_str(text).unwrap())
                }
                "Fedavg-Job" => parse::<JobSpec>(&name, serde_json::from_str(text).unwrap()),
                "Fedavg-Digest" => assert!(text.parse::<Digest>().is_ok(), "{text}"),
                _ => continue,
            }
            headers += 1;
        }
        if name == "stream_events" {
            let stream = &operation["responses"]["200"]["content"]["text/event-stream"];
            let text = stream["example"].as_str().unwrap();
            let data = text.lines().find_map(|line| line.strip_prefix("data: "));
            parse::<LoggedEvent>(&name, serde_json::from_str(data.unwrap()).unwrap());
        }
    }
    assert_eq!(headers, 7);
}
