//! What runs, as the node says: pods, events, metrics.

use axum::{Json, extract::State, response::Response};
use sampan_core::{
    record::{self, Kind},
    view,
};
use serde::Deserialize;

use super::{
    Api, Shared,
    body::{Asked, NamePath},
    error::{ApiError, Code},
    follow, objects,
    wanted::Of,
};
use crate::events::Events;

/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn is(asked: Option<&String>, name: &str) -> bool {
    asked.is_none_or(|asked| asked == name)
}

/// The pods of the store: those that should be there, and those that are not gone yet.
async fn wanted(api: &Api, of: &Of) -> Result<Vec<record::Pod>, ApiError> {
    // What is no name is the name of no app.
    let Ok(app) = of.app() else {
        return Ok(Vec::new());
    };
    let prefix = objects::prefix(Kind::Pod, app.as_ref());
    let found = objects::list::<record::Pod>(&*api.0.store, &prefix).await?;
    let pods = found.into_iter().map(|(_, pod, _)| pod);
    Ok(pods.filter(|pod| of.is(&pod.service)).collect())
}

/// `GET /v1/pods`
pub(super) async fn pods(State(api): Shared, Asked(of): Asked<Of>) -> Result<Response, ApiError> {
    let shown = |wanted: &Vec<_>| -> Vec<_> {
        let pods = wanted.iter();
        pods.map(|pod| api.0.views.pod(pod)).collect()
    };
    api.list(wanted(&api, &of), shown).await
}

/// `GET /v1/pods/{name}`
pub(super) async fn pod(
    State(api): Shared,
    NamePath(name): NamePath,
    Asked(of): Asked<Of>,
) -> Result<Json<view::Pod>, ApiError> {
    let turn = api.0.lists.turn().await?;
    let mut pods = wanted(&api, &of).await?;
    drop(turn);
    let known: Vec<_> = pods.iter().map(|pod| pod.name().to_string()).collect();
    pods.retain(|pod| pod.name().as_str() == name);
    match pods.len() {
        0 => Err(ApiError::absent("pod", &name, &known)),
        1 => Ok(Json(api.0.views.explained(pods.remove(0)).await)),
        _ => {
            let apps: Vec<_> = pods.iter().map(|pod| pod.service.app.to_string()).collect();
            let quoted: Vec<_> = apps.iter().map(|app| format!("`{app}`")).collect();
            let message = format!("there is a pod `{name}` in each of {}", quoted.join(", "));
            Err(ApiError::new(Code::Ambiguous, message)
                .hint("`app` says which")
                .details(apps))
        }
    }
}

/// `GET /v1/nodes`
pub(super) async fn nodes(State(api): Shared) -> Json<Vec<view::Node>> {
    Json(vec![api.0.views.node()])
}

/// `GET /v1/version`
pub(super) async fn version() -> Json<view::Version> {
    Json(view::Version {
        sampan: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): Shared) -> Result<Response, ApiError> {
    api.answer(METRICS, || api.0.views.metrics().into()).await
}

/// Which events.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichEvents {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
    app: Option<String>,
}

/// `GET /v1/events`
pub(super) async fn events(
    State(api): Shared,
    Asked(which): Asked<WhichEvents>,
) -> Result<Response, ApiError> {
    let text = {
        let app = which.app.clone();
        move |Events { mut events, .. }: Events| {
            events.retain(|event| is(app.as_ref(), event.subject.app().as_str()));
            let events = events.iter().map(|event| &**event);
            follow::lines(&events.collect::<Vec<_>>())
        }
    };
    let last = |events: &Events, after| events.events.last().map_or(after, |event| event.seq);
    let gather = || {
        let first = api.0.views.events(which.after);
        (last(&first, which.after), text(first))
    };
    let (seen, first) = api.0.lists.run(gather).await?;
    if !which.follow {
        return api.whole(follow::JSON_LINES, first);
    }
    let place = api.follower()?;
    let more = futures::stream::unfold((api, seen, text), move |(api, seen, text)| async move {
        let events = api.0.views.next_events(seen).await;
        let seen = last(&events, seen);
        Some((text(events), (api, seen, text)))
    });
    Ok(follow::forever(place, first, more))
}
