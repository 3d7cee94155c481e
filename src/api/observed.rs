//! What runs, as the node says: pods, events, metrics.

use axum::{Json, extract::State, http::Uri, response::Response};
use futures::StreamExt as _;
use sampan_core::{
    record::{self, Kind},
    view,
};
use serde::Deserialize;

use super::{
    Api, Shared,
    body::{Asked, NamePath},
    error::{ApiError, Code},
    everywhere::{self, Everywhere},
    follow, merged, objects,
    wanted::Of,
};
use crate::events::{Event, Events};

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
pub(super) async fn pods(
    State(api): Shared,
    asked: Uri,
    Asked(of): Asked<Of>,
) -> Result<Response, ApiError> {
    let mut others = api.everywhere(&asked).await;
    let said = others.documents::<Vec<view::Pod>>();
    let own = api.0.views.node().name;
    let shown = |wanted: &Vec<_>| -> Vec<_> {
        let pods = wanted.iter();
        let shown = |pod| {
            let elsewhere = others.pod(pod, &own, &said);
            elsewhere.unwrap_or_else(|| api.0.views.pod(pod))
        };
        pods.map(shown).collect()
    };
    Ok(others.noted(api.list(wanted(&api, &of), shown).await?))
}

/// `GET /v1/pods/{name}`
pub(super) async fn pod(
    State(api): Shared,
    NamePath(name): NamePath,
    asked: Uri,
    Asked(of): Asked<Of>,
) -> Result<Json<view::Pod>, ApiError> {
    let turn = api.0.lists.turn().await?;
    let mut pods = wanted(&api, &of).await?;
    drop(turn);
    let known: Vec<_> = pods.iter().map(|pod| pod.name().to_string()).collect();
    pods.retain(|pod| pod.name().as_str() == name);
    match pods.len() {
        0 => Err(ApiError::absent("pod", &name, &known)),
        1 => {
            let pod = pods.remove(0);
            let mut others = Everywhere::default();
            let own = api.0.views.node().name;
            if pod.node.as_ref().is_some_and(|node| node.as_str() != own) {
                others = api.everywhere(&asked).await;
            }
            let said = others.documents::<view::Pod>().into_iter();
            let said: Vec<_> = said.map(|(node, pod)| (node, vec![pod])).collect();
            Ok(Json(match others.pod(&pod, &own, &said) {
                Some(pod) => pod,
                None => api.0.views.explained(pod).await,
            }))
        }
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
    let own = api.0.views.node();
    Json(match &api.0.cluster {
        Some(cluster) => cluster.nodes(own).await,
        None => vec![own],
    })
}

/// `GET /v1/version`
pub(super) async fn version() -> Json<view::Version> {
    Json(view::Version {
        sampan: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// `GET /metrics`
pub(super) async fn metrics(State(api): Shared, asked: Uri) -> Result<Response, ApiError> {
    let others = api.everywhere(&asked).await;
    let text = || {
        let own = api.0.views.metrics();
        if api.0.cluster.is_none() {
            return own.into();
        }
        let name = api.0.views.node().name;
        let texts = others.texts();
        let texts = texts.map(|(node, text)| (node.as_str(), String::from_utf8_lossy(text)));
        let own = [(name.as_str(), own.into())].into_iter();
        merged::merged(own.chain(texts)).into()
    };
    Ok(others.noted(api.answer(METRICS, text).await?))
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
    asked: Uri,
    Asked(which): Asked<WhichEvents>,
) -> Result<Response, ApiError> {
    // Each node counts its own events, so a number means nothing to another one.
    if api.0.cluster.is_some() && which.after == 0 && !which.follow {
        return events_of_all(&api, &asked, &which).await;
    }
    let text = {
        let (app, node) = (which.app.clone(), api.0.views.node());
        let node = node.address.map(|_| node.name);
        move |Events { mut events, .. }: Events| {
            events.retain(|event| is(app.as_ref(), event.subject.app().as_str()));
            let events = events.iter().map(|event| &**event);
            match &node {
                None => follow::lines(&events.collect::<Vec<_>>()),
                Some(node) => follow::lines(&of_node(events, node)),
            }
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
    let (theirs, others) = match which.after {
        0 => api.following(&asked).await,
        _ => (futures::stream::pending().boxed(), Everywhere::default()),
    };
    let more = futures::stream::unfold((api, seen, text), move |(api, seen, text)| async move {
        let events = api.0.views.next_events(seen).await;
        let seen = last(&events, seen);
        Some((text(events), (api, seen, text)))
    });
    let more = futures::stream::select(more, theirs);
    Ok(others.noted(follow::forever(place, first, more)))
}

/// Events as those of this node of a cluster.
fn of_node<'a>(events: impl Iterator<Item = &'a Event>, node: &str) -> Vec<view::Event> {
    // As a client reads them: what is said of an event is written in one place.
    let lines = follow::lines(&events.collect::<Vec<_>>());
    let lines = lines.split(|&byte| byte == b'\n');
    let events = lines.filter_map(|line| serde_json::from_slice::<view::Event>(line).ok());
    let here = |event| view::Event {
        node: Some(node.to_owned()),
        ..event
    };
    events.map(here).collect()
}

/// The events of all nodes by their time.
async fn events_of_all(api: &Api, asked: &Uri, which: &WhichEvents) -> Result<Response, ApiError> {
    let mut others = api.everywhere(asked).await;
    let theirs = others.lines::<view::Event>();
    let name = api.0.views.node().name;
    let text = || {
        let own = api.0.views.events(0).events;
        let own = of_node(own.iter().map(|it| &**it), &name).into_iter();
        let theirs = theirs.into_iter().map(|(node, event)| view::Event {
            node: Some(node.to_string()),
            ..event
        });
        let mut all: Vec<_> = own.chain(theirs).collect();
        all.retain(|event| is(which.app.as_ref(), &event.app));
        everywhere::by_time(all, |event| &event.time, None)
    };
    Ok(others.noted(api.answer(follow::JSON_LINES, text).await?))
}
