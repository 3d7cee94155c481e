//! Identities: which certificates are one's own, when they are renewed, and their files.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use super::*;
use crate::{authority::Authority, secret::ClusterSecret};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + 20_000 * DAY
}

fn authority() -> Authority {
    Authority::create("c1").expect("an authority")
}

#[test]
fn a_certificate_is_of_one_node_one_key_and_one_authority() {
    let ca = authority();
    let identity = ca.identity(&name("a"), now()).expect("an identity");
    assert_eq!(*identity.node(), name("a"));

    let (mine, others) = (
        NodeKey::draw().expect("a key"),
        NodeKey::draw().expect("a key"),
    );
    let certificate = ca
        .issue(&name("b"), &mine.public(), now())
        .expect("a certificate");
    let error = Identity::new(others, certificate.clone(), ca.certificate().clone(), now());
    let error = error.expect_err("another key").to_string();
    assert!(error.contains("of another key"), "{error}");

    let foreign = authority();
    let error = Identity::new(mine, certificate, foreign.certificate().clone(), now());
    assert!(
        error.is_err(),
        "an authority with the same name and another key"
    );
}

#[test]
fn a_certificate_is_good_for_a_year_and_due_after_two_thirds() {
    let ca = authority();
    let key = NodeKey::draw().expect("a key");
    let certificate = ca
        .issue(&name("a"), &key.public(), now())
        .expect("a certificate");
    let valid = |at| certificate.verify(ca.certificate(), at).is_ok();
    assert!(valid(now()) && valid(now() - DAY) && valid(now() + 365 * DAY));
    assert!(!valid(now() - 2 * DAY) && !valid(now() + 366 * DAY));

    let identity = Identity::new(key, certificate.clone(), ca.certificate().clone(), now());
    let identity = identity.expect("an identity");
    assert!(!identity.is_due(now() + 243 * DAY));
    assert!(identity.is_due(now() + 244 * DAY));
    assert!(identity.is_due(now() + 400 * DAY));

    let later = now() + 250 * DAY;
    let renewed = ca
        .issue(&name("a"), &identity.public_key(), later)
        .expect("a certificate");
    assert_ne!(renewed, certificate);
    let renewed = identity.renewed(renewed, later).expect("an identity");
    assert!(!renewed.is_due(later) && *renewed.node() == name("a"));
    let other = ca
        .issue(&name("b"), &identity.public_key(), later)
        .expect("a certificate");
    let error = identity
        .renewed(other, later)
        .expect_err("another node")
        .to_string();
    assert!(error.contains("the node `b`"), "{error}");
}

#[test]
fn the_authority_opens_with_the_secret_of_its_cluster_alone() {
    let ca = authority();
    let secret = ClusterSecret::draw().expect("a secret");
    let sealed = ca.seal(&secret).expect("sealed");
    let open = |cluster: &str, secret: &ClusterSecret| {
        Authority::open(cluster, ca.certificate().clone(), &sealed, secret)
    };
    let opened = open("c1", &secret).expect("the authority");
    let identity = opened.identity(&name("b"), now()).expect("an identity");
    assert!(identity.certificate.verify(ca.certificate(), now()).is_ok());
    assert!(open("c2", &secret).is_err());
    assert!(open("c1", &ClusterSecret::draw().expect("a secret")).is_err());
}

#[test]
fn an_identity_is_read_as_written_and_its_key_by_no_other_user() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |file: &str| directory.path().join(file);
    let mode = |file: &str| {
        let about = fs::metadata(path(file)).expect("a file");
        about.permissions().mode() & 0o777
    };
    let ca = authority();
    let identity = ca.identity(&name("a"), now()).expect("an identity");
    identity.write(directory.path()).expect("written");
    let secret = ClusterSecret::draw().expect("a secret");
    secret.write(&path("cluster.secret")).expect("written");
    assert_eq!((mode(KEY_FILE), mode("cluster.secret")), (0o600, 0o600));

    let read = Identity::read(directory.path(), now()).expect("an identity");
    assert_eq!(
        (read.node(), read.chain()),
        (identity.node(), identity.chain())
    );
    assert_eq!(read.key.to_der(), identity.key.to_der());
    assert_eq!(
        ClusterSecret::read(&path("cluster.secret")).expect("a secret"),
        secret
    );

    // One that others may read is not used, and said to be so.
    for file in [KEY_FILE, "cluster.secret"] {
        fs::set_permissions(path(file), fs::Permissions::from_mode(0o640)).expect("a mode");
    }
    let key = Identity::read(directory.path(), now())
        .expect_err("exposed")
        .to_string();
    let secret = ClusterSecret::read(&path("cluster.secret")).expect_err("exposed");
    for error in [key, secret.to_string()] {
        assert!(error.contains("others may read"), "{error}");
    }
    // In its place comes one that they may not.
    identity.write(directory.path()).expect("written");
    assert_eq!(mode(KEY_FILE), 0o600);
}

#[test]
fn an_expired_certificate_is_told_of_when_it_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let identity = authority()
        .identity(&name("a"), now())
        .expect("an identity");
    identity.write(directory.path()).expect("written");
    let error = Identity::read(directory.path(), now() + 366 * DAY).expect_err("expired");
    assert!(error.to_string().contains("expired"), "{error}");
}

#[test]
fn a_public_key_is_a_point() {
    let key = NodeKey::draw().expect("a key").public();
    assert_eq!(PublicKey::parse(&key.to_hex()), Some(key.clone()));
    for bad in [
        "",
        "04",
        &key.to_hex()[2..],
        &format!("{}00", key.to_hex()),
        &format!("05{}", &key.to_hex()[2..]),
    ] {
        assert_eq!(PublicKey::parse(bad), None, "{bad}");
    }
}

#[test]
fn no_key_is_printed() {
    let key = NodeKey::draw().expect("a key");
    let hex = base16ct::lower::encode_string(&key.to_der());
    let ca = authority();
    let identity = ca.identity(&name("a"), now()).expect("an identity");
    let shown = format!("{key:?} {ca:?} {identity:?}");
    assert_eq!(
        shown,
        "NodeKey(***) Authority { cluster: \"c1\", .. } Identity { node: Name(\"a\"), .. }"
    );
    assert!(!shown.contains(&hex[..16]));
}
