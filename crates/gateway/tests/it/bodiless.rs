//! Answers that have no body, or a shorter one than their pod writes: for the client they are whole,
//! and the pod is not told that it has gone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{
    BodyExt as _,
    channel::{Channel, Sender},
};
use sampan_gateway::{BodyError, Endpoint, Gateway};
use tokio::{
    sync::{
        mpsc,
        oneshot::{self, error::TryRecvError},
    },
    time::Instant,
};

use crate::fixture::*;

/// The end of an answer's body that its guest writes to.
struct Guest {
    body: Sender<Bytes, BodyError>,
    /// Told when its reader has gone.
    gone: oneshot::Receiver<()>,
}

impl Guest {
    fn has_reader(&mut self) -> bool {
        self.gone.try_recv() == Err(TryRecvError::Empty)
    }
}

/// A pod that answers as its path says, `/204` or `/200?length=5`, and gives its guest's end of the
/// body away.
fn writes() -> (Arc<Endpoint>, mpsc::Receiver<Guest>) {
    let (give, guests) = mpsc::channel(16);
    let upstream = pod(move |request, _| {
        let (sender, body) = Channel::new(1);
        let (reader, gone) = OnDrop::new();
        let body = body.map_frame(move |frame| {
            let _ = &reader;
            frame
        });
        assert!(give.try_send(Guest { body: sender, gone }).is_ok());
        let uri = request.uri();
        let status = StatusCode::from_bytes(&uri.path().as_bytes()[1..]).unwrap();
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = status;
        if let Some(length) = uri.query().and_then(|query| query.strip_prefix("length=")) {
            let length = length.parse().unwrap();
            response.headers_mut().insert("content-length", length);
        }
        async move { Ok(response) }
    });
    (ready(0, 1, upstream), guests)
}

/// Asks over a connection, and reads the answer to its end.
async fn ask(is_h2: bool, gateway: &Gateway, method: &Method, path: &str) -> StatusCode {
    let server = serve(gateway).await;
    let mut request = get(path);
    *request.method_mut() = method.clone();
    let io = tcp(server.address).await;
    let response = match is_h2 {
        true => {
            *request.uri_mut() = format!("http://test{path}").parse().unwrap();
            h2(io).await.send_request(request).await
        }
        false => h1(io).await.send_request(request).await,
    };
    let response = response.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

/// An answer has ended, for its client.
fn is_complete(gateway: &Gateway) {
    let stats = gateway.stats(&name("web")).unwrap();
    let revisions = gateway.revision_stats(&name("web"));
    let mut placed = revisions.iter().filter(|it| it.revision.is_some());
    let revision = placed.next().expect("a pod was asked");
    let counted = revision.latency.cumulative.last().map(|(_, count)| *count);
    assert_eq!(
        (stats.in_flight, stats.canceled, stats.errors, counted),
        (0, 0, 0, Some(1))
    );
}

#[tokio::test]
async fn a_guest_goes_on_when_its_client_has_all_it_gets() {
    for h2 in [false, true] {
        for (method, path) in [
            (Method::GET, "/204"),
            (Method::GET, "/304"),
            (Method::POST, "/204"),
            (Method::HEAD, "/200"),
            (Method::HEAD, "/404"),
            (Method::HEAD, "/204"),
            (Method::HEAD, "/200?length=5"),
        ] {
            let (endpoint, mut guests) = writes();
            let gateway = gateway(web(), [endpoint.clone()]);
            let status = ask(h2, &gateway, &method, path).await;
            assert_eq!(status.as_str(), &path[1..4], "{method} {path}");
            is_complete(&gateway);
            let mut guest = guests.recv().await.unwrap();
            for _ in 0..10 {
                let written = guest.body.send_data(Bytes::from_static(b"more")).await;
                assert!(written.is_ok(), "{method} {path}, HTTP/2: {h2}");
            }
            drop(guest);
            // And then the slot is free.
            settle().await;
            assert_eq!(endpoint.in_flight(), 0, "{method} {path}");
        }
    }
}

/// Over HTTP/2 trailers may follow, so there only the guest ends its answer.
#[tokio::test]
async fn a_guest_goes_on_behind_the_length_that_it_has_promised() {
    for (path, bytes) in [("/200?length=4", &b"four"[..]), ("/200?length=0", b"")] {
        let (endpoint, mut guests) = writes();
        let gateway = gateway(web(), [endpoint]);
        let asked = tokio::spawn({
            let gateway = gateway.clone();
            async move { ask(false, &gateway, &Method::GET, path).await }
        });
        let mut guest = guests.recv().await.unwrap();
        let _ = guest.body.send_data(Bytes::from_static(bytes)).await;
        assert_eq!(asked.await.unwrap(), 200);
        settle().await;
        is_complete(&gateway);
        assert!(guest.has_reader(), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_has_a_limit() {
    // Bytes.
    let (endpoint, mut guests) = writes();
    let gateway = gateway(web(), [endpoint.clone()]);
    let mut head = get("/200");
    *head.method_mut() = Method::HEAD;
    assert_eq!(send_status(&gateway, head).await, 200);
    let mut guest = guests.recv().await.unwrap();
    let mut kib = 0;
    while guest
        .body
        .send_data(Bytes::from_static(&[0; 1024]))
        .await
        .is_ok()
    {
        kib += 1;
        assert!(kib < 2000, "it has no end");
    }
    assert!(kib >= 1024, "{kib}");
    // Time.
    assert_eq!(send_status(&gateway, get("/204")).await, 204);
    let guest = guests.recv().await.unwrap();
    let begin = Instant::now();
    assert!(guest.gone.await.is_ok());
    assert!(begin.elapsed() > Duration::from_secs(1));
    settle().await;
    assert_eq!(endpoint.in_flight(), 0);
}
