//! What no guest gets without a grant, what it is told, and what its pod's log says would grant it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use sampan_core::{
    name::Name,
    object::{Access, Isolation, Mount, MountSource, VolumeUse},
    quantity::ByteSize,
    spec,
};
use sampan_runtime::{Runtime, RuntimeConfig, VolumesConfig, logs::Stream, pod::Pod};
use tempfile::TempDir;

use super::outbound::{FORBIDDEN, counting};
use super::rig::{Plan, ask, config, failure, in_time, lines, map, plan, runtime, workload};

/// The same guest for both versions of WASI.
const GUESTS: [&str; 2] = ["trespasser", "trespasser-p3"];

fn guest(name: &str) -> Plan {
    plan(workload(name))
}

fn with_servers(name: &str, rules: &[&str]) -> Plan {
    let mut plan = guest(name);
    let rules = rules.iter().map(|rule| spec::server(rule).expect(rule));
    plan.grants.outbound = rules.collect();
    plan
}

/// A path of a request, with its values percent-encoded.
fn request(path: &str, values: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        let bytes = text.bytes();
        bytes.map(|byte| format!("%{byte:02X}")).collect()
    };
    let values = values.iter();
    let values: Vec<_> = values
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    format!("{path}?{}", values.join("&"))
}

async fn told(pod: &Pod, path: &str) -> (u16, String) {
    in_time(ask(pod, path)).await.expect("an answer")
}

/// What the host has said of a pod.
fn said(runtime: &Runtime, pod: &Pod) -> Vec<String> {
    let lines = lines(runtime, pod.name()).into_iter();
    let host = lines.filter(|line| line.stream == Stream::Host);
    host.map(|line| line.text).collect()
}

/// A guest is told this error, and the log has a line more, with all of this in it.
async fn is_denied(runtime: &Runtime, pod: &Pod, path: &str, error: &str, log: &[&str]) {
    let before = said(runtime, pod).len();
    let answer = told(pod, path).await;
    assert_eq!(answer, (403, error.to_owned()), "{path}");
    let lines = said(runtime, pod).split_off(before);
    assert_eq!(lines.len(), 1, "{path}: {lines:?}");
    assert!(lines[0].starts_with("denied: "), "{path}: {lines:?}");
    for part in log {
        assert!(lines[0].contains(part), "{path}: {lines:?} has no {part}");
    }
}

#[tokio::test]
async fn nothing_of_the_process_of_the_host_is_seen() {
    assert!(std::env::vars().count() > 0 && std::env::args().count() > 0);
    for name in GUESTS {
        let mut plan = guest(name);
        let pod = plan.clone().start().await;
        for path in ["/env", "/args", "/directories"] {
            assert_eq!(
                told(&pod, path).await,
                (200, String::new()),
                "{name} {path}"
            );
        }
        assert_eq!(
            told(&pod, "/stdin").await,
            (200, "0 bytes".to_owned()),
            "{name}"
        );
        plan.grants.env = map(&[("GREETING", "hello")]);
        let pod = plan.start().await;
        assert_eq!(told(&pod, "/env").await, (200, "GREETING=hello".to_owned()));
    }
}

#[tokio::test]
async fn an_exit_ends_the_instance_and_nothing_else() {
    for name in GUESTS {
        let pod = guest(name).isolation(Isolation::Request).start().await;
        let failed = failure(&pod, "/exit").await;
        let said = said(runtime(), &pod);
        assert!(
            said.iter().any(|line| line.contains("exit")),
            "{name}: {failed:?} {said:?}"
        );
        assert_eq!(told(&pod, "/env").await.0, 200, "{name}");
    }
}

