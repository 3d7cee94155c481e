//! Secrets: guests see them, and nothing else shows them, whatever happens.
//!
//! `SAMPAN_KILLS` makes the last test as long as one likes.

mod search;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    process::Output,
    time::Instant,
};

use serde_json::{Value, json};

use self::search::Search;
use super::{Daemon, times};
use crate::rig::{PATIENCE, err, eventually, get, guest, out};

const FIRST: &str = "correct-horse-battery-staple/1";
const SECOND: &str = "Tr0ub4dor&3-the-second-one?";
const TOKEN: &str = "token-of-the-environment+0123";
/// No secret: what the search has to find.
const PLAIN: &str = "an-ordinary-value-that-is-stored";

/// A service that sees a secret as a variable and as a file, one that dies of a panic with all of its
/// pod, and a job.
fn spec() -> String {
    let files = guest("env-and-files");
    let command = guest("command");
    format!(
        "[secret.db]\nfile = 'db.txt'\n[secret.token]\nenv = 'TEST_TOKEN'\n\
         [service.web]\ncomponent = '{files}'\nroute = ['x/']\nlimits.request_cpu = '100ms'\n\
         env = {{ PASSWORD = {{ secret = 'db' }}, PLAIN = '{PLAIN}' }}\n\
         allow.files = [{{ secret = 'db' }}, {{ secret = 'token', guest = '/etc/token' }}]\n\
         coredump = true\n\
         [service.kept]\ncomponent = '{files}'\nroute = ['y/']\nisolation = 'pod'\n\
         env = {{ PASSWORD = {{ secret = 'db' }}, TOKEN = {{ secret = 'token' }} }}\n\
         restart.initial = '10ms'\nlimits.request_cpu = '100ms'\n\
         [job.once]\ncomponent = '{command}'\nargs = ['env', 'TOKEN']\nenv = {{ TOKEN = {{ secret = 'token' }} }}\n"
    )
}

/// A daemon whose state is all in its own directory.
fn daemon() -> Daemon {
    let mut daemon = Daemon::new();
    let state = daemon.place("state");
    daemon.variables.push(("XDG_STATE_HOME", state));
    daemon.variables.push(("SAMPAN_LOG", "trace".to_owned()));
    daemon
}

/// Runs a verb with the variable that a secret comes from.
fn with_token(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = daemon.program(arguments);
    command
        .env("TEST_TOKEN", TOKEN)
        .args(["--api", &daemon.api()]);
    command.output().expect("the program starts")
}

fn must(daemon: &Daemon, arguments: &[&str]) -> Output {
    let output = with_token(daemon, arguments);
    let code = output.status.code();
    assert_eq!(code, Some(0), "{arguments:?}: {}", err(&output));
    output
}

