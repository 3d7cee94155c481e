//! TCP connections of guests: denied unless granted, of WASI 0.2 and 0.3.

mod python;
mod servers;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sampan_core::{
    fault::Fault,
    object::{HostPattern, Isolation, Outbound, Scheme},
};
use sampan_runtime::{
    Runtime,
    logs::Stream,
    pod::{Failure, Pod},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::rig::{SHORT, Witness, ask, config, failure, in_time, lines, plan, runtime, workload};

const GUESTS: [&str; 2] = ["database", "sockets-p3"];

fn rule(host: &str, port: u16) -> Outbound {
    let host = match host.parse() {
        Ok(address) => HostPattern::Address(address),
        Err(_) => HostPattern::Exact(host.to_owned()),
    };
    Outbound {
        scheme: Scheme::Tcp,
        host,
        port,
    }
}

fn to(address: SocketAddr) -> Outbound {
    rule(&address.ip().to_string(), address.port())
}

async fn pod(guest: &str, rules: Vec<Outbound>) -> Pod {
    let mut plan = plan(workload(guest));
    plan.grants.outbound = rules;
    plan.start().await
}

async fn told(pod: &Pod, path: &str) -> (u16, String) {
    let told = in_time(ask(pod, path)).await;
    told.unwrap_or_else(|failure| {
        let lines = lines(runtime(), pod.name()).into_iter();
        let lines: Vec<_> = lines.map(|line| line.text).collect();
        panic!("{path}: {failure:?}\n{}", lines.join("\n"))
    })
}

/// What the host has said of a pod.
fn denials(pod: &Pod) -> Vec<String> {
    let lines = lines(runtime(), pod.name()).into_iter();
    let host = lines.filter(|line| line.stream == Stream::Host);
    host.map(|line| line.text.to_string()).collect()
}

/// A server that takes connections and says `hello` and what it has read, once its client has ended.
async fn server(address: &str) -> SocketAddr {
    let listener = TcpListener::bind(address).await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = b"hello ".to_vec();
                let _ = connection.read_to_end(&mut read).await;
                let _ = connection.write_all(&read).await;
            });
        }
    });
    address
}

/// A server that takes connections and never says anything.
async fn silent() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    address
}

#[tokio::test]
async fn nothing_is_allowed_by_default_and_the_log_names_the_rule() {
    let address = server("127.0.0.1:0").await;
    for guest in GUESTS {
        let pod = pod(guest, Vec::new()).await;
        let (status, _) = told(&pod, &format!("/tcp?at={address}")).await;
        assert_eq!(status, 502, "{guest}");
        let (status, _) = told(&pod, "/lookup?name=db.example.com").await;
        assert_eq!(status, 502, "{guest}");
        let denied = denials(&pod);
        let hint = "`allow.outbound = [\"tcp://HOST:PORT\"]` would allow it";
        assert!(denied[0].contains(hint), "{denied:?}");
        let hint = "`allow.outbound = [\"tcp://db.example.com:PORT\"]` would allow it";
        assert!(denied[1].contains(hint), "{denied:?}");
    }
}

#[tokio::test]
async fn what_is_granted_is_reached_and_nothing_else() {
    let (granted, other) = (server("127.0.0.1:0").await, server("127.0.0.1:0").await);
    for guest in GUESTS {
        let pod = pod(guest, vec![to(granted)]).await;
        let path = format!("/tcp?at={granted}");
        assert_eq!(told(&pod, &path).await, (200, "connected\n".to_owned()));
        let looked = told(&pod, "/lookup?name=127.0.0.1").await;
        assert_eq!(looked, (200, "127.0.0.1\n".to_owned()), "{guest}");
        // Another port of the address, the address written in another way, and another address.
        for at in [
            other.to_string(),
            format!("[::ffff:127.0.0.1]:{}", other.port()),
            format!("127.0.0.2:{}", granted.port()),
            format!("0.0.0.0:{}", other.port()),
            format!("[::1]:{}", granted.port()),
            "169.254.169.254:80".to_owned(),
        ] {
            let (status, text) = told(&pod, &format!("/tcp?at={at}")).await;
            assert_eq!(status, 502, "{guest} {at}: {text}");
        }
        let denied = denials(&pod);
        let hint = format!("`allow.outbound = [\"tcp://{other}\"]` would allow it");
        assert!(denied[0].contains(&hint), "{denied:?}");
    }
}

