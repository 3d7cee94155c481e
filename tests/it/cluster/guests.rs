//! Guests reach neither the port for nodes nor etcd, whatever they are allowed.

use super::Cluster;
use crate::rig::{get, guest};

#[tokio::test(flavor = "multi_thread")]
async fn guests_call_neither_the_port_for_nodes_nor_etcd_by_any_name() {
    let Some(mut cluster) = Cluster::start(1) else {
        return;
    };
    let peer = cluster.node("a").peer.clone();
    let peer = peer.rsplit(':').next().expect("a port");
    let etcd = cluster.etcd.urls().remove(0);
    let etcd = etcd.rsplit(':').next().expect("a port");
    let hosts = ["127.0.0.1", "localhost"];
    let urls = [peer, etcd].into_iter();
    let urls = urls.flat_map(|port| hosts.map(|host| format!("http://{host}:{port}")));
    let urls: Vec<_> = urls.collect();
    let spec = format!(
        "app = 'a'\n[service.web]\ncomponent = '{}'\nroute = ['x/']\nallow.outbound = {urls:?}\n",
        guest("caller")
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    let path = path.display().to_string();
    cluster.must("a", &["apply", "-f", &path, "--wait"]);
    let address = cluster.running("a").as_mut().expect("it runs").address();
    for url in urls {
        let answer = get(address, "x", &format!("/call?url={url}/health")).await;
        let told = (answer.status, answer.body.as_str());
        assert_eq!(told, (502, "HttpRequestDenied\n"), "{url}");
        let log = cluster.must("a", &["logs", "web", "--json"]);
        let last = log.lines().rfind(|line| line.contains("denied: "));
        let why = "an address of this node itself";
        assert!(last.is_some_and(|line| line.contains(why)), "{url}: {log}");
    }
}
