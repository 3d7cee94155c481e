//! Requests that change what is wanted.

use super::*;

#[tokio::test]
async fn an_app_is_applied_changed_and_deleted() {
    let rig = Rig::new();
    let first = rig.upload(b"first").await;
    let reply = rig.apply(SHOP, &first).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let plan = reply.json();
    assert_eq!(plan["changes"][0]["verb"], "added");
    assert_eq!(plan["changes"][0]["pods"], "2 pods are made");
    assert_eq!(
        rig.told(),
        [
            "app/shop Applied: apply of sampan.toml",
            "service/web Added: 2 pods are made"
        ]
    );

    // The same once more: nothing is written, admitted or told.
    let before = rig.store.revision().await.expect("a store");
    let reply = rig.apply(SHOP, &first).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["changed"]),
        (200, &json!(false))
    );
    assert_eq!(rig.store.revision().await.expect("a store"), before);
    assert_eq!(rig.fake.admitted.lock().expect("whole").len(), 1);
    assert!(rig.told().is_empty());

    // A dry run says what would be, and changes nothing.
    let second = rig.upload(b"second").await;
    let body = rig.body(SHOP, &second);
    let reply = rig
        .ask(Method::POST, "/v1/apps/shop/plan", Some(&body))
        .await;
    assert_eq!(reply.json()["changes"][0]["revision"], 2);
    assert_eq!(rig.store.revision().await.expect("a store"), before);

    let reply = rig.apply(SHOP, &second).await;
    assert_eq!(reply.json()["changes"][0]["fields"][0]["name"], "component");
    let web = rig.service("web").await;
    assert_eq!(
        (web.spec.revision, web.spec.previous, web.generation),
        (2, Some(1), 2)
    );

    // A service that is gone from the spec goes.
    let other = SHOP.replace("web]", "api]");
    let reply = rig.apply(&other, &second).await;
    assert_eq!(reply.json()["changes"][1]["verb"], "deleted");
    assert!(rig.service("web").await.spec.deleting);

    let reply = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(reply.status, 200);
    assert!(rig.service("api").await.spec.deleting);
    assert_eq!(rig.get("/v1/apps/shop").await.json()["deleting"], true);
    let reply = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["changed"]),
        (200, &json!(false))
    );
    let reply = rig.ask(Method::DELETE, "/v1/apps/blog", None).await;
    insta::assert_snapshot!(reply.error(), @"404 NotFound: there is no app `blog`; there are `shop`");
}

#[tokio::test]
async fn a_route_belongs_to_one_app() {
    let rig = Rig::new();
    let digest = rig.upload(b"first").await;
    let routes = |routes: &str| format!("{SHOP}route = {routes}\n");
    let reply = rig
        .apply(&routes("['/admin', 'shop.localhost/']"), &digest)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let blog = async |wanted: &str| {
        let spec = routes(wanted).replace("'shop'", "'blog'");
        let body = rig.body(&spec, &digest);
        rig.ask(Method::PUT, "/v1/apps/blog", Some(&body)).await
    };
    for (taken, shown) in [
        ("['/', '/%61dmin']", "/admin"),
        ("['Shop.LOCALHOST./']", "shop.localhost/"),
    ] {
        let reply = blog(taken).await;
        let wanted = format!(
            "409 Impossible: the route `{shown}` belongs to the service `web` of app `shop`\n\
             hint: give one of the two another host or prefix, or delete the other app"
        );
        assert_eq!(reply.error(), wanted);
    }
    assert_eq!(
        rig.get("/v1/apps").await.json().as_array().map(Vec::len),
        Some(1)
    );
    for free in ["['/admin/', 'admin.localhost/admin']", "[]"] {
        assert_eq!(blog(free).await.status, 200);
    }
    // What is being deleted has let go of it.
    let reply = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(reply.status, 200);
    assert_eq!(blog("['/admin']").await.status, 200);
}