#[tokio::test]
async fn a_grant_of_http_is_no_grant_of_a_connection() {
    let address = server("127.0.0.1:0").await;
    let mut http = to(address);
    http.scheme = Scheme::Http;
    for guest in GUESTS {
        let pod = pod(guest, vec![http.clone()]).await;
        let (status, _) = told(&pod, &format!("/tcp?at={address}")).await;
        assert_eq!(status, 502, "{guest}");
    }
}

#[tokio::test]
async fn a_name_leads_where_it_may_and_only_at_its_port() {
    let (granted, other) = (server("127.0.0.1:0").await, server("127.0.0.1:0").await);
    let rules = vec![rule("localhost", granted.port())];
    for guest in GUESTS {
        let pod = pod(guest, rules.clone()).await;
        // Before the name was looked up its address is one of which nothing is known.
        let path = format!("/tcp?at={granted}");
        assert_eq!(told(&pod, &path).await.0, 502, "{guest}");
        let (status, found) = told(&pod, "/lookup?name=LocalHost").await;
        assert_eq!(status, 200, "{guest} {found}");
        let loopback = |line: &str| {
            line.parse::<std::net::IpAddr>()
                .is_ok_and(|it| it.is_loopback())
        };
        assert!(!found.is_empty() && found.lines().all(loopback), "{found}");
        let (status, _) = told(&pod, "/lookup?name=example.com").await;
        assert_eq!(status, 502, "{guest}");
    }
    // The guest of WASI 0.2 looks names up itself when it connects.
    let pod = pod("database", rules).await;
    let path = |port: u16| format!("/tcp?at=localhost:{port}");
    assert_eq!(told(&pod, &path(granted.port())).await.0, 200);
    assert_eq!(told(&pod, &path(other.port())).await.0, 502);
}

#[tokio::test]
async fn an_address_of_the_node_itself_is_refused_whatever_is_granted() {
    for guest in GUESTS {
        let address = server("127.0.0.1:0").await;
        let rules = vec![to(address), rule("localhost", address.port())];
        let pod = pod(guest, rules).await;
        let path = format!("/tcp?at={address}");
        assert_eq!(told(&pod, &path).await.0, 200, "{guest}");
        sampan_runtime::protect(address);
        assert_eq!(told(&pod, &path).await.0, 502, "{guest}");
        let denied = denials(&pod);
        assert!(denied[0].contains("this node itself"), "{denied:?}");
    }
}

#[tokio::test]
async fn nothing_listens() {
    let pod = pod("database", vec![rule("127.0.0.1", 1)]).await;
    let (status, text) = told(&pod, "/listen").await;
    assert_eq!(status, 502, "{text}");
    assert!(text.contains("PermissionDenied"), "{text}");
}

#[tokio::test]
async fn sockets_are_counted_and_closed_with_the_instance() {
    let mut config = config();
    config.guest.sockets = 3;
    let runtime = Runtime::new(config).expect("a runtime");
    let address = silent().await;
    for guest in GUESTS {
        let mut plan = plan(workload(guest)).isolation(Isolation::Request);
        plan.runtime = Arc::clone(&runtime);
        plan.grants.outbound = vec![to(address)];
        let pod = plan.start().await;
        // Streams of WASI 0.3 keep a connection of which the guest has dropped the socket.
        let kept = ["", "&keep=streams"];
        for keep in kept.iter().cycle().take(4) {
            let path = format!("/many?at={address}&count=9{keep}");
            assert_eq!(told(&pod, &path).await, (200, "3\n".to_owned()), "{guest}");
            // They are closed once the instance is dropped, after its answer.
            super::rig::no_instance(&pod, Duration::from_secs(20)).await;
        }
    }
}

