//! `wasi:keyvalue`: what it does at the store, what is denied, and what waiting for it is.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use sampan_core::{fault::Fault, name::Name};
use sampan_runtime::{KeyValue, Keys, Told, Versioned, logs::Stream, pod::Pod};

use super::rig::{Plan, SHORT, Witness, ask, failure, in_time, lines, plan, runtime, workload};

/// Keys of a page.
const PAGE: usize = 2;

/// Stores in memory, which can be told to misbehave.
#[derive(Default)]
struct Stores {
    entries: Mutex<BTreeMap<(Name, String), Versioned>>,
    changes: AtomicUsize,
    /// How often something else is written between a look and the swap after it.
    disturbed: AtomicUsize,
    silent: AtomicBool,
    broken: AtomicBool,
}

impl Stores {
    async fn work<T>(
        &self,
        work: impl FnOnce(&mut BTreeMap<(Name, String), Versioned>) -> T,
    ) -> Told<T> {
        if self.silent.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        // Off the task that asks, as a thread would answer.
        tokio::task::yield_now().await;
        match self.broken.load(SeqCst) {
            true => Err("the disk is full".to_owned()),
            false => Ok(work(&mut self.entries.lock().expect("no panic"))),
        }
    }

    fn next(&self) -> u64 {
        self.changes.fetch_add(1, SeqCst) as u64 + 1
    }

    async fn list(&self, store: &Name) -> Told<Vec<String>> {
        let keys = |entries: &mut BTreeMap<(Name, String), _>| {
            let own = entries.keys().filter(|(of, _)| of == store);
            own.map(|(_, key)| key.clone()).collect()
        };
        self.work(keys).await
    }
}

#[async_trait]
impl KeyValue for Stores {
    async fn get(&self, store: &Name, keys: Vec<String>) -> Told<Vec<Option<Versioned>>> {
        let found = keys.into_iter().map(|key| (store.clone(), key));
        self.work(|entries| found.map(|key| entries.get(&key).cloned()).collect())
            .await
    }

    async fn version(&self, store: &Name, key: String) -> Told<u64> {
        let found = self.get(store, vec![key]).await?.remove(0);
        Ok(found.map_or(0, |found| found.version))
    }

    async fn keys(&self, store: &Name, after: Option<u64>) -> Told<Keys<u64>> {
        let keys = self.list(store).await?;
        let from = after.unwrap_or(0) as usize;
        let next = (keys.len() > from + PAGE).then_some((from + PAGE) as u64);
        Ok((keys.into_iter().skip(from).take(PAGE).collect(), next))
    }

    async fn sorted_keys(&self, store: &Name, after: Option<String>) -> Told<Keys<String>> {
        let mut keys = self.list(store).await?;
        keys.retain(|key| Some(key) > after.as_ref());
        let more = keys.len() > PAGE;
        keys.truncate(PAGE);
        let next = keys.last().filter(|_| more).cloned();
        Ok((keys, next))
    }

    async fn write(&self, store: &Name, writes: Vec<(String, Option<Vec<u8>>)>) -> Told<()> {
        self.work(|entries| {
            for (key, value) in writes {
                let version = self.next();
                match value {
                    Some(value) => {
                        drop(entries.insert((store.clone(), key), Versioned { value, version }))
                    }
                    None => drop(entries.remove(&(store.clone(), key))),
                }
            }
        })
        .await
    }

    async fn add(&self, store: &Name, key: String, delta: i64) -> Told<i64> {
        let found = self.get(store, vec![key.clone()]).await?.remove(0);
        let number = found.map_or(0, |found| {
            let text = String::from_utf8(found.value).expect("text");
            text.parse().expect("a number")
        });
        let sum: i64 = number + delta;
        self.write(store, vec![(key, Some(sum.to_string().into()))])
            .await?;
        Ok(sum)
    }

    async fn swap(&self, store: &Name, key: String, version: u64, value: Vec<u8>) -> Told<bool> {
        let disturb = |left: usize| left.checked_sub(1);
        if self.disturbed.fetch_update(SeqCst, SeqCst, disturb).is_ok() {
            let other = vec![(key.clone(), Some(b"other".to_vec()))];
            self.write(store, other).await?;
        }
        let same = self.version(store, key.clone()).await? == version;
        if same {
            self.write(store, vec![(key, Some(value))]).await?;
        }
        Ok(same)
    }
}

fn visits(name: &str, stores: &Arc<Stores>) -> Plan {
    let mut plan = plan(workload(name));
    plan.grants.keyvalue = vec![Name::parse("visits").expect("a name")];
    plan.keyvalue = Some(Arc::clone(stores) as Arc<dyn KeyValue>);
    plan
}

