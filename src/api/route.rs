//! A request that the API answers, as the router and its description need it.

use axum::{extract::DefaultBodyLimit, routing::MethodRouter};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{Api, MAX_BODY_BYTES};

/// Makes the schema of a body.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a request gets.
pub(super) enum Answer {
    /// A JSON document.
    Json(SchemaOf),
    /// A JSON object a line.
    Lines(SchemaOf),
    /// A JSON document, or one a line if that is asked for.
    Either(SchemaOf),
    /// Plain text.
    Text,
    /// The status alone.
    Status(u16),
}

/// A request.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// What may be asked for in the query.
    pub(super) query: &'static [&'static str],
    /// What has to come with it.
    pub(super) body: Option<SchemaOf>,
    pub(super) answer: Answer,
    pub(super) handler: MethodRouter<Api>,
}

impl Route {
    pub(super) fn new(
        (method, path): (&'static str, &'static str),
        summary: &'static str,
        answer: Answer,
        handler: MethodRouter<Api>,
    ) -> Self {
        Self {
            method,
            path,
            summary,
            query: &[],
            body: None,
            answer,
            handler: handler.layer(DefaultBodyLimit::max(MAX_BODY_BYTES)),
        }
    }

    pub(super) fn query(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }

    pub(super) fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(schema::<T>);
        self
    }
}

pub(super) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
