//! Objects as tables for people.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
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

/// A column of a table: its name, and what it says of an object.
pub(in crate::cli) type Column<T> = (&'static str, fn(&T) -> String);

/// The objects of a kind as a table.
pub(in crate::cli) fn of(kind: Kind, objects: &[Value], head: bool) -> anyhow::Result<String> {
    Ok(match kind {
        Kind::Apps => table(head, APP, &typed(objects)?),
        Kind::Services => table(head, SERVICE, &typed(objects)?),
        Kind::Pods => table(head, &pod_columns(objects), &typed(objects)?),
        Kind::Revisions => table(head, REVISION, &typed(objects)?),
        Kind::Jobs => table(head, JOB, &typed(objects)?),
        Kind::Volumes => table(head, VOLUME, &typed(objects)?),
        Kind::Secrets => table(head, SECRET, &typed(objects)?),
        Kind::Nodes => table(head, NODE, &typed(objects)?),
        Kind::Events => table(head, EVENT, &typed(objects)?),
    })
}

/// The columns of pods: with their node, if they have one that is not alone.
fn pod_columns(pods: &[Value]) -> Vec<Column<view::Pod>> {
    let node: Column<view::Pod> = ("node", |it| it.node.clone().unwrap_or_default());
    let is_placed = pods.iter().any(|pod| pod["node"].is_string());
    POD.iter()
        .copied()
        .chain(is_placed.then_some(node))
        .collect()
}

fn typed<T: DeserializeOwned>(objects: &[Value]) -> serde_json::Result<Vec<T>> {
    objects.iter().map(T::deserialize).collect()
}

/// Objects as a table, with the names of the columns or without.
pub(in crate::cli) fn table<T>(head: bool, columns: &[Column<T>], objects: &[T]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if head {
        table.set_header(columns.iter().map(|(name, _)| name));
    }
    for object in objects {
        table.add_row(columns.iter().map(|(_, cell)| one_line(&cell(object))));
    }
    // Each cell begins with a space, and so does each line.
    let text = table.trim_fmt();
    let lines = text.lines().map(|it| it.strip_prefix(' ').unwrap_or(it));
    lines.collect::<Vec<_>>().join("\n")
}

/// A table whose columns but the first are numbers.
pub(in crate::cli) fn numbers(
    columns: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

pub(in crate::cli) fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARACTERS).collect()
}

const APP: &[Column<view::App>] = &[
    ("app", |it| it.name.clone()),
    ("services", |it| it.services.join(",")),
    ("jobs", |it| it.jobs.join(",")),
    ("applied", |it| it.applied.clone()),
    ("state", |it| {
        if it.deleting { "Deleting" } else { "Active" }.to_owned()
    }),
];

const SERVICE: &[Column<view::Service>] = &[
    ("app", |it| it.app.clone()),
    ("service", |it| it.name.clone()),
    ("kind", |it| it.kind.clone()),
    ("phase", |it| format!("{:?}", it.phase)),
    ("ready", |it| format!("{}/{}", it.ready, it.replicas)),
    ("updated", |it| it.updated.to_string()),
    ("available", |it| it.available.to_string()),
    ("revision", |it| it.revision.to_string()),
    ("routes", |it| it.routes.join(",")),
    ("reason", |it| match &it.refused {
        Some(refused) => format!("change refused: {}", refused.reason),
        None => it.reason.clone().unwrap_or_default(),
    }),
];

pub(in crate::cli) const POD: &[Column<view::Pod>] = &[
    ("app", |it| it.app.clone()),
    ("pod", |it| it.name.clone()),
    ("service", |it| it.service.clone()),
    ("phase", |it| it.phase.clone()),
    ("ready", |it| yes(it.ready)),
    ("restarts", |it| it.restarts.to_string()),
    ("guest CPU", |it| time(cpu(&it.usage))),
    ("memory", |it| size(it.usage.memory_bytes)),
    ("reason", |it| {
        let reason = it.reason.as_deref().unwrap_or_default();
        match it.next_try_ms.map(Duration::from_millis) {
            Some(next) => format!("next try in {}; {reason}", time(next)),
            None => reason.to_owned(),
        }
    }),
];

