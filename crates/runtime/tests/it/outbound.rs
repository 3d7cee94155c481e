//! Outgoing requests: denied unless granted, to servers outside and to other services.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, Waker},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sampan_core::{
    fault::Fault,
    name::Name,
    object::{HostPattern, Isolation, Outbound, Scheme},
};
use sampan_runtime::{
    Answer, Body, Neighbours,
    logs::{Line, Stream},
    pod::{Failure, Pod, Remains},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::rig::{SHORT, ask, get, in_time, lines, plan, runtime, text_of, workload};

/// A server that answers every connection with this text; it stops with the test's runtime.
async fn server(text: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.read_u8().await.expect("a head"));
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/x-test\r\nconnection: close\r\n\
                content-length: {}\r\n\r\n{text}",
                text.len()
            );
            connection
                .write_all(answer.as_bytes())
                .await
                .expect("a reader");
        }
    });
    address
}

async fn caller(rules: Vec<Outbound>) -> Pod {
    let mut plan = plan(workload("caller"));
    plan.grants.outbound = rules;
    plan.start().await
}

async fn call(pod: &Pod, url: &str) -> (u16, String) {
    in_time(ask(pod, &format!("/call?url={url}")))
        .await
        .expect("an answer")
}

fn rule(host: HostPattern, port: u16) -> Outbound {
    Outbound {
        scheme: Scheme::Http,
        host,
        port,
    }
}

fn denials(pod: &Pod) -> Vec<Line> {
    let mut lines = lines(runtime(), pod.name());
    lines.retain(|line| line.stream == Stream::Host);
    lines
}

#[tokio::test]
async fn nothing_is_allowed_by_default_and_the_log_names_the_rule() {
    let address = server("never seen").await;
    let pod = caller(Vec::new()).await;
    let url = format!("http://{address}/");
    let request = get(&format!("/call?url={url}"));
    let response = in_time(pod.call(request, Some("r-7".into())))
        .await
        .expect("an answer");
    assert_eq!(response.status(), 502);
    assert_eq!(
        text_of(response.into_body()).await.as_deref(),
        Ok("HttpRequestDenied\n")
    );
    let denied = denials(&pod);
    assert_eq!(denied.len(), 1, "{denied:?}");
    assert_eq!(denied[0].request.as_deref(), Some("r-7"));
    let hint = format!("`allow.outbound = [\"http://{address}\"]`");
    assert!(denied[0].text.contains(&hint), "{}", denied[0].text);
    for url in [
        "http://localhost/",
        "https://example.com/",
        "http://2130706433/",
        "http://web/",
    ] {
        assert_eq!(
            call(&pod, url).await,
            (502, "HttpRequestDenied\n".to_owned()),
            "{url}"
        );
    }
}

#[tokio::test]
async fn an_address_granted_by_number_is_reached() {
    let address = server("from outside").await;
    let host = HostPattern::Address(address.ip());
    let pod = caller(vec![rule(host, address.port())]).await;
    let url = format!("http://{address}/");
    for _ in 0..2 {
        let response = in_time(pod.call(get(&format!("/call?url={url}")), None)).await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/x-test");
        assert_eq!(
            text_of(response.into_body()).await.as_deref(),
            Ok("from outside")
        );
    }
    // The same server by its name, another port, another scheme: other grants.
    let (port, other) = (address.port(), address.port() ^ 1);
    for url in [
        format!("http://localhost:{port}/"),
        format!("http://127.0.0.1:{other}/"),
        format!("https://127.0.0.1:{port}/"),
    ] {
        assert_eq!(
            call(&pod, &url).await,
            (502, "HttpRequestDenied\n".to_owned()),
            "{url}"
        );
    }
    assert_eq!(denials(&pod).len(), 3);
}