/// What a service is follows from its component, and is not known before that is looked at.
#[tokio::test]
async fn what_does_not_fit_the_kind_of_the_component_is_refused_with_its_place() {
    let rig = Rig::new();
    let command = rig.upload(b"command").await;
    *rig.fake.command.lock().expect("whole") = Some(command.clone());
    let probe = "liveness = { export = true }\n";
    for (more, place) in [
        (
            "route = ['/']\n",
            "sampan.toml:5:9: `route` is about requests",
        ),
        (
            probe,
            "sampan.toml:5:12: `export` calls the guest while it runs",
        ),
    ] {
        let reply = rig.apply(&format!("{SHOP}{more}"), &command).await;
        assert_eq!(reply.status, 422, "{}", reply.json());
        assert_eq!(reply.json()["code"], "InvalidSpec");
        let details = reply.json()["details"].to_string();
        assert!(details.contains(place), "{details}");
    }
    assert_eq!(rig.get("/v1/services").await.json(), json!([]));

    let reply = rig.apply(SHOP, &command).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(rig.service("web").await.spec.kind, ServiceKind::Command);
    let shown = rig.get("/v1/apps/shop/services/web").await;
    assert_eq!(shown.json()["kind"], "command");
    // It is known from then on, also where the component stays as it is.
    let reply = rig.apply(&format!("{SHOP}route = ['/']\n"), &command).await;
    assert_eq!(reply.json()["code"], "InvalidSpec");
    let reply = rig.apply(SHOP, &command).await;
    assert_eq!(reply.json()["changed"], false);

    // Another component may be of another kind, and the way back is one too.
    let http = rig.upload(b"http").await;
    let reply = rig.apply(&format!("{SHOP}route = ['/']\n"), &http).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    assert_eq!(rig.service("web").await.spec.kind, ServiceKind::Http);
    let undo = "/v1/apps/shop/services/web/rollout/undo";
    for (kind, noted) in [
        (
            ServiceKind::Command,
            "back to revision 1, which runs a command: its routes are not in use",
        ),
        (
            ServiceKind::Http,
            "back to revision 2, which answers requests",
        ),
    ] {
        let reply = rig.ask(Method::POST, undo, Some(&json!({}))).await;
        assert_eq!(reply.status, 200, "{}", reply.json());
        assert_eq!(rig.service("web").await.spec.kind, kind);
        let told = rig.told();
        assert!(told.iter().any(|it| it.contains(noted)), "{told:?}");
    }
}

