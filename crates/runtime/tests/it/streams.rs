//! Bodies: while they still arrive, with trailers, long ones, and ones that break off.

use std::{io, sync::atomic::AtomicUsize, sync::atomic::Ordering};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use sampan_core::object::Isolation;
use sampan_runtime::pod::{Failure, Pod};

use super::rig::{PATIENCE, SHORT, eventually, get, in_time, piece, plan, post, text_of, workload};

/// Pods that send a request body back, and the path they do it under.
async fn echoes() -> Vec<(Pod, &'static str)> {
    let mut pods = Vec::new();
    for (name, path) in [("echo", "/"), ("stream-p3", "/echo")] {
        for isolation in [Isolation::Request, Isolation::Pod] {
            let plan = plan(workload(name)).isolation(isolation);
            pods.push((plan.memory(8 << 20).start().await, path));
        }
    }
    pods
}

#[tokio::test]
async fn the_first_bytes_are_out_before_the_last_are_in() {
    for (pod, path) in echoes().await {
        let (mut sender, request) = post(path);
        let mut body = in_time(pod.call(request, None))
            .await
            .expect("a head")
            .into_body();
        for text in ["one", "two", "three"] {
            sender.send_data(Bytes::from(text)).await.expect("taken");
            assert_eq!(in_time(piece(&mut body)).await, text);
        }
        drop(sender);
        assert_eq!(in_time(text_of(body)).await, Ok(String::new()));
    }
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    for (pod, path) in echoes().await {
        let (mut sender, request) = post(path);
        let response = in_time(pod.call(request, None)).await.expect("a head");
        sender.send_data(Bytes::from("data")).await.expect("taken");
        let trailers = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("x-checksum"),
            http::HeaderValue::from_static("42"),
        )]);
        sender.send_trailers(trailers.clone()).await.expect("taken");
        drop(sender);
        let whole = in_time(response.into_body().collect())
            .await
            .expect("a whole body");
        assert_eq!(whole.trailers(), Some(&trailers), "{path}");
        assert_eq!(whole.to_bytes(), "data");
    }
}

/// 64 MiB pass through a guest of 8 MiB, and never more than a little of it is on the way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_body_takes_little_memory() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 1024;
    for (pod, path) in echoes().await {
        let (mut sender, request) = post(path);
        let mut body = in_time(pod.call(request, None))
            .await
            .expect("a head")
            .into_body();
        let sent = std::sync::Arc::new(AtomicUsize::new(0));
        let sending = tokio::spawn({
            let (sent, block) = (sent.clone(), Bytes::from(vec![b'x'; PIECE]));
            async move {
                for _ in 0..PIECES {
                    sender.send_data(block.clone()).await.expect("taken");
                    sent.fetch_add(PIECE, Ordering::Relaxed);
                }
            }
        });
        let mut received = 0;
        while let Some(frame) = in_time(body.frame()).await {
            received += frame
                .expect("no failure")
                .into_data()
                .map_or(0, |data| data.len());
            let on_the_way = sent.load(Ordering::Relaxed).saturating_sub(received);
            assert!(on_the_way <= 1 << 20, "{on_the_way} bytes on the way");
        }
        sending.await.expect("no panic");
        assert_eq!(received, PIECE * PIECES);
        assert!(
            pod.usage().memory_peak_bytes <= 8 << 20,
            "{:?}",
            pod.usage()
        );
    }
}

#[tokio::test]
async fn nobody_reads_so_nobody_writes() {
    for (pod, path) in echoes().await {
        let (mut sender, request) = post(path);
        let body = in_time(pod.call(request, None))
            .await
            .expect("a head")
            .into_body();
        let block = Bytes::from(vec![b'x'; 64 << 10]);
        let mut sent = 0_usize;
        let full = async {
            loop {
                sender.send_data(block.clone()).await.expect("taken");
                sent += block.len();
            }
        };
        // It never ends by itself.
        assert!(tokio::time::timeout(SHORT, full).await.is_err());
        assert!(sent <= 1 << 20, "{sent} bytes taken");
        drop(body);
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_breaks_the_answer_off() {
    for (pod, path) in echoes().await {
        let (mut sender, request) = post(path);
        let mut body = in_time(pod.call(request, None))
            .await
            .expect("a head")
            .into_body();
        sender.send_data(Bytes::from("one")).await.expect("taken");
        assert_eq!(in_time(piece(&mut body)).await, "one");
        sender.abort(io::ErrorKind::ConnectionReset.into());
        let end = in_time(text_of(body)).await;
        assert!(end.is_err(), "{path}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_after_the_head_is_no_clean_end() {
    let plans = [
        ("slow", Isolation::Request),
        ("slow", Isolation::Pod),
        ("stream-p3", Isolation::Request),
        ("stream-p3", Isolation::Pod),
    ];
    for (name, isolation) in plans {
        // Often, because a clean end would be a matter of who comes first.
        for n in 1..=100 {
            let pod = plan(workload(name)).isolation(isolation).start().await;
            let end = match pod.call(get("/die-after-head"), None).await {
                Ok(response) => in_time(text_of(response.into_body())).await,
                // The head of a small response waits for its body, so there is none to break off.
                Err(error) => Err(error.failure.to_string()),
            };
            assert!(
                end.as_ref().is_err_and(|end| end.contains("trapped")),
                "{n}: {end:?}"
            );
            assert_eq!(pod.usage().failures, 1);
        }
    }
}

#[tokio::test]
async fn hanging_after_the_head_is_no_clean_end() {
    for isolation in [Isolation::Request, Isolation::Pod] {
        let plan = plan(workload("slow"))
            .isolation(isolation)
            .request_timeout(SHORT);
        let pod = plan.start().await;
        let response = pod
            .call(get("/hang-after-head"), None)
            .await
            .expect("a head");
        let end = in_time(text_of(response.into_body())).await;
        assert_eq!(end, Err(Failure::TimedOut(SHORT).to_string()));
    }
}

#[tokio::test]
async fn a_pod_that_is_dropped_ends_no_body_cleanly() {
    for (pod, path) in echoes().await {
        let (mut sender, request) = post(path);
        let mut body = in_time(pod.call(request, None))
            .await
            .expect("a head")
            .into_body();
        sender.send_data(Bytes::from("one")).await.expect("taken");
        assert_eq!(in_time(piece(&mut body)).await, "one");
        drop(pod);
        let end = in_time(text_of(body)).await;
        assert!(
            end.as_ref().is_err_and(|end| end.contains("stopped")),
            "{end:?}"
        );
        // The instance is gone too: it was what held the request's body.
        eventually(PATIENCE, || {
            let closed = futures::FutureExt::now_or_never(sender.send_data(Bytes::from("two")));
            match closed {
                Some(Err(_)) => Ok(()),
                other => Err(format!("{:?}", other.is_some())),
            }
        })
        .await;
    }
}
