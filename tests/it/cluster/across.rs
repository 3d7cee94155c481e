//! Each node answers for each service, wherever its pods are.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::Cluster;
use crate::rig::{PATIENCE, eventually, get, guest, send};

/// Nodes, an app, and where its pods are.
struct App {
    cluster: Cluster,
    /// Where each node answers, by its name.
    addresses: Vec<(String, SocketAddr)>,
}

impl App {
    /// An app whose services have one pod each: `echo`, `slow` and `one`, which take one request at a
    /// time, and `caller`, which calls `echo`.
    fn start(nodes: usize) -> Option<Self> {
        let mut cluster = Cluster::start(nodes)?;
        let [echo, slow, caller] = ["echo", "slow", "caller"].map(guest);
        let spec = format!(
            "app = 'a'\n[service.echo]\ncomponent = '{echo}'\nroute = ['echo.test/']\ndebug_headers = true\n\
             [service.slow]\ncomponent = '{slow}'\nroute = ['slow.test/']\nconcurrency = 1\n\
             [service.one]\ncomponent = '{echo}'\nroute = ['one.test/']\nconcurrency = 1\n\
             [service.caller]\ncomponent = '{caller}'\nroute = ['caller.test/']\nallow.services = ['echo']\n"
        );
        let path = cluster.place("sampan.toml");
        std::fs::write(&path, spec).expect("written");
        cluster.must("a", &["apply", "-f", &path.display().to_string(), "--wait"]);
        for node in cluster.names() {
            cluster.has_components(&node, 3);
        }
        let addresses = cluster.addresses();
        Some(Self { cluster, addresses })
    }

    /// Where a node without the pod of a service answers.
    fn elsewhere(&self, service: &str) -> SocketAddr {
        let home = self.cluster.home(service);
        let mut nodes = self.addresses.iter();
        let node = nodes.find(|(node, _)| *node != home);
        node.expect("another node").1
    }
}

impl Cluster {
    fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.name.clone()).collect()
    }

    fn addresses(&mut self) -> Vec<(String, SocketAddr)> {
        let names = self.names().into_iter();
        let found = names.map(|node| {
            let running = self.running(&node).as_mut().expect("it runs");
            let address = running.address();
            (node, address)
        });
        found.collect()
    }

    /// Waits until this was measured of a service in a second, at all nodes together.
    fn measured(&self, service: &str, wanted: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.must("a", &["top", "-o", "json"]);
            let top: Value = serde_json::from_str(&text).expect("JSON");
            let services = top["services"].as_array().expect("a list");
            let is_met = |it: &Value| it["service"] == service && wanted(it);
            if services.iter().any(is_met) {
                return;
            }
            assert!(Instant::now() < deadline, "the last was {top:#}");
            std::thread::yield_now();
        }
    }

    /// The node of the first pod of a service.
    fn home(&self, service: &str) -> String {
        let text = self.must("a", &["get", "pods", "-o", "json"]);
        let pods: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        let begin = format!("{service}-");
        let is_of = |pod: &&Value| {
            let name = pod["name"].as_str().expect("a name");
            name.starts_with(&begin)
        };
        let pod = pods.iter().find(is_of).expect("a pod");
        pod["node"].as_str().expect("a node").to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_pods_of_a_service_answers_for_it() {
    let Some(app) = App::start(3) else {
        return;
    };
    for (node, address) in app.addresses.clone() {
        let answer = eventually(address, "echo.test", "/headers", |it| it.status == 200).await;
        assert_eq!(answer.headers["sampan-pod"], "echo-1-0", "{node}");
        let fields: Vec<_> = answer.body.lines().collect();
        for seen in ["x-forwarded-host: echo.test", "x-forwarded-for: 127.0.0.1"] {
            assert!(fields.contains(&seen), "{node}: {fields:#?}");
        }
        let id = answer.headers["x-request-id"].to_str().expect("text");
        assert!(
            fields.contains(&format!("x-request-id: {id}").as_str()),
            "{node}: {fields:#?}"
        );
        assert!(!answer.body.contains("sampan-"), "{node}: {fields:#?}");

        let said = send(address, "POST", "echo.test", "/x", "small").await;
        assert_eq!((said.status, said.body.as_str()), (200, "small"), "{node}");
        let large = "0123456789abcdef".repeat(1 << 16);
        let said = send(address, "POST", "echo.test", "/x", large.clone()).await;
        assert!(
            said.status == 200 && said.body == large,
            "{node}: {}",
            said.status
        );
        converses(address).await;

        let called = get(
            address,
            "caller.test",
            "/call?url=http://echo.internal/headers",
        )
        .await;
        assert_eq!(called.status, 200, "{node}: {}", called.body);
        assert!(
            called.body.contains("traceparent: "),
            "{node}: {}",
            called.body
        );
    }
    breaks(app.elsewhere("one")).await;
    waits_for_its_turn(app.elsewhere("slow")).await;
    ends_badly(app.elsewhere("slow")).await;
}

/// What comes back does so while the rest is still to be sent.
async fn converses(address: SocketAddr) {
    let stream = TcpStream::connect(address).await.expect("it accepts");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    tokio::spawn(connection);
    let (more, rest) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = stream::unfold(rest, |mut rest| async move {
        let bytes = rest.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(bytes)), rest))
    });
    let request = http::Request::post("/x").header("host", "echo.test");
    let request = request.body(StreamBody::new(frames.boxed())).expect("good");
    more.send(Bytes::from_static(b"first")).await.expect("read");
    let answer = timeout(PATIENCE, sender.send_request(request)).await;
    let mut body = answer.expect("in time").expect("an answer").into_body();
    for word in [&b"first"[..], b"second", b"third"] {
        let mut heard = Vec::new();
        while heard.len() < word.len() {
            let frame = timeout(PATIENCE, body.frame()).await.expect("in time");
            let frame = frame.expect("more").expect("whole");
            heard.extend_from_slice(&frame.into_data().expect("bytes"));
        }
        assert_eq!(heard, word);
        let next: &[u8] = if word == b"first" {
            b"second"
        } else {
            b"third"
        };
        // Behind the last one the body goes on without a reader.
        more.send(Bytes::copy_from_slice(next)).await.expect("read");
    }
}

