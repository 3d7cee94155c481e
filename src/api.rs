//! The API: HTTP and JSON on a Unix socket of this user.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/pods` | all pods |
//! | `GET /v1/pods/NAME` | one pod |
//! | `GET /v1/events?after=N` | the events after number `N` that are kept, one JSON object a line |
//! | `GET /v1/events?after=N&follow=true` | the same, and those to come |

mod error;
mod socket;

use std::{convert::Infallible, pin::Pin, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};
use sampan_core::view;
use serde::Deserialize;

pub(crate) use socket::{BindError, Socket};

use error::ApiError;

/// The type of a stream of JSON objects, one a line.
const JSON_LINES: &str = "application/jsonl";

/// Events as they are sent, and the number of the last of them.
pub(crate) struct Batch {
    pub(crate) lines: Vec<serde_json::Value>,
    pub(crate) last: u64,
}

/// A batch, when there is one.
pub(crate) type NextBatch = Pin<Box<dyn Future<Output = Batch> + Send>>;

/// A pod, if there is one of that name.
pub(crate) type OnePod = Pin<Box<dyn Future<Output = Option<view::Pod>> + Send>>;

/// What the API shows.
pub(crate) trait Views: Send + Sync + 'static {
    /// All pods, in the order of their names.
    fn pods(&self) -> Vec<view::Pod>;

    /// One pod, with source lines in what is said about its instances. To find them may take a
    /// while.
    fn pod(&self, name: &str) -> OnePod;

    /// The events after the one with this number.
    fn events(&self, after: u64) -> Batch;

    /// Like [`Self::events`], and waits until there is one.
    fn next_events(&self, after: u64) -> NextBatch;
}

type Shared = State<Arc<dyn Views>>;

/// Answers requests on the socket, until this is dropped.
pub(crate) async fn serve(socket: Socket, views: Arc<dyn Views>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/v1/pods", get(pods))
        .route("/v1/pods/{name}", get(pod))
        .route("/v1/events", get(events))
        .fallback(async || ApiError::NotFound("there is no such path".to_owned()))
        .with_state(views);
    axum::serve(socket.listener()?, router).await
}

async fn pods(State(views): Shared) -> Json<Vec<view::Pod>> {
    Json(views.pods())
}

async fn pod(State(views): Shared, Path(name): Path<String>) -> Result<Json<view::Pod>, ApiError> {
    if let Some(pod) = views.pod(&name).await {
        return Ok(Json(pod));
    }
    let pods = views.pods();
    let known: Vec<_> = pods.iter().map(|pod| format!("`{}`", pod.name)).collect();
    let known = match &known[..] {
        [] => "there are none".to_owned(),
        names => format!("there are {}", names.join(", ")),
    };
    let missing = format!("there is no pod `{name}`; {known}");
    Err(ApiError::NotFound(missing))
}

/// Which events.
#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

async fn events(State(views): Shared, Query(which): Query<Which>) -> Response {
    let lines = |batch: &Batch| -> Bytes {
        let lines = batch.lines.iter().map(|line| format!("{line}\n"));
        lines.collect::<String>().into()
    };
    let first = views.events(which.after);
    let text = lines(&first);
    if !which.follow {
        return ([(CONTENT_TYPE, JSON_LINES)], text).into_response();
    }
    let more = futures::stream::unfold((views, first.last), move |(views, last)| async move {
        let batch = views.next_events(last).await;
        Some((lines(&batch), (views, batch.last)))
    });
    let all = futures::StreamExt::chain(futures::stream::iter([text]), more);
    let body = Body::from_stream(futures::StreamExt::map(all, Ok::<_, Infallible>));
    ([(CONTENT_TYPE, JSON_LINES)], body).into_response()
}
