//! Removes components, static files and values of secrets that nothing refers to any more.

use std::{collections::BTreeSet, io, sync::Arc, time::Duration};

use sampan_core::{
    plan::prune,
    provoke,
    record::{Job, Key, Kind, Revision},
    site::Manifest,
};
use sampan_runtime::off_thread;
use sampan_store::{Entry, MAX_OPERATIONS, Store, StoreError, Transaction};

use crate::{
    artifacts::{Artifacts, ReadError},
    secrets,
};

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
    // Before what refers to them: what is referred to meanwhile is written meanwhile, too.
    let there = store.list(Kind::Secret.prefix()).await?.entries;
    let (mut referenced, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let mut manifests = Vec::new();
    let mut unreadable = false;
    for entry in store.list(Kind::Revision.prefix()).await?.entries {
        match serde_json::from_slice::<Revision>(&entry.value) {
            Ok(revision) => {
                if let Some(Key::Revision(service, _)) = Key::parse(&entry.key) {
                    let grants = &revision.template.grants;
                    secrets.extend(secrets::keys_of(&service.app, grants));
                }
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
            Ok(job) => {
                secrets.extend(secrets::keys_of(&job.key.app, &job.spec.grants));
                referenced.insert(job.spec.component.digest);
            }
            Err(_) => unreadable = true,
        }
    }
    if unreadable {
        // Who knows what it refers to.
        return Ok(());
    }
    remove_secrets(store, &there, &secrets).await?;
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

/// Removes the secrets that nothing refers to, unless they were written again meanwhile.
async fn remove_secrets(
    store: &Arc<dyn Store>,
    there: &[Entry],
    referenced: &BTreeSet<Key>,
) -> Result<(), StoreError> {
    let there = there
        .iter()
        .filter_map(|it| Some((Key::parse(&it.key)?, it.modified)));
    let unreferenced = there.filter(|(key, _)| !referenced.contains(key));
    let mut transaction = Transaction::new();
    for (key, modified) in unreferenced.take(MAX_OPERATIONS / 2) {
        tracing::info!(%key, "nothing refers to this secret any more: removed");
        let key = key.to_string();
        transaction = transaction.compare(key.as_str(), modified).delete(key);
    }
    if !transaction.writes.is_empty() {
        // One that was written meanwhile is looked at again the next time.
        let _ = store.commit(transaction).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sampan_core::{
        digest::Digest,
        name::{Name, ServiceKey},
        object::SecretUse,
        record::{Component, Secret, Template},
        site::SiteFile,
        spec,
    };
    use sampan_store::Memory;

    use super::*;
    use crate::mirror::text;

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

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn secret(version: &str) -> Key {
        Key::Secret(name("shop"), name("db"), version.to_owned())
    }

    async fn put<T: serde::Serialize>(store: &Arc<dyn Store>, key: &Key, object: &T) {
        let put = Transaction::new().put(key.to_string(), text(object));
        let _ = store.commit(put).await.expect("memory does not fail");
    }

    /// A revision with a secret.
    fn revision(version: &str) -> Revision {
        let text = "app = 'shop'\n[service.web]\ncomponent = 'web.wasm'\n";
        let app = spec::load(&spec::Input {
            path: "sampan.toml",
            text,
            environment: &|_| None,
            read_file: &|_| Err("there are no files".to_owned()),
            profiles: &[],
        });
        let app = app.expect("a good spec");
        let component = Component {
            digest: "a".repeat(64),
            path: "web.wasm".to_owned(),
        };
        let mut template = Template::new(&app.services[&name("web")], component);
        let used = SecretUse {
            name: name("db"),
            version: version.to_owned(),
        };
        template
            .grants
            .secret_env
            .insert("PASSWORD".to_owned(), used);
        Revision {
            number: 1,
            hash: template.hash(),
            template,
            created_ms: 0,
            cause: String::new(),
        }
    }

    #[tokio::test]
    async fn a_secret_stays_as_long_as_something_refers_to_it() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let artifacts = Arc::new(Artifacts::memory());
        let record = Secret {
            key: "0".to_owned(),
            sealed: String::new(),
        };
        for version in ["0a", "0b"] {
            put(&store, &secret(version), &record).await;
        }
        let web = ServiceKey::parse("shop/web").expect("a key");
        let kept = Key::Revision(web, 1);
        put(&store, &kept, &revision("0a")).await;
        let left = async || -> Vec<String> {
            sweep(&store, &artifacts)
                .await
                .expect("memory does not fail");
            let left = store
                .list(Kind::Secret.prefix())
                .await
                .expect("a list")
                .entries;
            left.iter().map(|entry| entry.key.to_string()).collect()
        };
        assert_eq!(left().await, [secret("0a").to_string()]);
        // What cannot be read may refer to anything.
        put(&store, &secret("0b"), &record).await;
        let whole = store
            .get(&kept.to_string())
            .await
            .expect("memory")
            .expect("there");
        put(&store, &kept, &"what another version has written").await;
        assert_eq!(left().await.len(), 2);
        let back = Transaction::new().put(kept.to_string(), whole.value);
        let _ = store.commit(back).await.expect("memory does not fail");
        assert_eq!(left().await.len(), 1);
        let gone = Transaction::new().delete(kept.to_string());
        let _ = store.commit(gone).await.expect("memory does not fail");
        assert_eq!(left().await, Vec::<String>::new());
    }
}
