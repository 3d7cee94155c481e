//! All requests that the API answers: the one table that the router and its description are made
//! from.

use axum::{
    Json,
    extract::DefaultBodyLimit,
    routing::{self, MethodRouter},
};
use sampan_core::view;
use schemars::JsonSchema;
use serde_json::Value;

use super::{
    apply, artifacts, observed, openapi, rollout,
    route::{Answer, Route, schema},
    top, wanted, watch,
};

fn json<T: JsonSchema>() -> Answer {
    Answer::Json(schema::<T>)
}

fn lines<T: JsonSchema>() -> Answer {
    Answer::Lines(schema::<T>)
}

/// `GET /v1/openapi.json`
async fn document() -> Json<Value> {
    Json(openapi::describe(&all()))
}

/// All of them.
pub(super) fn all() -> Vec<Route> {
    let mut all = of_apps();
    all.extend(of_services());
    all.extend(of_what_is_wanted());
    all.extend(of_what_runs());
    all.extend(of_the_node());
    all
}

fn of_apps() -> Vec<Route> {
    vec![
        Route::new(
            ("GET", "/v1/apps"),
            "All apps",
            json::<Vec<view::App>>(),
            routing::get(wanted::apps),
        ),
        Route::new(
            ("GET", "/v1/apps/{app}"),
            "One app",
            json::<view::App>(),
            routing::get(wanted::app),
        ),
        Route::new(
            ("PUT", "/v1/apps/{app}"),
            "Apply a spec: nothing is written unless all of it can run",
            json::<view::Plan>(),
            routing::put(apply::put),
        )
        .body::<view::Apply>(),
        Route::new(
            ("POST", "/v1/apps/{app}/plan"),
            "What applying a spec would change",
            json::<view::Plan>(),
            routing::post(apply::plan),
        )
        .body::<view::Apply>(),
        Route::new(
            ("DELETE", "/v1/apps/{app}"),
            "Delete an app with everything that belongs to it",
            json::<view::Plan>(),
            routing::delete(apply::delete),
        ),
        Route::new(
            ("HEAD", "/v1/artifacts/{name}"),
            "Whether the component with this SHA-256 is there",
            Answer::Status(204),
            routing::head(artifacts::has),
        ),
        Route {
            handler: routing::put(artifacts::put).layer(DefaultBodyLimit::disable()),
            ..Route::new(
                ("PUT", "/v1/artifacts/{name}"),
                "Upload the component with this SHA-256",
                Answer::Status(201),
                MethodRouter::new(),
            )
        },
    ]
}

fn of_services() -> Vec<Route> {
    let service = || json::<view::Service>();
    vec![
        Route::new(
            ("GET", "/v1/services"),
            "All services",
            json::<Vec<view::Service>>(),
            routing::get(wanted::services),
        )
        .query(&["app", "service"]),
        Route::new(
            ("GET", "/v1/apps/{app}/services/{service}"),
            "One service",
            service(),
            routing::get(wanted::service),
        ),
        Route::new(
            ("GET", "/v1/apps/{app}/services/{service}/revisions"),
            "The revisions of a service that are kept, the oldest first",
            json::<Vec<view::Revision>>(),
            routing::get(wanted::service_revisions),
        ),
        Route::new(
            ("PUT", "/v1/apps/{app}/services/{service}/scale"),
            "Run another number of pods",
            service(),
            routing::put(rollout::scale),
        )
        .body::<view::Scale>(),
        Route::new(
            ("POST", "/v1/apps/{app}/services/{service}/restart"),
            "Replace all pods by others just like them",
            service(),
            routing::post(rollout::restart),
        ),
        Route::new(
            ("POST", "/v1/apps/{app}/services/{service}/rollout/undo"),
            "Go back to another revision",
            service(),
            routing::post(rollout::undo),
        )
        .body::<view::Undo>(),
        Route::new(
            ("POST", "/v1/apps/{app}/services/{service}/rollout/pause"),
            "Pause the rollout",
            service(),
            routing::post(rollout::pause),
        ),
        Route::new(
            ("POST", "/v1/apps/{app}/services/{service}/rollout/resume"),
            "Go on with a paused rollout",
            service(),
            routing::post(rollout::resume),
        ),
    ]
}

fn of_what_is_wanted() -> Vec<Route> {
    vec![
        Route::new(
            ("GET", "/v1/revisions"),
            "All revisions that are kept",
            json::<Vec<view::Revision>>(),
            routing::get(wanted::revisions),
        )
        .query(&["app", "service"]),
        Route::new(
            ("GET", "/v1/jobs"),
            "All jobs",
            json::<Vec<view::Job>>(),
            routing::get(wanted::jobs),
        )
        .query(&["app", "service"]),
        Route::new(
            ("POST", "/v1/apps/{app}/jobs/{job}/restart"),
            "Run a job once more",
            json::<view::Job>(),
            routing::post(rollout::run_again),
        ),
        Route::new(
            ("GET", "/v1/watch"),
            "All services and jobs, then each change of one, until the client goes",
            lines::<view::Watched>(),
            routing::get(watch::watch),
        )
        .query(&["app"]),
    ]
}

fn of_what_runs() -> Vec<Route> {
    vec![
        Route::new(
            ("GET", "/v1/pods"),
            "All pods",
            json::<Vec<view::Pod>>(),
            routing::get(observed::pods),
        )
        .query(&["app", "service"]),
        Route::new(
            ("GET", "/v1/pods/{name}"),
            "One pod, and how its last instances ended",
            json::<view::Pod>(),
            routing::get(observed::pod),
        )
        .query(&["app", "service"]),
        Route::new(
            ("GET", "/v1/top"),
            "What services and pods are doing; with `watch` again after each measurement, one a \
             line, until the client goes",
            Answer::Either(schema::<view::Top>),
            routing::get(top::top),
        )
        .query(&["app", "service", "watch"]),
        Route::new(
            ("GET", "/v1/advice"),
            "Limits that would fit, from what was seen of each service",
            json::<Vec<view::Advice>>(),
            routing::get(top::advice),
        )
        .query(&["app", "service"]),
        Route::new(
            ("GET", "/v1/events"),
            "The events after number `after` that are kept; with `follow` also those to come",
            lines::<view::Event>(),
            routing::get(observed::events),
        )
        .query(&["after", "follow", "app"]),
        Route::new(
            ("GET", "/v1/logs"),
            "Lines that pods have printed: the last `tail`, of the last `since` seconds; with \
             `follow` also those to come",
            lines::<view::LogLine>(),
            routing::get(observed::logs),
        )
        .query(&["app", "service", "pod", "follow", "tail", "since"]),
    ]
}

fn of_the_node() -> Vec<Route> {
    vec![
        Route::new(
            ("GET", "/v1/nodes"),
            "All nodes",
            json::<Vec<view::Node>>(),
            routing::get(observed::nodes),
        ),
        Route::new(
            ("GET", "/v1/version"),
            "The version of what answers",
            json::<view::Version>(),
            routing::get(observed::version),
        ),
        Route::new(
            ("GET", "/v1/openapi.json"),
            "This description",
            json::<serde_json::Value>(),
            routing::get(document),
        ),
        Route::new(
            ("GET", "/metrics"),
            "Metrics in the text format of Prometheus",
            Answer::Text,
            routing::get(observed::metrics),
        ),
    ]
}
