//! Pieces of the JSON Schema that several tables and leaves share.

use schemars::{Schema, json_schema};
use serde_json::{Map, Value as Json, json};

/// The name under which the schema of a text with a variable stands in `$defs`.
const VARIABLE: &str = "Variable";

/// A reference to the schema of a text with a variable.
pub(crate) fn variable() -> Json {
    json!({ "$ref": format!("#/$defs/{VARIABLE}") })
}

/// What [`variable`] refers to: its name in `$defs`, and the schema.
pub(crate) fn variable_definition() -> (&'static str, Json) {
    let schema = json!({
        "type": "string",
        "pattern": "\\$\\{",
        "description": "A text with a variable, `${NAME}`, `${NAME:-default}` or `${NAME:?message}`.",
    });
    (VARIABLE, schema)
}

/// A value of the given schema, or a text with a variable, which may become one.
pub(crate) fn or_variable(schema: Schema) -> Schema {
    json_schema!({ "anyOf": [schema, variable()] })
}

/// A text of the given pattern, or one with a variable. The title says what it is.
pub(crate) fn text(title: &str, pattern: &str, examples: &[&str]) -> Schema {
    let mut schema = json_schema!({ "title": title, "type": "string", "pattern": pattern });
    if !examples.is_empty() {
        schema.insert("examples".to_owned(), examples.into());
    }
    or_variable(schema)
}

/// How a table treats a key that is not there.
pub(crate) enum Need {
    /// It is an error.
    Required,
    /// It is nothing.
    Optional,
    /// It has this default.
    Default(Json),
}

/// A key of a table.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) docs: String,
    pub(crate) need: Need,
    pub(crate) schema: Schema,
}

/// The schema of a table with these keys and no others.
pub(crate) fn table(docs: &str, keys: Vec<Key>) -> Schema {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for Key {
        name,
        docs,
        need,
        mut schema,
    } in keys
    {
        schema.insert("description".to_owned(), docs.into());
        match need {
            Need::Required => required.push(Json::from(name)),
            Need::Optional => {}
            Need::Default(default) => {
                schema.insert("default".to_owned(), default);
            }
        }
        properties.insert(name.to_owned(), schema.to_value());
    }
    let mut schema = json_schema!({
        "type": "object",
        "description": docs,
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema
}

/// The lines of a doc comment as running text: a blank line parts paragraphs.
pub(crate) fn docs(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines.iter().map(|line| line.trim()) {
        match line {
            "" => text.push_str("\n\n"),
            line => {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push(' ');
                }
                text.push_str(line);
            }
        }
    }
    text
}
