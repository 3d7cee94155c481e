//! As much of JSON Schema as the schema of reports uses.

use serde_json::{Map, Value};

use super::{done, out};

/// Panics with the places at which a report is not as `sampan schema --bench` says.
pub(super) fn check(report: &Value) {
    let schema: Value = serde_json::from_str(&out(&done(&["schema", "--bench"]))).expect("JSON");
    let wrong = problems(&schema, &schema, report, "$");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Words that say nothing about what is valid, or what `serde` has looked at.
const SILENT: [&str; 6] = [
    "$schema",
    "$defs",
    "title",
    "description",
    "format",
    "default",
];

fn problems(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = match schema {
        Value::Bool(true) => return Vec::new(),
        Value::Object(schema) => schema,
        other => panic!("no schema: {other}"),
    };
    let mut wrong = Vec::new();
    let mut fail = |what: &str| wrong.push(format!("{at}: {what}: {value}"));
    let fits = |schema: &Value| problems(root, schema, value, at).is_empty();
    let mut inner = Vec::new();
    for (word, wanted) in schema {
        match word.as_str() {
            word if SILENT.contains(&word) => {}
            "$ref" => {
                let name = wanted.as_str().and_then(|it| it.strip_prefix("#/$defs/"));
                let named = &root["$defs"][name.expect("a definition")];
                inner.extend(problems(root, named, value, at));
            }
            "type" if !is_of(wanted, value) => fail(&format!("not of type {wanted}")),
            "type" => {}
            "const" if wanted != value => fail(&format!("not {wanted}")),
            "const" => {}
            "enum" => {
                if !wanted.as_array().expect("a list").contains(value) {
                    fail(&format!("not one of {wanted}"));
                }
            }
            "oneOf" | "anyOf" => {
                let count = wanted
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter(|it| fits(it));
                let count = count.count();
                if count == 0 || (word == "oneOf" && count > 1) {
                    fail(&format!("fits {count} of {wanted}"));
                }
            }
            "minimum" | "minItems" | "maxItems" => {
                if !is_within(word, wanted, value) {
                    fail(&format!("{word} is {wanted}"));
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    inner.extend(problems(root, wanted, item, &format!("{at}[{index}]")));
                }
            }
            "required" | "additionalProperties" => {
                for what in fields(schema, word, value) {
                    fail(&what);
                }
            }
            "properties" => {
                for (name, wanted) in wanted.as_object().expect("a table") {
                    if let Some(value) = value.get(name) {
                        inner.extend(problems(root, wanted, value, &format!("{at}.{name}")));
                    }
                }
            }
            other => panic!("`{other}` is not looked at"),
        }
    }
    wrong.extend(inner);
    wrong
}

/// Whether a number or a length is within a bound.
fn is_within(word: &str, wanted: &Value, value: &Value) -> bool {
    let count = value.as_array().map(Vec::len);
    let wanted_count = wanted.as_u64().and_then(|it| usize::try_from(it).ok());
    match word {
        "minimum" => value.as_f64().is_none_or(|it| Some(it) >= wanted.as_f64()),
        "minItems" => count.is_none_or(|it| Some(it) >= wanted_count),
        _ => count.is_none_or(|it| Some(it) <= wanted_count),
    }
}

/// What is wrong with the names of an object's fields.
fn fields(schema: &Map<String, Value>, word: &str, value: &Value) -> Vec<String> {
    let Some(object) = value.as_object() else {
        return Vec::new();
    };
    if word == "required" {
        let wanted = schema[word].as_array().expect("a list").iter();
        let names = wanted.map(|it| it.as_str().expect("a name"));
        let missing = names.filter(|it| !object.contains_key(*it));
        return missing.map(|it| format!("without `{it}`")).collect();
    }
    assert_eq!(schema[word], false, "nothing else is used");
    let known = schema["properties"].as_object().expect("a table");
    let more = object.keys().filter(|it| !known.contains_key(*it));
    more.map(|it| format!("with `{it}`")).collect()
}

fn is_of(wanted: &Value, value: &Value) -> bool {
    if let Some(any) = wanted.as_array() {
        return any.iter().any(|wanted| is_of(wanted, value));
    }
    match wanted.as_str().expect("a type") {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("`{other}` is no type"),
    }
}

/// `sampan schema --bench > docs/bench.schema.json` writes it.
#[test]
fn the_documented_schema_is_that_of_the_program() {
    let file = crate::rig::repository("docs/bench.schema.json");
    let documented = std::fs::read_to_string(file).expect("a file");
    assert_eq!(documented, out(&done(&["schema", "--bench"])));
}

#[test]
fn what_does_not_fit_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "a": { "type": ["integer", "null"] }, "b": { "enum": ["x"] } },
        "required": ["a"],
        "additionalProperties": false,
    });
    let count = |value: Value| problems(&schema, &schema, &value, "$").len();
    assert_eq!(count(serde_json::json!({ "a": 1, "b": "x" })), 0);
    assert_eq!(count(serde_json::json!({ "a": "1", "b": "y", "c": 2 })), 3);
    assert_eq!(count(serde_json::json!({ "b": "x" })), 1);
    assert_eq!(count(serde_json::json!([])), 1);
}