/// A directory with a `granted` part, and around it what a guest may not see. Links that lead there
/// were made by the host.
fn directory(granted: &Path) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let granted = directory.path().join(granted);
    fs::create_dir_all(granted.join("inner")).expect("made");
    fs::create_dir(directory.path().join("outside")).expect("made");
    let secret = directory.path().join("outside/secret");
    fs::write(&secret, "secret").expect("written");
    fs::write(granted.join("file"), "content").expect("written");
    let up = "../".repeat(
        granted
            .strip_prefix(directory.path())
            .expect("below")
            .iter()
            .count(),
    );
    for (link, to) in [
        ("relative", format!("{up}outside/secret")),
        ("absolute", secret.display().to_string()),
        ("up", format!("{up}outside")),
        ("chain", "relative".to_owned()),
        ("dangling", format!("{up}outside/new")),
        ("environ", "/proc/self/environ".to_owned()),
        ("root", "/".to_owned()),
        ("magic", "/proc/self/root".to_owned()),
        ("inner/link", "../up/secret".to_owned()),
    ] {
        symlink(to, granted.join(link)).expect("made");
    }
    directory
}

/// Paths that lead out of the directory.
const OUT: &[&str] = &[
    "..",
    "../outside/secret",
    "inner/../../outside/secret",
    "./../outside",
    "/",
    "/etc/passwd",
    "//etc/passwd",
    "relative",
    "absolute",
    "up/secret",
    "chain",
    "dangling",
    "environ",
    "root/etc/passwd",
    "magic/etc/passwd",
    "inner/link",
];

/// Everything below a directory and what is in it, in order.
fn tree(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let shown = path.display().to_string();
        if path.is_symlink() {
            let target = fs::read_link(&path).expect("a link");
            found.push((shown, target.display().to_string()));
        } else if path.is_dir() {
            found.extend(tree(&path));
            found.push((shown, String::new()));
        } else {
            found.push((shown, fs::read_to_string(&path).expect("text")));
        }
    }
    found.sort();
    found
}

fn mount(source: MountSource, guest: &str, access: Access) -> Mount {
    Mount {
        source,
        guest: guest.to_owned(),
        access,
    }
}

fn host(path: &Path) -> MountSource {
    MountSource::Host(path.to_owned())
}

/// A runtime whose volumes are in `directory`, and the volume `shop/data` of it.
fn with_volumes(directory: &Path) -> (Arc<Runtime>, MountSource) {
    let runtime = Runtime::new(RuntimeConfig {
        volumes: Some(VolumesConfig::at(directory.to_owned())),
        ..config()
    });
    let name = |text| Name::parse(text).expect("a name");
    let volume = MountSource::Volume(VolumeUse {
        app: name("shop"),
        name: name("data"),
        quota: ByteSize(1 << 20),
    });
    (runtime.expect("a runtime"), volume)
}

/// Where the directory that is lent lies: that of a volume of an app.
const DATA: &str = "shop/data";

/// A runtime and what its guests are lent: a directory of the host, or a volume.
fn lent(directory: &Path, is_volume: bool) -> (Arc<Runtime>, MountSource) {
    match is_volume {
        true => with_volumes(directory),
        false => (Arc::clone(runtime()), host(&directory.join(DATA))),
    }
}

/// No path, of a guest or by a link, leads out of a directory of the host or of a volume, whatever
/// is done with it; so the volumes of other apps, which lie beside it, are not reached either.
#[tokio::test]
async fn no_path_leads_out_of_what_is_lent() {
    for name in GUESTS {
        for is_volume in [false, true] {
            let directory = directory(Path::new(DATA));
            let (runtime, source) = lent(directory.path(), is_volume);
            let before = tree(&directory.path().join("outside"));
            let mut plan = guest(name);
            plan.runtime = Arc::clone(&runtime);
            plan.grants.files = vec![mount(source, "/data", Access::ReadWrite)];
            for path in OUT {
                // One of its own: of all denials of a pod only the first ones are told.
                let pod = plan.clone().start().await;
                for verb in [
                    "read", "write", "create", "truncate", "list", "stat", "touch",
                ] {
                    let asked = request(&format!("/{verb}"), &[("path", path)]);
                    let leads = format!("`{path}` leads out of the directory that is lent");
                    let log = [leads.as_str(), "`allow.files` with the directory"];
                    is_denied(&runtime, &pod, &asked, "NotPermitted", &log).await;
                }
            }
            names(&plan, &runtime).await;
            assert_eq!(tree(&directory.path().join("outside")), before, "{name}");
            let left = fs::read_dir(directory.path()).expect("there").count();
            assert_eq!(
                left,
                2 + usize::from(is_volume && directory.path().join(".locks").exists())
            );
        }
    }
}

