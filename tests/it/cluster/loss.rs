//! Pods of a node that is lost are made elsewhere.

use rustix::process::Signal;
use serde_json::Value;

use super::Cluster;
use crate::rig::{eventually, guest};

/// Applies an app of two pods, which run on `a`, and waits until they are there.
fn with_an_app(nodes: usize) -> Option<Cluster> {
    let cluster = Cluster::start(nodes)?;
    cluster.must("a", &["cordon", "b"]);
    let spec = format!(
        "app = 'a'\n[service.web]\ncomponent = '{}'\nreplicas = 2\nroute = ['hello.test/']\n",
        guest("hello")
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    cluster.must("a", &["apply", "-f", &path.display().to_string(), "--wait"]);
    cluster.pods("b", |pods| are_ready_on(pods, "a"));
    cluster.must("a", &["uncordon", "b"]);
    // Code of another node is never taken: the component is enough.
    cluster.has_components("b", 1);
    Some(cluster)
}

/// Whether these are the two pods of the app, ready on this node.
fn are_ready_on(pods: &[Value], node: &str) -> bool {
    let is_there = |pod: &Value| pod["node"] == node && pod["ready"] == true;
    pods.len() == 2 && pods.iter().all(is_there)
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_node_that_is_killed_are_made_by_the_node_that_leads_then() {
    let Some(mut cluster) = with_an_app(2) else {
        return;
    };
    cluster
        .running("a")
        .take()
        .expect("it runs")
        .signal(Signal::KILL);
    cluster.pods("b", |pods| are_ready_on(pods, "b"));
    let address = cluster.running("b").as_mut().expect("it runs").address();
    eventually(address, "hello.test", "/", |it| it.status == 200).await;
    let events = cluster.must("b", &["events"]);
    assert!(events.contains("web-1-0: its node a is lost"), "{events}");
    // It is back, and has no pods that it had.
    cluster.launch("a");
    cluster.pods("a", |pods| are_ready_on(pods, "b"));
}

/// How many attempts of the job `long` are under way, by the lines that they print meanwhile.
fn ticks(cluster: &Cluster, node: &str) -> usize {
    let text = cluster.must(node, &["logs", "long", "--tail", "100000"]);
    text.lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_ends_on_a_node_that_others_do_not_see_before_another_one_runs_it() {
    let Some(cluster) = Cluster::start(2) else {
        return;
    };
    cluster.must("a", &["cordon", "a"]);
    let spec = format!(
        "app = 'a'\n[job.long]\ncomponent = '{}'\nargs = ['tick']\n",
        guest("worker")
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    cluster.must("a", &["apply", "-f", &path.display().to_string()]);
    let deadline = std::time::Instant::now() + super::PATIENCE;
    while ticks(&cluster, "b") == 0 {
        assert!(std::time::Instant::now() < deadline, "it does not run");
    }
    // Nothing is known of etcd: in nine seconds the attempt ends, and at the end of the session, a
    // second later, it may begin elsewhere.
    cluster.etcd.signal(0, Signal::STOP);
    let stopped = "stopped: the other nodes do not see this one, and may run it";
    while !cluster.must("b", &["events"]).contains(stopped) {
        assert!(std::time::Instant::now() < deadline, "it goes on");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let before = ticks(&cluster, "b");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(ticks(&cluster, "b"), before, "it goes on");
    cluster.etcd.signal(0, Signal::CONT);
    // It is run again, by one of them.
    while ticks(&cluster, "b") == before {
        assert!(std::time::Instant::now() < deadline, "it is not run again");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// The node hangs for longer than its session lasts: it does not know that it leads no more. Nothing
/// of what it writes then takes anything back.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hung_ends_the_pods_that_were_made_elsewhere() {
    let Some(mut cluster) = with_an_app(2) else {
        return;
    };
    let hangs = |cluster: &mut Cluster, signal| {
        cluster
            .running("a")
            .as_ref()
            .expect("it runs")
            .signal(signal);
    };
    hangs(&mut cluster, Signal::STOP);
    cluster.pods("b", |pods| are_ready_on(pods, "b"));
    hangs(&mut cluster, Signal::CONT);
    cluster.until("a", "it is one of them again", |nodes| {
        super::status(nodes, "a") == "Ready"
    });
    cluster.pods("a", |pods| are_ready_on(pods, "b"));
    // Its gateway has no pod any more, and asks the other node.
    let address = cluster.running("a").as_mut().expect("it runs").address();
    eventually(address, "hello.test", "/", |it| it.status == 200).await;
    let nodes = cluster.seen_by("b");
    let nodes = nodes.as_array().expect("a list");
    let leads = nodes.iter().find(|node| node["leads"] == true);
    assert_eq!(leads.expect("one leads")["name"], "b", "{nodes:#?}");
}