/// What a guest answers with status 200.
async fn seen(at: SocketAddr, host: &str, path: &str) -> String {
    let answer = get(at, host, path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.body
}

/// Has guests die with the secret in their hands and on their lips.
async fn crash(at: SocketAddr) {
    for host in ["x", "y"] {
        for path in ["/panic?env=PASSWORD", "/spin?env=PASSWORD"] {
            let answer = get(at, host, path).await;
            assert!(answer.status >= 500, "{host}{path}: {answer:?}");
            eventually(at, host, "/env", |it| it.status == 200).await;
        }
    }
}

/// All that a request to the API gets, its head too. What goes on for ever is cut off once all that
/// is there has come.
fn api(daemon: &Daemon, method: &str, path: &str) -> Vec<u8> {
    let mut stream = UnixStream::connect(daemon.api()).expect("it accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: sampan\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    let (mut all, mut piece) = (Vec::new(), [0; 64 << 10]);
    loop {
        let read = stream.read(&mut piece).expect("it answers");
        all.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&all);
        if read == 0 || path == "/v1/watch" && text.contains("synced") {
            return all;
        }
    }
}

/// The answers to all that can be asked of the API, by what the API itself says of it.
fn answers(daemon: &Daemon, search: &Search) -> usize {
    let document = api(daemon, "GET", "/v1/openapi.json");
    let text = String::from_utf8_lossy(&document);
    let (_, json) = text.split_once("\r\n\r\n").expect("a body");
    let json: Value = serde_json::from_str(json).expect("JSON");
    let paths = json["paths"].as_object().expect("paths");
    let mut asked = 0;
    for (path, methods) in paths {
        if methods.get("get").is_none() {
            continue;
        }
        for service in ["web", "kept"] {
            for key in ["", "?app=a", "?key=db", "?tail=1000000"] {
                let path = path
                    .replace("{app}", "a")
                    .replace("{service}", service)
                    .replace("{job}", "once")
                    .replace("{store}", "secrets")
                    .replace("{name}", &format!("{service}-1-0"));
                let path = match path == "/v1/watch" {
                    true => path,
                    false => path + key,
                };
                search.none(&format!("GET {path}"), &api(daemon, "GET", &path));
                asked += 1;
            }
        }
    }
    asked
}

/// All verbs that show something, as text and as JSON.
fn outputs(daemon: &Daemon, search: &Search) {
    let spec = daemon.place("sampan.toml");
    let component = guest("env-and-files");
    let mut all: Vec<Vec<&str>> = Vec::new();
    for kind in [
        "apps",
        "services",
        "pods",
        "revisions",
        "jobs",
        "volumes",
        "secrets",
        "nodes",
    ] {
        for form in ["table", "json", "toml"] {
            all.push(vec!["get", kind, "-o", form]);
        }
    }
    for json in [&[][..], &["--json"]] {
        for verb in [
            &["describe", "app/a"][..],
            &["describe", "service/web"],
            &["describe", "service/kept"],
            &["describe", "pod/kept-1-0"],
            &["describe", "pod/web-1-0"],
            &["describe", "job/once"],
            &["logs", "web"],
            &["logs", "kept"],
            &["logs", "once"],
            &["events"],
            &["rollout", "history", "web"],
            &["plan", "-f", &spec],
        ] {
            all.push([verb, json].concat());
        }
    }
    for arguments in [
        &["top"][..],
        &["top", "-o", "json"],
        &["ps", "-o", "json"],
        &["kv", "list", "a", "--json"],
        &["version", "--json"],
        &["rollout", "status", "web"],
    ] {
        all.push(arguments.to_vec());
    }
    for arguments in all {
        let output = with_token(daemon, &arguments);
        search.none(&format!("{arguments:?}"), &output.stdout);
        search.none(&format!("{arguments:?}, standard error"), &output.stderr);
    }
    for arguments in [
        &["validate", "-f", &spec][..],
        &["validate", "-f", &spec, "--json"],
        &["inspect", &component, "--json"],
        &["schema"],
    ] {
        let mut command = daemon.program(arguments);
        let output = command
            .env("TEST_TOKEN", TOKEN)
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{arguments:?}: {}", err(&output));
        search.none(&format!("{arguments:?}"), &output.stdout);
        search.none(&format!("{arguments:?}, standard error"), &output.stderr);
    }
}

/// All that there is to be looked at while a daemon runs.
fn everything(daemon: &Daemon, search: &Search) {
    outputs(daemon, search);
    let asked = answers(daemon, search);
    assert!(asked >= 100, "only {asked} requests");
    for place in ["data", "state/sampan"] {
        let place = daemon.place(place);
        let found = search.in_files(Path::new(&place), &|path| {
            // A core dump is the memory of a guest, and the secret is in that.
            path.components()
                .any(|part| part.as_os_str() == "coredumps")
        });
        assert_eq!(found, Vec::<String>::new(), "below {place}");
    }
}

/// The app applied for the first time.
async fn first(daemon: &Daemon, at: SocketAddr, search: &Search) {
    let path = daemon.spec(&spec());
    fs::write(daemon.place("db.txt"), format!("{FIRST}\n")).expect("written");
    // Without its variable nothing is applied, and it is said what is wrong.
    let refused = daemon.ask(&["apply", "-f", &path]);
    assert_eq!(refused.status.code(), Some(2));
    let told = err(&refused);
    assert!(told.contains("`TEST_TOKEN`: it is not set"), "{told}");
    for arguments in [
        &["plan", "-f", &path, "--json"][..],
        &["apply", "-f", &path, "--wait", "--json"],
    ] {
        let output = must(daemon, arguments);
        let all = [output.stdout, output.stderr].concat();
        search.none(&format!("{arguments:?}"), &all);
    }
    // Guests have it.
    let both = format!("PASSWORD={FIRST}\nTOKEN={TOKEN}\n");
    assert_eq!(seen(at, "y", "/env").await, both);
    let file = format!("{FIRST}\n");
    assert_eq!(
        seen(at, "x", "/do?op=read&path=/run/secrets/db").await,
        file
    );
    assert_eq!(seen(at, "x", "/do?op=read&path=/etc/token").await, TOKEN);
    // It is told which there are and what sees them.
    let told = daemon.json(&["get", "secrets"]);
    let told = told.as_array().expect("a list").iter().map(|it| {
        assert_eq!(it["version"].as_str().map(str::len), Some(8), "{it}");
        (it["name"].clone(), it["used_by"].clone())
    });
    let wanted = [
        (json!("db"), json!(["kept", "web"])),
        (json!("token"), json!(["kept", "once", "web"])),
    ];
    assert_eq!(told.collect::<Vec<_>>(), wanted);
    crash(at).await;
    everything(daemon, search);
    // The guests have printed it, and it is hidden there.
    for (name, told) in [
        ("web", "spinning with ***"),
        ("web", "the variable is ***"),
        ("kept", "the variable is ***"),
        ("once", "TOKEN=***"),
    ] {
        let log = daemon.must(&["logs", name, "--app", "a"]);
        assert!(log.contains(told), "{log}");
    }
}

/// The search would find a secret: an ordinary variable is in the database and in a plan.
fn control(daemon: &Daemon) {
    let control = Search::of(&[PLAIN]);
    let data = daemon.place("data");
    let found = control.in_files(Path::new(&data), &|_| false);
    assert_ne!(found, Vec::<String>::new());
    let path = daemon.spec(&spec().replace(PLAIN, &format!("{PLAIN}-changed")));
    let plan = must(daemon, &["plan", "-f", &path]);
    control.some("a plan", &plan.stdout);
    let told = format!("env.PLAIN: {PLAIN} -> {PLAIN}-changed");
    assert!(out(&plan).contains(&told), "{}", out(&plan));
    daemon.spec(&spec());
}

/// Another value, which is a rollout, and back again.
async fn another(daemon: &Daemon, at: SocketAddr, search: &Search) {
    let path = daemon.place("sampan.toml");
    fs::write(daemon.place("db.txt"), SECOND).expect("written");
    let plan = must(daemon, &["plan", "-f", &path]);
    let told = "env.PASSWORD: secret db (version ";
    assert!(out(&plan).contains(told), "{}", out(&plan));
    search.none("the plan of another value", &plan.stdout);
    must(daemon, &["apply", "-f", &path, "--wait", "--json"]);
    assert!(seen(at, "x", "/env").await.contains(SECOND));
    crash(at).await;
    everything(daemon, search);
    let again = out(&must(daemon, &["apply", "-f", &path, "--wait"]));
    assert!(again.contains("service/web unchanged"), "{again}");
    let undone = must(daemon, &["rollout", "undo", "web"]);
    search.none("an undo", &undone.stdout);
    daemon.must(&["rollout", "status", "web"]);
    assert!(seen(at, "x", "/env").await.contains(FIRST));
    everything(daemon, search);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_found_anywhere_but_in_guests() {
    let search = Search::of(&[FIRST, SECOND, TOKEN]);
    let mut daemon = daemon();
    daemon.launch();
    let at = daemon.running().address();
    first(&daemon, at, &search).await;
    control(&daemon);
    another(&daemon, at, &search).await;
    // A crash of the daemon: it comes back with both values, each where it was.
    daemon.running().signal(rustix::process::Signal::KILL);
    let mut talk = vec![daemon.running.take().expect("it runs").wait().1];
    daemon.launch();
    let at = daemon.running().address();
    eventually(at, "y", "/env", |it| it.status == 200).await;
    assert!(seen(at, "x", "/env").await.contains(FIRST));
    assert!(seen(at, "y", "/env").await.contains(SECOND));
    crash(at).await;
    everything(&daemon, &search);
    let deleted = must(&daemon, &["delete", "a", "--wait"]);
    search.none("what is said of the end", &deleted.stdout);
    everything(&daemon, &search);
    let (status, said) = daemon.running.take().expect("it runs").interrupt();
    assert_eq!(status.code(), Some(0), "{said}");
    talk.push(said);
    for said in &talk {
        assert!(said.contains("TRACE"), "{said}");
        search.none("what the daemon has said", said.as_bytes());
    }
    let data = daemon.place("data");
    let data = Path::new(&data);
    assert_eq!(search.in_files(data, &|_| false), Vec::<String>::new());
    let key = fs::metadata(data.join("secrets.key")).expect("the key");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_has_a_value_for_each_revision() {
    let mut daemon = daemon();
    daemon.launch();
    let mut at = daemon.running().address();
    let path = daemon.spec(&spec());
    let password = daemon.place("db.txt");
    let value = |number: usize| format!("the-password-number-{number}");
    fs::write(&password, value(0)).expect("written");
    must(&daemon, &["apply", "-f", &path, "--wait"]);
    let mut acknowledged = 0;
    for kill in 1..=times("SAMPAN_KILLS", 5) {
        fs::write(&password, value(kill)).expect("written");
        // Killed before, while and after it is written.
        let mut applying = daemon.program(&["apply", "-f", &path, "--api", &daemon.api()]);
        let mut applying = applying
            .env("TEST_TOKEN", TOKEN)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("the program starts");
        let applied = match kill % 3 {
            0 => applying.wait().expect("it ends").success(),
            _ => {
                for _ in 0..kill * 7 {
                    assert_eq!(get(at, "x", "/env").await.status, 200);
                }
                applying
                    .try_wait()
                    .expect("it runs")
                    .is_some_and(|it| it.success())
            }
        };
        daemon.running().signal(rustix::process::Signal::KILL);
        daemon.running.take();
        let _ = applying.wait();
        if applied {
            acknowledged = kill;
        }
        daemon.launch();
        at = daemon.running().address();
        daemon.must(&["rollout", "status", "web", "--app", "a"]);
        let deadline = Instant::now() + PATIENCE;
        let found = loop {
            let env = eventually(at, "x", "/env", |it| it.status == 200)
                .await
                .body;
            let is = |number: &usize| env.contains(&format!("{}\n", value(*number)));
            match (acknowledged..=kill).find(is) {
                Some(found) => break found,
                None => assert!(Instant::now() < deadline, "kill {kill}: {env}"),
            }
        };
        assert!(
            found == acknowledged || found == kill,
            "kill {kill}: {found}"
        );
        acknowledged = found;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_gives_guests_their_secrets_and_keeps_no_key() {
    let daemon = daemon();
    let path = daemon.spec(&spec());
    fs::write(daemon.place("db.txt"), FIRST).expect("written");
    let api = daemon.place("up.sock");
    let arguments = [
        "up",
        "-f",
        &path,
        "--http",
        "127.0.0.1:0",
        "--api",
        &api,
        "--json",
    ];
    let mut command = daemon.program(&arguments);
    command.envs(daemon.variables.iter().map(|(name, value)| (name, value)));
    command.env("TEST_TOKEN", TOKEN);
    let mut running = crate::rig::Running::start(command);
    running.line_with("\"Up\"");
    let pods = crate::rig::done(&["get", "nodes", "-o", "json", "--api", &api]);
    let nodes: Value = serde_json::from_str(&out(&pods)).expect("JSON");
    let at: SocketAddr = nodes[0]["http"]
        .as_str()
        .expect("it listens")
        .parse()
        .expect("one");
    assert!(seen(at, "x", "/env").await.contains(FIRST));
    assert_eq!(seen(at, "x", "/do?op=list&path=/run/secrets").await, "db\n");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let search = Search::of(&[FIRST, TOKEN]);
    search.none("what `up` has said", talk.as_bytes());
    let state = daemon.place("state");
    let found = search.in_files(Path::new(&state), &|_| false);
    assert_eq!(found, Vec::<String>::new());
    assert!(!Path::new(&state).join("sampan/secrets.key").exists());
}
