//! Limits of the node on every guest: what is within them works, what is not does not.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use sampan_core::{
    fault::Fault,
    name::Name,
    object::{Access, Grants, Isolation, Mount, MountSource},
    spec::node::GuestLimits,
};
use sampan_runtime::{Body, Neighbours, Runtime, RuntimeConfig};

use super::rig::{Plan, SHORT, ask, config, get, in_time, plan, workload};
use super::text::{component, sleepy_handler};

/// A pod on a node with these limits.
fn limited(bytes: Vec<u8>, change: impl FnOnce(&mut GuestLimits)) -> Plan {
    let mut guest = GuestLimits::default();
    change(&mut guest);
    let runtime = Runtime::new(RuntimeConfig { guest, ..config() });
    Plan {
        runtime: runtime.expect("a runtime"),
        ..plan(bytes)
    }
}

/// A handler whose start function asks for so many random bytes.
fn gambler(bytes: u64) -> Vec<u8> {
    component(&format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (import "wasi:random/random@0.2.0" (instance $random
                (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
            (core module $heap (memory (export "memory") 64)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
            (core instance $heap (instantiate $heap))
            (core func $get (canon lower (func $random "get-random-bytes")
                (memory (core memory $heap "memory")) (realloc (core func $heap "realloc"))))
            (core module $m
                (import "" "get" (func $get (param i64 i32)))
                (func $start (call $get (i64.const {bytes}) (i32.const 0)))
                (start $start)
                (func (export "handle") (param i32 i32)))
            (core instance $i (instantiate $m (with "" (instance (export "get" (func $get))))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $i "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    ))
}

#[tokio::test]
async fn random_bytes() {
    let start = |bytes| limited(gambler(bytes), |limits| limits.random_bytes = 4096).try_start();
    start(4096).await.map(drop).expect("as many as allowed");
    let error = start(4097).await.err().expect("one more");
    assert!(error.to_string().contains("trapped"), "{error}");
}

#[tokio::test]
async fn handles_and_fields() {
    for (change, status) in [
        (GuestLimits::default(), Some(200)),
        (
            GuestLimits {
                handles: 3,
                ..GuestLimits::default()
            },
            None,
        ),
        (
            GuestLimits {
                fields_bytes: 64,
                ..GuestLimits::default()
            },
            None,
        ),
    ] {
        for isolation in [Isolation::Request, Isolation::Pod] {
            let limited = limited(workload("hello"), |limits| *limits = change.clone());
            let pod = limited.isolation(isolation).start().await;
            let answer = in_time(ask(&pod, "/")).await;
            assert_eq!(answer.ok().map(|it| it.0), status, "{change:?}");
        }
    }
}

/// The guest hands the host 32 MiB at once.
#[tokio::test]
async fn bytes_of_one_call() {
    for (hostcall_bytes, is_answered) in [(33 << 20, true), (31 << 20, false)] {
        let limited = limited(workload("hostile"), |it| it.hostcall_bytes = hostcall_bytes);
        let pod = limited.memory(128 << 20).start().await;
        let answer = in_time(ask(&pod, "/huge")).await;
        assert_eq!(answer.is_ok(), is_answered, "{answer:?}");
    }
}

#[tokio::test]
async fn open_files() {
    let folder = tempfile::tempdir().expect("a folder");
    for max in [1, 2, 300] {
        let mut limited = limited(workload("hostile"), |limits| limits.open_files = max);
        limited.grants = Grants {
            files: vec![Mount {
                source: MountSource::Host(folder.path().to_owned()),
                guest: "/data".to_owned(),
                access: Access::ReadOnly,
            }],
            ..Grants::default()
        };
        let pod = limited.start().await;
        let (_, told) = in_time(ask(&pod, "/files")).await.expect("an answer");
        // The directory that it was lent counts.
        assert!(told.starts_with(&format!("{} open", max - 1)), "{told}");
    }
}

#[tokio::test]
async fn time_to_start() {
    let start = |bytes| limited(bytes, |limits| limits.start_timeout = SHORT).try_start();
    let error = start(sleepy_handler()).await.err().expect("no start");
    assert!(error.to_string().contains("longer than 200ms"), "{error}");
    start(workload("hello")).await.map(drop).expect("in time");
}

/// `api` answers at once, `silent` never, `stuck` with a body that never comes.
struct Town;

impl Neighbours for Town {
    fn has(&self, _: &Name) -> bool {
        true
    }

    fn occupied(&self, _: &Name) -> Option<Vec<(sampan_core::name::PodName, u32)>> {
        None
    }

    fn call(
        &self,
        service: &Name,
        _: http::Request<Body>,
        _: Option<Arc<str>>,
    ) -> futures::future::BoxFuture<'static, Result<http::Response<Body>, Fault>> {
        let body = match service.as_str() {
            "api" => {
                let body = Full::new(Bytes::from_static(b"hello"));
                body.map_err(|never| match never {}).boxed_unsync()
            }
            "stuck" => {
                let pending = futures::stream::pending();
                http_body_util::StreamBody::new(pending).boxed_unsync()
            }
            _ => return Box::pin(std::future::pending()),
        };
        Box::pin(async { Ok(http::Response::new(body)) })
    }
}

fn in_town(guest: &str, change: impl FnOnce(&mut GuestLimits)) -> Plan {
    let mut limited = limited(workload(guest), change);
    limited.grants.services = ["api", "silent", "stuck"]
        .map(|name| Name::parse(name).expect("a name"))
        .to_vec();
    limited.neighbours = Some(Arc::new(Town));
    limited
}

/// One thread: all requests are on their way before the guest takes the first answer.
#[tokio::test]
async fn outgoing_requests() {
    for (max, wanted) in [
        (5, "5 answered, 0 failed, 0 refused\n"),
        (3, "3 answered, 2 failed, 0 refused\n"),
    ] {
        let pod = in_town("hostile", |limits| limits.outgoing_requests = max);
        let pod = pod.start().await;
        let answer = in_time(ask(&pod, "/call?n=5&url=http://api/")).await;
        assert_eq!(answer, Ok((200, wanted.to_owned())), "{max}");
    }
}

#[tokio::test]
async fn waiting_for_the_first_byte_of_another() {
    let pod = in_town("caller", |limits| limits.first_byte_timeout = SHORT);
    let pod = pod.start().await;
    let (status, told) = in_time(ask(&pod, "/call?url=http://silent/"))
        .await
        .expect("an answer");
    assert!(status == 502 && told.contains("Timeout"), "{status} {told}");
    let answer = in_time(ask(&pod, "/call?url=http://api/")).await;
    assert_eq!(answer.expect("an answer").0, 200);
}

/// The guest passes the body on, and so its failure.
#[tokio::test]
async fn waiting_for_more_from_another() {
    let pod = in_town("caller", |limits| limits.between_bytes_timeout = SHORT);
    let pod = pod.start().await;
    for (url, is_whole) in [("http://stuck/", false), ("http://api/", true)] {
        let response = pod.call(get(&format!("/call?url={url}")), None);
        let response = in_time(response).await.expect("a head");
        let body = in_time(response.into_body().collect()).await;
        assert_eq!(body.is_ok(), is_whole, "{url}");
    }
}
