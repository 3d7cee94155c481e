//! Removes components and static files that nothing refers to any more.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use sampan_core::{
    plan::prune,
    provoke,
    record::{Job, Kind, Revision},
    site::Manifest,
};
use sampan_runtime::off_thread;
use sampan_store::{Store, StoreError};

use crate::artifacts::{Artifacts, ReadError};

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

/// The files of a manifest. An error means that they are not known, and then nothing is removed. One
/// that is gone has none: no pod can be made of it.
fn files(artifacts: &Artifacts, manifest: &str) -> io::Result<Vec<String>> {
    let bytes = match artifacts.read(manifest) {
        Ok((bytes, _)) => bytes,
        Err(ReadError::Missing(_)) => return Ok(Vec::new()),
        Err(error) => return Err(io::Error::other(error)),
    };
    let manifest = Manifest::parse(&bytes).map_err(io::Error::other)?;
    let files = manifest.files.into_values();
    Ok(files.map(|file| file.digest).collect())
}

async fn sweep(store: &Arc<dyn Store>, artifacts: &Arc<Artifacts>) -> Result<(), StoreError> {
    let mut referenced = BTreeSet::new();
    let mut manifests = Vec::new();
    let mut unreadable = false;
    for entry in store.list(Kind::Revision.prefix()).await?.entries {
        match serde_json::from_slice::<Revision>(&entry.value) {
            Ok(revision) => {
                let template = revision.template;
                if template.site.is_some() {
                    manifests.push(template.component.digest.clone());
                }
                referenced.insert(template.component.digest);
            }
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
        for manifest in manifests {
            referenced.extend(files(&artifacts, &manifest)?);
        }
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
        io::Result::Ok(())
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "cannot remove components that no revision needs");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sampan_core::{digest::Digest, site::SiteFile};

    use super::*;

    #[test]
    fn what_a_manifest_names_is_kept_and_one_that_is_damaged_keeps_all() {
        let artifacts = Artifacts::memory();
        let keep = |bytes: &[u8]| {
            let digest = Digest::of(bytes).to_hex();
            artifacts.keep(digest.clone(), bytes.to_vec().into(), "public".into());
            digest
        };
        let page = keep(b"page");
        let file = SiteFile {
            digest: page.clone(),
            bytes: 4,
            content_type: "text/html".to_owned(),
            modified: 0,
        };
        let manifest = Manifest {
            files: [("index.html".to_owned(), file)].into(),
        };
        let manifest = keep(&manifest.to_bytes());
        assert_eq!(files(&artifacts, &manifest).expect("readable"), [page]);
        // Nothing is known of what is gone, and no pod can be made of it.
        let gone = Digest::of(b"gone").to_hex();
        assert!(files(&artifacts, &gone).expect("none").is_empty());
        let damaged = keep(b"{");
        assert!(files(&artifacts, &damaged).is_err());
    }
}