#[tokio::test]
async fn missing_components_are_listed() {
    let rig = Rig::new();
    let absent = digest(b"absent");
    let reply = rig.apply(SHOP, &absent).await;
    assert_eq!(reply.json()["details"], json!([absent]));
    insta::assert_snapshot!(reply.error().replace(&absent, "DIGEST"), @r"
    422 MissingArtifacts: components are missing: `DIGEST`
    hint: upload each with `PUT /v1/artifacts/DIGEST`, then apply again
    ");
    assert_eq!(rig.get("/v1/apps").await.json(), json!([]));
}

#[tokio::test]
async fn a_refusal_touches_nothing() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    rig.apply(SHOP, &good).await;
    let before = rig.service("web").await;
    rig.told();
    let bad = rig.upload(b"bad").await;
    rig.fake.refused.lock().expect("whole").push(bad.clone());
    let both =
        format!("{SHOP}[job.migrate]\ncomponent = 'm.wasm'\n[service.api]\ncomponent = 'a.wasm'\n");
    let reply = rig.apply(&both, &bad).await;
    insta::assert_snapshot!(reply.error(), @r"
    422 Refused: service/api: it imports `wasi:nothing`; service/web: it imports `wasi:nothing`; job/migrate: it imports `wasi:nothing`
    hint: nothing was changed; what ran before goes on
    ");
    assert_eq!(reply.json()["details"].as_array().expect("a list").len(), 3);
    let after = rig.service("web").await;
    let refusal = after.status.refused.clone().expect("noted");
    assert_eq!(refusal.reason, "it imports `wasi:nothing`");
    assert_eq!(
        (after.spec, after.generation),
        (before.spec, before.generation)
    );
    assert_eq!(
        rig.get("/v1/services")
            .await
            .json()
            .as_array()
            .expect("a list")
            .len(),
        1
    );
    assert_eq!(rig.told().len(), 3);
    // The next good one clears it.
    rig.apply(SHOP, &good).await;
    assert_eq!(rig.service("web").await.status.refused, None);
}

#[tokio::test]
async fn a_bad_spec_is_shown_with_line_and_column() {
    let rig = Rig::new();
    let reply = rig
        .apply("app = 'shop'\n[service.web]\ncomponnt = 'x'\n", "0")
        .await;
    insta::assert_snapshot!(reply.error());
    assert!(
        reply.json()["details"][0]
            .as_str()
            .expect("text")
            .starts_with("sampan.toml:")
    );
}

#[tokio::test]
async fn what_a_stranger_sends_is_checked() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    let with = |key: &str, value: Value| {
        let mut body = rig.body(SHOP, &good);
        body[key] = value;
        body
    };
    let files = |host: &str| {
        let text = format!(
            "{SHOP}[service.web.allow]\nfiles = [{{ host = '{host}', guest = '/d', access = 'read-only' }}]\n"
        );
        rig.body(&text, &good)
    };
    let mut said = String::new();
    for body in [
        with("base", json!("relative")),
        with("components", json!({ "web": "abc" })),
        with("components", json!({})),
        with("components", json!({ "web": good, "api": good })),
        with("components", json!({ "WEB": good })),
        with("replicas", json!(3)),
        with("spec", json!(3)),
        with("spec", json!(SHOP.replace("'shop'", "'blog'"))),
        with("spec", json!(SHOP.replace("'web.wasm'", "'${PATH}'"))),
        with("spec", json!(format!("{SHOP}env_file = '/etc/passwd'\n"))),
        with(
            "spec",
            json!(format!("{SHOP}digest = 'sha256:{}'\n", "1".repeat(64))),
        ),
        files("/etc"),
        files("../artifacts"),
        files("absent"),
    ] {
        let reply = rig.ask(Method::PUT, "/v1/apps/shop", Some(&body)).await;
        let home = rig.home.path().display().to_string();
        said += &reply
            .error()
            .replace(&good, "DIGEST")
            .replace(&home, "HOME");
        said += "\n\n";
    }
    insta::assert_snapshot!(said);
    assert_eq!(rig.get("/v1/apps").await.json(), json!([]));
    let reply = rig
        .ask(Method::PUT, "/v1/apps/shop", Some(&files(".")))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.json());
}

#[tokio::test]
async fn variables_and_env_files_come_with_the_request() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    let spec = format!("{SHOP}env_file = '.env'\nenv = {{ A = '${{HOME}}' }}\n");
    let mut body = rig.body(&spec, &good);
    body["environment"] = json!({ "HOME": "sent" });
    body["files"] = json!({ ".env": "B=secret\n" });
    body["cause"] = json!("a test");
    let reply = rig.ask(Method::PUT, "/v1/apps/shop", Some(&body)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let key = ServiceKey::parse("shop/web").expect("a key");
    let revisions = objects::revisions(&*rig.store, &key)
        .await
        .expect("a store");
    let env = &revisions[0].template.grants.env;
    assert_eq!((env["A"].as_str(), env["B"].as_str()), ("sent", "secret"));
    let shown = rig.get("/v1/apps/shop/services/web/revisions").await;
    assert_eq!(shown.json()[0]["env"], json!(["A", "B"]));
    assert_eq!(shown.json()[0]["cause"], "a test");
    assert!(!String::from_utf8_lossy(&shown.bytes).contains("secret"));
}

#[tokio::test]
async fn of_two_at_once_the_last_wins_whole() {
    let rig = Arc::new(Rig::new());
    let (one, two) = (rig.upload(b"one").await, rig.upload(b"two").await);
    let of = |names: [&str; 2]| {
        let services = names.map(|name| format!("[service.{name}]\ncomponent = 'x.wasm'\n"));
        format!("app = 'shop'\n{}", services.concat())
    };
    let tasks = (0..12).map(|number| {
        let rig = Arc::clone(&rig);
        let (names, digest) = match number % 2 {
            0 => (["web", "api"], one.clone()),
            _ => (["web", "cart"], two.clone()),
        };
        tokio::spawn(async move { rig.apply(&of(names), &digest).await.status })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.expect("no panic"), 200);
    }
    let app = rig.get("/v1/apps/shop").await.json();
    let web = rig.service("web").await;
    let last = if app["services"] == json!(["api", "web"]) {
        one
    } else {
        two
    };
    let revisions = objects::revisions(&*rig.store, &web.key)
        .await
        .expect("a store");
    let target = revisions.iter().find(|it| it.number == web.spec.revision);
    assert_eq!(target.expect("kept").template.component.digest, last);
    for (name, goes) in [
        ("api", last == digest(b"two")),
        ("cart", last == digest(b"one")),
    ] {
        assert_eq!(rig.service(name).await.spec.deleting, goes, "{name}");
    }
}

