//! Malformed requests and requests that smuggle, byte by byte: what each gets, and what of it a pod
//! sees. Written from RFC 9110, 9112 and 9113, and from the descriptions of published flaws.

#[path = "corpus/http1.rs"]
mod http1;
#[path = "corpus/http2.rs"]
pub(crate) mod http2;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use http::Response;
use http_body_util::BodyExt as _;
use sampan_core::fault::Fault;
use sampan_gateway::{Gateway, UpstreamError, full};

use crate::fixture::*;

/// A gateway, and how many whole requests its pod has seen.
fn counted() -> (Gateway, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let pod = pod(move |request, _| {
        let count = Arc::clone(&count);
        async move {
            // A pod that reads: what is wrong with a body shows only then.
            match request.into_body().collect().await {
                Ok(_) => {
                    count.fetch_add(1, Relaxed);
                    Ok(Response::new(full("seen")))
                }
                Err(_) => Err(UpstreamError::new(Fault::Trapped)),
            }
        }
    });
    (gateway(web(), [ready(0, 1, pod)]), seen)
}

#[test]
fn the_corpus_is_as_large_as_promised() {
    let count = http1::CASES.len() + http2::CASES.len();
    assert!(count >= 130, "{count} requests");
}

#[tokio::test]
async fn over_http1_each_gets_what_it_deserves() {
    let mut wrong = Vec::new();
    for case in http1::CASES {
        let (gateway, seen) = counted();
        let server = serve(&gateway).await;
        let got = http1::statuses(server.address, &case.bytes()).await;
        let calls = seen.load(Relaxed);
        if got != case.wanted || calls != case.seen {
            wrong.push(format!(
                "{}: {got:?} and {calls} seen, not {:?} and {}",
                case.name, case.wanted, case.seen
            ));
        }
        // The next client is served.
        let next = http1::statuses(server.address, http1::GOOD.as_bytes()).await;
        assert_eq!(next, [200], "after {}", case.name);
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn over_http2_each_gets_what_it_deserves() {
    let mut wrong = Vec::new();
    for case in http2::CASES {
        let (gateway, seen) = counted();
        let server = serve(&gateway).await;
        let got = http2::end_of(server.address, case).await;
        let calls = seen.load(Relaxed);
        let wanted_calls = usize::from(case.wanted == http2::End::Status(200));
        if got != case.wanted || calls != wanted_calls {
            wrong.push(format!(
                "{}: {got:?} and {calls} seen, not {:?}",
                case.name, case.wanted
            ));
        }
        let next = http2::end_of(server.address, &http2::GOOD).await;
        assert_eq!(next, http2::End::Status(200), "after {}", case.name);
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