pub(in crate::cli) const REVISION: &[Column<view::Revision>] = &[
    ("app", |it| it.app.clone()),
    ("service", |it| it.service.clone()),
    ("revision", |it| it.revision.to_string()),
    ("current", |it| yes(it.current)),
    ("component", |it| {
        format!("{} {}", it.component, short(&it.digest))
    }),
    ("created", |it| it.created.clone()),
    ("cause", |it| it.cause.clone()),
];

const JOB: &[Column<view::Job>] = &[
    ("app", |it| it.app.clone()),
    ("job", |it| it.name.clone()),
    ("phase", |it| format!("{:?}", it.phase)),
    ("attempts", |it| it.attempts.to_string()),
    ("schedule", |it| match &it.schedule {
        Some(schedule) if schedule.timezone == "UTC" => schedule.expression.clone(),
        Some(schedule) => format!("{} {}", schedule.expression, schedule.timezone),
        None => String::new(),
    }),
    ("next", |it| it.next.clone().unwrap_or_default()),
    ("last", |it| match it.runs.last() {
        Some(run) => format!("{}: {}", run.ended, run.outcome),
        None => String::new(),
    }),
    ("component", |it| {
        format!("{} {}", it.component, short(&it.digest))
    }),
    ("reason", |it| it.reason.clone().unwrap_or_default()),
];

pub(in crate::cli) const RUN: &[Column<view::Run>] = &[
    ("run", |it| it.number.to_string()),
    ("why", |it| it.why.clone()),
    ("started", |it| it.started.clone()),
    ("took", |it| time(Duration::from_millis(it.duration_ms))),
    ("attempts", |it| it.attempts.to_string()),
    ("outcome", |it| it.outcome.clone()),
];

const VOLUME: &[Column<view::Volume>] = &[
    ("app", |it| it.app.clone()),
    ("volume", |it| it.name.clone()),
    ("used", |it| size(it.used_bytes)),
    ("quota", |it| {
        it.quota_bytes.map_or_else(|| "undeclared".to_owned(), size)
    }),
    ("used by", |it| it.used_by.join(",")),
];

const SECRET: &[Column<view::Secret>] = &[
    ("app", |it| it.app.clone()),
    ("secret", |it| it.name.clone()),
    ("version", |it| it.version.clone()),
    ("used by", |it| it.used_by.join(",")),
];

/// Processors as people count them.
pub(in crate::cli) fn cores(millis: u64) -> String {
    match millis % 1000 {
        0 => (millis / 1000).to_string(),
        _ => format!("{millis}m"),
    }
}

/// The labels of a node, as they are written.
pub(in crate::cli) fn labels(node: &view::Node) -> Vec<String> {
    let labels = node.labels.iter();
    labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

const NODE: &[Column<view::Node>] = &[
    ("node", |it| it.name.clone()),
    ("status", |it| it.status.clone()),
    ("version", |it| it.version.clone()),
    ("started", |it| it.started.clone()),
    ("http", |it| it.http.clone().unwrap_or_default()),
    ("pods", |it| it.pods.to_string()),
    ("memory", |it| {
        let room = it.room.as_ref();
        room.map_or_else(String::new, |room| {
            format!(
                "{} of {}",
                size(room.reserved_bytes),
                size(room.memory_bytes)
            )
        })
    }),
    ("cpu", |it| {
        let room = it.room.as_ref();
        room.map_or_else(String::new, |room| {
            format!(
                "{} of {}",
                cores(room.reserved_millis),
                cores(room.cpu_millis)
            )
        })
    }),
    ("labels", |it| labels(it).join(",")),
    ("leader", |it| {
        if it.leads {
            "yes".to_owned()
        } else {
            String::new()
        }
    }),
];

pub(in crate::cli) const EVENT: &[Column<view::Event>] = &[
    ("time", |it| it.time.clone()),
    ("app", |it| it.app.clone()),
    ("object", |it| it.object.clone()),
    ("reason", |it| it.reason.clone()),
    ("message", |it| it.message.clone()),
];

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
