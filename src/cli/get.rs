//! `sampan get`: lists of what there is.

mod kind;
pub(super) mod table;

use std::{ops::ControlFlow, time::Duration};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use sampan_core::escape;
use serde_json::Value;
use tokio::sync::Notify;

pub(super) use kind::Kind;

use super::{
    End,
    api::{Scope, absent},
    output::Output,
    process::runtime,
};
use crate::client::{Client, ClientError};

/// How often it is looked how nodes are, and what runs on them.
const LOOK: Duration = Duration::from_secs(1);

/// List what there is
#[derive(Args)]
pub(super) struct Arguments {
    /// What to list
    #[arg(value_enum)]
    kind: Kind,

    #[command(flatten)]
    listing: Listing,
}

/// How to list objects.
#[derive(Args)]
pub(super) struct Listing {
    /// Only what has this name; of revisions, those of this service
    name: Option<String>,

    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,

    /// Go on with what changes from now on
    #[arg(short, long)]
    watch: bool,

    #[command(flatten)]
    scope: Scope,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
    Toml,
}

/// List pods, as `get pods` does
#[derive(Args)]
pub(super) struct Ps {
    #[command(flatten)]
    listing: Listing,
}

/// The verb `ps`.
pub(super) fn ps(arguments: Ps, output: &Output) -> End {
    let Ps { listing } = arguments;
    let kind = Kind::Pods;
    run(&Arguments { kind, listing }, output)
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.listing.scope.api.client()?;
    runtime()?.block_on(async {
        let all = fetch(&client, arguments).await?;
        let named = named(all, arguments)?;
        print(&named, arguments, false, output)?;
        match arguments.listing.watch {
            true => watch(&client, arguments, named, output).await,
            false => Ok(()),
        }
    })
}

async fn fetch(client: &Client, arguments: &Arguments) -> Result<Vec<Value>, ClientError> {
    let target = arguments.kind.target(&arguments.listing.scope.app);
    if arguments.kind != Kind::Events {
        return client.get(&target).await;
    }
    let mut events = Vec::new();
    let take = |line: &str| {
        events.extend(serde_json::from_str::<Value>(line));
        ControlFlow::Continue(())
    };
    client.lines(&target, take).await?;
    Ok(events)
}

/// Those that have the name that was asked for.
fn named(mut objects: Vec<Value>, arguments: &Arguments) -> anyhow::Result<Vec<Value>> {
    let Some(name) = &arguments.listing.name else {
        return Ok(objects);
    };
    let field = arguments.kind.name();
    let is_named = |object: &Value| object[field] == name.as_str();
    if !objects.iter().any(is_named) {
        let known = objects.iter().filter_map(|object| object[field].as_str());
        return Err(absent(arguments.kind.words().0, name, known));
    }
    objects.retain(is_named);
    Ok(objects)
}

/// Prints what is new or different whenever something may be, until the node goes.
async fn watch(
    client: &Client,
    arguments: &Arguments,
    mut last: Vec<Value>,
    output: &Output,
) -> End {
    let changed = Notify::new();
    let target = arguments.kind.changes(&arguments.listing.scope.app);
    let follow = client.lines(&target, |_| {
        // However many come while the last is looked at, they are one.
        changed.notify_one();
        ControlFlow::Continue(())
    });
    tokio::pin!(follow);
    // That a node is lost is no event of an app.
    let is_placed = |all: &[Value]| {
        arguments.kind == Kind::Nodes || all.iter().any(|it| it["node"].is_string())
    };
    let mut period = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = &mut follow => return Ok(ended?),
            () = changed.notified() => {}
            _ = period.tick(), if is_placed(&last) => {}
        }
        let now = fetch(client, arguments).await?;
        // What is gone is no error now.
        let now = named(now, arguments).unwrap_or_default();
        let different: Vec<_> = now
            .iter()
            .filter(|it| !last.iter().any(|before| is_same(before, it)))
            .cloned()
            .collect();
        if !different.is_empty() {
            print(&different, arguments, true, output)?;
        }
        last = now;
    }
}

/// Whether an object is as it was. What a pod has used changes all the time: `top` shows it.
fn is_same(before: &Value, now: &Value) -> bool {
    let but_usage = |value: &Value| {
        let mut value = value.clone();
        value.as_object_mut().map(|it| it.remove("usage"));
        value
    };
    before == now || but_usage(before) == but_usage(now)
}

fn print(objects: &[Value], arguments: &Arguments, again: bool, output: &Output) -> End {
    let one = arguments.listing.name.is_some() && objects.len() == 1;
    match arguments.listing.output {
        Format::Json if again => {
            for object in objects {
                output.json_text(&object.to_string());
            }
            Ok(())
        }
        Format::Json if one => output.json(&objects[0]),
        Format::Json => output.json(&objects),
        Format::Toml => {
            let text = match one {
                true => toml::to_string(&without_nulls(&objects[0])),
                false => {
                    let all = objects.iter().map(without_nulls).collect();
                    let name = arguments.kind.words().1.to_owned();
                    toml::to_string(&serde_json::Map::from_iter([(name, Value::Array(all))]))
                }
            };
            output.data(&text.context("what was answered is no TOML")?);
            Ok(())
        }
        Format::Table => {
            let text = table::of(arguments.kind, objects, !again)?;
            output.data(&format!("{text}\n"));
            Ok(())
        }
    }
}

/// The value without what is not there, which TOML has no word for. Hidden characters, which a
/// terminal could obey, are escaped as in tables: not all strings of TOML have escapes.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                there
                    .map(|(name, value)| (name.clone(), without_nulls(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        Value::String(text) => Value::String(escape::lines(text).into_owned()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_has_used_is_no_change_of_it() {
        let pod = |ready: bool, cpu_ms: f64| json!({ "name": "web-1-0", "ready": ready, "usage": { "cpu_ms": cpu_ms } });
        assert!(is_same(&pod(true, 1.0), &pod(true, 2.0)));
        assert!(!is_same(&pod(true, 1.0), &pod(false, 1.0)));
        assert!(is_same(&json!("web"), &json!("web")));
    }

    #[test]
    fn toml_has_all_that_is_there() {
        let value = json!({ "name": "web", "reason": null, "counts": [1, 2], "usage": { "cpu": 1.5, "x": null } });
        let text = toml::to_string(&without_nulls(&value)).expect("TOML");
        assert_eq!(
            text,
            "counts = [1, 2]\nname = \"web\"\n\n[usage]\ncpu = 1.5\n"
        );
    }
}
