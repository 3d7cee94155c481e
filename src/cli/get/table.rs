//! Objects as tables for people.

use std::time::Duration;

use comfy_table::{Table, presets};
use sampan_core::view;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kind::Kind;
use crate::cli::output::{one_line, size, time};

/// Characters of a digest or hash that people tell them apart by.
const DIGEST_CHARACTERS: usize = 12;

/// The CPU time that a pod has used. What is no time, from another version, counts as none.
pub(in crate::cli) fn cpu(usage: &view::Usage) -> Duration {
    Duration::try_from_secs_f64(usage.cpu_ms / 1e3).unwrap_or_default()
}

/// The objects of a kind as a table.
pub(in crate::cli) fn of(kind: Kind, objects: &[Value], head: bool) -> anyhow::Result<String> {
    Ok(match kind {
        Kind::Apps => table(head, APP, &typed(objects)?, app),
        Kind::Services => table(head, SERVICE, &typed(objects)?, service),
        Kind::Pods => table(head, POD, &typed(objects)?, pod),
        Kind::Revisions => table(head, REVISION, &typed(objects)?, revision),
        Kind::Jobs => table(head, JOB, &typed(objects)?, job),
        Kind::Nodes => table(head, NODE, &typed(objects)?, node),
        Kind::Events => table(head, EVENT, &typed(objects)?, event),
    })
}

/// Revisions as a table.
pub(in crate::cli) fn revisions(revisions: &[view::Revision]) -> String {
    table(true, REVISION, revisions, revision)
}

/// Pods as a table.
pub(in crate::cli) fn pods(pods: &[view::Pod]) -> String {
    table(true, POD, pods, pod)
}

/// Events as a table.
pub(in crate::cli) fn events(events: &[view::Event]) -> String {
    table(false, EVENT, events, event)
}

fn typed<T: DeserializeOwned>(objects: &[Value]) -> serde_json::Result<Vec<T>> {
    let typed = objects.iter().map(|it| serde_json::from_value(it.clone()));
    typed.collect()
}

fn table<T, const N: usize>(
    head: bool,
    columns: [&str; N],
    objects: &[T],
    row: fn(&T) -> [String; N],
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if head {
        table.set_header(columns);
    }
    for object in objects {
        table.add_row(row(object).map(|cell| one_line(&cell)));
    }
    // Each cell begins with a space, and so does each line.
    let text = table.trim_fmt();
    let lines = text.lines().map(|it| it.strip_prefix(' ').unwrap_or(it));
    lines.collect::<Vec<_>>().join("\n")
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARACTERS).collect()
}

const APP: [&str; 5] = ["app", "services", "jobs", "applied", "state"];

fn app(app: &view::App) -> [String; 5] {
    let state = if app.deleting { "Deleting" } else { "Active" };
    [
        app.name.clone(),
        app.services.join(","),
        app.jobs.join(","),
        app.applied.clone(),
        state.to_owned(),
    ]
}

const SERVICE: [&str; 9] = [
    "app",
    "service",
    "phase",
    "ready",
    "updated",
    "available",
    "revision",
    "routes",
    "reason",
];

fn service(service: &view::Service) -> [String; 9] {
    let refused = service.refused.as_ref();
    let refused = refused.map(|it| format!("change refused: {}", it.reason));
    [
        service.app.clone(),
        service.name.clone(),
        format!("{:?}", service.phase),
        format!("{}/{}", service.ready, service.replicas),
        service.updated.to_string(),
        service.available.to_string(),
        service.revision.to_string(),
        service.routes.join(","),
        refused
            .or_else(|| service.reason.clone())
            .unwrap_or_default(),
    ]
}

const POD: [&str; 9] = [
    "app",
    "pod",
    "service",
    "phase",
    "ready",
    "restarts",
    "guest CPU",
    "memory",
    "reason",
];

fn pod(pod: &view::Pod) -> [String; 9] {
    let next = pod.next_try_ms.map(|millis| {
        let next = Duration::from_millis(millis);
        format!("next try in {}; ", time(next))
    });
    let reason = pod.reason.as_deref().unwrap_or_default();
    [
        pod.app.clone(),
        pod.name.clone(),
        pod.service.clone(),
        pod.phase.clone(),
        yes(pod.ready),
        pod.restarts.to_string(),
        time(cpu(&pod.usage)),
        size(pod.usage.memory_bytes),
        format!("{}{reason}", next.unwrap_or_default()),
    ]
}

const REVISION: [&str; 7] = [
    "app",
    "service",
    "revision",
    "current",
    "component",
    "created",
    "cause",
];

fn revision(revision: &view::Revision) -> [String; 7] {
    [
        revision.app.clone(),
        revision.service.clone(),
        revision.revision.to_string(),
        yes(revision.current),
        format!("{} {}", revision.component, short(&revision.digest)),
        revision.created.clone(),
        revision.cause.clone(),
    ]
}

const JOB: [&str; 6] = ["app", "job", "phase", "attempts", "component", "reason"];

fn job(job: &view::Job) -> [String; 6] {
    [
        job.app.clone(),
        job.name.clone(),
        format!("{:?}", job.phase),
        job.attempts.to_string(),
        format!("{} {}", job.component, short(&job.digest)),
        job.reason.clone().unwrap_or_default(),
    ]
}

const NODE: [&str; 5] = ["node", "version", "started", "http", "pods"];

fn node(node: &view::Node) -> [String; 5] {
    [
        node.name.clone(),
        node.version.clone(),
        node.started.clone(),
        node.http.clone().unwrap_or_default(),
        node.pods.to_string(),
    ]
}

const EVENT: [&str; 5] = ["time", "app", "object", "reason", "message"];

fn event(event: &view::Event) -> [String; 5] {
    [
        event.time.clone(),
        event.app.clone(),
        event.object.clone(),
        event.reason.clone(),
        event.message.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_guest_says_stays_in_its_line() {
        let event = json!({
            "seq": 1,
            "time": "2026-01-01T00:00:00.000Z",
            "app": "shop",
            "object": "pod/web-1-0",
            "reason": "Trapped",
            "message": "it said \u{1b}[2J\nand more",
        });
        let text = of(Kind::Events, &[event], true).expect("events");
        insta::assert_snapshot!(text, @r"
        time                      app   object       reason   message
        2026-01-01T00:00:00.000Z  shop  pod/web-1-0  Trapped  it said \u{1b}[2J\nand more
        ");
    }
}
