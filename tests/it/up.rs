//! `sampan up`.

use std::{collections::BTreeSet, fs};

use crate::rig::{
    Running, directory, done, err, eventually, get, guest, out, repository, sampan, send,
};

fn up(spec: &str, more: &[&str]) -> Running {
    let arguments = ["up", "-f", spec, "--http", "127.0.0.1:0"];
    Running::start(sampan(&[&arguments[..], more].concat()))
}

fn demo() -> Running {
    up(
        &repository("workloads/sampan.toml").display().to_string(),
        &[],
    )
}

/// A spec in a directory of its own, with components of the repository.
fn spec(text: &str) -> tempfile::TempDir {
    let mut text = text.to_owned();
    for name in [
        "hello",
        "hello-p3",
        "counter",
        "caller",
        "echo",
        "slow",
        "env-and-files",
        "command",
    ] {
        let path = guest(name);
        text = text.replace(&format!("\"{name}\""), &format!("\"{path}\""));
    }
    directory(&[("sampan.toml", text.as_bytes())])
}

fn path_of(directory: &tempfile::TempDir) -> String {
    directory.path().join("sampan.toml").display().to_string()
}

#[tokio::test]
async fn the_demo_answers_on_every_route_and_drains() {
    let mut demo = demo();
    let at = demo.address();
    for (host, path, wanted) in [
        ("hello.localhost", "/", "Hello from Sampan!\n"),
        ("anything.test", "/any/path", "Hello from Sampan!\n"),
        ("hello3.localhost", "/", "Hello from Sampan"),
        ("files.localhost", "/env", "GREETING=hello\nLEVEL=info\n"),
        ("files.localhost", "/config/theme", "dark"),
        ("slow.localhost", "/?ms=1", ""),
        (
            "caller.localhost",
            "/call?url=http://hello/",
            "Hello from Sampan!\n",
        ),
        (
            "caller.localhost",
            "/call?url=http://hello.internal/x",
            "Hello from Sampan!\n",
        ),
    ] {
        let response = get(at, host, path).await;
        assert_eq!(response.status, 200, "{host}{path}: {response:?}");
        assert!(
            response.body.starts_with(wanted),
            "{host}{path}: {response:?}"
        );
        assert!(
            response.headers.contains_key("x-request-id"),
            "{response:?}"
        );
    }
    let echoed = send(at, "POST", "echo.localhost", "/", "all aboard").await;
    assert_eq!((echoed.status, echoed.body.as_str()), (200, "all aboard"));
    let denied = get(at, "caller.localhost", "/call?url=http://echo/").await;
    assert_eq!(
        (denied.status, denied.body.trim()),
        (502, "HttpRequestDenied")
    );
    let (status, talk) = demo.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    for wanted in [
        "hello-1-2 ready",
        "greet",
        "completed",
        "counter-1-0 stopped",
        "p99",
        "cold starts",
    ] {
        assert!(talk.contains(wanted), "`{wanted}` is missing in {talk}");
    }
}

