//! The JSON Schema agrees with what is loaded.

use std::fs;

use regex::Regex;
use sampan_core::spec::{Problem, ProblemKind, json_schema};
use serde_json::Value as Json;

use super::fixtures;

/// Checks a value against a schema, as far as JSON Schema is used for the spec: a keyword that is
/// not known here fails the test.
fn admits(root: &Json, schema: &Json, value: &Json) -> bool {
    let Some(keywords) = schema.as_object() else {
        return schema == true;
    };
    let one = |schema: &&Json| admits(root, schema, value);
    keywords
        .iter()
        .all(|(keyword, argument)| match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "examples" => true,
            "$ref" => one(&definition(root, argument)),
            "anyOf" => array(argument).iter().any(|schema| one(&schema)),
            "oneOf" => array(argument).iter().filter(one).count() == 1,
            "const" => value == argument,
            "type" => has_type(text(argument), value),
            keyword => match value {
                Json::Object(_) => admits_object(root, keywords, keyword, argument, value),
                Json::Array(list) if keyword == "items" => {
                    list.iter().all(|value| admits(root, argument, value))
                }
                Json::String(value) => admits_text(keyword, argument, value),
                Json::Number(value) => {
                    admits_number(keyword, argument, value.as_f64().expect("a number"))
                }
                Json::Array(_) | Json::Bool(_) | Json::Null => true,
            },
        })
}

fn admits_object(
    root: &Json,
    keywords: &serde_json::Map<String, Json>,
    keyword: &str,
    argument: &Json,
    value: &Json,
) -> bool {
    let mut entries = value.as_object().into_iter().flatten();
    let known = |key: &str| {
        keywords
            .get("properties")
            .is_some_and(|p| p.get(key).is_some())
    };
    match keyword {
        "required" => array(argument)
            .iter()
            .all(|key| value.get(text(key)).is_some()),
        "properties" => {
            entries.all(|(key, value)| argument.get(key).is_none_or(|it| admits(root, it, value)))
        }
        "propertyNames" => {
            entries.all(|(key, _)| admits(root, argument, &Json::from(key.as_str())))
        }
        "additionalProperties" => {
            entries.all(|(key, value)| known(key) || admits(root, argument, value))
        }
        "items" | "pattern" | "minLength" | "maxLength" => true,
        "minimum" | "maximum" | "exclusiveMinimum" => true,
        other => panic!("unknown keyword {other} for a table"),
    }
}

fn admits_text(keyword: &str, argument: &Json, value: &str) -> bool {
    match keyword {
        "pattern" => Regex::new(text(argument))
            .expect("a pattern")
            .is_match(value),
        "minLength" => value.chars().count() as f64 >= number(argument),
        "maxLength" => value.chars().count() as f64 <= number(argument),
        "minimum" | "maximum" | "exclusiveMinimum" | "items" => true,
        "required" | "properties" | "propertyNames" | "additionalProperties" => true,
        other => panic!("unknown keyword {other} for a text"),
    }
}

fn admits_number(keyword: &str, argument: &Json, value: f64) -> bool {
    match keyword {
        "minimum" => value >= number(argument),
        "maximum" => value <= number(argument),
        "exclusiveMinimum" => value > number(argument),
        _ => true,
    }
}

fn has_type(name: &str, value: &Json) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("unknown type {other}"),
    }
}

fn definition<'s>(root: &'s Json, reference: &Json) -> &'s Json {
    let pointer = text(reference)
        .strip_prefix('#')
        .expect("a place in the schema");
    root.pointer(pointer).expect("a definition")
}

fn text(json: &Json) -> &str {
    json.as_str().expect("a text")
}

fn array(json: &Json) -> &[Json] {
    json.as_array().expect("a list")
}

fn number(json: &Json) -> f64 {
    json.as_f64().expect("a number")
}

/// Whether a schema can see such a problem: those between values it cannot.
fn can_be_seen(problem: &Problem) -> bool {
    match problem.kind {
        ProblemKind::UnknownKey | ProblemKind::Type => true,
        ProblemKind::MissingKey => problem.message.starts_with("the key"),
        _ => false,
    }
}

/// Whether a schema cannot see such a problem.
fn cannot_be_seen(problem: &Problem) -> bool {
    matches!(
        problem.kind,
        ProblemKind::UnknownName
            | ProblemKind::Cycle
            | ProblemKind::Conflict
            | ProblemKind::EnvFile
            | ProblemKind::Secret
    )
}

#[test]
fn the_schema_agrees_with_every_fixture() {
    let schema = json_schema();
    let (mut good, mut bad) = (0, 0);
    for name in fixtures::names(".toml") {
        let spec =
            fs::read_to_string(fixtures::folder().join(format!("{name}.toml"))).expect("text");
        let Ok(value) = toml::from_str::<Json>(&spec) else {
            continue;
        };
        let admitted = admits(&schema, &schema, &value);
        match fixtures::load(&name, &spec) {
            Ok(_) => {
                assert!(admitted, "{name} loads, but the schema refuses it");
                good += 1;
            }
            Err(problems) if problems.iter().all(cannot_be_seen) => {
                assert!(
                    admitted,
                    "{name} is refused by the schema for what it should not see"
                );
                good += 1;
            }
            Err(problems) if problems.iter().any(can_be_seen) => {
                assert!(!admitted, "{name} is admitted by the schema\n{problems}");
                bad += 1;
            }
            Err(_) => {}
        }
    }
    assert!(
        good >= 20 && bad >= 20,
        "too few fixtures say something: {good} and {bad}"
    );
}

#[test]
fn the_schema_knows_the_formats() {
    let schema = json_schema();
    let limits = &schema["$defs"]["Limits"]["properties"];
    for (key, value, expected) in [
        ("memory", "64MiB", true),
        ("memory", "1.5GB", true),
        ("memory", "${MEMORY:-1MiB}", true),
        ("memory", "64", false),
        ("memory", "64 MiB", false),
        ("request_timeout", "1m30s", true),
        ("request_timeout", "30", false),
        ("request_timeout", "30s1m", false),
        ("cpu", "500m", true),
        ("cpu", "0.5", true),
        ("cpu", "half", false),
        ("queue", "${QUEUE}", true),
        ("queue", "3", false),
    ] {
        let admitted = admits(&schema, &limits[key], &Json::from(value));
        assert_eq!(admitted, expected, "{key} = {value:?}");
    }
}