#[tokio::test]
async fn a_change_during_admission_is_not_lost() {
    let rig = Rig::new();
    let (one, two) = (rig.upload(b"one").await, rig.upload(b"two").await);
    rig.apply(SHOP, &one).await;
    // A controller writes the service's status while the component is compiled.
    let mut changed = rig.service("web").await;
    changed.status.counts.alive = 2;
    let store = rig.store.clone();
    *rig.fake.meanwhile.lock().expect("whole") = Some(Box::new(move || {
        let key = Key::Service(changed.key.clone()).to_string();
        let transaction = sampan_store::Transaction::new().put(key, objects::encode(&changed));
        let committed = futures::FutureExt::now_or_never(store.commit(transaction));
        assert!(
            matches!(committed, Some(Ok(_))),
            "a store in memory never waits"
        );
    }));
    assert_eq!(rig.apply(SHOP, &two).await.status, 200);
    let web = rig.service("web").await;
    assert_eq!((web.status.counts.alive, web.spec.revision), (2, 2));
}

#[tokio::test]
async fn a_service_is_scaled_restarted_undone_and_paused() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    rig.apply(SHOP, &good).await;
    rig.told();
    let verb = async |method: Method, verb: &str, body: Option<Value>| {
        let path = format!("/v1/apps/shop/services/web/{verb}");
        rig.ask(method, &path, body.as_ref()).await
    };
    let post = async |name: &str| verb(Method::POST, name, None).await;
    let scaled = verb(Method::PUT, "scale", Some(json!({ "replicas": 5 }))).await;
    assert_eq!(
        (scaled.status.as_u16(), &scaled.json()["replicas"]),
        (200, &json!(5))
    );
    let none = post("rollout/undo").await;
    insta::assert_snapshot!(none.error(), @"409 Impossible: `web` has no earlier revision to go back to");
    assert_eq!(post("restart").await.json()["revision"], 2);
    assert_eq!(post("rollout/undo").await.json()["revision"], 1);
    let to = verb(Method::POST, "rollout/undo", Some(json!({ "to": 2 }))).await;
    assert_eq!(to.json()["revision"], 2);
    let absent = verb(Method::POST, "rollout/undo", Some(json!({ "to": 9 }))).await;
    insta::assert_snapshot!(absent.error(), @"409 Impossible: `web` has no revision `9`; there are `1`, `2`");
    assert_eq!(post("rollout/pause").await.json()["paused"], true);
    let again = post("rollout/pause").await;
    insta::assert_snapshot!(again.error(), @"409 Impossible: `web` is already paused");
    assert_eq!(post("rollout/resume").await.json()["paused"], false);
    assert_eq!(
        rig.told(),
        [
            // That it was scaled is told by the rollout, once that is carried out.
            "service/web Restarted: all pods are replaced, as revision 2",
            "service/web Undone: from revision 2 back to revision 1",
            "service/web Undone: from revision 1 back to revision 2",
            "service/web Paused: the rollout is paused",
            "service/web Resumed: the rollout goes on",
        ]
    );
    let absent = rig
        .ask(Method::POST, "/v1/apps/shop/services/wbe/restart", None)
        .await;
    insta::assert_snapshot!(absent.error(), @"404 NotFound: there is no service `wbe` in app `shop`; there are `web`");
    // What cannot run any more is not gone back to.
    rig.fake.refused.lock().expect("whole").push(good.clone());
    let refused = post("rollout/undo").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["code"]),
        (422, &json!("Refused"))
    );
    rig.api.0.artifacts.remove(&good).expect("removable");
    assert_eq!(post("restart").await.json()["code"], "MissingArtifacts");
}

