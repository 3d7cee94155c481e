//! The places of a pod are for requests that it can work on: what slow clients cost the others.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, channel::Channel};
use sampan_core::fault::Fault;
use sampan_gateway::{
    Body, BodyError, Endpoint, Gateway, Limits, ResponseBody, ServiceConfig, Upstream,
    UpstreamError, full,
};
use tokio::{
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use crate::fixture::*;

/// A second of a client that sends as slowly as in the reports.
const TRICKLE: &[u8] = &[b'x'; 300];

/// A pod that reads the body and says how long it was.
fn reads() -> Arc<dyn Upstream> {
    pod(|request, _| async move {
        match request.into_body().collect().await {
            Ok(body) => Ok(Response::new(full(body.to_bytes().len().to_string()))),
            Err(_) => Err(UpstreamError::new(Fault::Trapped)),
        }
    })
}

/// A pod whose answers have this many pieces of 16 KiB each. It makes the next piece once the one
/// before has been taken.
fn pours(pieces: usize) -> Arc<dyn Upstream> {
    pod(move |_, _| async move {
        let (mut sender, body) = Channel::<Bytes, BodyError>::new(1);
        tokio::spawn(async move {
            for _ in 0..pieces {
                let piece = Bytes::from(vec![b'x'; 16 << 10]);
                if sender.send_data(piece).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(body.boxed_unsync()))
    })
}

/// A body that begins with `first` and goes on at 300 bytes a second until it has `length` bytes.
/// Only with `is_declared` the gateway knows how many these are.
fn trickle(first: usize, length: usize, is_declared: bool) -> Body {
    let (mut sender, body) = Channel::<Bytes, BodyError>::new(1);
    tokio::spawn(async move {
        let mut sent = first;
        if first > 0 && sender.send_data(vec![b'x'; first].into()).await.is_err() {
            return;
        }
        while sent < length {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let piece = &TRICKLE[..TRICKLE.len().min(length - sent)];
            sent += piece.len();
            if sender.send_data(Bytes::from_static(piece)).await.is_err() {
                return;
            }
        }
    });
    match is_declared {
        true => Declared(body.boxed_unsync(), length as u64).boxed_unsync(),
        false => body.boxed_unsync(),
    }
}

/// A body whose length is known, as by `Content-Length`.
struct Declared(Body, u64);

impl http_body::Body for Declared {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(std::pin::Pin::new(&mut self.0).poll_frame(cx));
        if let Some(Ok(data)) = frame.as_ref().map(|it| it.as_ref().map(|it| it.data_ref())) {
            self.1 -= data.map_or(0, |data| data.len() as u64);
        }
        std::task::Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.1 == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

fn begin(gateway: &Gateway, request: Request<Body>) -> JoinHandle<StatusCode> {
    let gateway = gateway.clone();
    tokio::spawn(async move { send_status(&gateway, request).await })
}

/// Asks as any other client would, with and without a body, and says how long the slower one took.
async fn others(gateway: &Gateway) -> Duration {
    let begin = Instant::now();
    for request in [
        get("/"),
        post("/", full("small")),
        post("/", full(vec![0; 100_000])),
    ] {
        assert_eq!(send_status(gateway, request).await, 200);
    }
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_takes_no_place() {
    for capacity in [1, 64] {
        let endpoint = ready(0, capacity, reads());
        let gateway = gateway(web(), [endpoint.clone()]);
        let slow: Vec<_> = (0..70)
            .map(|_| begin(&gateway, post("/", trickle(0, 10_000, true))))
            .collect();
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(endpoint.in_flight(), 0);
            assert_eq!(others(&gateway).await, Duration::ZERO);
        }
        for slow in slow {
            assert_eq!(slow.await.unwrap(), 200);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_after_a_fast_beginning_takes_no_place_while_it_fits() {
    let endpoint = ready(0, 1, reads());
    let gateway = gateway(web(), [endpoint.clone()]);
    let slow = begin(&gateway, post("/", trickle(64 << 10, 70_000, true)));
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(
            (endpoint.in_flight(), others(&gateway).await),
            (0, Duration::ZERO)
        );
    }
    assert_eq!(slow.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_its_place_loses_it_when_another_waits_for_it() {
    let endpoint = ready(0, 2, reads());
    let gateway = gateway(web(), [endpoint.clone()]);
    // Too long to be read ahead whole.
    let slow: Vec<_> = (0..10)
        .map(|_| begin(&gateway, post("/", trickle(300 << 10, 400 << 10, true))))
        .collect();
    settle().await;
    assert_eq!(endpoint.in_flight(), 2);
    for second in 0..50 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let took = others(&gateway).await;
        println!("{second}: {took:?}");
        // At first the last of them may have some of its pause left.
        let bound = Duration::from_millis(if second == 0 { 510 } else { 20 });
        assert!(took <= bound, "after {second} s: {took:?}");
    }
    let mut ends = Vec::new();
    for slow in slow {
        ends.push(slow.await.unwrap().as_u16());
    }
    assert!(ends.contains(&408), "{ends:?}");
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.in_flight, stats.queued), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn while_no_other_request_waits_a_slow_body_may_keep_its_place() {
    let limits = Limits {
        body_read_ahead: 1 << 10,
        ..Limits::default()
    };
    let gateway = gateway_with(limits, web(), [ready(0, 1, reads())]);
    let answer = begin(&gateway, post("/", trickle(2 << 10, 20_000, true)));
    assert_eq!(answer.await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_gets_a_place_and_what_trickles_like_one_stands_behind() {
    let endpoint = ready(0, 1, reads());
    let gateway = gateway(web(), [endpoint.clone()]);
    let slow: Vec<_> = (0..70)
        .map(|_| begin(&gateway, post("/", trickle(1, 1000, false))))
        .collect();
    // Its client may wait for the beginning of the answer.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(endpoint.in_flight(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(others(&gateway).await <= Duration::from_millis(20));
    for slow in slow {
        assert!([200, 408].contains(&slow.await.unwrap().as_u16()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_of_slow_requests_has_room_for_others() {
    let gate = Arc::new(Semaphore::new(0));
    let config = ServiceConfig { queue: 5, ..web() };
    let gateway = gateway(config, [ready(0, 1, says_after(&gate, "web"))]);
    let first = begin(&gateway, get("/"));
    settle().await;
    let mut slow: JoinSet<_> = (0..5)
        .map(|_| begin(&gateway, post("/", trickle(1, 100_000, false))))
        .map(|answer| async { answer.await.unwrap() })
        .collect();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(gateway.stats(&name("web")).unwrap().queued, 5);
    let second = begin(&gateway, get("/"));
    // One of the slow ones has to go for it.
    assert_eq!(slow.join_next().await.unwrap().unwrap(), 503);
    gate.add_permits(2);
    assert_eq!(
        (first.await.unwrap(), second.await.unwrap()),
        (StatusCode::OK, StatusCode::OK)
    );
}

#[tokio::test(start_paused = true)]
async fn all_bodies_that_are_read_ahead_share_one_account() {
    let limits = Limits {
        read_ahead_total: 64 << 10,
        ..Limits::default()
    };
    let endpoint = ready(0, 100, reads());
    let gateway = gateway_with(limits, web(), [endpoint.clone()]);
    // The first piece of each is in the buffer of its connection anyway.
    let slow: Vec<_> = (0..50)
        .map(|_| begin(&gateway, post("/", trickle(1, 3000, true))))
        .collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    // 16 times 4 KiB are all there is; the others got a place in place of it.
    assert_eq!(endpoint.in_flight(), 50 - 16);
    for slow in slow {
        assert_eq!(slow.await.unwrap(), 200);
    }
    // All of it has been given back.
    let again = begin(&gateway, post("/", trickle(1, 3000, true)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(endpoint.in_flight(), 0);
    assert_eq!(again.await.unwrap(), 200);
}

/// Answers that are not read, each of which has been begun.
async fn unread(gateway: &Gateway, count: usize) -> Vec<ResponseBody> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        let mut body = gateway.handle(get("/big"), None).await.into_body();
        assert!(body.frame().await.unwrap().is_ok());
        bodies.push(body);
    }
    bodies
}

/// A pod that answers `/big` with that, and everything else at once.
fn big(big: Arc<dyn Upstream>) -> Arc<dyn Upstream> {
    let small = reads();
    pod(move |request, context| {
        let (big, small) = (big.clone(), small.clone());
        async move {
            match request.uri().path() {
                "/big" => big.call(request, &context).await,
                _ => small.call(request, &context).await,
            }
        }
    })
}

async fn read(body: ResponseBody) -> Result<usize, BodyError> {
    Ok(body.collect().await?.to_bytes().len())
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_gives_its_place_back_once_the_pod_has_written_it() {
    let endpoint = ready(0, 3, big(pours(10)));
    let gateway = gateway(web(), [endpoint.clone()]);
    let bodies = unread(&gateway, 3).await;
    assert_eq!(endpoint.in_flight(), 3);
    assert!(others(&gateway).await <= Duration::from_millis(20));
    tokio::time::sleep(Duration::from_secs(600)).await;
    for body in bodies {
        assert_eq!(read(body).await.unwrap(), 9 * (16 << 10));
    }
    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.errors, stats.canceled, stats.in_flight), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_end_that_is_not_read_loses_its_place() {
    for count in [1, 500] {
        let endpoint = ready(0, count, big(pours(usize::MAX)));
        let gateway = gateway(web(), [endpoint.clone()]);
        let mut bodies = unread(&gateway, count as usize).await;
        assert!(others(&gateway).await <= Duration::from_millis(550));
        assert!(endpoint.in_flight() < count);
        if count == 1 {
            let end = read(bodies.remove(0)).await;
            assert!(matches!(end, Err(BodyError::TooSlow)), "{end:?}");
        }
        // Those that go away while their answers are read ahead leave nothing behind.
        drop(bodies);
        settle().await;
        let stats = gateway.stats(&name("web")).unwrap();
        assert_eq!((stats.in_flight, endpoint.in_flight()), (0, 0));
    }
}

/// Ten times as many as there are places, and the others come last.
#[tokio::test(start_paused = true)]
async fn a_long_line_of_clients_that_do_not_read_costs_the_others_one_pause() {
    for places in [1, 10] {
        let endpoint = ready(0, places, big(pours(usize::MAX)));
        let gateway = gateway(web(), [endpoint.clone()]);
        let mut crowd = JoinSet::new();
        for _ in 0..50 {
            let gateway = gateway.clone();
            crowd.spawn(async move {
                let mut body = gateway.handle(get("/big"), None).await.into_body();
                let _ = body.frame().await;
                std::future::pending::<()>().await
            });
        }
        settle().await;
        let took = others(&gateway).await;
        assert!(took <= Duration::from_millis(1500), "{places}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_at_some_pace_keeps_its_place() {
    let endpoint = ready(0, 1, big(pours(100)));
    let gateway = gateway(web(), [endpoint.clone()]);
    let mut body = gateway.handle(get("/big"), None).await.into_body();
    let waiting = begin(&gateway, get("/"));
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += frame.unwrap().into_data().unwrap().len();
        // 32 KiB a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(bytes, 100 * (16 << 10));
    assert!(waiting.await.unwrap() != 500);
}

#[tokio::test(start_paused = true)]
async fn one_client_has_its_share_of_the_places() {
    let gate = Arc::new(Semaphore::new(0));
    let pods: Vec<_> = [0, 1]
        .map(|slot| ready(slot, 2, says_after(&gate, "web")))
        .into();
    let gateway = gateway(web(), pods);
    let ask = |client: &str| {
        let (gateway, request) = (gateway.clone(), get("/"));
        let client: SocketAddr = client.parse().unwrap();
        tokio::spawn(async move { gateway.handle(request, Some(client)).await.status() })
    };
    let queued = || gateway.stats(&name("web")).unwrap().queued;
    let mut requests = JoinSet::new();
    // The first client gets two of the four places, and its third request waits.
    for (client, waiting) in [
        ("192.0.2.1:1", 0),
        ("192.0.2.1:2", 0),
        ("192.0.2.1:3", 1),
        ("192.0.2.2:1", 1),
        // Loopback has no share: it may have the last one.
        ("127.0.0.1:1", 1),
        ("127.0.0.1:2", 2),
    ] {
        let answer = ask(client);
        requests.spawn(async { answer.await.unwrap() });
        settle().await;
        assert_eq!(queued(), waiting, "after {client}");
    }
    gate.add_permits(100);
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    // All of it was given back.
    for client in ["192.0.2.1:1", "192.0.2.1:2"] {
        assert_eq!(ask(client).await.unwrap(), 200);
    }
    assert_eq!(queued(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_a_single_place_every_client_may_have_all() {
    let gateway = gateway(web(), [ready(0, 1, reads())]);
    let client = Some("192.0.2.1:1".parse().unwrap());
    for _ in 0..3 {
        assert_eq!(gateway.handle(get("/"), client).await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_take_turns_and_one_has_half_of_the_queue() {
    let gate = Arc::new(Semaphore::new(0));
    let (upstream, seen) = recording(&gate);
    let config = ServiceConfig { queue: 8, ..web() };
    let endpoint: Arc<Endpoint> = ready(0, 1, upstream);
    let gateway = gateway(config, [endpoint]);
    let ask = |client: &str, path: &str| {
        let (gateway, request) = (gateway.clone(), get(path));
        let client: SocketAddr = client.parse().unwrap();
        tokio::spawn(async move { gateway.handle(request, Some(client)).await.status() })
    };
    let mut requests = vec![ask("192.0.2.1:1", "/first")];
    settle().await;
    for path in ["/a1", "/a2", "/a3", "/a4"] {
        requests.push(ask("192.0.2.1:1", path));
        settle().await;
    }
    assert_eq!(ask("192.0.2.1:2", "/a5").await.unwrap(), 503);
    // The addresses of one network are one client.
    for (client, path) in [
        ("[2001:db8::1]:1", "/b1"),
        ("[2001:db8::2]:1", "/b2"),
        ("127.0.0.1:1", "/c1"),
    ] {
        requests.push(ask(client, path));
        settle().await;
    }
    gate.add_permits(10);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    let seen = seen.lock().unwrap().join(" ");
    assert_eq!(seen, "/first /a1 /b1 /c1 /a2 /b2 /a3 /a4");
}
