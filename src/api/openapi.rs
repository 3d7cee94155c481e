//! The description of the API, made from the table of its requests.
//!
//! OpenAPI 3.1 has the schemas of JSON Schema 2020-12, which the views have already.

use sampan_core::view;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::route::{Answer, Route, SchemaOf};

/// The document that describes these requests.
pub(super) fn describe(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12();
    let settings = settings.with(|it| it.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes {
        let described = operation(route, &mut generator);
        let path = paths.entry(route.target.path);
        let method = route.target.method.as_str().to_ascii_lowercase();
        path.or_insert_with(|| json!({}))[method] = described;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Sampan", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        // The socket needs none.
        "security": [{}, { "token": [] }],
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let target = &route.target;
    let in_path = target.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        Some(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        )
    });
    let in_query = target
        .query
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }));
    let parameters: Vec<_> = in_path.chain(in_query).collect();
    let content = |kind: &str, schema: Value| json!({ kind: { "schema": schema } });
    let mut of = |kind: &str, schema: &SchemaOf| content(kind, schema(generator).to_value());
    let (status, answer) = match &route.answer {
        Answer::Json(schema) => (200, of("application/json", schema)),
        Answer::Lines(schema) => (200, of("application/jsonl", schema)),
        Answer::Either(schema) => {
            let mut kinds = of("application/json", schema);
            kinds["application/jsonl"] = kinds["application/json"].clone();
            (200, kinds)
        }
        Answer::Bytes => {
            let kind = "application/octet-stream";
            (
                200,
                content(kind, json!({ "type": "string", "format": "binary" })),
            )
        }
        Answer::Text => (200, content("text/plain", json!({ "type": "string" }))),
        Answer::Status(status) => (*status, json!({})),
    };
    let error = generator.subschema_for::<view::Error>().to_value();
    let mut described = json!({
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            status.to_string(): { "description": "done", "content": answer },
            "default": {
                "description": "not done, and why",
                "content": content("application/json", error),
            },
        },
    });
    if let Some(schema) = target.body {
        described["requestBody"] =
            json!({ "content": content("application/json", schema(generator).to_value()) });
    }
    described
}
