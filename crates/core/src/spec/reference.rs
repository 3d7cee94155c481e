//! The reference of the spec for users, in Markdown, made from its JSON Schema.

use serde_json::Value as Json;

use super::{
    json_schema, node,
    raw::{self, schema::variable},
};

/// A table of the reference.
struct Section {
    /// Name of the table in the JSON Schema.
    name: &'static str,
    heading: &'static str,
    /// Its keys, in the order to show them in.
    keys: &'static [&'static str],
}

const SECTIONS: [Section; 10] = [
    Section {
        name: "App",
        heading: "Top level",
        keys: raw::App::KEYS,
    },
    Section {
        name: "Service",
        heading: "`[service.NAME]`",
        keys: raw::Service::KEYS,
    },
    Section {
        name: "Job",
        heading: "`[job.NAME]`",
        keys: raw::Job::KEYS,
    },
    Section {
        name: "Allow",
        heading: "`[service.NAME.allow]` and `[job.NAME.allow]`",
        keys: raw::Allow::KEYS,
    },
    Section {
        name: "Mount",
        heading: "An entry of `allow.files`",
        keys: raw::Mount::KEYS,
    },
    Section {
        name: "Limits",
        heading: "`[service.NAME.limits]` and `[job.NAME.limits]`",
        keys: raw::Limits::KEYS,
    },
    Section {
        name: "Probe",
        heading: "`[service.NAME.startup]`, `[service.NAME.readiness]` and `[service.NAME.liveness]`",
        keys: raw::Probe::KEYS,
    },
    Section {
        name: "Restart",
        heading: "`[service.NAME.restart]`",
        keys: raw::Restart::KEYS,
    },
    Section {
        name: "Rollout",
        heading: "`[service.NAME.rollout]`",
        keys: raw::Rollout::KEYS,
    },
    Section {
        name: "Autoscale",
        heading: "`[service.NAME.autoscale]`",
        keys: raw::Autoscale::KEYS,
    },
];

const NODE_SECTIONS: [Section; 5] = [
    Section {
        name: "Gateway",
        heading: "`[gateway]`",
        keys: raw::node::Gateway::KEYS,
    },
    Section {
        name: "Guest",
        heading: "`[guest]`",
        keys: raw::node::Guest::KEYS,
    },
    Section {
        name: "Compile",
        heading: "`[compile]`",
        keys: raw::node::Compile::KEYS,
    },
    Section {
        name: "Quota",
        heading: "`[quota]`",
        keys: raw::node::Quota::KEYS,
    },
    Section {
        name: "AppQuota",
        heading: "`[quota.app]`",
        keys: raw::node::AppQuota::KEYS,
    },
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
    for section in sections {
        let table = match section.name {
            "App" => schema,
            name => &schema["$defs"][name],
        };
        text.push_str(&format!("\n## {}\n\n", section.heading));
        text.push_str(text_of(&table["description"]));
        text.push_str("\n\n| key | type | default | meaning |\n|---|---|---|---|\n");
        for key in section.keys {
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
