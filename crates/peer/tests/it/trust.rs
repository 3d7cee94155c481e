//! Who gets in, and who is believed to be whom.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Request;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    version::{TLS12, TLS13},
};
use sampan_peer::{Credentials, Identity, Limits, NodeKey, Remote, empty};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::fixture::{Cluster, Node, client, get, name, send, soon, until_closed};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How a client begins that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test]
async fn a_node_answers_another_and_knows_which() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("a").await, cluster.node("b").await);
    let client = cluster.client("c");
    for _ in 0..3 {
        assert_eq!(
            get(&client, &a.remote, "/x").await.expect("an answer"),
            "/x for c"
        );
        assert_eq!(
            get(&client, &b.remote, "/y?z").await.expect("an answer"),
            "/y for c"
        );
    }
    assert_eq!(cluster.asked.lock().len(), 6);
}

/// Speaks TLS as this says, sends the beginning of HTTP/2 and returns what comes back.
async fn attempt(cluster: &Cluster, node: &Node, mut config: ClientConfig, host: &str) -> Vec<u8> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(node.remote.address)
        .await
        .expect("a connection");
    let host = ServerName::try_from(host.to_owned()).expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let mut received = Vec::new();
    if let Ok(mut stream) = soon("a handshake", connector.connect(host, stream)).await {
        let _ = stream.write_all(PREFACE).await;
        let _ = soon("the end of a connection", stream.read_to_end(&mut received)).await;
    }
    assert_eq!(*cluster.asked.lock(), [], "a request came in");
    received
}

fn roots(cluster: &Cluster) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from(cluster.authority.certificate().der().to_vec());
    roots.add(ca).expect("a certificate");
    roots
}

#[tokio::test]
async fn without_a_certificate_there_is_no_http() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&[&TLS13])
        .expect("a version");
    let config = builder
        .with_root_certificates(roots(&cluster))
        .with_no_client_auth();
    assert_eq!(
        attempt(&cluster, &a, config, "a.node.sampan.internal").await,
        b""
    );
}

#[tokio::test]
async fn an_older_tls_is_refused() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&[&TLS12])
        .expect("a version");
    let config = builder
        .with_root_certificates(roots(&cluster))
        .with_no_client_auth();
    let stream = TcpStream::connect(a.remote.address)
        .await
        .expect("a connection");
    let host = ServerName::try_from("a.node.sampan.internal").expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let end = soon("a handshake", connector.connect(host, stream)).await;
    let error = end.expect_err("TLS 1.2").to_string();
    assert!(
        error.contains("ProtocolVersion") || error.contains("eof"),
        "{error}"
    );
    assert_eq!(*cluster.asked.lock(), []);
}

