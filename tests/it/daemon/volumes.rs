//! What guests write to volumes outlives everything but its removal.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use super::Daemon;
use crate::rig::{Running, directory, done, err, guest, sampan};

/// Two services that share a volume, and a third one with one of its own.
fn spec(quota: &str, access: &str) -> String {
    let files = guest("env-and-files");
    let service = |name: &str, volume: &str, access: &str| {
        format!(
            "[service.{name}]\ncomponent = '{files}'\nroute = ['{name}.localhost/']\n\
             [service.{name}.allow]\n\
             files = [{{ volume = '{volume}', guest = '/data', access = '{access}' }}]\n"
        )
    };
    format!(
        "[volume.data]\nquota = '{quota}'\n[volume.other]\n{}{}{}",
        service("one", "data", "read-write"),
        service("two", "data", access),
        service("three", "other", "read-write")
    )
}

/// Writes a file by a service. Gives back the status.
fn put(at: SocketAddr, service: &str, name: &str, bytes: usize) -> u16 {
    let mut request = format!(
        "PUT /file/{name} HTTP/1.1\r\nHost: {service}.localhost\r\nContent-Length: {bytes}\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes();
    request.extend(std::iter::repeat_n(b'x', bytes));
    status(&exchange(at, &request))
}

/// The status and the length of what a service reads.
fn read(at: SocketAddr, service: &str, name: &str) -> (u16, usize) {
    let request = format!(
        "GET /file/{name} HTTP/1.1\r\nHost: {service}.localhost\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(at, request.as_bytes());
    let body = answer.windows(4).position(|it| it == b"\r\n\r\n");
    let body = &answer[body.expect("a head") + 4..];
    let read = body.iter().filter(|it| **it == b'x').count();
    (status(&answer), read)
}

fn exchange(at: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).expect("it listens");
    stream.write_all(request).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    answer
}

fn status(answer: &[u8]) -> u16 {
    let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]);
    let status = head.split(' ').nth(1).expect("a status");
    status.parse().expect("a number")
}

#[test]
fn a_volume_is_shared_full_and_there_after_a_kill() {
    let mut daemon = Daemon::start();
    let mut at = daemon.running().address();
    daemon.apply(&spec("64KiB", "read-only"));
    assert_eq!(put(at, "one", "kept", 40 << 10), 201);
    assert_eq!(read(at, "two", "kept"), (200, 40 << 10));
    assert_eq!(read(at, "three", "kept").0, 404);
    // It may only read.
    assert!(put(at, "two", "more", 1) >= 400);
    assert_eq!(put(at, "one", "more", 40 << 10), 507);
    let said = err(&daemon.ask(&["logs", "one"]));
    let told =
        "no space left: volume `data` may have 64KiB; `quota` in `[volume.data]` allows more";
    assert!(said.contains(told), "{said}");
    // Others go on.
    assert_eq!(put(at, "three", "more", 40 << 10), 201);
    for _ in 0..2 {
        daemon.running().signal(rustix::process::Signal::KILL);
        daemon.running.take();
        daemon.launch();
        at = daemon.running().address();
        daemon.must(&["rollout", "status", "one"]);
        daemon.must(&["rollout", "status", "two"]);
        assert_eq!(read(at, "two", "kept"), (200, 40 << 10));
        assert_eq!(put(at, "one", "again", 40 << 10), 507);
    }
    // More may be in it from the next apply on.
    daemon.apply(&spec("1MiB", "read-write"));
    assert_eq!(put(at, "two", "again", 40 << 10), 201);
    assert_eq!(read(at, "one", "again"), (200, 40 << 10));
    let volumes = daemon.json(&["get", "volumes"]);
    assert_eq!(volumes[0]["name"], "data");
    // Two files of ten blocks, what there was room for of a third one, and their names.
    assert_eq!(volumes[0]["used_bytes"], 27 * 4096);
    assert_eq!(volumes[0]["quota_bytes"], 1 << 20);
    assert_eq!(volumes[0]["used_by"], serde_json::json!(["one", "two"]));
    let table = daemon.must(&["get", "volumes"]);
    assert!(table.contains("one,two"), "{table}");
    // An app that names the volume no more, or that is deleted, leaves it.
    daemon.apply("");
    let told = daemon.must(&["delete", "a", "--wait"]);
    let kept = "volume data is kept, with 108.0 KiB; `sampan delete a --volumes` removes it";
    assert!(told.contains(kept), "{told}");
    let volumes = daemon.json(&["get", "volumes"]);
    assert_eq!(volumes[0]["quota_bytes"], serde_json::Value::Null);
    daemon.apply(&spec("1MiB", "read-only"));
    assert_eq!(read(at, "one", "kept"), (200, 40 << 10));
    let plan = daemon.spec(&spec("2MiB", "read-only"));
    let plan = daemon.must(&["plan", "-f", &plan]);
    assert!(
        plan.contains("volume data (2MiB) at /data, read-write"),
        "{plan}"
    );
    let told = daemon.must(&["delete", "a", "--volumes"]);
    for name in ["data", "other"] {
        let removed = format!("volume {name} is removed");
        assert!(told.contains(&removed), "{told}");
    }
    assert!(!std::path::Path::new(&daemon.place("data/volumes/a")).exists());
    // There is nothing to remove, and nothing wrong with that.
    daemon.must(&["delete", "a", "--volumes"]);
    daemon.apply(&spec("1MiB", "read-only"));
    assert_eq!(read(at, "one", "kept").0, 404);
}

