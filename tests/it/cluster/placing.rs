//! On which nodes pods run: spread, asked for by labels, kept out, drained, short of memory, with a
//! volume.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Cluster;
use crate::rig::{done, err, eventually, guest};

/// Applies a spec at `a`, whose component of each service is `hello`.
fn apply(cluster: &Cluster, spec: &str) {
    let path = cluster.place("sampan.toml");
    let spec = spec.replace("HELLO", &format!("component = '{}'", guest("hello")));
    std::fs::write(&path, spec).expect("written");
    cluster.must("a", &["apply", "-f", &path.display().to_string()]);
}

/// How many ready pods each node has.
fn ready(pods: &[Value]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod["ready"] == true) {
        *counts
            .entry(pod["node"].as_str().unwrap_or("-"))
            .or_default() += 1;
    }
    counts
}

/// Waits until these and no other pods are there, all of them ready.
fn settled(cluster: &Cluster, wanted: &[(&str, usize)]) {
    let all: usize = wanted.iter().map(|(_, count)| count).sum();
    let wanted: BTreeMap<_, _> = wanted.iter().copied().collect();
    cluster.pods("a", |pods| pods.len() == all && ready(pods) == wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_spread_and_leave_a_node_that_is_drained() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    apply(
        &cluster,
        "app = 'a'\n[service.web]\nHELLO\nreplicas = 6\nroute = ['hello.test/']\n",
    );
    settled(&cluster, &[("a", 2), ("b", 2), ("c", 2)]);
    let rows = cluster.must("b", &["get", "nodes"]);
    assert!(rows.contains("256.0 MiB of "), "{rows}");

    // Each node's gateway has pods of its own.
    for node in ["a", "b", "c"] {
        let address = cluster.running(node).as_mut().expect("it runs").address();
        eventually(address, "hello.test", "/", |it| it.status == 200).await;
    }

    // One that is cordoned keeps what it has, and gets no more.
    cluster.must("c", &["cordon", "b"]);
    cluster.must("a", &["scale", "web=9"]);
    cluster.pods("a", |pods| {
        let ready = ready(pods);
        ready.get("b") == Some(&2) && ready.values().sum::<usize>() == 9
    });
    let drained = cluster.must("a", &["drain", "b", "--timeout", "1m"]);
    assert_eq!(drained, "node/b drained\n");
    cluster.pods("a", |pods| {
        let ready = ready(pods);
        !ready.contains_key("b") && ready.values().sum::<usize>() == 9 && pods.len() == 9
    });
    cluster.until("a", "b is drained", |nodes| {
        super::status(nodes, "b") == "Drained"
    });
    let events = cluster.must("a", &["events"]);
    assert!(events.contains("its node b is drained"), "{events}");

    // It takes what comes from then on.
    cluster.must("a", &["uncordon", "b"]);
    cluster.must("a", &["scale", "web=12"]);
    cluster.pods("a", |pods| ready(pods).get("b") == Some(&3));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_where_labels_say_and_follow_them() {
    let Some(cluster) = Cluster::start(3) else {
        return;
    };
    apply(
        &cluster,
        "app = 'a'\n[service.web]\nHELLO\nreplicas = 2\nplacement.nodes = { zone = 'z-b' }\n",
    );
    settled(&cluster, &[("b", 2)]);
    cluster.must("b", &["label", "c", "zone=z-b"]);
    cluster.must("b", &["label", "b", "zone-"]);
    settled(&cluster, &[("c", 2)]);
    // No node has it any more: pods stay where they are, and it is said why.
    cluster.must("b", &["label", "c", "zone=other"]);
    cluster.pods("a", |pods| {
        let waits = |pod: &Value| {
            let reason = pod["reason"].as_str().unwrap_or_default();
            pod["node"].is_null()
                && reason.contains("3 of 3 have not the labels zone=z-b (a, b, c)")
        };
        ready(pods).get("c") == Some(&2) && pods.iter().any(waits)
    });
    cluster.must("b", &["label", "a", "zone=z-b"]);
    settled(&cluster, &[("a", 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_room_waits_with_the_numbers_and_gets_the_room_of_another() {
    let Some(mut cluster) = Cluster::empty() else {
        return;
    };
    for (at, name) in [cluster.add(), cluster.add()].iter().enumerate() {
        std::fs::create_dir_all(cluster.place(name)).expect("a directory");
        std::fs::write(
            cluster.place(&format!("{name}.toml")),
            "[node]\nmemory = '256MiB'\n",
        )
        .expect("written");
        match at {
            0 => cluster.make(name),
            _ => {
                let token = cluster.must("a", &["cluster", "token"]);
                let joined = cluster.joining(name, token.trim());
                assert!(joined.status.success(), "{}", err(&joined));
                cluster.launch(name);
            }
        }
    }
    // 128 MiB each, so that four of them fit.
    apply(
        &cluster,
        "app = 'a'\n[service.web]\nHELLO\nreplicas = 3\n[service.api]\nHELLO\nreplicas = 2\n",
    );
    cluster.pods("b", |pods| {
        let waits = |pod: &Value| {
            let reason = pod["reason"].as_str().unwrap_or_default();
            pod["phase"] == "Pending"
                && pod["node"].is_null()
                && reason.contains("2 of 2 lack memory (needs 128MiB; most free: 0B on ")
        };
        ready(pods).values().sum::<usize>() == 4 && pods.iter().any(waits)
    });
    let described = cluster.must("a", &["describe", "node/b"]);
    assert!(
        described.contains("256.0 MiB of 256.0 MiB reserved"),
        "{described}"
    );
    cluster.must("a", &["scale", "api=1"]);
    cluster.pods("b", |pods| {
        pods.len() == 4 && ready(pods).values().sum::<usize>() == 4
    });
    // A node that cannot be emptied says which pods stay, and why.
    let api = cluster.api("a");
    let drained = done(&["drain", "b", "--timeout", "1s", "--api", &api]);
    assert_eq!(drained.status.code(), Some(1));
    let text = err(&drained);
    assert!(text.contains("have not left in 1s"), "{text}");
    assert!(text.contains(" on b is Running: no node for "), "{text}");
    assert!(text.contains("1 is drained (b)"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_end_has_its_pods_made_elsewhere_first() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    apply(
        &cluster,
        "app = 'a'\n[service.web]\nHELLO\nreplicas = 4\nroute = ['hello.test/']\n",
    );
    settled(&cluster, &[("a", 2), ("b", 2)]);
    // The one that leads.
    let leaving = cluster.running("a").take().expect("it runs");
    leaving.signal(rustix::process::Signal::TERM);
    let (status, printed) = leaving.wait();
    assert!(status.success(), "{printed}");
    // They were there before it had gone: nothing was lost with it.
    let text = cluster.must("b", &["get", "pods", "-o", "json"]);
    let pods: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(ready(&pods), BTreeMap::from([("b", 4)]), "{pods:#?}");
    let events = cluster.must("b", &["events"]);
    assert!(!events.contains("is lost"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_beside_the_volume_that_it_mounts() {
    let Some(cluster) = Cluster::start(3) else {
        return;
    };
    // The service is on b, and with it the volume.
    for node in ["a", "c"] {
        cluster.must("a", &["cordon", node]);
    }
    let spec = format!(
        "app = 'a'\n[volume.data]\n[service.web]\nHELLO\n\
         allow.files = [{{ volume = 'data', guest = '/data' }}]\n\
         [job.list]\ncomponent = '{}'\nargs = ['ls', '/data']\n\
         depends_on = ['web']\n\
         allow.files = [{{ volume = 'data', guest = '/data' }}]\n",
        guest("command")
    );
    apply(&cluster, &spec);
    settled(&cluster, &[("b", 1)]);
    for node in ["a", "c"] {
        cluster.must("a", &["uncordon", node]);
    }
    cluster.must("a", &["job", "run", "list", "--wait"]);
    let has_volume = |node: &str| cluster.place(node).join("volumes/a/data").exists();
    assert!(has_volume("b"));
    assert!(!has_volume("a") && !has_volume("c"), "it ran elsewhere");
    // While the node takes nothing, the job waits, and says for what.
    cluster.must("a", &["cordon", "b"]);
    cluster.must("a", &["job", "run", "list"]);
    let events = || cluster.must("a", &["events"]);
    let waits =
        "waits for a node: 2 of 3 have not its volumes (data is on b), 1 is cordoned (b, since";
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while !events().contains(waits) {
        assert!(std::time::Instant::now() < deadline, "{}", events());
    }
    let completed =
        || events().matches("JobCompleted").count() + events().matches("Completed").count();
    let before = completed();
    cluster.must("a", &["uncordon", "b"]);
    while completed() == before {
        assert!(std::time::Instant::now() < deadline, "{}", events());
    }
    assert!(!has_volume("a") && !has_volume("c"), "it ran elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_with_a_volume_run_on_the_node_that_keeps_it() {
    let Some(cluster) = Cluster::start(3) else {
        return;
    };
    let spec = "app = 'a'\n[volume.data]\n\
                [service.web]\nHELLO\nreplicas = 3\n\
                allow.files = [{ volume = 'data', guest = '/data', access = 'read-write' }]\n";
    apply(&cluster, spec);
    cluster.pods("a", |pods| {
        let ready = ready(pods);
        ready.values().copied().collect::<Vec<_>>() == [3]
    });
    let text = cluster.must("a", &["get", "pods", "-o", "json"]);
    let pods: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let keeper = pods[0]["node"].as_str().expect("a node");
    // They stay there when there is more room elsewhere, and wait while it is away.
    cluster.must("a", &["cordon", keeper]);
    cluster.must("a", &["scale", "web=4"]);
    let asked = if keeper == "a" { "b" } else { "a" };
    cluster.pods(asked, |pods| {
        let waits = |pod: &Value| {
            let reason = pod["reason"].as_str().unwrap_or_default();
            pod["node"].is_null()
                && reason.contains(&format!(
                    "2 of 3 have not its volumes (data is on {keeper})"
                ))
        };
        pods.iter().any(waits)
    });
    cluster.must("a", &["uncordon", keeper]);
    settled(&cluster, &[(keeper, 4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_keeps_is_asked_of_the_node_that_keeps_it() {
    let Some(mut cluster) = Cluster::start(2) else {
        return;
    };
    apply(
        &cluster,
        "app = 'a'\n[volume.data]\n[service.web]\nHELLO\n\
         allow.keyvalue = ['carts']\nplacement.nodes = { zone = 'z-b' }\n\
         allow.files = [{ volume = 'data', guest = '/data' }]\n",
    );
    settled(&cluster, &[("b", 1)]);
    // Asked at `a`, which has none of it.
    cluster.must("a", &["kv", "put", "a/carts", "colour", "blue"]);
    for node in ["a", "b"] {
        assert_eq!(
            cluster.must(node, &["kv", "get", "a/carts", "colour"]),
            "blue"
        );
        assert!(
            cluster
                .must(node, &["kv", "list", "a/carts"])
                .contains("colour")
        );
        assert!(cluster.must(node, &["get", "volumes"]).contains("data"));
    }
    assert!(!cluster.place("a").join("keyvalue").join("a").exists());
    // While that node is away it is said where it is.
    let gone = cluster.running("b").take().expect("it runs");
    gone.signal(rustix::process::Signal::KILL);
    let _ = gone.wait();
    let api = cluster.api("a");
    let asked = done(&["kv", "get", "a/carts", "colour", "--api", &api]);
    assert!(!asked.status.success());
    let text = err(&asked);
    assert!(
        text.contains("the key-value stores of `a` are on node `b`, which does not answer"),
        "{text}"
    );
    cluster.launch("b");
    // What is kept goes with the app only if that is asked for, from wherever it is.
    cluster.must("a", &["delete", "a", "--volumes"]);
    assert!(!cluster.must("b", &["get", "volumes"]).contains("data"));
}
