//! A node that was alone becomes one of a cluster, with what it has.

use rustix::process::Signal;

use super::Cluster;
use crate::rig::{Running, done, err, eventually, get, guest, sampan};

const PASSWORD: &str = "correct-horse-battery-staple";

/// A node that is alone, with an app whose guest sees a secret.
fn alone(cluster: &Cluster, data: &str, api: &str) {
    let command = sampan(&[
        "serve",
        "--data",
        data,
        "--api",
        api,
        "--http",
        "127.0.0.1:0",
    ]);
    let mut alone = Running::start(command);
    alone.line_with("the API is at");
    let spec = format!(
        "app = 'a'\n[secret.db]\nfile = 'db.txt'\n[service.web]\ncomponent = '{}'\nroute = ['x/']\n\
         env = {{ PASSWORD = {{ secret = 'db' }} }}\n",
        guest("env-and-files")
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    std::fs::write(cluster.place("db.txt"), PASSWORD).expect("written");
    let path = path.display().to_string();
    let applied = done(&["apply", "-f", &path, "--wait", "--api", api]);
    assert!(applied.status.success(), "{}", err(&applied));
    // It is in use, so it stays as it is.
    let refused = done(&[
        "cluster",
        "init",
        "--node",
        "a",
        "--etcd",
        &cluster.etcd.urls().remove(0),
        "--data",
        data,
    ]);
    assert!(err(&refused).contains("is in use"), "{}", err(&refused));
    assert!(alone.interrupt().0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_had_goes_on_and_another_node_makes_more_of_it() {
    let Some(mut cluster) = Cluster::empty() else {
        return;
    };
    let name = cluster.add();
    let (data, api) = (cluster.data(&name), cluster.api(&name));
    alone(&cluster, &data, &api);
    cluster.make(&name);
    let a = cluster.running("a").as_mut().expect("it runs").address();
    eventually(a, "x", "/env", |it| {
        it.status == 200 && it.body.contains(PASSWORD)
    })
    .await;

    // The next node has the key of secrets, so its guests see them as well.
    cluster.join();
    cluster.has_components("b", 1);
    let killed = cluster.running("a").take().expect("it runs");
    killed.signal(Signal::KILL);
    drop(killed);
    cluster.until("b", "`b` leads", |nodes| {
        let nodes = nodes.as_array().expect("a list");
        nodes
            .iter()
            .any(|node| node["name"] == "b" && node["leads"] == true)
    });
    cluster.must("b", &["scale", "web=2"]);
    let b = cluster.running("b").as_mut().expect("it runs").address();
    eventually(b, "x", "/env", |it| {
        it.status == 200 && it.body.contains(PASSWORD)
    })
    .await;
    // The first one is back, and its own pod stays where it was made again.
    cluster.launch("a");
    cluster.pods("a", |pods| {
        pods.len() == 2 && pods.iter().all(|pod| pod["node"] == "b")
    });
    assert_eq!(get(b, "x", "/env").await.status, 200);

    // Out of the cluster it is alone, and has nothing of what the cluster has.
    let (ended, said) = cluster.running("a").take().expect("it runs").interrupt();
    assert!(ended.success(), "{said}");
    let left = done(&["cluster", "leave", "--data", &data]);
    assert!(left.status.success(), "{}", err(&left));
    let command = sampan(&[
        "serve",
        "--data",
        &data,
        "--api",
        &api,
        "--http",
        "127.0.0.1:0",
    ]);
    let mut alone = Running::start(command);
    alone.line_with("the API is at");
    let apps = cluster.must("a", &["get", "apps", "-o", "json"]);
    assert_eq!(apps.trim(), "[]");
    assert_eq!(cluster.seen_by("b").as_array().map(Vec::len), Some(1));
    // The pods that it had are made by the one that is left.
    cluster.pods("b", |pods| {
        pods.len() == 2
            && pods
                .iter()
                .all(|pod| pod["node"] == "b" && pod["ready"] == true)
    });
}
