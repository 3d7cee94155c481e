//! A request that the API answers, as the router and its description need it.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    http::Method,
    routing::{self, MethodFilter, MethodRouter},
};
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
    /// Bytes of any sort.
    Bytes,
    /// Plain text.
    Text,
    /// The status alone.
    Status(u16),
}

/// A request: what is asked, and what handles it.
pub(super) struct Target {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What may be asked for in the query.
    pub(super) query: &'static [&'static str],
    /// What has to come with it.
    pub(super) body: Option<SchemaOf>,
    handler: MethodRouter<Api>,
    limit: DefaultBodyLimit,
}

/// A request and what it gets.
pub(super) struct Route {
    pub(super) target: Target,
    pub(super) summary: &'static str,
    pub(super) answer: Answer,
}

/// A request of this method at this path.
pub(super) fn on<H, T>(method: Method, path: &'static str, handler: H) -> Target
where
    H: Handler<T, Api>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).expect("one of HTTP's own methods");
    Target {
        method,
        path,
        query: &[],
        body: None,
        handler: routing::on(filter, handler),
        limit: DefaultBodyLimit::max(MAX_BODY_BYTES),
    }
}

impl Target {
    pub(super) fn query(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }

    pub(super) fn body<T: JsonSchema>(mut self) -> Self {
        self.body = Some(schema::<T>);
        self
    }

    /// Its handler bounds the body itself.
    pub(super) fn unbounded(mut self) -> Self {
        self.limit = DefaultBodyLimit::disable();
        self
    }

    pub(super) fn json<T: JsonSchema>(self, summary: &'static str) -> Route {
        self.gives(Answer::Json(schema::<T>), summary)
    }

    pub(super) fn lines<T: JsonSchema>(self, summary: &'static str) -> Route {
        self.gives(Answer::Lines(schema::<T>), summary)
    }

    pub(super) fn either<T: JsonSchema>(self, summary: &'static str) -> Route {
        self.gives(Answer::Either(schema::<T>), summary)
    }

    pub(super) fn gives(self, answer: Answer, summary: &'static str) -> Route {
        Route {
            target: self,
            summary,
            answer,
        }
    }

    /// As a part of the router.
    pub(super) fn added(self, router: Router<Api>) -> Router<Api> {
        router.route(self.path, self.handler.layer(self.limit))
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}
