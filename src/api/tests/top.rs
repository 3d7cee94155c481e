//! What is measured, and what is advised.

use std::time::Duration;

use sampan_core::{
    name::PodName,
    plan::autoscale::{Cause, Decision, Held},
    quantity::{ByteSize, Cpu},
};

use super::*;
use crate::load::{PodLoad, ServiceLoad};

const SCALED: &str = "app = 'shop'\n[service.web]\ncomponent = 'web.wasm'\nreplicas = 2\n\
                      [service.api]\ncomponent = 'api.wasm'\nisolation = 'pod'\n";

fn key(name: &str) -> ServiceKey {
    ServiceKey::parse(&format!("shop/{name}")).expect("a key")
}

fn pod(slot: u32, cpu: Option<f64>, limit: Option<u32>) -> PodLoad {
    PodLoad {
        pod: PodName::new(&key("web"), 1, slot),
        phase: "Running",
        ready: true,
        was_ready: true,
        drains: false,
        cpu,
        throttled: 0.24,
        cpu_limit: limit.map(|millis| Cpu { millis }),
        memory_bytes: 10 << 20,
        instance_peak_bytes: 20 << 20,
        memory_limit: ByteSize(64 << 20),
        requests: 12.5,
        served: 12.0,
        in_flight: 1.25,
    }
}

/// What is measured of `web`: two pods that work, and one that has just begun.
fn measured(number: u64) -> Arc<Measured> {
    let mut starts = pod(2, None, Some(500));
    (starts.ready, starts.phase, starts.throttled) = (false, "Starting", 0.0);
    let web = ServiceLoad {
        pods: vec![
            pod(0, Some(0.25), Some(500)),
            pod(1, Some(0.5), Some(500)),
            starts,
        ],
        queued: 0.5,
        waiting: 1,
        in_flight: Some(3.0),
        arrived: Some(25.0),
        served: Some(24.0),
        idle: Duration::ZERO,
        p50: Some(Duration::from_micros(1500)),
        p99: Some(Duration::from_millis(20)),
    };
    Arc::new(Measured {
        number,
        services: BTreeMap::from([(key("web"), web)]),
    })
}

/// A node whose service `web` has an autoscaler.
async fn rig(fake: Fake) -> Rig {
    let rig = Rig::with(fake);
    let good = rig.upload(b"good").await;
    let reply = rig.apply(SCALED, &good).await;
    assert_eq!(reply.status, 200, "{:?}", reply.bytes);
    let mut web = rig.service("web").await;
    web.spec.autoscale = Some(sampan_core::object::Autoscale {
        min: 1,
        max: 9,
        cpu: Some(sampan_core::quantity::Percent(50)),
        concurrency: None,
        rps: None,
        stabilization: Duration::from_secs(300),
        idle: Duration::from_secs(60),
    });
    let key = Key::Service(key("web")).to_string();
    let put = sampan_store::Transaction::new().put(key, objects::encode(&web));
    assert!(rig.store.commit(put).await.is_ok());
    rig
}

fn decided() -> Arc<BTreeMap<ServiceKey, Decision>> {
    let decision = Decision {
        current: 3,
        replicas: 4,
        cause: Cause::Waiting,
        held: Some(Held::Bound(4)),
        panic: false,
    };
    Arc::new(BTreeMap::from([(key("web"), decision)]))
}

#[tokio::test]
async fn what_was_measured_is_shown() {
    let rig = rig(Fake::default()).await;
    let before = rig.get("/v1/top").await.json();
    assert_eq!(
        (&before["number"], &before["period_ms"]),
        (&json!(0), &json!(1000))
    );
    assert_eq!(before["services"].as_array().map(Vec::len), Some(2));
    assert_eq!(before["services"][1]["cpu_cores"], Value::Null);
    rig.fake.loads.send_replace(measured(7));
    rig.fake.decisions.send_replace(decided());
    let text = serde_json::to_string_pretty(&rig.get("/v1/top").await.json());
    insta::assert_snapshot!("top", text.expect("JSON"));
    let web = rig.get("/v1/top?app=shop&service=web").await.json();
    assert_eq!(web["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(web["pods"].as_array().map(Vec::len), Some(3));
    for nothing in ["?app=blog", "?service=wbe"] {
        let reply = rig.get(&format!("/v1/top{nothing}")).await.json();
        assert_eq!(
            (&reply["services"], &reply["pods"]),
            (&json!([]), &json!([]))
        );
    }
    let bad = rig.get("/v1/top?app=..").await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn a_decision_without_an_autoscaler_counts_for_nothing() {
    let rig = rig(Fake::default()).await;
    let mut web = rig.service("web").await;
    web.spec.autoscale = None;
    let key = Key::Service(key("web")).to_string();
    let put = sampan_store::Transaction::new().put(key, objects::encode(&web));
    assert!(rig.store.commit(put).await.is_ok());
    rig.fake.decisions.send_replace(decided());
    let web = rig.get("/v1/top?service=web").await.json();
    assert_eq!(
        (&web["services"][0]["wanted"], &web["services"][0]["why"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_watch_has_a_line_for_each_measurement() {
    let rig = rig(Fake::default()).await;
    let request = Request::get("/v1/top?service=web&watch=true").body(Body::empty());
    let mut router = rig.router.clone();
    let response = router
        .call(request.expect("a request"))
        .await
        .expect("infallible");
    assert_eq!(response.headers()[CONTENT_TYPE], "application/jsonl");
    let mut body = response.into_body();
    let mut next = async || {
        let frame = body.frame().await.expect("goes on").expect("whole");
        let bytes = frame.into_data().expect("data");
        assert_eq!(bytes.last(), Some(&b'\n'));
        serde_json::from_slice::<view::Top>(&bytes).expect("one document")
    };
    assert_eq!(next().await.number, 0);
    rig.fake.loads.send_replace(measured(1));
    let first = next().await;
    assert_eq!((first.number, first.services.len()), (1, 1));
    rig.fake.loads.send_replace(measured(2));
    rig.fake.loads.send_replace(measured(3));
    assert_eq!(next().await.number, 3, "who is slow gets the last one");
    assert_eq!(rig.api.0.followers.available_permits(), MAX_FOLLOWERS - 1);
    drop(body);
    assert_eq!(rig.api.0.followers.available_permits(), MAX_FOLLOWERS);
}

#[tokio::test]
async fn limits_are_advised_from_what_was_seen() {
    let seen = advise::Seen {
        revision: 1,
        watched: Duration::from_secs(600),
        samples: 1200,
        cpu_p95: 0.312,
        cpu_max: 0.48,
        throttled: 0.0,
        instance_bytes: 40 << 20,
        request_cpu: Some(advise::RequestCpu {
            requests: 9000,
            p999: Duration::from_micros(12_400),
            max: Duration::from_millis(31),
        }),
    };
    let gone = advise::Seen {
        revision: 8,
        ..seen.clone()
    };
    let fake = Fake {
        seen: BTreeMap::from([(key("web"), seen), (key("api"), gone)]),
        ..Fake::default()
    };
    let rig = rig(fake).await;
    let advice = rig.get("/v1/advice").await.json();
    insta::assert_snapshot!(
        "advice",
        serde_json::to_string_pretty(&advice).expect("JSON")
    );
    let web = rig.get("/v1/advice?service=web").await.json();
    assert_eq!(web, json!([advice[1]]));
}