#[tokio::test]
async fn a_job_is_run_again() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    let spec = "app = 'shop'\n[job.migrate]\ncomponent = 'migrate.wasm'\n";
    rig.apply(spec, &good).await;
    rig.told();
    let restart = async |job: &str| {
        let path = format!("/v1/apps/shop/jobs/{job}/restart");
        rig.ask(Method::POST, &path, None).await
    };
    let once_more = restart("migrate").await.json();
    assert_eq!(once_more["generation"], 2);
    assert_eq!(once_more["phase"], "Pending");
    assert_eq!(
        rig.told(),
        ["job/migrate Restarted: it runs once more, from its first attempt"]
    );
    let absent = restart("migrat").await;
    insta::assert_snapshot!(absent.error(), @"404 NotFound: there is no job `migrat` in app `shop`; there are `migrate`");
    let bad = restart("Migrate").await;
    assert_eq!(bad.status, 400);
    rig.api.0.artifacts.remove(&good).expect("removable");
    assert_eq!(restart("migrate").await.json()["code"], "MissingArtifacts");
    rig.upload(b"good").await;
    let deleted = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(deleted.status, 200);
    insta::assert_snapshot!(restart("migrate").await.error(), @"409 Impossible: `migrate` is being deleted");
}

#[tokio::test]
async fn a_job_is_run_by_hand() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    let spec = "app = 'shop'\n[job.nightly]\ncomponent = 'nightly.wasm'\nschedule = '0 2 * * *'\n";
    rig.apply(spec, &good).await;
    rig.told();
    let path = "/v1/apps/shop/jobs/nightly/run";
    let asked = rig.ask(Method::POST, path, None).await.json();
    // It is no other spec.
    assert_eq!(
        (&asked["generation"], &asked["run_count"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        rig.told(),
        ["job/nightly RunAsked: a run by hand is asked for"]
    );
    let twice = rig.ask(Method::POST, path, None).await;
    insta::assert_snapshot!(twice.error(), @"409 Impossible: a run of `nightly` is under way: `sampan restart nightly` ends it and begins another");
}

#[tokio::test]
async fn components_are_uploaded_once() {
    let rig = Rig::new();
    let name = digest(b"component");
    let path = format!("/v1/artifacts/{name}");
    assert_eq!(rig.ask(Method::HEAD, &path, None).await.status, 404);
    rig.upload(b"component").await;
    assert_eq!(rig.ask(Method::HEAD, &path, None).await.status, 204);
    let put = async |path: &str, bytes: Vec<u8>| {
        let request = Request::put(path)
            .body(Body::from(bytes))
            .expect("a request");
        send(&rig.router, request).await
    };
    let wrong = put(&path, b"another".to_vec()).await;
    assert_eq!(
        (wrong.status.as_u16(), &wrong.json()["code"]),
        (422, &json!("WrongDigest"))
    );
    let none = put("/v1/artifacts/..%2f..%2fpasswd", Vec::new()).await;
    assert_eq!(none.status, 400);
    // Larger than any JSON may be, and still taken.
    let large = vec![7; 3 << 20];
    let name = digest(&large);
    assert_eq!(
        put(&format!("/v1/artifacts/{name}"), large).await.status,
        201
    );
    let huge = put(&path, vec![7; crate::file::MAX_COMPONENT_BYTES + 1]).await;
    insta::assert_snapshot!(huge.error(), @"413 TooLarge: the component is larger than 64 MiB");
}

#[tokio::test]
async fn a_large_app_is_written_at_once() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    let services = |count: usize| {
        let services = (0..count).map(|it| format!("[service.s{it}]\ncomponent = 'x.wasm'\n"));
        format!("app = 'shop'\n{}", services.collect::<String>())
    };
    let reply = rig.apply(&services(200), &good).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let count = async |path: &str| rig.get(path).await.json().as_array().map(Vec::len);
    assert_eq!(count("/v1/services").await, Some(200));
    assert_eq!(count("/v1/revisions").await, Some(200));
    let written = rig.store.revision().await.expect("a store");
    assert_eq!(written.0, 1, "more than one transaction");
    let again = rig.apply(&services(200), &good).await;
    assert_eq!(again.json()["changed"], false);
}

