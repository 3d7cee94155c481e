//! Nodes come, are seen, go, and are taken out.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rustix::process::Signal;

use super::{Cluster, status};
use crate::rig::{done, err};

#[test]
fn three_nodes_are_seen_by_each_and_one_that_dies_is_missed() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    for asked in ["a", "b", "c"] {
        let nodes = cluster.until(asked, "all are ready", |nodes| {
            ["a", "b", "c"]
                .iter()
                .all(|node| status(nodes, node) == "Ready")
        });
        let nodes = nodes.as_array().expect("a list");
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[1]["labels"]["zone"], "z-b");
        assert_eq!(nodes[1]["address"], cluster.node("b").peer.as_str());
        let leaders: Vec<_> = nodes.iter().filter(|node| node["leads"] == true).collect();
        assert_eq!(
            (leaders.len(), &leaders[0]["name"]),
            (1, &"a".into()),
            "{nodes:#?}"
        );
    }
    let said = cluster.must("c", &["describe", "node/b"]);
    assert!(
        said.contains("zone=z-b") && said.contains("Ready"),
        "{said}"
    );

    // One that is killed is missed when its session ends, and another leads.
    cluster
        .running("a")
        .take()
        .expect("it runs")
        .signal(Signal::KILL);
    let nodes = cluster.until("b", "`a` is missed", |nodes| {
        let leads = |node: &serde_json::Value| node["leads"] == true && node["name"] != "a";
        status(nodes, "a") == "Down" && nodes.as_array().expect("a list").iter().any(leads)
    });
    assert_eq!(status(&nodes, "c"), "Ready");
    // It is back at once, without a wait for the end of what it was.
    cluster.launch("a");
    // One that stops in good order is seen to be down at once.
    let stopped = cluster.running("b").take().expect("it runs").interrupt();
    assert!(stopped.0.success(), "{}", stopped.1);
    assert_eq!(status(&cluster.seen_by("c"), "b"), "Down");
}

#[test]
fn a_token_lets_one_node_in_and_a_node_that_is_out_stays_out() {
    let Some(mut cluster) = Cluster::start(1) else {
        return;
    };
    let token = cluster.must("a", &["cluster", "token"]);
    let token = token.trim();
    let (b, c) = (cluster.add(), cluster.add());
    let joined = cluster.joining(&b, token);
    assert!(joined.status.success(), "{}", err(&joined));
    let again = cluster.joining(&c, token);
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("it has been used"), "{}", err(&again));
    assert!(!cluster.place(&c).join("cluster.toml").exists());
    let taken = cluster.must("a", &["cluster", "token"]);
    let twice = cluster.joining(&b, taken.trim());
    assert!(
        err(&twice).contains("is the data of node `b`"),
        "{}",
        err(&twice)
    );
    cluster.launch(&b);

    // What makes it a node is for this user alone.
    for file in ["cluster.toml", "cluster.secret", "node.key", "secrets.key"] {
        let about = fs::metadata(cluster.place(&b).join(file)).expect(file);
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{file}");
    }
    let api = cluster.api("a");
    let remove = |node: &str| done(&["cluster", "remove", node, "--api", &api]);
    assert!(
        err(&remove(&b)).contains("`b` runs"),
        "{}",
        err(&remove(&b))
    );
    let (ended, _) = cluster.running(&b).take().expect("it runs").interrupt();
    assert!(ended.success());
    let removed = remove(&b);
    assert!(removed.status.success(), "{}", err(&removed));
    assert!(
        err(&remove(&b)).contains("no node `b`"),
        "{}",
        err(&remove(&b))
    );
    // It does not come back, and says why.
    let (data, socket) = (cluster.data(&b), cluster.api(&b));
    let refused = done(&[
        "serve",
        "--data",
        &data,
        "--api",
        &socket,
        "--http",
        "127.0.0.1:0",
    ]);
    assert_eq!(refused.status.code(), Some(1));
    let said = err(&refused);
    assert!(said.contains("`b` was removed from the cluster"), "{said}");
    let left = done(&["cluster", "leave", "--data", &data]);
    assert!(left.status.success(), "{}", err(&left));
    assert!(!cluster.place(&b).join("node.key").exists());
}
