//! Environment, configuration and files: what is granted, and that nothing else is there.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use bytes::Bytes;
use http_body_util::Full;
use sampan_core::object::{Access, Mount, MountSource};
use sampan_runtime::{StartError, pod::Pod};
use tempfile::TempDir;

use super::rig::{Plan, ask, in_time, map, plan, text_of, workload};

fn guest() -> Plan {
    plan(workload("env-and-files"))
}

async fn status(pod: &Pod, path: &str) -> u16 {
    ask(pod, path).await.expect("an answer").0
}

async fn put(pod: &Pod, path: &str, text: &str) -> u16 {
    let request = http::Request::put(format!("http://test{path}"));
    let request = request
        .body(Full::new(Bytes::from(text.to_owned())))
        .expect("a request");
    let response = in_time(pod.call(request, None)).await.expect("an answer");
    let status = response.status().as_u16();
    text_of(response.into_body()).await.expect("a whole body");
    status
}

/// A directory with a `granted` part, which is mounted, and a secret beside it.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let granted = directory.path().join("granted");
    fs::create_dir_all(granted.join("inner")).expect("made");
    fs::write(granted.join("file"), "content").expect("written");
    fs::write(granted.join("inner/file"), "inner content").expect("written");
    fs::write(directory.path().join("secret"), "secret").expect("written");
    symlink("../secret", granted.join("relative")).expect("made");
    symlink(directory.path().join("secret"), granted.join("absolute")).expect("made");
    symlink("..", granted.join("up")).expect("made");
    symlink("inner/file", granted.join("within")).expect("made");
    directory
}

async fn with_files(directory: &TempDir, access: Access) -> Pod {
    let mut plan = guest();
    plan.base = directory.path().to_owned();
    let host = PathBuf::from("granted");
    plan.grants.files = vec![Mount {
        source: MountSource::Host(host),
        guest: "/data".to_owned(),
        access,
    }];
    plan.start().await
}

#[tokio::test]
async fn the_environment_is_what_was_granted_and_nothing_of_the_hosts() {
    let mut plan = guest();
    assert_eq!(
        ask(&plan.clone().start().await, "/env").await,
        Ok((200, String::new()))
    );
    plan.grants.env = map(&[("GREETING", "hello"), ("EMPTY", ""), ("UMLAUT", "ä=ö")]);
    let text = "EMPTY=\nGREETING=hello\nUMLAUT=ä=ö\n".to_owned();
    assert_eq!(ask(&plan.start().await, "/env").await, Ok((200, text)));
}

#[tokio::test]
async fn the_configuration_is_what_was_granted() {
    let mut plan = guest();
    plan.grants.config = map(&[("theme", "dark")]);
    let pod = plan.start().await;
    assert_eq!(
        ask(&pod, "/config/theme").await,
        Ok((200, "dark\n".to_owned()))
    );
    assert_eq!(status(&pod, "/config/other").await, 404);
}

#[tokio::test]
async fn without_a_grant_there_are_no_files() {
    let pod = guest().start().await;
    for path in [
        "/file/file",
        "/file/../etc/passwd",
        "/file/..%2f..%2fetc%2fpasswd",
        "/file/",
    ] {
        let status = status(&pod, path).await;
        assert!(status == 403 || status == 404, "{path}: {status}");
    }
    assert!(put(&pod, "/file/file", "text").await >= 400);
}

#[tokio::test]
async fn a_read_only_directory_is_read_and_not_written() {
    let directory = directory();
    let pod = with_files(&directory, Access::ReadOnly).await;
    assert_eq!(
        ask(&pod, "/file/file").await,
        Ok((200, "content".to_owned()))
    );
    assert_eq!(
        ask(&pod, "/file/within").await,
        Ok((200, "inner content".to_owned()))
    );
    assert_eq!(put(&pod, "/file/file", "changed").await, 403);
    assert_eq!(put(&pod, "/file/new", "text").await, 403);
    let read = |name: &str| fs::read_to_string(directory.path().join("granted").join(name));
    assert_eq!(read("file").expect("there"), "content");
    assert!(read("new").is_err());
}

#[tokio::test]
async fn a_read_write_directory_is_written() {
    let directory = directory();
    let pod = with_files(&directory, Access::ReadWrite).await;
    assert_eq!(put(&pod, "/file/new", "text").await, 201);
    assert_eq!(put(&pod, "/file/file", "changed").await, 204);
    let read = |name: &str| fs::read_to_string(directory.path().join("granted").join(name));
    assert_eq!(read("new").expect("there"), "text");
    assert_eq!(read("file").expect("there"), "changed");
}

#[tokio::test]
async fn there_is_no_way_out_of_a_directory() {
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let directory = directory();
        let pod = with_files(&directory, access).await;
        let outside = directory.path().join("secret").display().to_string();
        for path in [
            "/file/../secret".to_owned(),
            "/file/..%2fsecret".to_owned(),
            "/file/inner/../../secret".to_owned(),
            "/file/relative".to_owned(),
            "/file/absolute".to_owned(),
            "/file/up/secret".to_owned(),
            format!("/file/{outside}"),
            "/file/../../../../../../etc/passwd".to_owned(),
        ] {
            let (status, text) = ask(&pod, &path).await.expect("an answer");
            assert!(status == 403 || status == 404, "{path}: {status} {text}");
            assert!(put(&pod, &path, "changed").await >= 400, "{path}");
        }
        let secret = fs::read_to_string(directory.path().join("secret"));
        assert_eq!(secret.expect("there"), "secret");
    }
}

/// What a running pod sees is the directory that was there at its start.
#[tokio::test]
async fn a_directory_that_is_exchanged_is_not_followed() {
    let directory = directory();
    let pod = with_files(&directory, Access::ReadOnly).await;
    let granted = directory.path().join("granted");
    fs::rename(&granted, directory.path().join("moved")).expect("moved");
    symlink("/etc", &granted).expect("made");
    assert_eq!(
        ask(&pod, "/file/file").await,
        Ok((200, "content".to_owned()))
    );
    assert_eq!(status(&pod, "/file/passwd").await, 404);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named() {
    let mut plan = guest();
    let mount = |host: &str| Mount {
        source: MountSource::Host(host.into()),
        guest: "/data".to_owned(),
        access: Access::ReadOnly,
    };
    for host in ["/nowhere/at-all", "/etc/passwd"] {
        plan.grants.files = vec![mount(host)];
        let error = plan.clone().try_start().await.err().expect("no start");
        assert!(matches!(error, StartError::Mount(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(host) && text.contains("/data"), "{text}");
    }
}