/// Nothing outside gets a name, loses one, or comes in by one.
async fn names(plan: &Plan, runtime: &Runtime) {
    let pod = plan.clone().start().await;
    for (verb, values, leads) in [
        ("mkdir", [("path", "../made"), ("to", "")], "../made"),
        ("mkdir", [("path", "up/made"), ("to", "")], "up/made"),
        ("rmdir", [("path", "../outside"), ("to", "")], "../outside"),
        ("unlink", [("path", "up/secret"), ("to", "")], "up/secret"),
        ("symlink", [("path", "../l"), ("to", "file")], "../l"),
        (
            "link",
            [("path", "../outside/secret"), ("to", "mine")],
            "../outside/secret",
        ),
        ("link", [("path", "up/secret"), ("to", "mine")], "up/secret"),
        ("link", [("path", "file"), ("to", "../stolen")], "../stolen"),
        (
            "rename",
            [("path", "file"), ("to", "../stolen")],
            "../stolen",
        ),
        (
            "rename",
            [("path", "file"), ("to", "up/stolen")],
            "up/stolen",
        ),
        (
            "rename",
            [("path", "up/secret"), ("to", "mine")],
            "up/secret",
        ),
        (
            "rename",
            [("path", "file"), ("to", "/tmp/stolen")],
            "/tmp/stolen",
        ),
    ] {
        let asked = request(&format!("/{verb}"), &values);
        let line = format!("denied: `{leads}` leads out of the directory that is lent");
        is_denied(runtime, &pod, &asked, "NotPermitted", &[&line]).await;
    }
    let line = "denied: a link to `/etc/passwd`; nothing allows it: ";
    let asked = request("/symlink", &[("path", "l"), ("to", "/etc/passwd")]);
    is_denied(runtime, &pod, &asked, "NotPermitted", &[line]).await;
    // A link that leads out may be made and be given another name: nothing follows it.
    let pod = plan.clone().start().await;
    for (verb, path, to) in [
        ("symlink", "inner/mine", "../../../outside/secret"),
        ("link", "absolute", "same"),
        ("rename", "relative", "inner/moved"),
        ("rename", "inner/moved", "relative"),
    ] {
        let asked = request(&format!("/{verb}"), &[("path", path), ("to", to)]);
        assert_eq!(told(&pod, &asked).await, (200, "done".to_owned()), "{verb}");
    }
    for path in ["inner/mine", "same", "relative"] {
        let asked = request("/read", &[("path", path)]);
        let line = format!("`{path}` leads out of");
        is_denied(runtime, &pod, &asked, "NotPermitted", &[&line]).await;
    }
}