#[tokio::test]
async fn localhost_is_reached_when_it_is_granted() {
    let address = server("from here").await;
    let port = address.port();
    let pod = caller(vec![rule(HostPattern::Exact("localhost".to_owned()), port)]).await;
    let answer = call(&pod, &format!("http://localhost:{port}/")).await;
    assert_eq!(answer, (200, "from here".to_owned()));
    let answer = call(&pod, &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(answer, (502, "HttpRequestDenied\n".to_owned()));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let pod = caller(vec![rule(
        HostPattern::Address(address.ip()),
        address.port(),
    )])
    .await;
    let answer = call(&pod, &format!("http://{address}/")).await;
    assert_eq!(answer, (502, "ConnectionRefused\n".to_owned()));
}

/// What was asked of the neighbours: service, URL and request id.
type Asked = Mutex<Vec<(String, String, Option<String>)>>;

#[derive(Default)]
struct Recorder(Asked);

impl Neighbours for Recorder {
    fn has(&self, service: &Name) -> bool {
        !service.as_str().starts_with("absent")
    }

    fn occupied(&self, _: &Name) -> Option<Vec<(sampan_core::name::PodName, u32)>> {
        None
    }

    fn call(
        &self,
        service: &Name,
        request: http::Request<Body>,
        request_id: Option<Arc<str>>,
    ) -> Answer {
        let asked = (
            service.to_string(),
            request.uri().to_string(),
            request_id.map(|id| id.to_string()),
        );
        self.0.lock().expect("no panic").push(asked);
        let answer = match service.as_str() {
            "api" => {
                let body = Full::new(Bytes::from("from the neighbour"));
                let body = body.map_err(|never| match never {}).boxed_unsync();
                Ok(http::Response::new(body))
            }
            "never" => return Box::pin(std::future::pending()),
            "full" => Err(Fault::Unavailable),
            "late" => Err(Fault::TimedOut),
            "broken" => Err(Fault::NoResponse),
            _ => Err(Fault::NoService),
        };
        Box::pin(std::future::ready(answer))
    }
}

#[tokio::test]
async fn granted_services_are_called_through_the_node() {
    let recorder = Arc::new(Recorder::default());
    let mut plan = plan(workload("caller"));
    plan.neighbours = Some(Arc::clone(&recorder) as Arc<dyn Neighbours>);
    let names =
        ["api", "full", "late", "broken", "gone"].map(|name| Name::parse(name).expect("good"));
    plan.grants.services = names.to_vec();
    let pod = plan.start().await;
    let request = get("/call?url=http://api.internal/path?query");
    let response = in_time(pod.call(request, Some("r-1".into())))
        .await
        .expect("an answer");
    assert_eq!(
        text_of(response.into_body()).await.as_deref(),
        Ok("from the neighbour")
    );
    assert_eq!(
        call(&pod, "http://api/").await,
        (200, "from the neighbour".to_owned())
    );
    for (name, error) in [
        ("full", "DestinationUnavailable"),
        ("late", "HttpResponseTimeout"),
        ("broken", "ConnectionTerminated"),
        ("gone", "DestinationNotFound"),
    ] {
        let answer = call(&pod, &format!("http://{name}/")).await;
        assert_eq!(answer, (502, format!("{error}\n")), "{name}");
    }
    let asked = recorder.0.lock().expect("no panic");
    let url = "http://api.internal/path?query".to_owned();
    assert_eq!(asked[0], ("api".to_owned(), url, Some("r-1".to_owned())));
    assert_eq!(asked.len(), 6);
}

/// Answers when it has been polled so often, and notes at each poll whether its caller waits: the
/// waker of one that does not wakes nothing.
struct Polled {
    needed: usize,
    waits: Arc<Mutex<Vec<bool>>>,
}

impl Neighbours for Polled {
    fn has(&self, _: &Name) -> bool {
        true
    }

    fn occupied(&self, _: &Name) -> Option<Vec<(sampan_core::name::PodName, u32)>> {
        None
    }

    fn call(&self, _: &Name, _: http::Request<Body>, _: Option<Arc<str>>) -> Answer {
        let (needed, waits) = (self.needed, Arc::clone(&self.waits));
        Box::pin(std::future::poll_fn(move |cx| {
            let mut waits = waits.lock().expect("no panic");
            // `will_wake` compares tables too, of which each crate may have one.
            waits.push(cx.waker().data() != Waker::noop().data());
            if waits.len() < needed {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let body = Full::new(Bytes::from("from the neighbour"));
            let body = body.map_err(|never| match never {}).boxed_unsync();
            Poll::Ready(Ok(http::Response::new(body)))
        }))
    }
}

/// A service that waits for nothing answers where it is called. One that does goes on in a task,
/// and so does each call of an instance that stays.
#[tokio::test]
async fn a_call_is_answered_where_it_is_made_if_it_can_be() {
    for (isolation, needed, expected) in [
        (Isolation::Request, 1, &[false][..]),
        (Isolation::Request, 3, &[false, true, true]),
        (Isolation::Pod, 1, &[true]),
    ] {
        let waits = Arc::<Mutex<Vec<bool>>>::default();
        let mut plan = plan(workload("caller"));
        plan.isolation = Some(isolation);
        plan.grants.services = vec![Name::parse("api").expect("good")];
        plan.neighbours = Some(Arc::new(Polled {
            needed,
            waits: Arc::clone(&waits),
        }));
        let pod = plan.start().await;
        assert_eq!(
            call(&pod, "http://api/").await,
            (200, "from the neighbour".to_owned())
        );
        assert_eq!(*waits.lock().expect("no panic"), expected, "{isolation:?}");
    }
}

#[tokio::test]
async fn a_service_that_is_not_granted_is_not_called() {
    let recorder = Arc::new(Recorder::default());
    let mut plan = plan(workload("caller"));
    plan.neighbours = Some(Arc::clone(&recorder) as Arc<dyn Neighbours>);
    let pod = plan.start().await;
    for (url, rule) in [
        ("http://api.internal/", "`allow.services = [\"api\"]`"),
        ("http://absent.internal/", "`allow.services = [\"absent\"]`"),
        ("http://api/", "`allow.services = [\"api\"]`"),
        // No service is called so, so it is a host outside.
        ("http://absent/", "`allow.outbound = [\"http://absent\"]`"),
    ] {
        let answer = call(&pod, url).await;
        assert_eq!(answer, (502, "HttpRequestDenied\n".to_owned()), "{url}");
        let denied = denials(&pod);
        let text = &denied.last().expect("a denial").text;
        assert!(text.contains(rule), "{url}: {text}");
    }
    assert!(recorder.0.lock().expect("no panic").is_empty());
}

/// A request must not be tried again elsewhere once its guest has called out, though its pod was only
/// stopped.
#[tokio::test]
async fn whether_a_guest_has_called_out_is_known() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let mut plan = plan(workload("caller")).isolation(isolation);
        plan.neighbours = Some(Arc::new(Recorder::default()));
        plan.grants.services = vec![Name::parse("never").expect("a good name")];
        let pod = plan.start().await;
        let mut call = std::pin::pin!(pod.call(get("/call?url=http://never/"), None));
        assert!(tokio::time::timeout(SHORT, &mut call).await.is_err());
        pod.end();
        let error = in_time(call).await.expect_err("no answer");
        assert_eq!(error.failure, Failure::Stopped);
        let repeatable = !matches!(error.remains, Remains::Nothing { repeatable: false });
        assert!(!repeatable, "{error:?}");
    }
}

