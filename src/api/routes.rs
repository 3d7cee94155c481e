//! All requests that the API answers: the one table that the router and its description are made
//! from.

use axum::{Json, http::Method};
use sampan_core::view;
use serde_json::Value;

use super::{
    apply, archive, artifacts, cluster, confided, kept, keyvalue, logs, observed, openapi, rollout,
    route::{Answer, Route, on},
    stop, top, wanted, watch,
};

const GET: Method = Method::GET;
const PATCH: Method = Method::PATCH;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

/// `GET /v1/openapi.json`
async fn document() -> Json<Value> {
    Json(openapi::describe(&all()))
}

/// All of them.
pub(super) fn all() -> Vec<Route> {
    let mut all = of_apps();
    all.extend(of_services());
    all.extend(of_what_is_wanted());
    all.extend(of_what_is_kept());
    all.extend(of_volumes());
    all.extend(of_what_runs());
    all.extend(of_the_node());
    all
}

/// Those that other nodes of the cluster may ask.
pub(super) fn for_peers() -> Vec<Route> {
    let mut routes = of_what_runs();
    routes.extend(of_what_is_kept());
    routes.extend(of_volumes());
    routes.push(on(GET, "/v1/nodes", observed::nodes).json::<Vec<view::Node>>("This node"));
    routes.push(on(GET, "/metrics", observed::metrics).gives(Answer::Text, "Metrics"));
    routes
}

fn of_apps() -> Vec<Route> {
    vec![
        on(GET, "/v1/apps", wanted::apps).json::<Vec<view::App>>("All apps"),
        on(GET, "/v1/apps/{app}", wanted::app).json::<view::App>("One app"),
        on(PUT, "/v1/apps/{app}", apply::put)
            .body::<view::Apply>()
            .json::<view::Plan>("Apply a spec: nothing is written unless all of it can run"),
        on(POST, "/v1/apps/{app}/plan", apply::plan)
            .body::<view::Apply>()
            .json::<view::Plan>("What applying a spec would change"),
        on(DELETE, "/v1/apps/{app}", apply::delete).json::<view::Plan>(
            "Delete an app with everything that belongs to it but what it keeps",
        ),
        on(Method::HEAD, "/v1/artifacts/{name}", artifacts::has).gives(
            Answer::Status(204),
            "Whether the component, static file or list of static files with this SHA-256 is there",
        ),
        on(PUT, "/v1/artifacts/{name}", artifacts::put)
            .unbounded()
            .gives(
                Answer::Status(201),
                "Upload the component, static file or list of static files with this SHA-256",
            ),
    ]
}

fn of_services() -> Vec<Route> {
    vec![
        on(GET, "/v1/services", wanted::services)
            .query(&["app", "service"])
            .json::<Vec<view::Service>>("All services"),
        on(GET, "/v1/apps/{app}/services/{service}", wanted::service)
            .json::<view::Service>("One service"),
        on(
            GET,
            "/v1/apps/{app}/services/{service}/revisions",
            wanted::service_revisions,
        )
        .json::<Vec<view::Revision>>("The revisions of a service that are kept, the oldest first"),
        on(
            PUT,
            "/v1/apps/{app}/services/{service}/scale",
            rollout::scale,
        )
        .body::<view::Scale>()
        .json::<view::Service>("Run another number of pods"),
        on(
            POST,
            "/v1/apps/{app}/services/{service}/restart",
            rollout::restart,
        )
        .json::<view::Service>("Replace all pods by others just like them"),
        on(
            POST,
            "/v1/apps/{app}/services/{service}/rollout/undo",
            rollout::undo,
        )
        .body::<view::Undo>()
        .json::<view::Service>("Go back to another revision"),
        on(
            POST,
            "/v1/apps/{app}/services/{service}/rollout/pause",
            rollout::pause,
        )
        .json::<view::Service>("Pause the rollout"),
        on(
            POST,
            "/v1/apps/{app}/services/{service}/rollout/resume",
            rollout::resume,
        )
        .json::<view::Service>("Go on with a paused rollout"),
    ]
}

fn of_what_is_wanted() -> Vec<Route> {
    vec![
        on(GET, "/v1/revisions", wanted::revisions)
            .query(&["app", "service"])
            .json::<Vec<view::Revision>>("All revisions that are kept"),
        on(GET, "/v1/jobs", wanted::jobs)
            .query(&["app", "service"])
            .json::<Vec<view::Job>>("All jobs"),
        on(
            POST,
            "/v1/apps/{app}/jobs/{job}/restart",
            rollout::run_again,
        )
        .json::<view::Job>("Run a job once more"),
        on(POST, "/v1/apps/{app}/jobs/{job}/run", rollout::run_now)
            .json::<view::Job>("Run a job now, beside what its schedule says"),
        on(GET, "/v1/secrets", confided::list)
            .query(&["app"])
            .json::<Vec<view::Secret>>("All secrets that something uses, without their values"),
        on(GET, "/v1/watch", watch::watch)
            .query(&["app"])
            .lines::<view::Watched>(
                "All services and jobs, then each change of one, until the client goes",
            ),
    ]
}

