//! How much apps may have, and what is answered before all has been looked at.

use sampan_core::plan::quota::Usage;

use super::*;

/// A node that may have so many pods, and each app so many.
fn limited(node: u64, app: u64) -> Rig {
    let usual = Quota::default();
    let quota = Quota {
        node: Usage {
            pods: node,
            ..usual.node
        },
        app: Usage {
            pods: app,
            ..usual.app
        },
    };
    Rig::with(Fake {
        quota: Mutex::new(quota),
        ..Fake::default()
    })
}

/// An app of one service with exactly so many pods.
fn spec(app: &str, replicas: u32) -> String {
    format!(
        "app = '{app}'\n[service.web]\ncomponent = 'x.wasm'\nreplicas = {replicas}\n\
         rollout = {{ max_surge = 0, max_unavailable = 1 }}\n"
    )
}

impl Rig {
    async fn send(&self, method: Method, app: &str, end: &str, body: &Value) -> Reply {
        let path = format!("/v1/apps/{app}{end}");
        self.ask(method, &path, Some(body)).await
    }

    async fn put_app(&self, app: &str, replicas: u32, digest: &str) -> Reply {
        let body = self.body(&spec(app, replicas), digest);
        self.send(Method::PUT, app, "", &body).await
    }
}

#[tokio::test]
async fn more_than_an_app_may_have_is_refused_at_the_plan_and_at_the_apply() {
    let rig = limited(100, 10);
    let good = rig.upload(b"good").await;
    let body = rig.body(&spec("shop", 11), &good);
    let planned = rig.send(Method::POST, "shop", "/plan", &body).await;
    insta::assert_snapshot!(planned.error(), @"
    422 QuotaExceeded: the app `shop` comes to `11` pods, and an app of this node may have at most `10` pods; the largest is `service.web` with `11` pods, the surge of a rollout included
    hint: lower `replicas`, `autoscale.max` or `rollout.max_surge`, split the app, or raise `pods` in `[quota.app]` of the node's configuration
    ");
    let applied = rig.put_app("shop", 11, &good).await;
    assert_eq!(applied.error(), planned.error());
    assert_eq!(rig.store.revision().await.expect("a store").0, 0);
    assert!(
        rig.fake.admitted.lock().expect("whole").is_empty(),
        "compiled for nothing"
    );
    assert_eq!(rig.put_app("shop", 10, &good).await.status, 200);
    // Scaling is a change like any other.
    let path = "/services/web/scale";
    let scaled = rig
        .send(Method::PUT, "shop", path, &json!({ "replicas": 11 }))
        .await;
    insta::assert_snapshot!(scaled.error(), @"
    422 QuotaExceeded: the app `shop` comes to `11` pods, and an app of this node may have at most `10` pods; the largest is `service.web` with `11` pods, the surge of a rollout included
    hint: lower `replicas`, `autoscale.max` or `rollout.max_surge`, split the app, or raise `pods` in `[quota.app]` of the node's configuration
    ");
    let scaled = rig
        .send(Method::PUT, "shop", path, &json!({ "replicas": 9 }))
        .await;
    assert_eq!(scaled.status, 200, "{:?}", scaled.bytes);
}

#[tokio::test]
async fn all_apps_together_have_no_more_than_the_node() {
    let rig = limited(10, 10);
    let good = rig.upload(b"good").await;
    assert_eq!(rig.put_app("shop", 6, &good).await.status, 200);
    insta::assert_snapshot!(rig.put_app("blog", 5, &good).await.error(), @"
    422 QuotaExceeded: the app `blog` comes to `5` pods and the other apps to `6` pods, and this node may have at most `10` pods; the largest is `service.web` with `5` pods, the surge of a rollout included
    hint: lower `replicas`, `autoscale.max` or `rollout.max_surge`, delete another app, or raise `pods` in `[quota]` of the node's configuration
    ");
    assert_eq!(rig.put_app("blog", 4, &good).await.status, 200);
    let path = "/services/web/scale";
    let more = rig
        .send(Method::PUT, "blog", path, &json!({ "replicas": 5 }))
        .await;
    assert_eq!(more.json()["code"], "QuotaExceeded");
    // What is being deleted counts no more.
    let gone = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(gone.status, 200);
    assert_eq!(rig.put_app("blog", 10, &good).await.status, 200);
}

#[tokio::test]
async fn of_apps_that_ask_at_once_the_node_takes_what_fits() {
    let rig = limited(10, 10);
    let good = rig.upload(b"good").await;
    let names = ["a", "b", "c", "d", "e"];
    let applies = names.map(|name| rig.put_app(name, 4, &good));
    let replies = futures::future::join_all(applies).await;
    let taken = replies.iter().filter(|it| it.status == 200).count();
    assert_eq!(
        taken,
        2,
        "{:?}",
        replies.iter().map(|it| it.status).collect::<Vec<_>>()
    );
    let refused = replies.iter().filter(|it| it.status == 422);
    assert!(
        refused.clone().count() == 3
            && refused
                .into_iter()
                .all(|it| { it.json()["code"] == "QuotaExceeded" })
    );
}

#[tokio::test]
async fn what_is_beyond_a_quota_can_be_made_less_and_deleted() {
    let rig = limited(100, 100);
    let good = rig.upload(b"good").await;
    assert_eq!(rig.put_app("shop", 50, &good).await.status, 200);
    // The same store with a quota that was lowered.
    let parts = &rig.api.0.parts;
    let quota = Quota {
        node: Usage {
            pods: 10,
            ..parts.quota.node
        },
        app: Usage {
            pods: 10,
            ..parts.quota.app
        },
    };
    let api = Api::new(Parts {
        cluster: None,
        keyvalue: nothing_kept(),
        secrets: Arc::new(Secrets::in_memory(parts.store.clone())),
        store: parts.store.clone(),
        reach: None,
        artifacts: parts.artifacts.clone(),
        views: parts.views.clone(),
        lines: parts.lines.clone(),
        ending: None,
        kept: parts.kept.clone(),
        admission: parts.admission.clone(),
        volumes: parts.volumes.clone(),
        quota,
        looked: parts.looked.clone(),
        threads: parts.threads.clone(),
        connections: parts.connections,
    });
    let rig = Rig {
        router: api.local(),
        api,
        ..rig
    };
    for (replicas, status) in [(51, 422), (50, 200), (40, 200), (41, 422)] {
        let reply = rig.put_app("shop", replicas, &good).await;
        assert_eq!(reply.status, status, "{replicas}: {:?}", reply.bytes);
    }
    assert_eq!(rig.put_app("blog", 1, &good).await.status, 422);
    let gone = rig.ask(Method::DELETE, "/v1/apps/shop", None).await;
    assert_eq!(gone.status, 200);
    assert_eq!(rig.put_app("blog", 1, &good).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn before_all_has_been_looked_at_changes_are_taken_and_no_old_word_is_given() {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    rig.fake.looked.send_replace(false);
    assert_eq!(rig.apply(SHOP, &good).await.status, 200);
    for path in [
        "/v1/nodes",
        "/v1/pods",
        "/v1/apps",
        "/v1/events",
        "/v1/revisions",
    ] {
        assert_eq!(rig.get(path).await.status, 200, "{path}");
    }
    let said = rig.get("/v1/services").await.error();
    insta::assert_snapshot!(said, @"
    503 Busy: the node has just started, and not yet looked at all its services
    hint: try again in a moment; `apply` and `delete` work already
    ");
    for path in [
        "/v1/apps/shop/services/web",
        "/v1/jobs",
        "/v1/top",
        "/v1/watch",
    ] {
        assert_eq!(rig.get(path).await.error(), said, "{path}");
    }
    assert_eq!(
        rig.ask(Method::DELETE, "/v1/apps/shop", None).await.status,
        200
    );
    let (services, ()) = tokio::join!(rig.get("/v1/services"), async {
        tokio::task::yield_now().await;
        rig.fake.looked.send_replace(true);
    });
    assert_eq!(services.status, 200);
}