/// Every way to write an address that is none of the public internet, and hosts that are none.
/// `{v4}` and `{v6}` are the ports of listeners on loopback.
pub(crate) const FORBIDDEN: &[&str] = &[
    "http://127.0.0.1:{v4}/",
    "http://127.0.0.1.:{v4}/",
    "http://127.1:{v4}/",
    "http://127.0.1:{v4}/",
    "http://127.1.2.3:{v4}/",
    "http://2130706433:{v4}/",
    "http://0x7f000001:{v4}/",
    "http://0x7f.0.0.1:{v4}/",
    "http://017700000001:{v4}/",
    "http://0177.0.0.1:{v4}/",
    "http://127.0.0.1%00.example.com:{v4}/",
    "http://%31%32%37.0.0.1:{v4}/",
    "http://0:{v4}/",
    "http://0.0.0.0:{v4}/",
    "http://localhost:{v4}/",
    "http://LOCALHOST:{v4}/",
    "http://localhost.:{v4}/",
    "http://a.localhost:{v4}/",
    "http://localhost.localdomain:{v4}/",
    "http://ip6-localhost:{v6}/",
    "http://[::1]:{v6}/",
    "http://[0:0:0:0:0:0:0:1]:{v6}/",
    "http://[::]:{v6}/",
    "http://[::ffff:127.0.0.1]:{v4}/",
    "http://[::ffff:7f00:1]:{v4}/",
    "http://[::127.0.0.1]:{v4}/",
    "http://[64:ff9b::7f00:1]:{v4}/",
    "http://[2002:7f00:1::]:{v4}/",
    "http://[::1%25lo]:{v6}/",
    "http://user@127.0.0.1:{v4}/",
    "http://allowed.example.com@127.0.0.1:{v4}/",
    "http://allowed.example.com:80@127.0.0.1:{v4}/",
    "http://127.0.0.1:{v4}#@allowed.example.com/",
    "http://127.0.0.1:{v4}?@allowed.example.com/",
    "http://127.0.0.1\\@allowed.example.com:{v4}/",
    "http://allowed.example.com.127.0.0.1.nip.io:{v4}/",
    "https://127.0.0.1:{v4}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fe80::1]/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://evil.test/",
    "http://example.com/",
    "http://allowed.example.com.evil.test/",
    "http://xallowed.example.com.evil.test/",
];