async fn all(pod: &Pod, asked: &[(&str, u16, &str)]) {
    for (path, status, text) in asked {
        let answer = in_time(ask(pod, path)).await;
        assert_eq!(answer, Ok((*status, format!("{text}\n"))), "{path}");
    }
}

#[tokio::test]
async fn a_guest_of_wasi_0_2_has_all_of_the_second_draft() {
    let stores = Arc::<Stores>::default();
    let pod = visits("visits", &stores).start().await;
    all(
        &pod,
        &[
            ("/", 200, "1"),
            ("/", 200, "2"),
            ("/add?key=n&delta=-7", 200, "-7"),
            ("/get?key=k", 404, "not found"),
            ("/exists?key=k", 200, "false"),
            ("/set?key=k&value=v", 200, "ok"),
            ("/get?key=k", 200, "v"),
            ("/exists?key=k", 200, "true"),
            ("/append?key=k&value=w", 200, "vw"),
            ("/append?key=new&value=w", 200, "w"),
            ("/delete?key=k", 200, "ok"),
            ("/delete?key=k", 200, "ok"),
            ("/get?key=k", 404, "not found"),
            ("/list", 200, "n\nnew\nvisits"),
            ("/fill?keys=3", 200, "ok"),
            ("/list", 200, "key-0\nkey-1\nkey-2\nn\nnew\nvisits"),
            ("/clear?keys=4", 200, "3"),
            ("/list", 200, "n\nnew\nvisits"),
        ],
    )
    .await;
    // What is written between the look and the swap is not lost.
    stores.disturbed.store(2, SeqCst);
    all(&pod, &[("/append?key=new&value=!", 200, "other!")]).await;
}

#[tokio::test]
async fn a_guest_of_wasi_0_3_has_all_of_the_first_draft() {
    let pod = visits("visits-p3", &Arc::default()).start().await;
    all(
        &pod,
        &[
            ("/", 200, "1"),
            ("/", 200, "2"),
            ("/fill?keys=4", 200, "ok"),
            ("/list", 200, "key-0\nkey-1\nkey-2\nkey-3\nvisits"),
            ("/clear?keys=9", 200, "4"),
            ("/list", 200, "visits"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_store_that_is_not_granted_is_denied_and_the_log_says_what_would_allow_it() {
    for name in ["visits", "visits-p3"] {
        let stores = Arc::<Stores>::default();
        let mut plan = visits(name, &stores);
        plan.grants.keyvalue = vec![Name::parse("carts").expect("a name")];
        let pod = plan.start().await;
        all(&pod, &[("/", 403, "denied")]).await;
        assert_eq!(stores.entries.lock().expect("no panic").len(), 0);
        let said = lines(runtime(), pod.name());
        let said = said.iter().find(|line| line.stream == Stream::Host);
        assert_eq!(
            said.expect("a line").text,
            "denied: key-value store `visits`; `allow.keyvalue = [\"visits\"]` would allow it"
        );
    }
    let pod = visits("visits", &Arc::default()).start().await;
    all(
        &pod,
        &[
            ("/open?store=visits", 200, "ok"),
            ("/open?store=carts", 403, "denied"),
            ("/open?store=", 403, "denied"),
            ("/open?store=..%2Fother%2Fvisits", 403, "denied"),
            ("/open?store=Visits", 403, "denied"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_the_store_says_reaches_the_guest() {
    let stores = Arc::<Stores>::default();
    stores.broken.store(true, SeqCst);
    for name in ["visits", "visits-p3"] {
        let pod = visits(name, &stores).start().await;
        all(&pod, &[("/", 500, "the disk is full")]).await;
    }
    let mut without = visits("visits", &stores);
    without.keyvalue = None;
    let pod = without.start().await;
    all(&pod, &[("/", 500, "this host keeps no stores")]).await;
}

/// Whatever else is blocked: the store is none of the guests.
#[tokio::test]
async fn a_store_that_does_not_answer_is_no_deadlock() {
    for name in ["visits", "visits-p3"] {
        let (stores, witness) = (Arc::<Stores>::default(), Arc::<Witness>::default());
        stores.silent.store(true, SeqCst);
        let plan = visits(name, &stores).watch(&witness).request_timeout(SHORT);
        let pod = plan.start().await;
        let failed = in_time(failure(&pod, "/")).await;
        assert_eq!(failed.fault(), Fault::TimedOut, "{name}");
        // One that is shared among requests goes on: no end is told.
        if name == "visits" {
            let said = witness.last().to_string();
            assert!(said.contains("the key-value store `visits`"), "{said}");
        }
    }
}
