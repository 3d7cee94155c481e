//! Has each node of a cluster keep what revisions and jobs refer to, so that any of them can run what
//! another one cannot run any more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sampan_core::record::{Job, Key, Revision};
use sampan_store::{Store, StoreError};
use tokio::time::{Instant, sleep_until};

use crate::{agent::loader::Elsewhere, mirror::Follower};

/// How often what could not be had is asked for again.
const RETRY: Duration = Duration::from_secs(5);

/// Fetches what is missing, until the store is closed.
pub(super) async fn run(
    store: Arc<dyn Store>,
    mut objects: Follower,
    elsewhere: Arc<dyn Elsewhere>,
) {
    let mut due = objects.keys();
    loop {
        due = fetch(&*store, due, &*elsewhere).await;
        let again = Instant::now() + RETRY;
        tokio::select! {
            changed = objects.next() => match changed {
                Some(changed) => due.extend(changed),
                None => return,
            },
            () = sleep_until(again), if !due.is_empty() => {}
        }
    }
}

/// Fetches what these refer to, and returns those of which something is still missing.
async fn fetch(store: &dyn Store, due: BTreeSet<Key>, elsewhere: &dyn Elsewhere) -> BTreeSet<Key> {
    let mut missing = BTreeSet::new();
    for key in due {
        let is_here = match digest(store, &key).await {
            Ok(Some(digest)) => elsewhere.obtain_files(&digest).await,
            // It is gone, or of a later version.
            Ok(None) => true,
            Err(_) => false,
        };
        if !is_here {
            missing.insert(key);
        }
    }
    missing
}

/// What an object refers to: a component, or the manifest of static files.
async fn digest(store: &dyn Store, key: &Key) -> Result<Option<String>, StoreError> {
    let Some(entry) = store.get(&key.to_string()).await? else {
        return Ok(None);
    };
    Ok(match key {
        Key::Revision(..) => {
            let revision = serde_json::from_slice::<Revision>(&entry.value).ok();
            revision.map(|it| it.template.component.digest)
        }
        Key::Job(_) => {
            let job = serde_json::from_slice::<Job>(&entry.value).ok();
            job.map(|it| it.spec.component.digest)
        }
        Key::App(_) | Key::Service(_) | Key::Pod(_) | Key::Secret(..) => None,
    })
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;
    use sampan_store::{Memory, Transaction};
    use serde_json::Value;
    use tokio::{runtime::Handle, sync::Notify};

    use super::*;
    use crate::mirror::Reflector;

    /// Other nodes, of which one has what is asked for from the second time on.
    #[derive(Default)]
    struct Others {
        asked: Mutex<Vec<String>>,
        told: Notify,
    }

    #[async_trait]
    impl Elsewhere for Others {
        async fn obtain(&self, _: &str) -> bool {
            false
        }

        async fn obtain_files(&self, digest: &str) -> bool {
            let mut asked = self.asked.lock();
            asked.push(digest.to_owned());
            self.told.notify_one();
            asked.iter().filter(|it| *it == digest).count() > 1
        }
    }

    /// A revision and a job as the store has them.
    fn records() -> Vec<(String, Vec<u8>)> {
        let stored = include_str!("../../crates/core/tests/it/stored.json");
        let stored: Value = serde_json::from_str(stored).expect("JSON");
        let stored = stored.as_object().expect("an object").iter();
        let kept =
            stored.filter(|(key, _)| key.starts_with("/revisions/") || key.starts_with("/jobs/"));
        kept.map(|(key, value)| (key.clone(), value.to_string().into_bytes()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_revisions_and_jobs_name_is_asked_for_until_it_is_here() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let reflector = Reflector::start(&store, &Handle::current())
            .await
            .expect("memory");
        let objects = reflector.follow(&[
            sampan_core::record::Kind::Revision,
            sampan_core::record::Kind::Job,
        ]);
        let others = Arc::<Others>::default();
        let keeping = tokio::spawn(run(Arc::clone(&store), objects, others.clone()));
        let records = records();
        assert!(records.len() > 1);
        let mut wanted = BTreeSet::new();
        for (key, value) in records {
            let _ = store
                .commit(Transaction::new().put(key.as_str(), value))
                .await
                .expect("memory");
            let key = Key::parse(&key).expect("a key");
            wanted.insert(
                digest(&*store, &key)
                    .await
                    .expect("memory")
                    .expect("it names one"),
            );
        }
        let all_twice = async {
            loop {
                let is_there = {
                    let asked = others.asked.lock();
                    let count = |digest: &String| asked.iter().filter(|it| *it == digest).count();
                    wanted.iter().all(|digest| count(digest) > 1)
                };
                if is_there {
                    return;
                }
                others.told.notified().await;
            }
        };
        let done = tokio::time::timeout(10 * RETRY, all_twice).await;
        assert!(done.is_ok(), "{:?}", others.asked.lock());
        keeping.abort();
    }
}