/// A listener that counts who connects.
pub(super) async fn counting(address: &str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let count = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Relaxed);
        }
    });
    (port, count)
}

#[tokio::test]
async fn no_way_of_writing_reaches_what_is_not_granted() {
    assert!(FORBIDDEN.len() >= 40);
    let ((v4, by_v4), (v6, by_v6)) = (counting("0.0.0.0:0").await, counting("[::]:0").await);
    let plain = |host, port| Outbound {
        scheme: Scheme::Http,
        host,
        port,
    };
    let below = || HostPattern::Below("example.com".to_owned());
    let grants = [
        Vec::new(),
        // Names below a domain, on the very ports where a server listens.
        vec![plain(below(), 443), plain(below(), v4), plain(below(), v6)],
    ];
    for rules in grants {
        let pod = caller(rules).await;
        for url in FORBIDDEN {
            let url = url.replace("{v4}", &v4.to_string());
            let url = url.replace("{v6}", &v6.to_string());
            let encoded: String = url.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let (status, answer) = call(&pod, &encoded).await;
            // What the guest cannot even ask for is a 400.
            let is_denied = (status, answer.as_str()) == (502, "HttpRequestDenied\n");
            assert!(is_denied || status == 400, "{url}: {status} {answer}");
        }
    }
    assert_eq!((by_v4.load(Relaxed), by_v6.load(Relaxed)), (0, 0));
}

#[tokio::test]
async fn an_address_of_the_node_itself_is_refused_whatever_is_granted() {
    let address = server("the node").await;
    let port = address.port();
    let rules = || {
        vec![
            rule(HostPattern::Address(address.ip()), port),
            rule(HostPattern::Exact("localhost".to_owned()), port),
        ]
    };
    let urls = [
        format!("http://{address}/"),
        format!("http://localhost:{port}/"),
    ];
    let pod = caller(rules()).await;
    for url in &urls {
        assert_eq!(call(&pod, url).await, (200, "the node".to_owned()));
    }
    sampan_runtime::protect(address);
    for url in &urls {
        assert_eq!(
            call(&pod, url).await,
            (502, "HttpRequestDenied\n".to_owned())
        );
    }
    let denied = denials(&pod);
    assert!(
        denied[0].text.contains("this node itself"),
        "{}",
        denied[0].text
    );
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (port, reached) = counting("127.0.0.1:0").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.expect("a call");
        let answer = format!(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n"
        );
        connection
            .write_all(answer.as_bytes())
            .await
            .expect("a reader");
    });
    let pod = caller(vec![rule(
        HostPattern::Address(address.ip()),
        address.port(),
    )])
    .await;
    assert_eq!(call(&pod, &format!("http://{address}/")).await.0, 302);
    assert_eq!(reached.load(Relaxed), 0);
}