#[tokio::test]
async fn both_ways_and_to_the_end() {
    let address = server("127.0.0.1:0").await;
    let pod = pod("sockets-p3", vec![to(address)]).await;
    for text in ["there", "again"] {
        let path = format!("/say?at={address}&text={text}");
        assert_eq!(told(&pod, &path).await, (200, format!("hello {text}")));
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_wait_with_its_name() {
    let address = silent().await;
    for (guest, path, isolation) in [
        ("database", "/wait", Isolation::Request),
        ("database", "/wait", Isolation::Pod),
        // An instance that is shared outlives a request that takes too long.
        ("sockets-p3", "/say", Isolation::Request),
    ] {
        let watch = Arc::new(Witness::default());
        let mut plan = plan(workload(guest))
            .isolation(isolation)
            .request_timeout(SHORT)
            .watch(&watch);
        plan.grants.outbound = vec![to(address)];
        let pod = plan.start().await;
        let path = format!("{path}?at={address}&text=x");
        assert_eq!(
            failure(&pod, &path).await,
            Failure::TimedOut(SHORT),
            "{guest} {isolation:?}"
        );
        let told = watch.told();
        let told = told.last().map(|(_, fault)| *fault);
        assert_eq!(told, Some(Fault::TimedOut), "{guest} {isolation:?}");
        let end = watch.last();
        let waits = &end.evidence.as_ref().expect("it was looked at").waits;
        let named = format!("the server `{address}`");
        assert!(
            waits.iter().any(|wait| wait.on == named),
            "{guest}: {waits:?}"
        );
    }
}

/// A transaction, a large result, and a server that was started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql() {
    let Some(mut server) = servers::Postgres::start() else {
        return;
    };
    let mut plan = plan(workload("database"))
        .isolation(Isolation::Pod)
        .memory(256 << 20);
    plan.grants.outbound = vec![rule("127.0.0.1", server.port)];
    let pod = plan.start().await;
    let port = server.port;
    let query = async |sql: &str| {
        let sql = sql.replace(' ', "+");
        let path = format!("/postgres?at=127.0.0.1:{port}&user=sampan&sql={sql}");
        told(&pod, &path).await
    };
    let made = query("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1),(2); COMMIT").await;
    assert_eq!(made, (200, String::new()));
    let kept =
        query("BEGIN; INSERT INTO t VALUES (3); ROLLBACK; SELECT sum(n), count(*) FROM t").await;
    assert_eq!(kept, (200, "3\t2\n".to_owned()));
    // Eight megabytes.
    let (status, large) =
        query("SELECT n, repeat('x', 79) FROM generate_series(1, 100000) AS n").await;
    assert_eq!((status, large.lines().count()), (200, 100_000));
    assert!(large.len() > 8 << 20, "{}", large.len());
    let (status, wrong) = query("SELECT * FROM nowhere").await;
    assert_eq!(status, 502);
    assert!(
        wrong.contains("relation \"nowhere\" does not exist"),
        "{wrong}"
    );
    server.restart();
    assert_eq!(
        query("SELECT count(*) FROM t").await,
        (200, "2\n".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis() {
    let Some(mut server) = servers::Redis::start() else {
        return;
    };
    let mut plan = plan(workload("database")).isolation(Isolation::Pod);
    plan.grants.outbound = vec![rule("127.0.0.1", server.port)];
    let pod = plan.start().await;
    let path = format!("/redis?at=127.0.0.1:{}&get=visits", server.port);
    for wanted in 1..=50 {
        assert_eq!(told(&pod, &path).await, (200, format!("{wanted}\n")));
    }
    server.restart();
    // It keeps nothing on disk here, and so begins anew.
    assert_eq!(told(&pod, &path).await, (200, "1\n".to_owned()));
}
