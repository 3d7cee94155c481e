//! That an answer may be old: the store is away, and what is shown was known before.

use std::time::SystemTime;

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use sampan_store::EtcdReach;

use super::state::Shared;

/// Since when the store is away, in milliseconds since the beginning of 1970.
const STALE_SINCE: HeaderName = HeaderName::from_static("sampan-stale-since");

/// Marks answers that were given while the store was away.
pub(super) async fn mark(State(api): Shared, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let lost = api
        .0
        .reach
        .as_ref()
        .and_then(|reach| match &*reach.borrow() {
            EtcdReach::Answers => None,
            EtcdReach::Lost { since, .. } => Some(*since),
        });
    if let Some(since) = lost {
        let since = since.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default().as_millis();
        let since = HeaderValue::try_from(since.to_string()).expect("digits");
        response.headers_mut().insert(STALE_SINCE, since);
    }
    response
}