#[test]
fn a_volume_outlives_up() {
    let text = format!("app = 'a'\n{}", spec("1MiB", "read-only"));
    let home = directory(&[("sampan.toml", text.as_bytes())]);
    let file = home.path().join("sampan.toml").display().to_string();
    for expected in [201, 204] {
        let mut command = sampan(&["up", "-f", &file, "--http", "127.0.0.1:0"]);
        command.env("XDG_STATE_HOME", home.path().join("state"));
        let mut running = Running::start(command);
        let at = running.address();
        assert_eq!(put(at, "one", "kept", 10), expected);
        let (status, said) = running.interrupt();
        assert!(status.success(), "{said}");
    }
    let kept = home.path().join("state/sampan/volumes/a/data/kept");
    assert_eq!(std::fs::read(kept).expect("there"), [b'x'; 10]);
}

#[test]
fn the_volume_of_another_app_cannot_be_named() {
    let files = guest("env-and-files");
    for (volume, told) in [
        ("data", "there is no volume `data`"),
        ("b/data", "`b/data`"),
        ("../b/data", "`../b/data`"),
    ] {
        let text = format!(
            "app = 'a'\n[service.web]\ncomponent = '{files}'\n\
             allow.files = [{{ volume = '{volume}', guest = '/data' }}]\n"
        );
        let home = directory(&[("sampan.toml", text.as_bytes())]);
        let file = home.path().join("sampan.toml").display().to_string();
        let checked = done(&["validate", "-f", &file]);
        assert_eq!(checked.status.code(), Some(2), "{}", err(&checked));
        assert!(err(&checked).contains(told), "{}", err(&checked));
    }
}

#[test]
fn a_volume_goes_to_an_archive_and_back() {
    let mut daemon = Daemon::start();
    let at = daemon.running().address();
    daemon.apply(&spec("1MiB", "read-only"));
    assert_eq!(put(at, "one", "kept", 300_000), 201);
    let archive = daemon.place("data.tar");
    // Nothing of it is read.
    let none = daemon.place("node.toml");
    for verb in [
        &["volume", "export", "a/data", "-o", &archive][..],
        &["volume", "import", "a/data", &none],
    ] {
        let refused = daemon.ask(verb);
        let said = err(&refused);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        let users = "volume `data` is in use by `one-1-0`, `two-1-0`";
        assert!(said.contains(users), "{said}");
    }
    assert!(
        !std::path::Path::new(&archive).exists(),
        "nothing is left of an export that fails"
    );
    daemon.must(&["delete", "a", "--wait"]);
    daemon.must(&["volume", "export", "a/data", "-o", &archive]);
    let bytes = std::fs::read(&archive).expect("written");
    let piped = daemon.ask(&["volume", "export", "a/data"]);
    assert!(piped.stdout == bytes);
    daemon.must(&["delete", "a", "--volumes"]);
    let absent = err(&daemon.ask(&["volume", "export", "a/data"]));
    assert!(absent.contains("there is no volume `data`"), "{absent}");
    daemon.must(&["volume", "import", "a/data", &archive]);
    daemon.apply(&spec("1MiB", "read-only"));
    assert_eq!(read(at, "one", "kept"), (200, 300_000));
    let bad = daemon.ask(&["volume", "import", "b/data", &daemon.place("sampan.toml")]);
    assert_eq!(bad.status.code(), Some(1), "{}", err(&bad));
}
