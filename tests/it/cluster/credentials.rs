//! An etcd that wants to know who asks: with a user and a password, or a client's certificate.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use super::{Cluster, status};
use crate::{
    members::{self, Pace},
    rig::{done, err, repository},
};

fn etcdctl(etcd: &members::Cluster, arguments: &[&str]) {
    let output = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &etcd.urls().join(",")])
        .args(arguments)
        .output();
    let output = output.expect("it is installed with etcd");
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
}

/// Tries to make a cluster without what etcd wants to see. Nothing of it is left.
fn is_refused(cluster: &Cluster, name: &str, more: &[&str], said: &str) {
    let (data, url) = (cluster.data(name), cluster.etcd.urls().remove(0));
    let init = [
        "cluster", "init", "--node", name, "--etcd", &url, "--data", &data,
    ];
    let made = done(&[&init[..], more].concat());
    assert!(err(&made).contains(said), "{}", err(&made));
    assert!(!cluster.place(name).join("cluster.toml").exists());
}

/// Makes a cluster with what etcd wants to see, of which a second node is told by the first. Each
/// keeps it for this user alone, and starts again with it.
fn two_nodes(cluster: &mut Cluster, more: &[&str], kept: &[&str]) {
    cluster.make_with("a", more);
    let second = cluster.join();
    for node in ["a", &second] {
        for file in kept {
            let file = cluster.place(node).join(file);
            let mode = fs::metadata(&file)
                .expect("it is kept")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        let running = cluster.running(node).take().expect("it runs");
        assert!(running.interrupt().0.success());
        cluster.launch(node);
    }
    cluster.until("a", "both are ready", |nodes| {
        ["a", "b"].iter().all(|node| status(nodes, node) == "Ready")
    });
    let running = cluster.running(&second).take().expect("it runs");
    assert!(running.interrupt().0.success());
    let left = done(&["cluster", "leave", "--data", &cluster.data(&second)]);
    assert!(left.status.success(), "{}", err(&left));
    for file in kept {
        assert!(!cluster.place(&second).join(file).exists(), "{file}");
    }
}

#[test]
fn a_password_of_etcd_is_kept_and_given_to_nodes_that_join() {
    let Some(etcd) = members::Cluster::start(1, Pace::Fast) else {
        return;
    };
    etcdctl(&etcd, &["user", "add", "root:hunter2"]);
    etcdctl(&etcd, &["user", "add", "sampan:secret"]);
    etcdctl(&etcd, &["role", "add", "sampan"]);
    let grant = ["role", "grant-permission", "sampan", "--prefix=true"];
    etcdctl(&etcd, &[&grant[..], &["readwrite", "/sampan/"]].concat());
    etcdctl(&etcd, &["user", "grant-role", "sampan", "sampan"]);
    etcdctl(&etcd, &["user", "grant-role", "root", "root"]);
    etcdctl(&etcd, &["auth", "enable"]);
    let mut cluster = Cluster::on(etcd);
    let name = cluster.add();
    let file = cluster.place("password");
    let user = ["--etcd-user", "sampan", "--etcd-password-file"];
    let path = file.display().to_string();
    let with_file = [&user[..], &[&path]].concat();
    is_refused(&cluster, &name, &[], "user name is empty");
    is_refused(&cluster, &name, &user[..2], "--etcd-password-file");
    is_refused(&cluster, &name, &with_file, "cannot read");
    fs::write(&file, "wrong\n").expect("written");
    is_refused(&cluster, &name, &with_file, "authentication failed");
    fs::write(&file, "secret\n").expect("written");
    two_nodes(&mut cluster, &with_file, &["etcd.user", "etcd.password"]);
}

#[test]
fn a_certificate_of_etcd_is_kept_and_given_to_nodes_that_join() {
    let certificates = repository("crates/store/tests/it/certificates");
    let Some(etcd) = members::Cluster::secured(&certificates) else {
        return;
    };
    let mut cluster = Cluster::on(etcd);
    let name = cluster.add();
    let file = |name: &str| certificates.join(name).display().to_string();
    let (ca, own, key) = (file("ca"), file("client"), file("client.key"));
    let more = ["--etcd-ca", &ca, "--etcd-cert", &own, "--etcd-key", &key];
    is_refused(&cluster, &name, &more[..4], "--etcd-key");
    is_refused(&cluster, &name, &more[2..], "certificate");
    let kept = ["etcd-ca.crt", "etcd.crt", "etcd.key"];
    two_nodes(&mut cluster, &more, &kept);
}
