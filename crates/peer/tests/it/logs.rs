//! No key, secret or token is in a log, whatever happens.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use sampan_peer::{JoinRequest, NodeKey, join};
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter};

use crate::fixture::{Cluster, client, get, name, soon};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn neither_keys_nor_secrets_nor_tokens_are_in_a_log() {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(lines.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap_or_default();

    let (cluster, other) = (Cluster::new(), Cluster::new());
    let a = cluster.node("a").await;
    let token = cluster.token(a.remote.address);
    let key = NodeKey::draw().expect("a key");
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let request = JoinRequest::new(
        &token,
        name("b"),
        &key.public(),
        address,
        BTreeMap::new(),
        "1",
    );
    let answer = soon("an answer", join(&token, &request))
        .await
        .expect("an answer");
    soon("an answer", join(&token, &request))
        .await
        .expect_err("it was used");
    let identity = cluster.identity("b");
    let directory = tempfile::tempdir().expect("a directory");
    identity.write(directory.path()).expect("written");
    tracing::info!(?identity, ?token, ?request, ?answer, ?key, credentials = ?a.credentials, authority = ?cluster.authority, "all that could be printed");
    let client = client(identity);
    get(&client, &a.remote, "/x").await.expect("an answer");
    get(&other.client("b"), &a.remote, "/x")
        .await
        .expect_err("foreign");
    a.stop().await;

    let logged = String::from_utf8_lossy(&lines.0.lock()).into_owned();
    // The log is there, so that what is missing in it could be.
    assert!(logged.contains("all that could be printed"), "{logged}");
    assert!(
        logged.contains("a connection is none of a node"),
        "{logged}"
    );
    let pem = std::fs::read_to_string(directory.path().join("node.key")).expect("a key");
    let printed = token.reveal();
    let secret = printed
        .reveal()
        .split(['.', '@'])
        .nth(3)
        .expect("the secret of a token");
    let hex = cluster.secret.to_hex();
    for kept in pem.lines().skip(1).take(2).chain([secret, hex.reveal()]) {
        assert!(kept.len() > 40, "{kept}");
        assert!(!logged.contains(kept), "{kept} is in the log");
    }
}
