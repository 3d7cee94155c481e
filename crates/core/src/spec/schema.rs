//! The JSON Schema of the spec, for editors.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value as Json, json};

use super::raw::{App, schema::variable_definition};

/// The JSON Schema of `sampan.toml`, draft 2020-12.
///
/// It describes what one value alone can tell: keys, types, ranges, words. What holds between
/// values is known to [`load`](super::load) only.
pub fn json_schema() -> Json {
    let mut schema = of::<App>("sampan.toml");
    // A secret has a usual place in the guest, and a directory has none.
    schema["$defs"]["Mount"]["anyOf"] = json!([
        { "required": ["guest"] },
        { "required": ["secret"] },
    ]);
    schema
}

/// The JSON Schema of a file whose top level is `T`.
pub(super) fn of<T: JsonSchema>(title: &str) -> Json {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    let (name, variable) = variable_definition();
    schema["title"] = json!(title);
    schema["$defs"][name] = variable;
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_closed_and_every_key_described() {
        let schema = json_schema();
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        let tables = schema["$defs"].as_object().expect("definitions");
        let tables = tables.values().filter(|table| table["type"] == "object");
        let tables: Vec<&Json> = tables.chain([&schema]).collect();
        assert_eq!(tables.len(), 14);
        for table in tables {
            assert_eq!(table["additionalProperties"], false);
            assert!(table["description"].is_string(), "{table}");
            for (name, key) in table["properties"].as_object().expect("keys") {
                assert!(
                    key["description"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty()),
                    "{name}"
                );
            }
        }
    }
}