#[tokio::test]
async fn what_a_guest_prints_is_seen_and_not_obeyed() {
    let files = spec(
        "app = 'a'\n[service.f]\ncomponent = \"env-and-files\"\nroute = ['/']\n\
         [service.web]\ncomponent = \"hello\"\n",
    );
    let api = files.path().join("s.sock").display().to_string();
    let mut running = up(&path_of(&files), &["--api", &api]);
    let at = running.address();
    for (text, printed, shown) in [
        (
            "fine%0Dweb%20%7C%20forged",
            "fine\rweb | forged",
            r"fine\rweb | forged",
        ),
        (
            "c1%C2%9B31m%C2%85next",
            "c1\u{9b}31m\u{85}next",
            r"c1\u{9b}31m\u{85}next",
        ),
        (
            "esc%1B%5B2J%07%08",
            "esc\u{1b}[2J\u{7}\u{8}",
            r"esc\u{1b}[2J\u{7}\u{8}",
        ),
        (
            "feed%0C%0Bpage%E2%80%A8",
            "feed\u{c}\u{b}page\u{2028}",
            r"feed\u{c}\u{b}page\u{2028}",
        ),
        (
            "bidi%E2%80%AE%E2%81%A6z",
            "bidi\u{202e}\u{2066}z",
            r"bidi\u{202e}\u{2066}z",
        ),
        (
            "hidden%E2%80%8B%EF%BB%BF",
            "hidden\u{200b}\u{feff}",
            r"hidden\u{200b}\u{feff}",
        ),
        ("tab%09caf%C3%A9", "tab\tcafé", "tab\tcafé"),
    ] {
        assert_eq!(
            get(at, "localhost", &format!("/print?text={text}"))
                .await
                .status,
            204
        );
        // On both streams of the guest.
        for _ in 0..2 {
            let line = running.line_with(shown);
            assert!(line.starts_with("f"), "{line}");
            assert!(line.ends_with(shown), "{line}");
        }
        let logs = ["logs", "f", "--api", &api];
        let lines = out(&done(&logs));
        assert!(lines.lines().any(|line| line.ends_with(shown)), "{lines}");
        let lines = out(&done(&[&logs[..], &["--json"]].concat()));
        let is = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["text"] == printed
        };
        assert!(lines.lines().any(is), "{lines}");
        let hidden =
            |c: &char| c.is_control() && !"\n\t".contains(*c) || "\u{202e}\u{feff}".contains(*c);
        assert_eq!(lines.chars().find(hidden), None);
    }
    let (_, talk) = running.interrupt();
    assert!(!talk.contains('\r'), "{talk}");
}

#[tokio::test]
async fn pods_count_for_themselves_and_requests_are_alone() {
    let apart = spec(
        "app = 'a'\n[service.kept]\ncomponent = \"counter\"\nreplicas = 3\nisolation = 'pod'\n\
         route = ['kept.test/']\ndebug_headers = true\n\
         [service.fresh]\ncomponent = \"counter\"\nreplicas = 3\nroute = ['fresh.test/']\n",
    );
    let mut running = up(&path_of(&apart), &[]);
    let at = running.address();
    let mut counts = std::collections::BTreeMap::<String, Vec<u32>>::new();
    for _ in 0..60 {
        let response = get(at, "kept.test", "/").await;
        let pod = response.headers["sampan-pod"]
            .to_str()
            .expect("ASCII")
            .to_owned();
        counts
            .entry(pod)
            .or_default()
            .push(response.body.trim().parse().expect("a number"));
        assert_eq!(get(at, "fresh.test", "/").await.body.trim(), "1");
    }
    assert_eq!(
        counts.keys().collect::<Vec<_>>(),
        ["kept-1-0", "kept-1-1", "kept-1-2"]
    );
    for (pod, counts) in counts {
        let wanted: Vec<u32> = (1..=counts.len() as u32).collect();
        assert_eq!(counts, wanted, "{pod}");
    }
}

#[tokio::test]
async fn a_trap_is_a_500_and_the_pod_goes_on() {
    let one =
        spec("app = 'a'\n[service.c]\ncomponent = \"counter\"\nisolation = 'pod'\nroute = ['/']\n");
    let mut running = up(&path_of(&one), &[]);
    let at = running.address();
    for wanted in ["1", "2"] {
        assert_eq!(get(at, "x", "/").await.body.trim(), wanted);
    }
    let crash = get(at, "x", "/crash").await;
    assert_eq!(crash.status, 500);
    assert_eq!(crash.headers["content-type"], "application/problem+json");
    assert_eq!(get(at, "x", "/").await.body.trim(), "1");
    let (_, talk) = running.interrupt();
    assert!(talk.contains("the guest trapped"), "{talk}");
}

#[tokio::test]
async fn spinning_and_waiting_end_with_504() {
    let one = spec(
        "app = 'a'\n[service.s]\ncomponent = \"slow\"\nroute = ['/']\n[service.s.limits]\n\
         request_cpu = '50ms'\nrequest_timeout = '300ms'\n",
    );
    let mut running = up(&path_of(&one), &[]);
    let at = running.address();
    assert_eq!(get(at, "x", "/spin").await.status, 504);
    assert_eq!(get(at, "x", "/?ms=60000").await.status, 504);
    assert_eq!(get(at, "x", "/?ms=1").await.status, 200);
    let (_, talk) = running.interrupt();
    assert!(talk.contains("killed for spinning"), "{talk}");
    assert!(talk.contains("timed out"), "{talk}");
}