fn of_volumes() -> Vec<Route> {
    vec![
        on(GET, "/v1/volumes", kept::list)
            .query(&["app"])
            .json::<Vec<view::Volume>>("All volumes, those of apps that are gone too"),
        on(DELETE, "/v1/apps/{app}/volumes", kept::remove)
            .json::<Vec<String>>("Remove the volumes of an app that is gone, and tell their names"),
        on(
            GET,
            "/v1/apps/{app}/volumes/{volume}/archive",
            archive::export,
        )
        .gives(Answer::Bytes, "What is in a volume, as a tar archive"),
        on(
            PUT,
            "/v1/apps/{app}/volumes/{volume}/archive",
            archive::import,
        )
        .unbounded()
        .gives(
            Answer::Status(204),
            "Put what is in a tar archive in the place of what is in a volume",
        ),
    ]
}

fn of_what_is_kept() -> Vec<Route> {
    const VALUE: &str = "/v1/apps/{app}/stores/{store}/value";
    vec![
        on(GET, "/v1/apps/{app}/stores", keyvalue::stores)
            .json::<Vec<view::KeyValueStore>>("The key-value stores of an app"),
        on(DELETE, "/v1/apps/{app}/stores", keyvalue::remove).gives(
            Answer::Status(204),
            "Delete the key-value stores of an app that is gone",
        ),
        on(GET, "/v1/apps/{app}/stores/{store}/keys", keyvalue::keys)
            .query(&["after"])
            .json::<view::KeyValueKeys>("Keys of a store in their order, from `after` on"),
        on(GET, VALUE, keyvalue::get)
            .query(&["key"])
            .gives(Answer::Bytes, "The value of a key"),
        on(PUT, VALUE, keyvalue::put)
            .query(&["key"])
            .unbounded()
            .gives(Answer::Status(204), "Set a key to what the body has"),
        on(DELETE, VALUE, keyvalue::delete)
            .query(&["key"])
            .gives(Answer::Status(204), "Delete a key"),
    ]
}

fn of_what_runs() -> Vec<Route> {
    vec![
        on(GET, "/v1/pods", observed::pods)
            .query(&["app", "service"])
            .json::<Vec<view::Pod>>("All pods"),
        on(GET, "/v1/pods/{name}", observed::pod)
            .query(&["app", "service"])
            .json::<view::Pod>("One pod, and how its last instances ended"),
        on(GET, "/v1/top", top::top)
            .query(&["app", "service", "watch"])
            .either::<view::Top>("What services and pods are doing; with `watch` again after each measurement, one a line, until the client goes"),
        on(GET, "/v1/advice", top::advice)
            .query(&["app", "service"])
            .json::<Vec<view::Advice>>("Limits that would fit, from what was seen of each service"),
        on(GET, "/v1/events", observed::events)
            .query(&["after", "follow", "app"])
            .lines::<view::Event>("The events after number `after` that are kept; with `follow` also those to come"),
        on(GET, "/v1/logs", logs::lines)
            .query(&["app", "service", "pod", "follow", "tail", "since", "grep", "previous"])
            .lines::<view::LogLine>("Lines that pods have printed: the last `tail`, of the last `since` seconds, those that the regular expression `grep` matches, with `previous` those before each pod's last restart; with `follow` also those to come"),
        on(GET, "/v1/logs/pods", logs::pods)
            .query(&["app", "service"])
            .json::<Vec<view::LogPod>>("The pods of which lines are kept, those that are gone too"),
    ]
}

fn of_the_node() -> Vec<Route> {
    vec![
        on(GET, "/v1/nodes", observed::nodes).json::<Vec<view::Node>>("All nodes"),
        on(POST, "/v1/cluster/tokens", cluster::invite).json::<view::Invitation>(
            "Another token, with which a node can join the cluster, once",
        ),
        on(PATCH, "/v1/cluster/nodes/{name}", cluster::change)
            .body::<view::NodeChange>()
            .gives(
                Answer::Status(204),
                "Change whether a node of the cluster takes pods, and its labels",
            ),
        on(DELETE, "/v1/cluster/nodes/{name}", cluster::remove).gives(
            Answer::Status(204),
            "Take a node that does not run out of the cluster",
        ),
        on(GET, "/v1/version", observed::version)
            .json::<view::Version>("The version of what answers"),
        on(POST, "/v1/stop", stop::stop).gives(
            Answer::Status(204),
            "End a node that `up -d` has started, if it has no apps",
        ),
        on(GET, "/v1/openapi.json", document).json::<serde_json::Value>("This description"),
        on(GET, "/metrics", observed::metrics)
            .gives(Answer::Text, "Metrics in the text format of Prometheus"),
    ]
}
