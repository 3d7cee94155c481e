//! The store of a cluster: below a prefix of its own in an etcd.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sampan_peer::Sensitive;
use sampan_store::{Etcd, EtcdError, EtcdOptions, EtcdTls};

/// How long a member is looked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Certificates and keys for etcd, by the names of their files.
pub(crate) type EtcdFiles = BTreeMap<String, Sensitive>;

/// Opens the store of a cluster.
pub(crate) async fn open(
    cluster: &str,
    members: &[String],
    files: &EtcdFiles,
) -> Result<Arc<Etcd>, EtcdError> {
    let text = |file: &str| {
        files
            .get(file)
            .map(|text| text.reveal().as_bytes().to_vec())
    };
    let options = EtcdOptions {
        members: members.to_vec(),
        prefix: prefix(cluster),
        tls: EtcdTls {
            authorities: text("etcd-ca.crt"),
            identity: text("etcd.crt").zip(text("etcd.key")),
        },
        user: None,
    };
    Ok(Arc::new(Etcd::open(&options, PATIENCE).await?))
}

/// What all keys of a cluster begin with.
fn prefix(cluster: &str) -> String {
    format!("/sampan/{cluster}")
}