#[test]
fn a_broken_demo_gives_all_its_errors_at_once() {
    let text = fs::read_to_string(repository("workloads/sampan.toml")).expect("readable");
    let broken = text
        .replacen("replicas = 3", "replica = 3", 1)
        .replacen("isolation = \"pod\"", "isolation = \"pods\"", 1)
        .replacen("depends_on = [\"hello\"]", "depends_on = [\"helo\"]", 1)
        .replacen("request_cpu = \"500ms\"", "request_cpu = \"500\"", 1);
    let directory = directory(&[("sampan.toml", broken.as_bytes())]);
    let output = done(&["up", "-f", &path_of(&directory)]);
    assert_eq!(output.status.code(), Some(2));
    let talk = err(&output);
    for wanted in [
        "replica",
        "did you mean",
        "pods",
        "helo",
        "request_cpu",
        "sampan.toml:",
    ] {
        assert!(talk.contains(wanted), "`{wanted}` is missing in {talk}");
    }
    assert_eq!(talk.matches("error").count(), 4, "{talk}");
    assert!(output.stdout.is_empty());
}

#[test]
fn components_that_are_refused_are_all_named_and_nothing_starts() {
    let core = wat::parse_str("(module)").expect("good text");
    let missing = wat::parse_str(
        r#"(component (import "demo:a/b@1.0.0" (instance (export "f" (func))))
            (import "demo:c/d@1.0.0" (instance (export "g" (func))))
            (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#,
    );
    let directory = directory(&[
        (
            "sampan.toml",
            b"app='a'\n[service.x]\ncomponent='core.wasm'\n[service.y]\n\
            component='absent.wasm'\n[job.z]\ncomponent='missing.wasm'\n",
        ),
        ("core.wasm", &core),
        ("missing.wasm", &missing.expect("good text")),
    ]);
    let output = done(&["up", "-f", &path_of(&directory), "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let talk = err(&output);
    for wanted in [
        "core module",
        "absent.wasm",
        "demo:a/b@1.0.0",
        "demo:c/d@1.0.0",
    ] {
        assert!(talk.contains(wanted), "`{wanted}` is missing in {talk}");
    }
    assert!(!talk.contains("ready"), "{talk}");
}

#[test]
fn a_failed_job_fails_the_app_and_what_depends_on_it() {
    let text = format!(
        "app='a'\n[service.x]\ncomponent={hello:?}\ndepends_on={{ j = 'completed' }}\n\
         [job.j]\ncomponent={command:?}\nargs=['exit', '1']\nretries=1\n",
        hello = guest("hello"),
        command = guest("command"),
    );
    let directory = directory(&[("sampan.toml", text.as_bytes())]);
    let output = done(&["up", "-f", &path_of(&directory), "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let talk = err(&output);
    for wanted in [
        "exit code 1",
        "trying again",
        "waits for job `j` to complete",
    ] {
        assert!(talk.contains(wanted), "`{wanted}` is missing in {talk}");
    }
}

/// A job with a schedule ends by nothing, so neither does its app.
#[test]
fn an_app_of_a_job_with_a_schedule_stays() {
    let text = format!(
        "app='a'\n[job.j]\ncomponent={:?}\nargs=['exit', '1']\nschedule='0 2 29 2 *'\n",
        guest("command"),
    );
    let files = directory(&[("sampan.toml", text.as_bytes())]);
    let api = files.path().join("s.sock").display().to_string();
    let mut running = up(&path_of(&files), &["--api", &api]);
    running.address();
    let ran = done(&["job", "run", "j", "--wait", "--api", &api]);
    assert_eq!(ran.status.code(), Some(1));
    let said = err(&ran);
    assert!(said.contains("job/j: run 1: exit code 1"), "{said}");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert!(talk.contains("run 1 by hand, attempt 1"), "{talk}");
}

#[tokio::test]
async fn scale_and_profiles_are_taken_from_the_command_line() {
    let text = "app = 'a'\n[service.w]\ncomponent = \"hello\"\nroute = ['/']\ndebug_headers = true\n\
        [service.d]\ncomponent = \"hello\"\nroute = ['/d']\nprofiles = ['debug']\n";
    let with = spec(text);
    let mut running = up(&path_of(&with), &["--scale", "w=4", "--profile", "debug"]);
    let at = running.address();
    let mut pods = BTreeSet::new();
    for _ in 0..100 {
        let response = get(at, "x", "/").await;
        pods.insert(
            response.headers["sampan-pod"]
                .to_str()
                .expect("ASCII")
                .to_owned(),
        );
    }
    assert_eq!(pods.len(), 4, "{pods:?}");
    assert_eq!(get(at, "x", "/d").await.status, 200);
    let output = done(&["up", "-f", &path_of(&with), "--scale", "d=2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        err(&output).contains("there is no service `d`"),
        "{}",
        err(&output)
    );
}

#[tokio::test]
async fn a_changed_component_takes_over_and_a_bad_one_does_not() {
    let counter = fs::read(guest("counter")).expect("readable");
    let hello = fs::read(guest("hello")).expect("readable");
    let directory = directory(&[
        (
            "sampan.toml",
            b"app='a'\n[service.w]\ncomponent='w.wasm'\nroute=['/']\n",
        ),
        ("w.wasm", &counter),
    ]);
    let mut running = up(&path_of(&directory), &["--watch"]);
    let at = running.address();
    assert_eq!(get(at, "x", "/").await.body.trim(), "1");
    fs::write(directory.path().join("new"), &hello).expect("writable");
    fs::rename(
        directory.path().join("new"),
        directory.path().join("w.wasm"),
    )
    .expect("renamed");
    eventually(at, "x", "/", |response| {
        response.body == "Hello from Sampan!\n"
    })
    .await;
    // Until then the version before may answer too.
    running.line_with("revision 2 has taken over");
    fs::write(directory.path().join("w.wasm"), b"no component").expect("writable");
    fs::write(directory.path().join("w.wasm"), &counter).expect("writable");
    eventually(at, "x", "/", |response| response.body.trim() == "1").await;
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[test]
fn a_port_in_use_is_said_with_its_remedy() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let one = spec("app = 'a'\n[service.w]\ncomponent = \"hello\"\n");
    let output = done(&["up", "-f", &path_of(&one), "--http", &address]);
    assert_eq!(output.status.code(), Some(1));
    // One that is free is named.
    let text = err(&output);
    let named = text.split("`--http ").nth(1);
    let named = named.and_then(|rest| rest.split('`').next());
    let named = named.unwrap_or_else(|| panic!("{text}"));
    assert_ne!(named, address);
    assert!(std::net::TcpListener::bind(named).is_ok(), "{text}");
}

#[tokio::test]
async fn an_interrupt_lets_a_request_in_flight_end() {
    let one = spec("app = 'a'\n[service.s]\ncomponent = \"slow\"\nroute = ['/']\n");
    let mut running = up(&path_of(&one), &[]);
    let at = running.address();
    let mut streaming = tokio::spawn(get_head(at));
    let (head, rest) = (&mut streaming).await.expect("no panic");
    assert_eq!(head, 200);
    running.signal(rustix::process::Signal::INT);
    let body = rest.await.expect("no panic");
    assert!(body.is_ok_and(|body| !body.is_empty()));
    let (status, talk) = running.wait();
    assert_eq!(status.code(), Some(0), "{talk}");
}

type Rest = tokio::task::JoinHandle<Result<bytes::Bytes, hyper::Error>>;

/// Begins a response of half a second; returns when its head is here.
async fn get_head(at: std::net::SocketAddr) -> (u16, Rest) {
    use http_body_util::{BodyExt as _, Empty};
    let stream = tokio::net::TcpStream::connect(at)
        .await
        .expect("it accepts");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<bytes::Bytes>>(io)
            .await
            .expect("HTTP/1.1");
    tokio::spawn(connection);
    let request = http::Request::get("/stream?ms=500&parts=5").header("host", "x");
    let request = request.body(Empty::new()).expect("good");
    let (head, body) = sender
        .send_request(request)
        .await
        .expect("a head")
        .into_parts();
    let rest = tokio::spawn(async move { Ok(body.collect().await?.to_bytes()) });
    (head.status.as_u16(), rest)
}
