//! When the store does not do what it should.

use std::time::Duration;

use sampan_store::{
    Entry, Listing, Outcome, Revision, Session, Store, StoreError, Transaction, Turns, Watch,
};

use super::*;

/// A store that reads well, and writes so often; then it does this.
struct Faulty {
    below: Arc<Memory>,
    fault: Result<(), StoreError>,
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.below.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.below.list(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.fault.clone()?;
        Ok(Outcome::Conflict(transaction.compares[0].key.clone()))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.below.watch(prefix, after).await
    }

    async fn open_session(&self, ttl: Duration) -> Result<Session, StoreError> {
        self.below.open_session(ttl).await
    }

    async fn compact(&self, through: Revision) -> Result<(), StoreError> {
        self.below.compact(through).await
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.below.revision().await
    }

    fn turns(&self) -> &Turns {
        self.below.turns()
    }
}

/// The answers to an apply, a scale and a delete with this fault, and that reads go on.
async fn with(fault: Result<(), StoreError>) -> String {
    let rig = Rig::new();
    let good = rig.upload(b"good").await;
    rig.apply(SHOP, &good).await;
    let before = rig.service("web").await;
    let parts = &rig.api.0.parts;
    let api = Api::new(Parts {
        cluster: None,
        keyvalue: nothing_kept(),
        secrets: Arc::new(Secrets::in_memory(rig.store.clone())),
        quota: parts.quota,
        looked: parts.looked.clone(),
        threads: tokio::runtime::Handle::current(),
        connections: 2,
        store: Arc::new(Faulty {
            below: rig.store.clone(),
            fault,
        }),
        reach: None,
        artifacts: parts.artifacts.clone(),
        views: parts.views.clone(),
        lines: parts.lines.clone(),
        ending: None,
        kept: parts.kept.clone(),
        admission: parts.admission.clone(),
        volumes: parts.volumes.clone(),
    });
    let broken = Rig {
        router: api.local(),
        api,
        fake: rig.fake.clone(),
        store: rig.store.clone(),
        home: tempfile::tempdir().expect("a directory"),
    };
    let mut said = broken.apply(&SHOP.replace('2', "3"), &good).await.error();
    let scale = json!({ "replicas": 3 });
    for (method, path, body) in [
        (
            Method::PUT,
            "/v1/apps/shop/services/web/scale",
            Some(&scale),
        ),
        (Method::DELETE, "/v1/apps/shop", None),
    ] {
        said += "\n\n";
        said += &broken.ask(method, path, body).await.error();
    }
    assert_eq!(broken.get("/v1/services").await.status, 200);
    assert_eq!(rig.service("web").await, before);
    said
}

#[tokio::test]
async fn a_store_that_cannot_write_is_said() {
    let place = "/data/sampan.db".to_owned();
    let reason = "no space left on device".to_owned();
    insta::assert_snapshot!("full", with(Err(StoreError::Full { place, reason })).await);
    insta::assert_snapshot!("closed", with(Err(StoreError::Closed)).await);
}

#[tokio::test]
async fn tries_are_bounded() {
    insta::assert_snapshot!("conflict", with(Ok(())).await);
}
