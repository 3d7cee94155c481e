//! `sampan cordon`, `uncordon`, `drain` and `label`: which pods nodes of a cluster take.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::anyhow;
use clap::Args;
use http::Method;
use sampan_core::{name::Name, quantity::format_duration, view};
use tokio::time::{Instant, sleep};

use super::{EXIT_FAILED, End, Stop, api::ApiArguments, output::Output, process::runtime, wait};
use crate::client::{Client, quoted};

/// How often it is looked whether pods have left.
const LOOK: Duration = Duration::from_millis(250);
/// How many pods that have not left are named.
const MAX_NAMED: usize = 20;

/// Let a node of a cluster take no more pods; those that it has stay
#[derive(Args)]
pub(super) struct Cordon {
    /// Which nodes
    #[arg(value_name = "NODE", required = true, value_parser = name)]
    nodes: Vec<Name>,

    #[command(flatten)]
    api: ApiArguments,
}

/// Let a node of a cluster take pods again, after `cordon` or `drain`
#[derive(Args)]
pub(super) struct Uncordon {
    /// Which nodes
    #[arg(value_name = "NODE", required = true, value_parser = name)]
    nodes: Vec<Name>,

    #[command(flatten)]
    api: ApiArguments,
}

/// Have the pods of a node run on other nodes, and wait until it has none
///
/// No node that is named takes pods any more, until `uncordon`. Its pods are replaced as in a rollout,
/// within `max_surge` and `max_unavailable` of their services, so that no request is lost. A pod
/// stays where no other node has room for it, and where its service is paused in the middle of a
/// rollout. Ctrl-C ends the wait and not the drain.
#[derive(Args)]
pub(super) struct Drain {
    /// Which nodes
    #[arg(value_name = "NODE", required = true, value_parser = name)]
    nodes: Vec<Name>,

    /// How long to wait until they have no pods
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = wait::duration)]
    timeout: Duration,

    #[command(flatten)]
    api: ApiArguments,
}

/// Change the labels of a node of a cluster
///
/// Pods whose service asks for a label that their node has not any more run on another node then.
#[derive(Args)]
pub(super) struct Label {
    /// Which node
    #[arg(value_name = "NODE", value_parser = name)]
    node: Name,

    /// Labels that it is to have, as `zone=a`, or not to have any more, as `zone-`
    #[arg(value_name = "NAME=VALUE|NAME-", required = true, value_parser = change)]
    labels: Vec<(String, Option<String>)>,

    #[command(flatten)]
    api: ApiArguments,
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.to_string())
}

/// A label that is given, or taken away.
fn change(text: &str) -> Result<(String, Option<String>), String> {
    let (label, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((label, value)), _) => (label, Some(value)),
        (None, Some(label)) => (label, None),
        (None, None) => return Err("it is written as `NAME=VALUE`, or as `NAME-`".to_owned()),
    };
    for part in [Some(label), value].into_iter().flatten() {
        name(part)?;
    }
    Ok((label.to_owned(), value.map(str::to_owned)))
}

/// Changes a node.
async fn patch(client: &Client, node: &Name, change: &view::NodeChange) -> anyhow::Result<()> {
    let target = format!("/v1/cluster/nodes/{}", quoted(node.as_str()));
    client.tell(Method::PATCH, &target, change).await?;
    Ok(())
}

pub(super) fn cordon(arguments: &Cordon, output: &Output) -> End {
    let change = view::NodeChange {
        cordoned: Some(true),
        ..view::NodeChange::default()
    };
    all(
        &arguments.api,
        &arguments.nodes,
        &change,
        "cordoned",
        output,
    )
}

pub(super) fn uncordon(arguments: &Uncordon, output: &Output) -> End {
    let change = view::NodeChange {
        cordoned: Some(false),
        ..view::NodeChange::default()
    };
    all(
        &arguments.api,
        &arguments.nodes,
        &change,
        "uncordoned",
        output,
    )
}

pub(super) fn label(arguments: &Label, output: &Output) -> End {
    let change = view::NodeChange {
        labels: arguments.labels.iter().cloned().collect(),
        ..view::NodeChange::default()
    };
    let nodes = std::slice::from_ref(&arguments.node);
    all(&arguments.api, nodes, &change, "labelled", output)
}

fn all(
    api: &ApiArguments,
    nodes: &[Name],
    change: &view::NodeChange,
    done: &str,
    output: &Output,
) -> End {
    let client = api.client()?;
    runtime()?.block_on(async {
        for node in nodes {
            patch(&client, node, change).await?;
            output.data(&format!("node/{node} {done}\n"));
        }
        Ok(())
    })
}

