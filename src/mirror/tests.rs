//! What followers hear of, and what the mirror knows.

use sampan_store::{Memory, Transaction};

use super::*;

fn pod(slot: u32) -> Pod {
    let service = ServiceKey::parse("shop/web").expect("a key");
    Pod::new(&service, 1, slot)
}

fn key(slot: u32) -> Key {
    Key::Pod(pod(slot).name())
}

async fn put(store: &Arc<dyn Store>, slots: &[u32]) {
    for slot in slots {
        let put = Transaction::new().put(key(*slot).to_string(), text(&pod(*slot)));
        let _ = store.commit(put).await.expect("memory does not fail");
    }
}

/// Hears of changes until a pod is as this says.
async fn until(pods: &mut Follower, reached: impl Fn(&Mirror) -> bool) -> Vec<BTreeSet<Key>> {
    let mut heard = Vec::new();
    while !reached(&pods.mirror()) {
        heard.push(pods.next().await.expect("the store is open"));
    }
    heard
}

#[tokio::test]
async fn each_follower_hears_of_its_kinds_and_of_a_key_once() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    put(&store, &[0]).await;
    let threads = Handle::current();
    let reflector = Reflector::start(&store, &threads).await.expect("memory");
    let (mut pods, mut late) = (reflector.follow(&[Kind::Pod]), reflector.follow(&Kind::ALL));
    let mut jobs = reflector.follow(&[Kind::Job]);
    assert_eq!((pods.keys(), jobs.keys()), ([key(0)].into(), [].into()));
    put(&store, &[1, 1, 0, 1, 2]).await;
    let heard = until(&mut pods, |it| it.pods.contains_key(&pod(2).name())).await;
    let all: BTreeSet<_> = heard.into_iter().flatten().collect();
    assert_eq!(all, [key(0), key(1), key(2)].into());
    assert_eq!(late.next().await, Some(all), "all at once");
    assert_eq!(pods.mirror().pods[&pod(1).name()].modified, Revision(5));
    // It has heard of nothing, and would have by now.
    let silent = tokio::time::timeout(Duration::ZERO, jobs.next()).await;
    assert!(silent.is_err(), "{silent:?}");
}

#[tokio::test]
async fn what_was_written_before_is_there_once_it_has_caught_up() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let threads = Handle::current();
    let reflector = Reflector::start(&store, &threads).await.expect("memory");
    let pods = reflector.follow(&[Kind::Pod]);
    // On one thread the reflector has had no turn meanwhile.
    put(&store, &[0, 1]).await;
    assert_eq!(pods.keys(), [].into());
    reflector.catch_up().await.expect("memory does not fail");
    assert_eq!(pods.keys(), [key(0), key(1)].into());
}

#[tokio::test]
async fn a_mirror_that_falls_behind_is_read_again() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    put(&store, &[0, 1]).await;
    let threads = Handle::current();
    let reflector = Reflector::start(&store, &threads).await.expect("memory");
    let mut pods = reflector.follow(&[Kind::Pod]);
    put(&store, &[2]).await;
    let gone = Transaction::new().delete(key(0).to_string());
    let _ = store.commit(gone).await.expect("memory does not fail");
    let now = store.revision().await.expect("memory does not fail");
    store.compact(now).await.expect("memory does not fail");
    until(&mut pods, |it| it.pods.contains_key(&pod(2).name())).await;
    let left: Vec<_> = pods.mirror().pods.keys().cloned().collect();
    assert_eq!(left, [pod(1).name(), pod(2).name()]);
}

#[test]
fn who_depends_on_what_follows_each_change() {
    let key = |name: &str| ServiceKey::parse(&format!("shop/{name}")).expect("a key");
    let name = |name: &str| Name::parse(name).expect("a name");
    let (api, web) = (key("api"), Key::Service(key("web")));
    let mut mirror = Mirror::default();
    let put = |mirror: &mut Mirror, on: &[&str]| {
        let now = on.iter().map(|on| (name(on), Condition::Ready)).collect();
        let before = mirror.dependents.iter().map(|(on, _)| on.name.clone());
        let before = before.map(|on| (on, Condition::Ready)).collect();
        mirror.depend(web.clone(), Some(&before), &now);
    };
    put(&mut mirror, &["api", "db"]);
    assert_eq!(mirror.dependents_of(&api).collect::<Vec<_>>(), [&web]);
    assert_eq!(mirror.dependents_of(&key("ap")).count(), 0);
    put(&mut mirror, &["db"]);
    assert_eq!(mirror.dependents_of(&api).count(), 0);
    assert_eq!(mirror.dependents_of(&key("db")).count(), 1);
    put(&mut mirror, &[]);
    assert!(mirror.dependents.is_empty());
}