#[tokio::test]
async fn what_is_lent_read_only_is_not_changed() {
    for name in GUESTS {
        for is_volume in [false, true] {
            let directory = directory(Path::new(DATA));
            let (runtime, source) = lent(directory.path(), is_volume);
            let other = tempfile::tempdir().expect("a directory");
            let mut plan = guest(name);
            plan.runtime = Arc::clone(&runtime);
            plan.grants.files = vec![
                mount(source, "/data", Access::ReadOnly),
                mount(host(other.path()), "/other", Access::ReadWrite),
            ];
            let before = tree(&directory.path().join(DATA));
            let pod = plan.start().await;
            for (verb, path, to) in [
                ("write", "file", ""),
                ("create", "new", ""),
                ("truncate", "file", ""),
                ("mkdir", "new", ""),
                ("rmdir", "inner", ""),
                ("unlink", "file", ""),
                ("touch", "file", ""),
                ("symlink", "new", "file"),
                ("link", "file", "new"),
                ("rename", "file", "new"),
            ] {
                let asked = request(&format!("/{verb}"), &[("path", path), ("to", to)]);
                let what =
                    format!("denied: a change of `{path}` in a directory that is lent read-only");
                let log = [
                    what.as_str(),
                    "`access = \"read-write\"` in `allow.files` would allow it",
                ];
                is_denied(&runtime, &pod, &asked, "NotPermitted", &log).await;
            }
            // By a handle that was opened to read.
            let log = ["denied: a change of a file in a directory that is lent read-only"];
            is_denied(&runtime, &pod, "/resize?path=file", "NotPermitted", &log).await;
            // Into another directory, in which the guest may write.
            for verb in ["link", "rename"] {
                let asked = format!("/{verb}?path=file&into=1&to=stolen");
                let answer = told(&pod, &asked).await;
                let wanted = if is_volume {
                    "CrossDevice"
                } else {
                    "NotPermitted"
                };
                assert_eq!(answer, (403, wanted.to_owned()), "{name} {verb}");
            }
            assert_eq!(
                told(&pod, "/read?path=file").await,
                (200, "content".to_owned())
            );
            assert_eq!(tree(&directory.path().join(DATA)), before, "{name}");
            assert_eq!(tree(other.path()), [], "{name}");
        }
    }
}

/// Not even a guest that was lent `/proc` gets out of it by the links that are none.
#[tokio::test]
async fn proc_is_no_way_out() {
    for name in GUESTS {
        let pod = guest(name).start().await;
        let (status, _) = told(&pod, "/read?path=/proc/self/environ").await;
        assert_eq!(status, 403, "{name}");
        let mut plan = guest(name);
        plan.grants.files = vec![mount(host(Path::new("/proc")), "/proc", Access::ReadOnly)];
        let pod = plan.start().await;
        assert_eq!(told(&pod, "/read?path=uptime").await.0, 200, "{name}");
        for path in [
            "self/root/etc/passwd",
            "self/cwd/Cargo.toml",
            "self/exe",
            "self/fd/0",
        ] {
            let (status, text) = told(&pod, &request("/read", &[("path", path)])).await;
            assert_eq!(status, 403, "{name} {path}: {text}");
        }
    }
}

#[tokio::test]
async fn no_address_is_connected_to_that_is_not_granted() {
    let ((v4, by_v4), (v6, by_v6)) = (counting("0.0.0.0:0").await, counting("[::1]:0").await);
    for name in GUESTS {
        let below = [
            format!("tcp://*.example.com:{v4}"),
            format!("tcp://db.example.com:{v6}"),
        ];
        let below: Vec<_> = below.iter().map(String::as_str).collect();
        for rules in [&[][..], &below] {
            let pod = with_servers(name, rules).start().await;
            for address in [
                "127.0.0.1:{v4}",
                "127.1.2.3:{v4}",
                "[::1]:{v6}",
                "[::ffff:127.0.0.1]:{v4}",
                "[::127.0.0.1]:{v4}",
                "[64:ff9b::7f00:1]:{v4}",
                "[2002:7f00:1::]:{v4}",
                "0.0.0.0:{v4}",
                "[::]:{v6}",
                "169.254.169.254:80",
                "10.0.0.1:{v4}",
                "192.168.0.1:{v4}",
                "[fe80::1]:{v6}",
                "[fd00:ec2::254]:80",
            ] {
                let address = address.replace("{v4}", &v4.to_string());
                let address = address.replace("{v6}", &v6.to_string());
                let before = said(runtime(), &pod).len();
                let answer = told(&pod, &request("/connect", &[("at", &address)])).await;
                // No server has such an address, and the log has nothing to say of it.
                if !rules.is_empty() && answer == (403, "InvalidArgument".to_owned()) {
                    assert!(
                        address.starts_with("0.0.0.0") || address.starts_with("[::"),
                        "{address}"
                    );
                    continue;
                }
                assert_eq!(answer, (403, "AccessDenied".to_owned()), "{name} {address}");
                let lines = said(runtime(), &pod).split_off(before);
                let key = "`allow.outbound = [\"tcp://";
                assert!(
                    lines.len() == 1 && lines[0].contains(key),
                    "{address}: {lines:?}"
                );
            }
        }
    }
    assert_eq!((by_v4.load(Relaxed), by_v6.load(Relaxed)), (0, 0));
}