pub(super) fn drain(arguments: &Drain, output: &Output) -> End {
    let client = arguments.api.client()?;
    runtime()?.block_on(async {
        // All of them first, so that no pod goes from one to another.
        let change = view::NodeChange {
            draining: Some(true),
            ..view::NodeChange::default()
        };
        for node in &arguments.nodes {
            patch(&client, node, &change).await?;
            output.talk(&format!("node/{node} takes no more pods"));
        }
        let nodes: BTreeSet<_> = arguments.nodes.iter().map(Name::as_str).collect();
        let until = Instant::now() + arguments.timeout;
        let mut empty = BTreeSet::new();
        loop {
            let left = Left::look(&client, &nodes).await?;
            for node in &nodes {
                if !left.pods.contains_key(*node) && empty.insert(*node) {
                    output.data(&format!("node/{node} drained\n"));
                }
            }
            if left.pods.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(left.stuck(&client, arguments.timeout).await?);
            }
            sleep(LOOK).await;
        }
    })
}

/// Pods of nodes that are drained, and what keeps those of their services waiting.
struct Left {
    /// By node.
    pods: BTreeMap<String, Vec<view::Pod>>,
    /// Why a pod of a service has no node, by app and service.
    waiting: BTreeMap<(String, String), String>,
}

impl Left {
    async fn look(client: &Client, nodes: &BTreeSet<&str>) -> anyhow::Result<Self> {
        let all: Vec<view::Pod> = client.get("/v1/pods").await?;
        let (mut pods, mut waiting) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for pod in all {
            match &pod.node {
                Some(node) if nodes.contains(&**node) => {
                    pods.entry(node.clone()).or_default().push(pod);
                }
                Some(_) => {}
                None => {
                    let reason = pod.reason.unwrap_or_default();
                    waiting.insert((pod.app, pod.service), reason);
                }
            }
        }
        Ok(Self { pods, waiting })
    }

    /// Says which pods have not left their nodes in time, and why.
    async fn stuck(&self, client: &Client, timeout: Duration) -> anyhow::Result<Stop> {
        let services: Vec<view::Service> = client.get("/v1/services").await?;
        let mut text = String::new();
        let pods = self.pods.iter().flat_map(|(node, pods)| {
            let of_node = pods.iter();
            of_node.map(move |pod| (node, pod))
        });
        let count = self.pods.values().map(Vec::len).sum::<usize>();
        for (node, pod) in pods.take(MAX_NAMED) {
            let same = |it: &&view::Service| (&it.app, &it.name) == (&pod.app, &pod.service);
            let why = self.why(pod, services.iter().find(same));
            let (app, name, phase) = (&pod.app, &pod.name, &pod.phase);
            text += &format!("\n  {app}/{name} on {node} is {phase}{why}");
        }
        if count > MAX_NAMED {
            text += &format!("\n  and {} more", count - MAX_NAMED);
        }
        let time = format_duration(timeout);
        let (pods, go) = match count {
            1 => ("pod has", "goes as soon as it can"),
            _ => ("pods have", "go as soon as they can"),
        };
        let reason = anyhow!("{count} {pods} not left in {time}, and {go}:{text}");
        Ok(Stop::Because(EXIT_FAILED, reason))
    }

    /// What keeps a pod where it is, as far as that is known.
    fn why(&self, pod: &view::Pod, service: Option<&view::Service>) -> String {
        let key = (pod.app.clone(), pod.service.clone());
        match (self.waiting.get(&key), service) {
            (Some(reason), _) => format!(": {reason}"),
            (None, Some(service)) if service.paused => format!(
                ": its service is paused, and `sampan rollout resume {}` lets it go on",
                service.name
            ),
            (None, _) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_given_and_taken_away() {
        let given =
            |label: &str, value: Option<&str>| Ok((label.to_owned(), value.map(str::to_owned)));
        assert_eq!(change("zone=a"), given("zone", Some("a")));
        assert_eq!(change("zone-"), given("zone", None));
        assert_eq!(change("disk-kind=ssd"), given("disk-kind", Some("ssd")));
        for bad in [
            "", "zone", "-", "=", "zone=", "=a", "zone=A", "Zone-", "zone=a-",
        ] {
            assert!(change(bad).is_err(), "{bad}");
        }
    }
}
