//! Removes components that nothing refers to any more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sampan_core::{
    plan::prune,
    provoke,
    record::{Job, Kind, Revision},
};
use sampan_runtime::off_thread;
use sampan_store::{Store, StoreError};

use crate::artifacts::Artifacts;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(60);
/// What was just uploaded is referred to only a moment later.
const GRACE_MS: u64 = 10 * 60 * 1000;

/// Looks now and then, as long as there is a store.
pub(super) async fn run(store: Arc<dyn Store>, artifacts: Arc<Artifacts>) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        provoke::panic_in(provoke::Task::Sweeper);
        match sweep(&store, &artifacts).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot look for components that nothing refers to")
            }
        }
    }
}

async fn sweep(store: &Arc<dyn Store>, artifacts: &Arc<Artifacts>) -> Result<(), StoreError> {
    let mut referenced = BTreeSet::new();
    let mut unreadable = false;
    for entry in store.list(Kind::Revision.prefix()).await?.entries {
        match serde_json::from_slice::<Revision>(&entry.value) {
            Ok(revision) => drop(referenced.insert(revision.template.component.digest)),
            Err(_) => unreadable = true,
        }
    }
    for entry in store.list(Kind::Job.prefix()).await?.entries {
        match serde_json::from_slice::<Job>(&entry.value) {
            Ok(job) => drop(referenced.insert(job.spec.component.digest)),
            Err(_) => unreadable = true,
        }
    }
    if unreadable {
        // Who knows what it refers to.
        return Ok(());
    }
    let artifacts = Arc::clone(artifacts);
    let removed = off_thread(move || {
        let present = artifacts.list()?;
        let present: Vec<_> = present
            .into_iter()
            .map(|it| {
                (
                    it.digest,
                    u64::try_from(it.age.as_millis()).unwrap_or(u64::MAX),
                )
            })
            .collect();
        let referenced = referenced.iter().map(String::as_str);
        for digest in prune::artifacts(referenced, &present, GRACE_MS) {
            tracing::info!(digest, "nothing refers to this component any more: removed");
            artifacts.remove(&digest)?;
        }
        std::io::Result::Ok(())
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "cannot remove components that no revision needs");
    }
    Ok(())
}
