//! Who is let in, and what is left of who is out, on a store in memory.

use std::collections::BTreeMap;

use sampan_core::{
    name::ServiceKey,
    record::{Key, Pod},
};
use sampan_peer::NodeKey;
use sampan_store::Memory;

use super::*;
use crate::cluster::place::ClusterFile;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A cluster with node `a`, whose files are in the directory.
async fn cluster(directory: &std::path::Path) -> Registrar {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let place = Place::new(directory);
    let found = Found::draw("c1").expect("a cluster");
    let identity = found.authority.identity(&name("a"), SystemTime::now());
    let about = newcomer(address(1), BTreeMap::new(), "0.1.0");
    found
        .write(&*store, "c1", &name("a"), about)
        .await
        .expect("written");
    let file = ClusterFile {
        cluster: "c1".to_owned(),
        node: name("a"),
        peer: address(1),
        etcd: vec!["http://127.0.0.1:2379".to_owned()],
    };
    let identity = identity.expect("an identity");
    place
        .write(&file, &identity, &found.secret)
        .expect("written");
    make_secrets_key(&place).expect("written");
    assert_eq!(place.member().expect("it is one"), file);
    Registrar {
        store,
        place,
        etcd: file.etcd,
    }
}

fn asks(token: &Token, node: &str) -> JoinRequest {
    let key = NodeKey::draw().expect("a key").public();
    JoinRequest::new(
        token,
        name(node),
        &key,
        address(2),
        BTreeMap::new(),
        "0.1.0",
    )
}

#[tokio::test]
async fn of_two_nodes_with_one_token_one_gets_in() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = cluster(directory.path()).await;
    let token = cluster.token(vec![address(1)]).await.expect("a token");
    let (b, c) = (asks(&token, "b"), asks(&token, "c"));
    let (b, c) = tokio::join!(cluster.join(b), cluster.join(c));
    assert!(b.is_ok() != c.is_ok(), "{b:?} {c:?}");
    let (answer, refusal) = match (b, c) {
        (Ok(answer), Err(refusal)) | (Err(refusal), Ok(answer)) => (answer, refusal),
        both => panic!("{both:?}"),
    };
    assert!(
        refusal.to_string().contains("it has been used"),
        "{refusal}"
    );
    assert_eq!(
        answer.secret,
        cluster.place.secret().expect("a secret").to_hex()
    );
    assert_eq!(
        answer.secrets_key,
        cluster.place.secrets_key().expect("a key")
    );
    assert!(answer.secrets_key.is_some());
}

#[tokio::test]
async fn a_name_is_taken_once_and_what_is_no_token_is_no_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = cluster(directory.path()).await;
    let token = cluster.token(vec![address(1)]).await.expect("a token");
    let refused = cluster
        .join(asks(&token, "a"))
        .await
        .expect_err("there is one");
    assert!(
        refused.to_string().contains("there is a node `a` already"),
        "{refused}"
    );
    for id in ["", "../cluster", "x", &"a".repeat(10_000)] {
        let asked = JoinRequest {
            token: id.to_owned(),
            ..asks(&token, "b")
        };
        let refused = cluster.join(asked).await.expect_err("no token");
        assert!(refused.to_string().contains("no such token"), "{refused}");
    }
    // None of that has used it up.
    cluster.join(asks(&token, "b")).await.expect("it is good");
}

#[tokio::test]
async fn a_node_that_is_out_has_no_pods_and_one_that_runs_is_not_taken_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = cluster(directory.path()).await;
    let service = ServiceKey::parse("shop/web").expect("a key");
    let put = |slot, node: &str| {
        let pod = Pod {
            node: Some(name(node)),
            ..Pod::new(&service, 1, slot)
        };
        (Key::Pod(pod.name()).to_string(), text(&pod))
    };
    // More than one transaction takes.
    let mut lot = Transaction::new();
    for slot in 0..150 {
        let (key, pod) = put(slot, if slot % 50 == 0 { "b" } else { "a" });
        lot = lot.put(key, pod);
    }
    let _ = cluster
        .store
        .commit(lot)
        .await
        .expect("memory does not fail");

    let session = ClusterKey::Session(name("a")).to_string();
    let runs = Transaction::new().put(session.as_str(), "{}".as_bytes().to_vec());
    let _ = cluster
        .store
        .commit(runs)
        .await
        .expect("memory does not fail");
    let error = cluster.remove(&name("a")).await.expect_err("it runs");
    assert!(matches!(error, RegistrarError::Runs(_)), "{error}");
    assert_eq!(
        cluster
            .store
            .list(PODS)
            .await
            .expect("memory")
            .entries
            .len(),
        150
    );
    let ends = Transaction::new().delete(session);
    let _ = cluster
        .store
        .commit(ends)
        .await
        .expect("memory does not fail");
    cluster.remove(&name("a")).await.expect("it does not run");
    assert_eq!(
        cluster
            .store
            .list(PODS)
            .await
            .expect("memory")
            .entries
            .len(),
        3
    );
    let error = cluster.remove(&name("a")).await.expect_err("it is out");
    assert!(matches!(error, RegistrarError::Absent(_)), "{error}");
}

#[tokio::test]
async fn what_a_node_has_is_taken_along_but_for_its_pods() {
    let (from, to) = (Memory::new(), Memory::new());
    let mut all = Transaction::new();
    for number in 0..250 {
        all = all.put(format!("/apps/a{number}"), vec![b'x'; 20_000]);
    }
    let all = all
        .put("/pods/a/web/1/1", vec![b'x'])
        .put(FORMAT, vec![b'3']);
    let _ = from.commit(all).await.expect("memory does not fail");
    assert_eq!(take_along(&from, &to).await.expect("memory"), 251);
    let (here, there) = (
        from.list("/").await.expect("memory"),
        to.list("/").await.expect("memory"),
    );
    assert_eq!((here.entries.len(), there.entries.len()), (252, 251));
    let same = |key: &str, value: &[u8]| {
        here.entries
            .iter()
            .any(|it| &*it.key == key && it.value == value)
    };
    assert!(there.entries.iter().all(|it| same(&it.key, &it.value)));
    hand_over(&from).await.expect("memory does not fail");
    let left = from.list("/").await.expect("memory").entries;
    assert_eq!(left.iter().map(|it| &*it.key).collect::<Vec<_>>(), [FORMAT]);
}
