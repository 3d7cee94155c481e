//! The store of a cluster: below a prefix of its own in an etcd.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sampan_peer::Sensitive;
use sampan_store::{Etcd, EtcdError, EtcdOptions, EtcdTls};

/// How long a member is looked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The authority of etcd's certificates, a client's certificate and its key.
const AUTHORITY: &str = "etcd-ca.crt";
const CERTIFICATE: &str = "etcd.crt";
const KEY: &str = "etcd.key";
/// A user of etcd, and the password.
const USER: &str = "etcd.user";
const PASSWORD: &str = "etcd.password";
/// All of them.
pub(super) const FILES: [&str; 5] = [AUTHORITY, CERTIFICATE, KEY, USER, PASSWORD];

/// What shows etcd who a node is, by the names of the files in which each node keeps it.
pub(crate) type EtcdFiles = BTreeMap<String, Sensitive>;

/// What these options have of it.
pub(crate) fn files(options: &EtcdOptions) -> EtcdFiles {
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let (identity, user) = (&options.tls.identity, &options.user);
    let named = [
        (AUTHORITY, options.tls.authorities.as_ref().map(text)),
        (CERTIFICATE, identity.as_ref().map(|(it, _)| text(it))),
        (KEY, identity.as_ref().map(|(_, key)| text(key))),
        (USER, user.as_ref().map(|(name, _)| name.clone())),
        (PASSWORD, user.as_ref().map(|(_, it)| it.clone())),
    ];
    let named = named.into_iter();
    let there = named.filter_map(|(file, text)| Some((file.to_owned(), Sensitive::new(text?))));
    there.collect()
}

/// Opens the store of a cluster.
pub(crate) async fn open(
    cluster: &str,
    members: &[String],
    files: &EtcdFiles,
) -> Result<Arc<Etcd>, EtcdError> {
    let text = |file: &str| files.get(file).map(|text| text.reveal().to_owned());
    let bytes = |file: &str| text(file).map(String::into_bytes);
    let options = EtcdOptions {
        members: members.to_vec(),
        prefix: prefix(cluster),
        tls: EtcdTls {
            authorities: bytes(AUTHORITY),
            identity: bytes(CERTIFICATE).zip(bytes(KEY)),
        },
        user: text(USER).zip(text(PASSWORD)),
    };
    Ok(Arc::new(Etcd::open(&options, PATIENCE).await?))
}

/// What all keys of a cluster begin with.
fn prefix(cluster: &str) -> String {
    format!("/sampan/{cluster}")
}
