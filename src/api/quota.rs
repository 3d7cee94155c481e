//! Quotas: whether the app and the node may have what a change asks for, beside what there is.

use std::collections::BTreeMap;

use sampan_core::{
    name::Name,
    plan::quota::{Ask, Changes, Exceeded, Usage},
    record::{self, Key, Kind, Revision, Service},
};
use sampan_store::{Entry, Store};
use serde::de::DeserializeOwned;
use tokio::sync::MutexGuard;

use super::{
    Api,
    error::{ApiError, Code},
    objects::AppObjects,
    work::compute,
};

impl From<Exceeded> for ApiError {
    fn from(exceeded: Exceeded) -> Self {
        Self::new(Code::QuotaExceeded, exceeded.to_string()).hint(exceeded.hint())
    }
}

/// What was checked stays so until this is dropped: no other app gets the same.
pub(super) struct Claim<'a>(#[expect(dead_code, reason = "held")] Option<MutexGuard<'a, ()>>);

impl Api {
    /// Refuses a change that asks for more than the app or the node may have.
    pub(super) async fn check_quota(&self, ask: &Ask) -> Result<(), ApiError> {
        if !ask.is_for_more() {
            return Ok(());
        }
        let quota = &self.0.quota;
        quota.check_app(ask)?;
        let others = others(&*self.0.store, ask.app()).await?;
        quota.check_node(ask, &others)?;
        Ok(())
    }

    /// The same, right before it is written: of two apps that ask at once for the rest of what
    /// there is, the later one finds out.
    pub(super) async fn claim(&self, ask: &Ask) -> Result<Claim<'_>, ApiError> {
        if !ask.is_for_more() {
            return Ok(Claim(None));
        }
        let turn = self.0.quota_turn.lock().await;
        self.check_quota(ask).await?;
        Ok(Claim(Some(turn)))
    }

    /// The same for a service that is to be so, with its revision if that is new.
    pub(super) async fn claim_for(
        &self,
        service: &Service,
        revision: Option<&Revision>,
    ) -> Result<Claim<'_>, ApiError> {
        let app = &service.key.app;
        let present = AppObjects::read(&*self.0.store, app).await?.present;
        let revision = revision.map(|it| (service.key.clone(), it.clone()));
        let changes = Changes {
            app: None,
            services: std::slice::from_ref(service),
            revisions: revision.as_slice(),
            jobs: &[],
        };
        self.claim(&Ask::of(app, &present, changes)).await
    }
}

/// What all apps but this one may come to. What cannot be read counts for nothing: it was written
/// by another version.
async fn others(store: &dyn Store, app: &Name) -> Result<Usage, ApiError> {
    let apps = store.list(Kind::App.prefix()).await?.entries;
    let services = store.list(Kind::Service.prefix()).await?.entries;
    let jobs = store.list(Kind::Job.prefix()).await?.entries;
    let revisions = store.list(Kind::Revision.prefix()).await?.entries;
    let sum = || {
        let revisions: BTreeMap<&str, &Entry> = revisions.iter().map(|it| (&*it.key, it)).collect();
        let of_app = |found: record::App| Usage {
            apps: u64::from(!found.deleting),
            ..Usage::default()
        };
        let of_service = |service: record::Service| {
            let key = Key::Revision(service.key.clone(), service.spec.revision).to_string();
            let revision = revisions.get(&*key).copied();
            let revision = revision.and_then(read::<record::Revision>);
            let memory = revision.map_or(0, |it| it.template.limits.memory.0);
            Usage::of_service(&service, memory)
        };
        let apps = beside(app, &apps).filter_map(read).map(of_app);
        let services = beside(app, &services).filter_map(read).map(of_service);
        let jobs = beside(app, &jobs).filter_map(read);
        let jobs = jobs.map(|job: record::Job| Usage::of_job(&job));
        let all = apps.chain(services).chain(jobs);
        all.fold(Usage::default(), Usage::plus)
    };
    Ok(compute(sum))
}

/// The entries that belong to other apps.
fn beside<'a>(app: &'a Name, entries: &'a [Entry]) -> impl Iterator<Item = &'a Entry> {
    let own = move |entry: &&Entry| Key::parse(&entry.key).is_some_and(|it| it.app() != app);
    entries.iter().filter(own)
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Option<T> {
    serde_json::from_slice(&entry.value).ok()
}
