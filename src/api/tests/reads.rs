//! Requests that only look.

use http_body_util::BodyExt as _;

use super::*;

/// Apps, services of each, and pods of each of those.
const MANY: [u32; 3] = [5, 10, 1000];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn fifty_thousand_pods_are_listed_while_the_only_thread_does_other_things() {
    let rig = Rig::new();
    let [apps, services, pods] = MANY;
    for (app, service) in (0..apps).flat_map(|app| (0..services).map(move |it| (app, it))) {
        let key = ServiceKey::parse(&format!("app-{app}/service-{service}")).expect("a key");
        let put = |transaction: sampan_store::Transaction, slot| {
            let pod = record::Pod::new(&key, 1, slot);
            let name = Key::Pod(pod.name()).to_string();
            transaction.put(name, objects::encode(&pod))
        };
        let transaction = (0..pods).fold(sampan_store::Transaction::new(), put);
        let written = rig.store.commit(transaction).await.expect("a store");
        assert!(matches!(written, sampan_store::Outcome::Committed(_)));
    }
    // In the middle of the list another task has to come to its turn.
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (goes_on, other) = std::sync::mpsc::sync_channel(1);
    *rig.fake.meanwhile.lock().expect("whole") = Some(Box::new(move || {
        begun.send(()).expect("it waits");
        let patience = std::time::Duration::from_secs(60);
        other.recv_timeout(patience).expect("another task goes on");
    }));
    let router = rig.router.clone();
    let listed = tokio::spawn(async move {
        let request = Request::get("/v1/pods").body(Body::empty());
        send(&router, request.expect("a request")).await
    });
    tokio::spawn(async move {
        has_begun.await.expect("the list is made");
        goes_on.send(()).expect("the list waits");
    });
    let reply = listed.await.expect("no panic");
    assert_eq!(reply.status, 200);
    let shown: Vec<serde::de::IgnoredAny> = serde_json::from_slice(&reply.bytes).expect("JSON");
    assert_eq!(shown.len() as u32, apps * services * pods);
}

fn pod(app: &str, name: &str) -> view::Pod {
    view::Pod {
        name: name.to_owned(),
        app: app.to_owned(),
        service: "web".to_owned(),
        phase: "Running".to_owned(),
        ready: true,
        restarts: 0,
        reason: None,
        next_try_ms: None,
        starved_probes: 0,
        usage: view::Usage {
            cpu_ms: 1.5,
            throttled_ms: 0.0,
            memory_bytes: 1,
            memory_peak_bytes: 2,
            instances: 3,
            failures: 0,
        },
        terminations: Vec::new(),
        node: None,
    }
}

fn line(pod: &str, text: &str, time: &str) -> LoggedLine {
    let year = time.split('-').next().expect("a year");
    LoggedLine {
        seq: 0,
        time_ms: match year {
            "2026" => 1_767_225_600_000,
            "9999" => 253_370_764_800_000,
            other => panic!("{other}"),
        },
        source: Some(web(pod)),
        kind: view::LineKind::Stdout.code(),
        request: None,
        text: text.to_owned(),
        partial: false,
    }
}