/// Makes a request with this identity; the node must not see it, and the client has an error.
async fn is_refused(cluster: &Cluster, to: &Remote, identity: Identity) -> String {
    let client = client(identity);
    let request = Request::get("/x").body(empty()).expect("a request");
    let refused = send(&client, to, request).await.expect_err("it got in");
    assert_eq!(*cluster.asked.lock(), [], "a request came in");
    refused.to_string()
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_by_both_sides() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let a = cluster.node("a").await;
    let foreign = other.identity("b");
    let error = is_refused(&cluster, &a.remote, foreign).await;
    assert!(error.contains("certificate"), "{error}");

    // The same the other way round: a node of another cluster where one of this is looked for.
    let impostor = Node::start(&cluster, other.identity("a"), Limits::default()).await;
    let error = is_refused(&cluster, &impostor.remote, cluster.identity("b")).await;
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_client_with_the_right_authority_for_servers_and_a_foreign_certificate_is_refused() {
    // One that would trust the node, so that it is the node that refuses.
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let a = cluster.node("a").await;
    cluster.members.lock().insert(name("b"));
    let key_directory = tempfile::tempdir().expect("a directory");
    other
        .identity("b")
        .write(key_directory.path())
        .expect("written");
    let read = |file: &str| std::fs::read(key_directory.path().join(file)).expect("a file");
    let chain = ["node.crt", "ca.crt"].map(|file| CertificateDer::from_pem_slice(&read(file)));
    let chain = chain.map(|read| read.expect("a certificate")).to_vec();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&read("node.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&[&TLS13])
        .expect("a version");
    let config = builder
        .with_root_certificates(roots(&cluster))
        .with_client_auth_cert(chain, key)
        .expect("a certificate");
    assert_eq!(
        attempt(&cluster, &a, config, "a.node.sampan.internal").await,
        b""
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_both_sides() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    cluster.members.lock().insert(name("b"));
    // Made a year and two days ago.
    let then = SystemTime::now() - 367 * DAY;
    let expired = |node: &str| {
        cluster
            .authority
            .identity(&name(node), then)
            .expect("an identity")
    };
    let error = is_refused(&cluster, &a.remote, expired("b")).await;
    assert!(error.contains("xpired"), "{error}");

    let stale = Node::start(&cluster, expired("a"), Limits::default()).await;
    let error = is_refused(&cluster, &stale.remote, cluster.identity("b")).await;
    assert!(error.contains("xpired"), "{error}");
}

#[tokio::test]
async fn a_node_at_the_address_of_another_is_not_taken_for_it() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let at_its_address = Remote {
        node: name("b"),
        address: a.remote.address,
    };
    let error = is_refused(&cluster, &at_its_address, cluster.identity("c")).await;
    // The node ends it: it has not shown its certificate yet.
    assert!(
        error.contains("node `b`") && error.contains("eof"),
        "{error}"
    );

    // One that answers to any name is found out by its certificate.
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("a version")
            .with_root_certificates(roots(&cluster))
            .with_no_client_auth();
    config.alpn_protocols = vec![b"sampan-join/1".to_vec()];
    let host = ServerName::try_from("b.node.sampan.internal").expect("a name");
    let stream = TcpStream::connect(a.remote.address)
        .await
        .expect("a connection");
    let connector = TlsConnector::from(Arc::new(config));
    let end = soon("a handshake", connector.connect(host, stream)).await;
    let error = end.expect_err("another node").to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn a_node_that_was_removed_is_refused_at_once_and_at_its_next_connection() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let client = cluster.client("b");
    assert_eq!(
        get(&client, &a.remote, "/x").await.expect("an answer"),
        "/x for b"
    );
    cluster.members.lock().remove(&name("b"));
    cluster.asked.lock().clear();
    let said = get(&client, &a.remote, "/x").await.expect("an answer");
    assert_eq!(said, "the node is not of the cluster any more");
    is_refused(&cluster, &a.remote, cluster.identity("b")).await;
}

#[tokio::test]
async fn http_1_and_junk_are_closed_without_an_answer() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    let mut junk: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        PREFACE.to_vec(),
        b"\x16\x03\x01\xff\xff\x01".to_vec(),
        // A record that is larger than any may be.
        [b"\x16\x03\x01\xff\xff".as_slice(), &[0; 70_000]].concat(),
        vec![0; 1000],
        vec![0x80; 5],
        b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
    ];
    junk.extend((0..32u8).map(|seed| {
        let bytes = (0..200u8).map(|at| at.wrapping_mul(seed.wrapping_mul(31)) ^ seed);
        bytes.collect()
    }));
    for bytes in junk {
        let mut stream = TcpStream::connect(a.remote.address)
            .await
            .expect("a connection");
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let received = until_closed(&mut stream).await;
        // Nothing, or an alert of TLS.
        let is_alert = received.first() == Some(&0x15) && received.len() < 32;
        assert!(
            received.is_empty() || is_alert,
            "{bytes:?} got {received:?}"
        );
    }
    let client = cluster.client("b");
    assert_eq!(
        get(&client, &a.remote, "/x").await.expect("an answer"),
        "/x for b"
    );
    assert_eq!(cluster.asked.lock().len(), 1);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_connection_on() {
    let cluster = Cluster::new();
    let a = cluster.node("a").await;
    cluster.members.lock().insert(name("b"));
    let then = SystemTime::now() - 367 * DAY;
    let key = NodeKey::draw().expect("a key");
    let old = cluster
        .authority
        .issue(&name("b"), &key.public(), then)
        .expect("a certificate");
    let ca = cluster.authority.certificate().clone();
    let identity = Identity::new(key, old, ca, then).expect("an identity");
    let credentials = Arc::new(Credentials::new(identity).expect("credentials"));
    let limits = sampan_peer::ClientLimits::default();
    let client = sampan_peer::Client::new(Arc::clone(&credentials), limits);
    get(&client, &a.remote, "/x").await.expect_err("expired");

    let now = SystemTime::now();
    let identity = credentials.identity();
    assert!(identity.is_due(now));
    let new = cluster
        .authority
        .issue(identity.node(), &identity.public_key(), now);
    let renewed = identity
        .renewed(new.expect("a certificate"), now)
        .expect("an identity");
    credentials.renew(renewed).expect("credentials");
    assert_eq!(
        get(&client, &a.remote, "/x").await.expect("an answer"),
        "/x for b"
    );
}
