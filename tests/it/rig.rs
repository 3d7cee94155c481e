//! Starts the program, reads what it prints, asks it over HTTP.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The longest anything here may take on a busy machine, compiling included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of output that wait to be looked at.
const MAX_LINES: usize = 100_000;

/// How often something is tried, unless the environment says otherwise.
pub(crate) fn times(variable: &str, usual: usize) -> usize {
    let asked = std::env::var(variable).ok();
    asked.and_then(|it| it.parse().ok()).unwrap_or(usual)
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A built guest.
pub(crate) fn guest(name: &str) -> String {
    repository(&format!("workloads/dist/{name}.wasm"))
        .display()
        .to_string()
}

/// A component whose instances cannot be made: it traps in its start function.
pub(crate) const STILLBORN: &str = r#"(component
    (import "wasi:http/types@0.2.0" (instance $types
        (export "incoming-request" (type (sub resource)))
        (export "response-outparam" (type (sub resource)))))
    (alias export $types "incoming-request" (type $request))
    (alias export $types "response-outparam" (type $out))
    (core module $m
        (func $die unreachable) (start $die)
        (func (export "handle") (param i32 i32)))
    (core instance $i (instantiate $m))
    (func $handle (param "request" (own $request)) (param "response-out" (own $out))
        (canon lift (core func $i "handle")))
    (instance $handler (export "handle" (func $handle)))
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

/// The program, with a compile cache that all tests share.
pub(crate) fn sampan(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sampan"));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    command
        .args(arguments)
        .env("XDG_CACHE_HOME", cache)
        .env_remove("SAMPAN_LOG");
    command
}

/// Bash, with what a command changes of the environment.
pub(crate) fn bash(script: &str, like: &Command) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", script]).stdin(Stdio::null());
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Runs the program to its end.
pub(crate) fn done(arguments: &[&str]) -> Output {
    sampan(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts")
}

/// Standard output as text.
pub(crate) fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// Standard error as text.
pub(crate) fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A program that runs in the background. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (send, lines) = sync_channel(MAX_LINES);
        let said = send.clone();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            for line in stderr.split(b'\n') {
                let line = line.expect("readable");
                let line = String::from_utf8_lossy(&line);
                text.push_str(&line);
                text.push('\n');
                // Without a reader there is room for no more.
                let _ = said.try_send(line.into_owned());
            }
            text
        });
        Self {
            child,
            lines,
            seen: Vec::new(),
            errors: Some(errors),
        }
    }

    /// Waits for a line of output that this text is in.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        self.find(text).unwrap_or_else(|reason| {
            let why = match reason {
                RecvTimeoutError::Timeout => "in time",
                RecvTimeoutError::Disconnected => "before it ended",
            };
            let seen = std::mem::take(&mut self.seen);
            // Killed, so that its standard error ends too.
            let _ = self.child.kill();
            panic!("no line with `{text}` {why}: {seen:#?}\n{}", self.errors());
        })
    }

    /// The same, or why there is no such line.
    pub(crate) fn find(&mut self, text: &str) -> Result<String, RecvTimeoutError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.seen.iter().position(|line| line.contains(text)) {
                return Ok(self.seen.swap_remove(place));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.seen.push(self.lines.recv_timeout(left)?);
        }
    }

    /// Waits until it accepts connections.
    pub(crate) fn address(&mut self) -> SocketAddr {
        let line = self.line_with("listening on http://");
        let address = line.rsplit('/').next().expect("text after a slash");
        address.parse().expect("an address")
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a pid"), signal).expect("it runs");
    }

    /// Sends Ctrl-C and waits for the end: the exit status, and all of standard error.
    pub(crate) fn interrupt(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::INT);
        self.wait()
    }

    /// Waits for the end: the exit status, and all of standard error.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("it can be waited for");
        (status, self.errors())
    }

    fn errors(&mut self) -> String {
        let errors = self.errors.take().expect("asked for once");
        errors.join().expect("reading does not panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A response, whole.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(
    address: SocketAddr,
    method: &str,
    host: &str,
    path: &str,
    body: impl Into<Bytes>,
) -> Response {
    let stream = TcpStream::connect(address).await.expect("it accepts");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", host);
    let request = request
        .body(Full::new(body.into()))
        .expect("a good request");
    let (head, body) = sender
        .send_request(request)
        .await
        .expect("a response")
        .into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes();
    drop(sender);
    // The connection ends with its last handle; an error after the response is none of ours.
    let _ = connection.await;
    let body = String::from_utf8(body.to_vec()).expect("UTF-8");
    Response {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    }
}

/// `GET`, on a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Response {
    send(address, "GET", host, path, "").await
}

/// How long `hello.test` took each time, asked on one connection: once a `pause`, or one after the
/// other.
pub(crate) async fn latencies(
    at: SocketAddr,
    time: Duration,
    pause: Option<Duration>,
) -> Vec<Duration> {
    let stream = TcpStream::connect(at).await.expect("it accepts");
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("HTTP/1.1");
    let connection = tokio::spawn(connection);
    let mut pause = pause.map(tokio::time::interval);
    let mut times = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Some(pause) = &mut pause {
            pause.tick().await;
        }
        let request = http::Request::get("/").header("host", "hello.test");
        let request = request
            .body(Full::new(Bytes::new()))
            .expect("a good request");
        let start = Instant::now();
        sender.ready().await.expect("the connection stays");
        let response = sender.send_request(request).await.expect("a response");
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.expect("a whole body");
        times.push(start.elapsed());
    }
    drop(sender);
    // It ends with its last handle.
    let _ = connection.await;
    times
}

/// Asks until an answer is as wanted, or panics with the last one.
pub(crate) async fn eventually(
    address: SocketAddr,
    host: &str,
    path: &str,
    wanted: impl Fn(&Response) -> bool,
) -> Response {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = get(address, host, path).await;
        if wanted(&response) {
            return response;
        }
        assert!(
            Instant::now() < deadline,
            "the last answer was {response:?}"
        );
        tokio::task::yield_now().await;
    }
}

/// A directory with these files.
pub(crate) fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::File::create(path)
            .and_then(|mut file| file.write_all(bytes))
            .expect("a file");
    }
    directory
}