/// Replaces times and long digests, which are never the same.
fn steady(mut value: Value) -> String {
    fn walk(value: &mut Value) {
        match value {
            Value::String(text) if text.len() == 24 && text.ends_with('Z') => {
                *text = "TIME".to_owned();
            }
            Value::String(text) if text.len() == 64 => *text = "DIGEST".to_owned(),
            Value::String(text) if text.starts_with("/tmp") => *text = "BASE".to_owned(),
            Value::Array(list) => list.iter_mut().for_each(walk),
            Value::Object(map) => map.values_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    serde_json::to_string_pretty(&value).expect("JSON")
}

#[tokio::test]
async fn every_request_is_described_and_everything_described_can_be_asked() {
    let rig = Rig::new();
    let document = rig.get("/v1/openapi.json").await.json();
    let described = document["paths"].as_object().expect("paths");
    let mut asked = 0;
    for (path, methods) in described {
        let concrete = path
            .replace("{app}", "shop")
            .replace("{service}", "web")
            .replace("{name}", "web-1-0");
        for method in methods.as_object().expect("methods").keys() {
            asked += 1;
            let method: Method = method.to_uppercase().parse().expect("a method");
            if path == "/v1/watch" {
                continue;
            }
            let reply = rig.ask(method.clone(), &concrete, None).await;
            assert_ne!(reply.status, 405, "{method} {path}");
            let text = String::from_utf8_lossy(&reply.bytes);
            assert!(!text.contains("there is no path"), "{method} {path}");
        }
        let reply = rig.ask(Method::TRACE, &concrete, None).await;
        assert_eq!(reply.status, 405, "{path}");
    }
    assert_eq!(asked, routes::all().len());
    // All that is referred to is there.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().expect("a name");
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
    for name in ["Apply", "Plan", "Service", "Pod", "Error", "Watched"] {
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
}

#[test]
fn the_page_about_the_api_has_every_request() {
    let page = include_str!("../../../docs/api.md");
    let routes = routes::all();
    for route in &routes {
        let row = format!("| `{} {}` |", route.target.method, route.target.path);
        assert!(page.contains(&row), "no {row}");
    }
    let rows = page
        .lines()
        .filter(|line| line.contains(" /v1/") || line.contains(" /metrics"));
    let rows = rows.filter(|line| line.starts_with("| `"));
    assert_eq!(rows.count(), routes.len());
}

#[tokio::test]
async fn objects_are_shown() {
    let rig = Rig::with(Fake {
        pods: vec![
            pod("blog", "web-1-0"),
            pod("shop", "web-1-0"),
            pod("shop", "web-1-1"),
        ],
        ..Fake::default()
    });
    for name in [("blog", 0), ("shop", 0), ("shop", 1), ("shop", 2)] {
        rig.wants(name.0, name.1).await;
    }
    let good = rig.upload(b"good").await;
    let text = format!("{SHOP}route = ['shop.localhost/']\n[job.migrate]\ncomponent = 'm.wasm'\n");
    rig.apply(&text, &good).await;
    for (name, path) in [
        ("apps", "/v1/apps"),
        ("services", "/v1/services?app=shop"),
        ("revisions", "/v1/revisions"),
        ("jobs", "/v1/jobs"),
        ("nodes", "/v1/nodes"),
        ("pod", "/v1/pods/web-1-1"),
        ("unseen_pod", "/v1/pods/web-1-2"),
    ] {
        insta::assert_snapshot!(name, steady(rig.get(path).await.json()));
    }
    assert_eq!(rig.get("/v1/services?app=blog").await.json(), json!([]));
    assert_eq!(rig.get("/v1/revisions?service=api").await.json(), json!([]));
    assert_eq!(
        rig.get("/v1/pods?app=shop")
            .await
            .json()
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    let both = rig.get("/v1/pods/web-1-0").await;
    insta::assert_snapshot!(both.error(), @r"
    409 Ambiguous: there is a pod `web-1-0` in each of `blog`, `shop`
    hint: `app` says which
    ");
    assert_eq!(
        rig.get("/v1/pods/web-1-0?app=blog").await.json()["app"],
        "blog"
    );
    let metrics = rig.get("/metrics").await;
    assert_eq!(&metrics.bytes[..], b"sampan_up 1\n");
    assert!(
        metrics.headers[CONTENT_TYPE]
            .to_str()
            .expect("text")
            .starts_with("text/plain")
    );
    assert_eq!(
        rig.get("/v1/version").await.json()["sampan"],
        env!("CARGO_PKG_VERSION")
    );
}

#[tokio::test]
async fn events_and_lines_are_filtered() {
    let rig = Rig::with(Fake {
        lines: vec![
            line("web-1-0", "old", "2026-01-01T00:00:00.000Z"),
            line("web-1-1", "other", "2026-01-01T00:00:00.000Z"),
            line("web-1-0", "new", "9999-01-01T00:00:00.000Z"),
        ],
        ..Fake::default()
    });
    let reasons = rig.get("/v1/events?app=blog").await.lines();
    assert_eq!((reasons.len(), &reasons[0]["seq"]), (1, &json!(2)));
    assert_eq!(rig.get("/v1/events?after=2").await.lines().len(), 0);
    for (query, texts) in [
        ("", vec!["old", "other", "new"]),
        ("?pod=web-1-0", vec!["old", "new"]),
        ("?tail=1", vec!["new"]),
        ("?tail=0", vec![]),
        ("?since=60", vec!["new"]),
        ("?service=api", vec![]),
        ("?app=shop&service=web&tail=2", vec!["other", "new"]),
    ] {
        let lines = rig.get(&format!("/v1/logs{query}")).await.lines();
        let found: Vec<_> = lines
            .iter()
            .map(|line| line["text"].as_str().expect("text"))
            .collect();
        assert_eq!(found, texts, "{query}");
    }
}

#[tokio::test]
async fn lines_are_searched_and_those_before_a_restart_are_found() {
    let old = |pod, text| line(pod, text, "2026-01-01T00:00:00.000Z");
    let rig = Rig::with(Fake {
        lines: vec![
            old("web-1-0", "first 1"),
            old("web-1-1", "other 1"),
            old("web-1-0", "second 2"),
            old("web-1-0", "second 3"),
            old("web-1-0", "third 4"),
            old("web-1-1", "other 5"),
        ],
        begins: vec![
            ("web-1-0", 1),
            ("web-1-0", 3),
            ("web-1-0", 5),
            ("web-1-1", 2),
        ],
        ..Fake::default()
    });
    for (query, texts) in [
        ("grep=o", vec!["other 1", "second 2", "second 3", "other 5"]),
        ("grep=%5Es.*3$", vec!["second 3"]),
        ("grep=o&tail=2", vec!["second 3", "other 5"]),
        (
            "grep=o&tail=9",
            vec!["other 1", "second 2", "second 3", "other 5"],
        ),
        ("previous=true", vec!["second 2", "second 3"]),
        ("previous=true&tail=1&pod=web-1-0", vec!["second 3"]),
        ("previous=true&grep=2", vec!["second 2"]),
    ] {
        let lines = rig.get(&format!("/v1/logs?{query}")).await.lines();
        let found: Vec<_> = lines.iter().map(|line| line["text"].as_str()).collect();
        let texts: Vec<_> = texts.into_iter().map(Some).collect();
        assert_eq!(found, texts, "{query}");
    }
    let refused = rig.get("/v1/logs?previous=true&pod=web-1-1").await;
    insta::assert_snapshot!(refused.error(), @r"
    404 NotFound: pod `web-1-1` has not been restarted, as far as lines are kept
    hint: without `previous` there is all that its pods have printed
    ");
    let refused = rig.get("/v1/logs?previous=true&follow=true").await;
    insta::assert_snapshot!(refused.error(), @r"
    400 BadRequest: what was printed before a restart is followed by nothing
    hint: `previous` and `follow` exclude each other
    ");
    for pattern in ["%5B", "a%7B1000%7D%7B1000%7D"] {
        let refused = rig.get(&format!("/v1/logs?grep={pattern}")).await;
        assert_eq!(refused.status, 400, "{pattern}");
    }
    let pods = rig.get("/v1/logs/pods?app=shop").await.json();
    assert_eq!(pods[1]["pod"], "web-1-1");
    assert_eq!(pods.as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_volumes_go_both_ways() {
    let rig = Rig::new();
    let path = "/v1/apps/shop/volumes/data/archive";
    let archive = rig.get(path).await;
    assert_eq!(
        (archive.status, archive.bytes.len()),
        (StatusCode::OK, 1 << 20)
    );
    for (bytes, status) in [(archive.bytes, 204), (Bytes::from_static(b"tar"), 422)] {
        let request = Request::put(path).body(Body::from(bytes));
        let reply = send(&rig.router, request.expect("a request")).await;
        assert_eq!(reply.status, status);
    }
    let absent = rig.get("/v1/apps/gone/volumes/data/archive").await;
    assert_eq!(absent.status, 404);
}

#[tokio::test]
async fn a_watch_shows_what_is_and_then_what_changes() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    rig.apply(SHOP, &good).await;
    let request = Request::get("/v1/watch?app=shop").body(Body::empty());
    let mut router = rig.router.clone();
    let response = router
        .call(request.expect("a request"))
        .await
        .expect("infallible");
    let mut body = response.into_body();
    let mut next = async || {
        let frame = body.frame().await.expect("goes on").expect("whole");
        let bytes = frame.into_data().expect("data");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        lines.collect::<Vec<view::Watched>>()
    };
    let first = next().await;
    assert!(matches!(&first[0], view::Watched::Service(it) if it.name == "web"));
    assert!(matches!(first[1], view::Watched::Synced { .. }));
    rig.apply(&SHOP.replace("2", "3"), &good).await;
    assert!(matches!(&next().await[0], view::Watched::Service(it) if it.replicas == 3));
    let gone = sampan_store::Transaction::new().delete("/services/shop/web");
    assert!(rig.store.commit(gone).await.is_ok());
    assert!(matches!(&next().await[0], view::Watched::ServiceGone { name, .. } if name == "web"));
}

#[tokio::test]
async fn there_are_not_too_many_followers() {
    let rig = Rig::new();
    let mut held = Vec::new();
    for _ in 0..MAX_FOLLOWERS {
        let request = Request::get("/v1/watch").body(Body::empty());
        let mut router = rig.router.clone();
        held.push(
            router
                .call(request.expect("a request"))
                .await
                .expect("infallible"),
        );
    }
    let refused = rig.get("/v1/logs?follow=true").await;
    insta::assert_snapshot!(refused.error(), @r"
    503 Busy: 64 answers that go on are under way already
    hint: try again in a moment
    ");
    held.clear();
    assert!(rig.api.follower().is_ok(), "who goes makes room");
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_those_that_are_declared_and_those_that_are_there() {
    let rig = Rig::new();
    let digest = rig.upload(b"component").await;
    let spec = format!(
        "{SHOP}[service.web.allow]\nfiles = [{{ volume = 'data', guest = '/data' }}]\n\
         [volume.data]\nquota = '64MiB'\n[volume.unused]\n"
    );
    let reply = rig.apply(&spec, &digest).await;
    assert_eq!(reply.status, 200, "{:?}", reply.bytes);
    let volumes = rig.get("/v1/volumes").await.json();
    let volume = |app: &str, name: &str, used: u64, quota: Option<u64>, used_by: &[&str]| {
        json!({
            "app": app,
            "name": name,
            "used_bytes": used,
            "quota_bytes": quota,
            "used_by": used_by,
        })
    };
    let expected = [
        volume("gone", "data", 4096, None, &[]),
        volume("shop", "data", 0, Some(64 << 20), &["web"]),
        volume("shop", "unused", 0, Some(1 << 30), &[]),
    ];
    assert_eq!(volumes, json!(expected));
    let remove = async |app: &str| {
        let path = format!("/v1/apps/{app}/volumes");
        rig.ask(Method::DELETE, &path, None).await
    };
    assert_eq!(
        remove("shop").await.error(),
        "409 Conflict: app `shop` is there, and its volumes with it\n\
         hint: `sampan delete shop --volumes` deletes both"
    );
    assert_eq!(
        remove("busy").await.error(),
        "409 Conflict: the volume `data` is in use\n\
         hint: its pods have to be gone; try again in a moment"
    );
    assert_eq!(remove("gone").await.json(), json!(["data"]));
}