#[tokio::test]
async fn a_long_cause_is_cut_and_stays_in_its_line() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    let mut body = rig.body(SHOP, &good);
    body["cause"] = json!(format!("one\n\u{1b}{}", "x".repeat(1000)));
    let reply = rig.ask(Method::PUT, "/v1/apps/shop", Some(&body)).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    let shown = rig.get("/v1/revisions").await.json();
    let cause = shown[0]["cause"].as_str().expect("text");
    assert!(cause.starts_with(r"one\n\u{1b}x"), "{cause}");
    assert_eq!(cause.len(), 200, "{cause}");
}

/// A spec with a secret, as it is sent.
fn secret_body(rig: &Rig, digest: &str, value: Option<&str>) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let spec = format!(
        "{SHOP}env = {{ PASSWORD = {{ secret = 'db' }} }}\n[secret.db]\nenv = 'NO_SUCH_VARIABLE'\n"
    );
    let mut body = rig.body(&spec, digest);
    if let Some(value) = value {
        body["secrets"] = json!({ "db": STANDARD.encode(value) });
    }
    body
}

#[tokio::test]
async fn a_secret_is_written_sealed_with_what_refers_to_it() {
    let rig = Rig::new();
    let digest = rig.upload(b"first").await;
    let put = async |value| {
        let body = secret_body(&rig, &digest, value);
        rig.ask(Method::PUT, "/v1/apps/shop", Some(&body)).await
    };
    let secrets = async || {
        let found = rig
            .store
            .list(Kind::Secret.prefix())
            .await
            .expect("a store");
        found.entries
    };
    let refused = put(None).await;
    assert_eq!(refused.status, 422);
    let error = refused.error();
    assert!(
        error.contains("the client has not sent its value"),
        "{error}"
    );
    assert!(secrets().await.is_empty());
    let body = secret_body(&rig, &digest, Some("hunter2"));
    let planned = rig
        .ask(Method::POST, "/v1/apps/shop/plan", Some(&body))
        .await;
    assert_eq!(planned.status, 200);
    assert!(secrets().await.is_empty(), "a plan writes nothing");
    let applied = put(Some("hunter2")).await;
    assert_eq!(applied.status, 200, "{}", applied.json());
    let first = secrets().await;
    assert_eq!(first.len(), 1);
    let revision = rig
        .store
        .list(Kind::Revision.prefix())
        .await
        .expect("a store")
        .entries;
    assert_eq!(
        first[0].modified, revision[0].modified,
        "one transaction wrote both"
    );
    // The same again writes nothing, and another value is another revision.
    let before = rig.store.revision().await.expect("a store");
    assert_eq!(put(Some("hunter2")).await.json()["changed"], false);
    assert_eq!(rig.store.revision().await.expect("a store"), before);
    let changed = put(Some("hunter3")).await.json();
    assert_eq!(changed["changes"][0]["fields"][0]["name"], "env.PASSWORD");
    assert_eq!(rig.service("web").await.spec.revision, 2);
    assert_eq!(
        secrets().await.len(),
        2,
        "the old value is kept with its revision"
    );
    for entry in secrets().await {
        let text = String::from_utf8(entry.value.to_vec()).expect("text");
        assert!(
            !text.contains("hunter") && !entry.key.contains("hunter"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_is_refused_without_it() {
    let rig = Rig::new();
    let digest = rig.upload(b"first").await;
    for (secrets, told) in [
        (json!({ "db": "hunter2!" }), "the secret `db` is not base64"),
        (json!("hunter2"), "`secrets` is a text"),
        (json!({ "db": "" }), "the secret `db` is empty"),
        (json!({ "db": "/w==" }), "the secret `db` is no text"),
    ] {
        let mut body = secret_body(&rig, &digest, None);
        body["secrets"] = secrets;
        let reply = rig.ask(Method::PUT, "/v1/apps/shop", Some(&body)).await;
        let error = reply.error();
        assert!(error.contains(told), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