/// A client that goes in the middle of its body takes its request along, and its slot is free.
async fn breaks(address: SocketAddr) {
    for _ in 0..3 {
        let mut stream = TcpStream::connect(address).await.expect("it accepts");
        let head = "POST /x HTTP/1.1\r\nhost: one.test\r\ncontent-length: 1000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        stream.write_all(&[b'x'; 400_000]).await.expect("written");
        drop(stream);
    }
    let answer = timeout(PATIENCE, send(address, "POST", "one.test", "/x", "next")).await;
    assert_eq!(answer.expect("in time").body, "next");
}

/// The pod takes one request at a time.
async fn waits_for_its_turn(address: SocketAddr) {
    let ask = || get(address, "slow.test", "/?ms=100");
    let began = Instant::now();
    let answers = tokio::join!(ask(), ask(), ask(), ask(), ask());
    let statuses = [answers.0, answers.1, answers.2, answers.3, answers.4].map(|it| it.status);
    assert_eq!(statuses, [200; 5]);
    assert!(began.elapsed() >= Duration::from_millis(500));
}

/// An answer that breaks off is not taken for a whole one.
async fn ends_badly(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    let head = "GET /die-after-head HTTP/1.1\r\nhost: slow.test\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("in time");
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(
        said.contains("last words") && !said.ends_with("0\r\n\r\n"),
        "{said}"
    );
    eventually(address, "slow.test", "/?ms=1", |it| it.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_takes_no_request_along_that_can_be_repeated_and_none_hangs() {
    let Some(mut app) = App::start(3) else {
        return;
    };
    let elsewhere = app.elsewhere("slow");
    eventually(elsewhere, "slow.test", "/?ms=1", |it| it.status == 200).await;
    let home = app.cluster.home("slow");
    let asked = tokio::spawn(get(elsewhere, "slow.test", "/?ms=30000"));
    // It has a slot by the time another one waits.
    app.cluster
        .measured("slow", |it| it["in_flight"].as_f64() > Some(0.9));
    let waits = tokio::spawn(get(elsewhere, "slow.test", "/?ms=2"));
    app.cluster
        .measured("slow", |it| it["queued"].as_f64() > Some(0.9));
    let killed = app.cluster.running(&home).take().expect("it runs");
    killed.signal(Signal::KILL);
    let began = Instant::now();
    let answer = timeout(PATIENCE, asked)
        .await
        .expect("in time")
        .expect("it ends");
    // There is no other pod, so it cannot be repeated.
    assert_eq!(answer.status, 502, "{}", answer.body);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // The other had not begun.
    let answer = timeout(PATIENCE, waits)
        .await
        .expect("in time")
        .expect("it ends");
    assert!([200, 503].contains(&answer.status), "{}", answer.body);
    // Its pods are made again elsewhere, and are found there.
    eventually(elsewhere, "slow.test", "/?ms=1", |it| it.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_a_node_without_pods_wait_for_them_and_restarts_lose_none() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    let spec = format!(
        "app = 'a'\n[service.web]\ncomponent = '{}'\nroute = ['web.test/']\nreplicas = 2\n",
        guest("echo")
    );
    let path = cluster.place("sampan.toml");
    std::fs::write(&path, spec).expect("written");
    let path = path.display().to_string();
    let addresses = cluster.addresses();
    let addresses: Vec<_> = addresses.into_iter().map(|(_, address)| address).collect();
    cluster.must("a", &["apply", "-f", &path]);
    // Once the service is known, each request waits for its pods.
    for address in &addresses {
        let first = eventually(*address, "web.test", "/", |it| it.status != 404).await;
        assert_eq!(first.status, 200, "{}", first.body);
    }
    let (stop, _) = tokio::sync::watch::channel(false);
    let asking = addresses
        .into_iter()
        .flat_map(|address| [(address, "GET"), (address, "POST")]);
    let asking = asking.map(|(address, method)| {
        let stopped = stop.subscribe();
        tokio::spawn(async move {
            let mut count = 0;
            while !*stopped.borrow() {
                let answer = send(address, method, "web.test", "/x", "hello").await;
                assert_eq!(answer.status, 200, "{method} {count}: {}", answer.body);
                count += 1;
            }
            count
        })
    });
    let asking: Vec<_> = asking.collect();
    for _ in 0..4 {
        tokio::task::block_in_place(|| cluster.must("b", &["restart", "web", "--wait"]));
    }
    stop.send_replace(true);
    for asked in asking {
        let count = asked.await.expect("no request failed");
        assert!(count > 10, "{count}");
    }
}
