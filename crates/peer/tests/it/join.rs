//! New nodes, with tokens that are good and tokens that are not.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use sampan_peer::{
    Certificate, ClusterSecret, Identity, JoinAnswer, JoinError, JoinRequest, Limits, NodeKey,
    TOKEN_LIFETIME, Token, join,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::fixture::{Cluster, Node, client, get, name, soon, until_closed};

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

async fn ask(token: &Token, node: &str, key: &NodeKey) -> Result<JoinAnswer, JoinError> {
    let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let request = JoinRequest::new(token, name(node), &key.public(), nowhere(), labels, "0.1.0");
    soon("an answer", join(token, &request)).await
}

fn said(answer: Result<JoinAnswer, JoinError>) -> String {
    answer.expect_err("it joined").to_string()
}

#[tokio::test]
async fn a_new_node_gets_what_makes_it_one_of_the_cluster() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let key = NodeKey::draw().expect("a key");
    let token = cluster.token(a.remote.address);
    let printed = Token::parse(token.reveal().reveal()).expect("a token");
    let answer = ask(&printed, "b", &key).await.expect("an answer");

    let secret = ClusterSecret::from_hex(answer.secret.reveal()).expect("a secret");
    assert_eq!(secret, cluster.secret);
    let read = |pem: &str| Certificate::from_pem(pem.as_bytes()).expect("a certificate");
    let (certificate, ca) = (read(&answer.certificate), read(&answer.ca));
    assert_eq!(ca.hash(), token.ca);
    let identity = Identity::new(key, certificate, ca, SystemTime::now()).expect("an identity");
    assert_eq!(*identity.node(), name("b"));
    let said = get(&client(identity), &a.remote, "/x")
        .await
        .expect("an answer");
    assert_eq!(said, "/x for b");
}

#[tokio::test]
async fn a_token_is_used_once() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let token = cluster.token(a.remote.address);
    let key = NodeKey::draw().expect("a key");
    ask(&token, "c", &key).await.expect("an answer");
    // At the same node and at another one, under the same name and under another one.
    let mut elsewhere = token.clone();
    elsewhere.addresses = vec![b.remote.address];
    for (token, node) in [(&token, "c"), (&token, "d"), (&elsewhere, "d")] {
        let error = said(ask(token, node, &key).await);
        assert!(error.contains("it has been used"), "{error}");
    }
    assert!(!cluster.members.lock().contains(&name("d")));
}

#[tokio::test]
async fn a_token_expires() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let token = cluster.token(a.remote.address);
    *cluster.now.lock() = SystemTime::now() + TOKEN_LIFETIME + Duration::from_secs(1);
    let error = said(ask(&token, "b", &NodeKey::draw().expect("a key")).await);
    assert!(error.contains("has expired"), "{error}");
    assert!(!cluster.members.lock().contains(&name("b")));
}

#[tokio::test]
async fn a_wrong_secret_uses_up_no_token() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let (token, other) = (
        cluster.token(a.remote.address),
        cluster.token(a.remote.address),
    );
    let text = token.reveal().reveal().replace(&token.id, &other.id);
    let mixed = Token::parse(&text).expect("a token");
    let key = NodeKey::draw().expect("a key");
    let error = said(ask(&mixed, "b", &key).await);
    assert!(error.contains("no such token"), "{error}");
    ask(&token, "b", &key).await.expect("the first is good");
    ask(&other, "c", &key).await.expect("the second is good");
}

#[tokio::test]
async fn nothing_is_said_to_a_node_of_another_cluster() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let impostor = other.node("a").await;
    let token = cluster.token(impostor.remote.address);
    // Its own cluster would take the token, too, so that only the check keeps it from it.
    let stored = cluster.tokens.lock().clone();
    *other.tokens.lock() = stored;
    let error = said(ask(&token, "b", &NodeKey::draw().expect("a key")).await);
    assert!(
        error.contains("not a node of the cluster that the token is of"),
        "{error}"
    );
    assert_eq!(other.tokens.lock().len(), 1, "the token was shown");

    // Neither is anything to a certificate that is not of the authority shown with it.
    let mut chained = Node::start(&cluster, other.identity("a"), Limits::default()).await;
    chained.remote.node = name("a");
    let error = said(
        ask(
            &cluster.token(chained.remote.address),
            "b",
            &NodeKey::draw().expect("a key"),
        )
        .await,
    );
    assert!(error.contains("not a node of the cluster"), "{error}");
}

#[tokio::test]
async fn the_next_address_is_asked_when_one_does_not_answer() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let dead = closed.local_addr().expect("an address");
    drop(closed);
    let mut token = cluster.token(dead);
    let error = said(ask(&token, "b", &NodeKey::draw().expect("a key")).await);
    assert!(
        error.contains("no node of the cluster can be reached") && error.contains("refused"),
        "{error}"
    );
    token.addresses.push(a.remote.address);
    ask(&token, "b", &NodeKey::draw().expect("a key"))
        .await
        .expect("an answer");
}

#[tokio::test]
async fn a_question_that_is_none_is_refused_and_no_larger_one_is_read() {
    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName},
        version::TLS13,
    };
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from(cluster.authority.certificate().der().to_vec());
    roots.add(ca).expect("a certificate");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&[&TLS13])
        .expect("a version");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"sampan-join/1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    for (question, answer) in [
        (b"\0\0\0\x02{}".as_slice(), "does not understand"),
        (
            b"\0\0\0\x05\"\xff\xff\xff\"".as_slice(),
            "does not understand",
        ),
        (b"\x7f\xff\xff\xff{}".as_slice(), ""),
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), ""),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), ""),
    ] {
        let host = ServerName::try_from("a.node.sampan.internal").expect("a name");
        let stream = TcpStream::connect(a.remote.address)
            .await
            .expect("a connection");
        let mut stream = soon("a handshake", connector.connect(host, stream))
            .await
            .expect("TLS");
        stream.write_all(question).await.expect("written");
        let mut received = Vec::new();
        let _ = soon("an answer", stream.read_to_end(&mut received)).await;
        let received = String::from_utf8_lossy(&received);
        assert!(
            received.contains(answer) && received.is_empty() == answer.is_empty(),
            "{received}"
        );
    }
    assert_eq!(*cluster.asked.lock(), []);
    // A stranger that asks for nothing at all is closed as well.
    let mut silent = TcpStream::connect(a.remote.address)
        .await
        .expect("a connection");
    silent.shutdown().await.expect("half of it is closed");
    assert_eq!(until_closed(&mut silent).await, b"");
}