#[tokio::test]
async fn no_spelling_of_a_name_is_looked_up_that_is_not_granted() {
    for name in GUESTS {
        let pod = with_servers(name, &["tcp://db.example.com:5432", "tcp://10.0.0.7:5432"]);
        let pod = pod.start().await;
        for host in [
            "localhost",
            "LOCALHOST.",
            "ip6-localhost",
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "::1",
            "[::1]",
            "example.com",
            "a.db.example.com",
            "xdb.example.com",
            "db.example.com.evil.test",
            "db.example.com\0.evil.test",
            "10.0.0.7.nip.io",
            "\u{ff4c}ocalhost",
            "metadata.google.internal",
        ] {
            let asked = request("/lookup", &[("name", host)]);
            is_denied(
                runtime(),
                &pod,
                &asked,
                "AccessDenied",
                &["lookup of `", "`allow.outbound"],
            )
            .await;
        }
    }
}

#[tokio::test]
async fn nothing_listens_and_there_is_no_udp_whatever_is_granted() {
    for name in GUESTS {
        let denied = "; nothing allows it: ";
        let pod = with_servers(name, &["tcp://127.0.0.1:1"]).start().await;
        for (path, what) in [
            ("/listen?at=0.0.0.0:0", "listening on `0.0.0.0:"),
            ("/listen?at=[::]:0", "listening on `[::]:"),
            (
                "/bind?at=127.0.0.1:0",
                "a TCP socket with the address `127.0.0.1:0`",
            ),
            (
                "/bind?at=0.0.0.0:8080",
                "a TCP socket with the address `0.0.0.0:8080`",
            ),
            (
                "/listen?at=127.0.0.1:8080",
                "a TCP socket with the address `127.0.0.1:8080`",
            ),
            ("/udp", "a UDP socket"),
        ] {
            is_denied(runtime(), &pod, path, "AccessDenied", &[what, denied]).await;
        }
        let pod = guest(name).start().await;
        is_denied(
            runtime(),
            &pod,
            "/udp",
            "AccessDenied",
            &["a UDP socket", denied],
        )
        .await;
        let log = ["`allow.outbound = [\"tcp://HOST:PORT\"]` would allow it"];
        is_denied(
            runtime(),
            &pod,
            "/listen?at=0.0.0.0:0",
            "AccessDenied",
            &log,
        )
        .await;
    }
}

/// As `caller` does with WASI 0.2.
#[tokio::test]
async fn no_way_of_writing_a_url_reaches_what_is_not_granted_with_wasi_0_3() {
    let ((v4, by_v4), (v6, by_v6)) = (counting("0.0.0.0:0").await, counting("[::]:0").await);
    let below = [443, v4, v6].map(|port| format!("http://*.example.com:{port}"));
    let below: Vec<_> = below.iter().map(String::as_str).collect();
    for rules in [&[][..], &below] {
        for urls in FORBIDDEN.chunks(15) {
            let pod = with_servers("trespasser-p3", rules).start().await;
            for url in urls {
                let url = url.replace("{v4}", &v4.to_string());
                let url = url.replace("{v6}", &v6.to_string());
                let before = said(runtime(), &pod).len();
                let (status, answer) = told(&pod, &request("/call", &[("url", &url)])).await;
                if (status, answer.as_str()) == (403, "no URL") {
                    continue;
                }
                assert_eq!(
                    (status, answer.as_str()),
                    (403, "HttpRequestDenied"),
                    "{url}"
                );
                let lines = said(runtime(), &pod).split_off(before);
                let key = |line: &String| line.contains("`allow.");
                assert!(
                    lines.len() == 1 && lines.iter().all(key),
                    "{url}: {lines:?}"
                );
            }
        }
    }
    assert_eq!((by_v4.load(Relaxed), by_v6.load(Relaxed)), (0, 0));
}
