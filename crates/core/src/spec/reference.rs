//! The reference of the spec for users, in Markdown, made from its JSON Schema.

use serde_json::Value as Json;

use super::{
    json_schema, node,
    raw::{self, schema::variable},
};

/// A table of the reference: its name in the JSON Schema, its heading, and its keys in the order to
/// show them in.
type Section = (&'static str, &'static str, &'static [&'static str]);

const SECTIONS: [Section; 14] = [
    ("App", "Top level", raw::App::KEYS),
    ("Service", "`[service.NAME]`", raw::Service::KEYS),
    ("Job", "`[job.NAME]`", raw::Job::KEYS),
    (
        "Allow",
        "`[service.NAME.allow]` and `[job.NAME.allow]`",
        raw::Allow::KEYS,
    ),
    ("Volume", "`[volume.NAME]`", raw::Volume::KEYS),
    ("Secret", "`[secret.NAME]`", raw::Secret::KEYS),
    (
        "SecretVariable",
        "A value of `env` that is a secret",
        raw::SecretVariable::KEYS,
    ),
    ("Mount", "An entry of `allow.files`", raw::Mount::KEYS),
    (
        "Limits",
        "`[service.NAME.limits]` and `[job.NAME.limits]`",
        raw::Limits::KEYS,
    ),
    (
        "Probe",
        "`[service.NAME.startup]`, `[service.NAME.readiness]` and `[service.NAME.liveness]`",
        raw::Probe::KEYS,
    ),
    ("Restart", "`[service.NAME.restart]`", raw::Restart::KEYS),
    ("Rollout", "`[service.NAME.rollout]`", raw::Rollout::KEYS),
    (
        "Autoscale",
        "`[service.NAME.autoscale]`",
        raw::Autoscale::KEYS,
    ),
    (
        "Placement",
        "`[service.NAME.placement]`",
        raw::Placement::KEYS,
    ),
];

const NODE_SECTIONS: [Section; 7] = [
    ("Gateway", "`[gateway]`", raw::node::Gateway::KEYS),
    ("Guest", "`[guest]`", raw::node::Guest::KEYS),
    ("Compile", "`[compile]`", raw::node::Compile::KEYS),
    ("KeyValue", "`[keyvalue]`", raw::node::KeyValue::KEYS),
    ("Logs", "`[logs]`", raw::node::Logs::KEYS),
    ("Quota", "`[quota]`", raw::node::Quota::KEYS),
    ("AppQuota", "`[quota.app]`", raw::node::AppQuota::KEYS),
];

/// The reference of `sampan.toml`, in Markdown: every key with its type, default and meaning.
pub fn reference() -> String {
    write(include_str!("reference.md"), &json_schema(), &SECTIONS)
}

/// The reference of a node's configuration, and of the limits that cannot be configured.
pub fn node_reference() -> String {
    let text = include_str!("node.md");
    write(text, &node::json_schema(), &NODE_SECTIONS)
}

/// What comes before the tables, and the tables.
fn write(text: &str, schema: &Json, sections: &[Section]) -> String {
    let mut text = text.to_owned();
    for (name, heading, keys) in sections {
        let table = match *name {
            "App" => schema,
            name => &schema["$defs"][name],
        };
        text.push_str(&format!("\n## {heading}\n\n"));
        text.push_str(text_of(&table["description"]));
        text.push_str("\n\n| key | type | default | meaning |\n|---|---|---|---|\n");
        for key in *keys {
            text.push_str(&row(table, key));
        }
    }
    text
}

fn row(table: &Json, key: &str) -> String {
    let schema = &table["properties"][key];
    let required = table["required"]
        .as_array()
        .is_some_and(|keys| keys.iter().any(|k| k == key));
    let default = match &schema["default"] {
        Json::Null if required => "required".to_owned(),
        Json::Null => String::new(),
        default => format!("`{default}`"),
    };
    let meaning = text_of(&schema["description"]).replace("\n\n", "<br>");
    let cells = [format!("`{key}`"), kind(schema), default, meaning];
    format!(
        "| {} |\n",
        cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
    )
}

fn text_of(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

/// What a schema admits, in words.
fn kind(schema: &Json) -> String {
    if let Some(schemas) = schema["anyOf"].as_array() {
        let kinds: Vec<String> = schemas
            .iter()
            .filter(|schema| **schema != variable())
            .map(kind)
            .collect();
        return kinds.join(", or ");
    }
    if let Some(words) = schema["oneOf"].as_array() {
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("`{}`", word["const"]))
            .collect();
        return words.join(", ");
    }
    if schema["$ref"].is_string() {
        return "table".to_owned();
    }
    if let Some(title) = schema["title"].as_str() {
        return title.to_owned();
    }
    match text_of(&schema["type"]) {
        "array" => format!("list: {}", kind(&schema["items"])),
        "object" => match kind(&schema["additionalProperties"]).as_str() {
            "table" => "tables by name".to_owned(),
            values => format!("table: {values}"),
        },
        "string" => "text".to_owned(),
        "integer" => format!("integer, {} to {}", schema["minimum"], schema["maximum"]),
        "number" => format!("number above {}", schema["exclusiveMinimum"]),
        other => other.to_owned(),
    }
}
