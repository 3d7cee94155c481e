//! What is of etcd alone: pages, sessions that outlive members, restored backups, certificates,
//! passwords, and what is said when something is wrong.

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use futures::FutureExt as _;
use sampan_store::{
    Etcd, EtcdError, EtcdLimits, EtcdOptions, EtcdReach, EtcdTls, Outcome, Revision, Standby,
    Store, StoreError, Transaction, TransactionError, WatchError,
};

use crate::{
    fixture::{PATIENCE, commit, get, next, put, within},
    members::{Cluster, Pace},
};

const TTL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_listing_of_many_pages_and_of_large_ones_is_whole() {
    let Some(cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let store = cluster.open(0).await;
    // More than a page, and more than a message.
    for lot in 0..10 {
        let large = (0..7).fold(Transaction::new(), |it, number| {
            it.put(format!("/large/{lot}/{number}"), vec![lot; 1 << 20])
        });
        commit(&store, large).await;
    }
    let small = (0..2_500).fold(Transaction::new(), |it, number| {
        it.put(format!("/small/{number:04}"), number.to_string())
    });
    let last = commit(&store, small).await;
    let listing = store.list("").await.unwrap();
    assert_eq!((listing.entries.len(), listing.revision), (2_570, last));
    assert!(listing.entries.is_sorted_by(|a, b| a.key < b.key));
    let mut watch = store.watch("/large/", Revision(0)).await.unwrap();
    for lot in 0..10 {
        let batch = next(&mut watch).await;
        assert_eq!(batch.changes.len(), 7);
        let entry = batch.changes[6].entry.as_ref().unwrap();
        assert_eq!(entry.value, vec![lot; 1 << 20]);
    }
}

#[tokio::test]
async fn a_session_lasts_while_it_is_held_and_its_time_after() {
    let Some(mut cluster) = Cluster::start(3, Pace::Fast) else {
        return;
    };
    let leader = cluster.leader().unwrap();
    let store = cluster.open(leader).await;
    let session = store.open_session(TTL).await.unwrap();
    let two = Transaction::new()
        .put_in(session.id(), "/a", "1")
        .put_in(session.id(), "/b", "1");
    let before = commit(&store, two).await;
    let mut watch = store.watch("", before).await.unwrap();
    let first = session.valid_until();
    cluster.kill(leader);
    // Renewed at another member, several times.
    let begun = tokio::time::Instant::now();
    let mut renewed = first;
    for _ in 0..3 {
        while session.valid_until() == renewed {
            assert!(begun.elapsed() < Duration::from_secs(30), "not renewed");
            get(&store, "/a").await;
        }
        renewed = session.valid_until();
    }
    assert_eq!(watch.next().now_or_never(), None);
    assert_eq!(session.lost().now_or_never(), None);
    let dropped = tokio::time::Instant::now();
    drop(session);
    let batch = next(&mut watch).await;
    assert_eq!(batch.changes.len(), 2, "{batch:?}");
    // The last renewal was up to a third of its time ago.
    let least = TTL - TTL / 3 - Duration::from_millis(200);
    assert!(dropped.elapsed() >= least, "{:?}", dropped.elapsed());
}

#[tokio::test]
async fn a_session_that_etcd_has_ended_is_lost() {
    let Some(cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let store = cluster.open(0).await;
    let session = store.open_session(TTL).await.unwrap();
    put(&store, "/stays", "1").await;
    let id = session.id();
    commit(&store, Transaction::new().put_in(id, "/a", "1")).await;
    etcdctl(&cluster, &["lease", "revoke", &format!("{:x}", id.0)]);
    within(session.lost()).await;
    assert_eq!(store.get("/a").await.unwrap(), None);
    let late = Transaction::new().put_in(id, "/a", "1");
    assert_eq!(store.commit(late).await, Err(StoreError::SessionOver(id)));
}

fn etcdctl(cluster: &Cluster, arguments: &[&str]) {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg("--endpoints")
        .arg(cluster.urls().join(","))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_ends_all_watches() {
    let Some(mut cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let store = cluster.open(0).await;
    put(&store, "/a", "before").await;
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("backup");
    etcdctl(&cluster, &["snapshot", "save", backup.to_str().unwrap()]);
    for number in 0..20 {
        put(&store, "/a", &number.to_string()).await;
    }
    let listing = store.list("").await.unwrap();
    let mut watch = store.watch("", listing.revision).await.unwrap();
    assert_eq!(watch.next().now_or_never(), None);
    cluster.kill(0);
    cluster.restore(0, &backup);
    cluster.restart(0);
    // It is told, although nothing is written that it could deliver.
    let told = within(watch.next()).await;
    assert!(
        matches!(told, Err(WatchError::Compacted { .. })),
        "{told:?}"
    );
    // One that begins where there is nothing any more is told as well.
    let mut late = store.watch("", listing.revision).await.unwrap();
    let told = within(late.next()).await;
    assert!(
        matches!(told, Err(WatchError::Compacted { .. })),
        "{told:?}"
    );
    let again = store.list("").await.unwrap();
    assert_eq!(again.entries[0].value, "before");
    assert!(again.revision < listing.revision);
    let mut watch = store.watch("", again.revision).await.unwrap();
    let written = put(&store, "/a", "after").await;
    assert_eq!(next(&mut watch).await.revision, written);
}

#[tokio::test]
async fn etcd_as_it_comes_says_what_it_does_not_take() {
    let Some(cluster) = Cluster::as_it_comes() else {
        return;
    };
    let store = cluster.open(0).await;
    let neither = EtcdLimits {
        operations: false,
        bytes: false,
    };
    assert_eq!(store.limits().await, Ok(neither));
    let many = (0..129).fold(Transaction::new(), |it, number| {
        it.put(format!("/{number}"), "1")
    });
    let large = (0..3).fold(Transaction::new(), |it, number| {
        it.put(format!("/{number}"), vec![0; 1 << 20])
    });
    for refused in [many, large] {
        let error = store.commit(refused).await.unwrap_err();
        let StoreError::Refused(TransactionError::Settings { .. }) = &error else {
            panic!("{error:?}");
        };
    }
    assert_eq!(store.list("").await.unwrap().entries, []);
    let Some(cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let both = EtcdLimits {
        operations: true,
        bytes: true,
    };
    assert_eq!(cluster.open(0).await.limits().await, Ok(both));
}

#[tokio::test]
async fn an_etcd_that_is_away_is_named_and_known_to_be_away() {
    let Some(mut cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let store = cluster.open(0).await;
    assert!(store.is_at_least([3, 4, 0]), "{}", store.version());
    let mut reach = store.reach();
    put(&store, "/a", "1").await;
    cluster.kill(0);
    let begun = tokio::time::Instant::now();
    let late = Transaction::new().put("/a", "2");
    let error = store.commit(late.clone()).await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(error.to_string().contains(&cluster.urls()[0]), "{error}");
    let lost = |reach: &EtcdReach| matches!(reach, EtcdReach::Lost { .. });
    within(async { reach.wait_for(lost).await.map(|it| it.clone()) })
        .await
        .unwrap();
    let opened = Etcd::open(&cluster.options(), Duration::ZERO).await;
    let Err(EtcdError::Unreachable(reason)) = opened else {
        panic!("{opened:?}");
    };
    assert!(reason.contains("refused"), "{reason}");
    cluster.restart(0);
    // By itself, without a call.
    let answers = |reach: &EtcdReach| *reach == EtcdReach::Answers;
    within(async { reach.wait_for(answers).await.map(|it| it.clone()) })
        .await
        .unwrap();
    assert!(matches!(
        store.commit(late).await,
        Ok(Outcome::Committed(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_from_a_copy_while_etcd_is_away() {
    let Some(mut cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    let store = Arc::new(cluster.open(0).await);
    let first = put(&*store, "/a/1", "1").await;
    put(&*store, "/b", "1").await;
    let standby = Standby::start(Arc::clone(&store) as Arc<dyn Store>, store.reach());
    let standby = standby.await.unwrap();
    assert_eq!(standby.lost_since(), None);
    let second = put(&standby, "/a/2", "2").await;
    assert_eq!(get(&standby, "/a/2").await.modified, second);
    cluster.kill(0);
    let known = standby.list("/a/").await.unwrap();
    assert!(standby.lost_since().is_some());
    assert!((first..=second).contains(&known.revision), "{known:?}");
    assert_eq!(&*known.entries[0].key, "/a/1");
    assert_eq!(get(&standby, "/b").await.value, "1");
    assert_eq!(standby.get("/none").await.unwrap(), None);
    let begun = tokio::time::Instant::now();
    let late = Transaction::new().put("/b", "2");
    let refused = standby.commit(late).await;
    assert!(
        matches!(refused, Err(StoreError::Failed { .. })),
        "{refused:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    cluster.restart(0);
    let mut reach = store.reach();
    let answers = |reach: &EtcdReach| *reach == EtcdReach::Answers;
    within(async { reach.wait_for(answers).await.is_ok() }).await;
    let third = put(&standby, "/a/3", "3").await;
    assert_eq!(standby.list("/a/").await.unwrap().revision, third);
}

#[tokio::test]
async fn passwords_open_and_are_asked_for_again() {
    let Some(cluster) = Cluster::start(1, Pace::Fast) else {
        return;
    };
    etcdctl(&cluster, &["user", "add", "root:hunter2"]);
    etcdctl(&cluster, &["user", "add", "sampan:secret"]);
    etcdctl(&cluster, &["role", "add", "sampan"]);
    let range = [
        "role",
        "grant-permission",
        "sampan",
        "--prefix=true",
        "readwrite",
        "/sampan/",
    ];
    etcdctl(&cluster, &range);
    etcdctl(&cluster, &["user", "grant-role", "sampan", "sampan"]);
    etcdctl(&cluster, &["user", "grant-role", "root", "root"]);
    etcdctl(&cluster, &["auth", "enable"]);
    let mut options = cluster.options();
    assert!(matches!(
        open(&options, PATIENCE).await,
        Err(EtcdError::Refused { .. })
    ));
    options.user = Some(("sampan".to_owned(), "wrong".to_owned()));
    let refused = open(&options, PATIENCE).await;
    let Err(EtcdError::Refused { reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("authentication failed"), "{reason}");
    options.user = Some(("sampan".to_owned(), "secret".to_owned()));
    let store = open(&options, PATIENCE).await.unwrap();
    let start = put(&store, "/a", "1").await;
    let mut watch = store.watch("", start).await.unwrap();
    // What changes the users makes all tokens old.
    etcdctl(
        &cluster,
        &["--user", "root:hunter2", "user", "add", "other:other"],
    );
    let second = put(&store, "/a", "2").await;
    assert_eq!(next(&mut watch).await.revision, second);
    options.prefix = "/elsewhere".to_owned();
    let refused = open(&options, PATIENCE).await;
    assert!(
        matches!(refused, Err(EtcdError::Refused { .. })),
        "{refused:?}"
    );
}

const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/certificates");

fn pem(name: &str) -> Vec<u8> {
    fs::read(Path::new(CERTIFICATES).join(name)).unwrap()
}

async fn open(options: &EtcdOptions, patience: Duration) -> Result<Etcd, EtcdError> {
    Etcd::open(options, patience).await
}

#[tokio::test]
async fn certificates_are_asked_for_and_shown() {
    let Some(cluster) = Cluster::secured(Path::new(CERTIFICATES)) else {
        return;
    };
    let identity = Some((pem("client"), pem("client.key")));
    let mut options = cluster.options();
    options.tls = EtcdTls {
        authorities: Some(pem("ca")),
        identity: identity.clone(),
    };
    let store = open(&options, PATIENCE).await.unwrap();
    put(&store, "/a", "1").await;
    assert_eq!(get(&store, "/a").await.value, "1");
    // Without a certificate of its own, and with an authority that it does not know.
    options.tls.identity = None;
    let refused = open(&options, Duration::ZERO).await;
    assert!(
        matches!(refused, Err(EtcdError::Unreachable(_))),
        "{refused:?}"
    );
    options.tls = EtcdTls {
        authorities: Some(pem("other-ca")),
        identity,
    };
    let Err(EtcdError::Unreachable(reason)) = open(&options, Duration::ZERO).await else {
        panic!("an authority that is not known");
    };
    assert!(reason.contains("certificate"), "{reason}");
}
