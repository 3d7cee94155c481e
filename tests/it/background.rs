//! `up -d` and `down`: a node in the background.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Instant,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

use crate::rig::{PATIENCE, Running, bash, directory, err, get, guest, out, sampan, send};

/// A user with directories of their own. What runs for the user is ended with it.
struct User(tempfile::TempDir);

impl User {
    fn new() -> Self {
        let user = Self(directory(&[]));
        user.app("shop", 1);
        user
    }

    fn place(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = sampan(arguments);
        command
            .current_dir(self.0.path())
            .env("XDG_STATE_HOME", self.place("state"))
            .env("XDG_RUNTIME_DIR", self.place("run"))
            .env_remove("SAMPAN_API")
            .stdin(Stdio::null());
        command
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .output()
            .expect("the program starts")
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        out(&output)
    }

    /// What a verb that fails says.
    fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let said = err(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        said
    }

    /// Writes the spec of an app with a volume and a store: `APP.toml`, and `sampan.toml` too.
    fn app(&self, name: &str, replicas: u32) {
        let text = format!(
            "app = '{name}'\n[volume.data]\n[service.web]\ncomponent = '{}'\n\
             replicas = {replicas}\nroute = ['{name}.test/']\n[service.web.allow]\n\
             files = [{{ volume = 'data', guest = '/data', access = 'read-write' }}]\n\
             keyvalue = ['kept']\n",
            guest("env-and-files")
        );
        for file in [format!("{name}.toml"), "sampan.toml".to_owned()] {
            fs::write(self.place(&file), &text).expect("written");
        }
    }

    /// The node, if it answers.
    fn node(&self) -> Option<Value> {
        let nodes = self.ask(&["get", "nodes", "-o", "json"]);
        let nodes: Value = serde_json::from_str(&out(&nodes)).ok()?;
        Some(nodes[0].clone())
    }

    fn pid(&self) -> Pid {
        let pid = self.node().expect("it runs")["pid"].as_i64();
        let pid = pid.and_then(|pid| i32::try_from(pid).ok());
        Pid::from_raw(pid.expect("a number")).expect("a process")
    }

    fn address(&self) -> SocketAddr {
        let node = self.node().expect("it runs");
        let address = node["http"].as_str().expect("an address");
        address.parse().expect("an address")
    }

    /// What was kept is there for whichever way the app is run.
    async fn read_in_the_foreground(&self) {
        let up = self.command(&["up", "-f", "shop.toml", ANY[0], ANY[1]]);
        let mut up = Running::start(up);
        let note = get(up.address(), "shop.test", "/file/note").await;
        assert_eq!((note.status, note.body.as_str()), (200, "kept"));
        let (status, said) = up.interrupt();
        assert!(status.success(), "{said}");
    }

    /// Waits until there are so many pods: those that go are drained first.
    fn has(&self, pods: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.pods() != pods {
            assert!(Instant::now() < deadline, "{} pods", self.pods());
        }
    }

    fn pods(&self) -> usize {
        let pods = self.must(&["ps", "-o", "json"]);
        let pods: Value = serde_json::from_str(&pods).expect("JSON");
        pods.as_array().expect("a list").len()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.node().is_some() {
            // It may have ended meanwhile.
            let _ = kill_process(self.pid(), Signal::KILL);
        }
    }
}

const ANY: [&str; 2] = ["--http", "127.0.0.1:0"];

/// Waits until a process is gone: a child of another process than this one.
fn ended(pid: Pid) {
    let deadline = Instant::now() + PATIENCE;
    let process = format!("/proc/{}", pid.as_raw_nonzero());
    let leads = || {
        let stat = fs::read_to_string(format!("{process}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    // The first thread may be gone while others still hold the sockets.
    let has_threads =
        || fs::read_dir(format!("{process}/task")).is_ok_and(|threads| threads.count() > 1);
    let runs = || leads() || has_threads();
    while runs() {
        assert!(Instant::now() < deadline, "it still runs");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn an_app_lives_in_the_background_until_it_is_ended() {
    let user = User::new();
    // A script holds a lock, in the way of shells: its children have it too.
    let up = user.command(&["up", "-d", ANY[0], ANY[1]]);
    let mut script = bash(r#"exec 9>lock && flock 9 && exec "$0" "$@""#, &up);
    script
        .arg(up.get_program())
        .args(up.get_args())
        .current_dir(user.0.path());
    let output = script.output().expect("bash starts");
    assert!(output.status.success(), "{}", err(&output));
    let told = out(&output);
    let lock = File::open(user.place("lock")).expect("there");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("no process has it");
    let at = user.address();
    assert!(told.contains("service/web added"), "{told}");
    let url = format!("web answers at http://shop.test:{}/", at.port());
    assert!(told.contains(&url), "{told}");
    let pid = user.pid();
    let session = rustix::process::getsid(Some(pid)).expect("it runs");
    assert_eq!(session, pid, "a session of its own");
    let put = send(at, "PUT", "shop.test", "/file/note", "kept").await;
    assert_eq!(put.status, 201, "{put:?}");
    assert_eq!(get(at, "shop.test", "/print?text=heard").await.status, 204);
    assert!(user.must(&["logs", "web"]).contains("heard"));
    // Again: what has changed is applied, by the same process.
    assert!(user.must(&["up", "-d"]).contains("service/web unchanged"));
    user.must(&["up", "-d", "--scale", "web=3"]);
    user.has(3);
    assert_eq!(user.pid(), pid);
    user.app("shop", 2);
    user.must(&["up", "--detach"]);
    user.has(2);
    // Another app joins it, and the node stays as long as there is one. What the first one kept is
    // let go of when it ends.
    user.app("blog", 1);
    user.must(&["up", "-d"]);
    user.has(3);
    assert_eq!(user.pid(), pid);
    let told = user.must(&["down", "-f", "shop.toml"]);
    assert!(told.contains("volume data is kept"), "{told}");
    assert!(
        told.contains("`sampan down shop --volumes` removes it"),
        "{told}"
    );
    user.has(1);
    assert_eq!(user.pid(), pid);
    user.read_in_the_foreground().await;
    user.must(&["down", "blog"]);
    ended(pid);
    assert!(user.node().is_none());
    user.read_in_the_foreground().await;
    // What it keeps can be written and read all the same, by a node that is there for that alone.
    user.must(&["volume", "export", "shop/data", "-o", "data.tar"]);
    let mut listed = Command::new("tar");
    listed.arg("-tf").arg(user.place("data.tar"));
    assert!(out(&listed.output().expect("tar")).contains("note"));
    user.must(&["volume", "import", "shop/data", "data.tar"]);
    let said = user.refused(1, &["volume", "export", "shop/none", "-o", "none.tar"]);
    assert!(said.contains("none"), "{said}");
    assert!(user.node().is_none());
    // There is nothing to end, but something to remove.
    user.must(&["down", "shop"]);
    let told = user.must(&["down", "shop", "--volumes"]);
    assert!(told.contains("volume data is removed"), "{told}");
    assert!(!user.place("state/sampan/volumes/shop").exists());
}

#[test]
fn what_cannot_start_is_told_at_once_and_with_its_exit_code() {
    let user = User::new();
    fs::write(user.place("bad.toml"), "app = 'bad'\nsevice = 1\n").expect("written");
    let said = user.refused(2, &["up", "-d", "-f", "bad.toml"]);
    assert!(said.contains("unknown key `sevice`"), "{said}");
    let missing = "app = 'bad'\n[service.web]\ncomponent = 'none.wasm'\n";
    fs::write(user.place("bad.toml"), missing).expect("written");
    user.refused(2, &["up", "-d", "-f", "bad.toml"]);
    assert!(!user.place("state").exists(), "nothing was started");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let http = taken.local_addr().expect("bound").to_string();
    let said = user.refused(1, &["up", "-d", "--http", &http]);
    assert!(
        said.contains(&format!("cannot listen on `{http}`")),
        "{said}"
    );
    assert!(user.node().is_none());
    // A pod that does not get ready: the app stays, to be looked at.
    let slow = format!(
        "app = 'bad'\n[service.web]\ncomponent = '{}'\nisolation = 'pod'\n\
         env = {{ START_MS = '600000' }}\nreadiness.http = '/started'\n\
         rollout.progress_deadline = '1s'\n",
        guest("slow-start")
    );
    fs::write(user.place("bad.toml"), slow).expect("written");
    let said = user.refused(1, &["up", "-d", "-f", "bad.toml", ANY[0], ANY[1]]);
    assert!(
        said.contains("the rollout has failed: no progress for 1s"),
        "{said}"
    );
    user.has(1);
    let said = user.refused(2, &["up", "-d", "--http", "127.0.0.1:1"]);
    assert!(said.contains("a node runs already"), "{said}");
    let pid = user.pid();
    user.must(&["down", "bad"]);
    ended(pid);
}

#[test]
fn a_killed_node_brings_no_app_back_that_was_ended() {
    let user = User::new();
    user.must(&["up", "-d", ANY[0], ANY[1]]);
    let pid = user.pid();
    kill_process(pid, Signal::KILL).expect("it runs");
    ended(pid);
    assert!(user.must(&["down"]).contains("service/web deleted"));
    user.app("blog", 1);
    user.must(&["up", "-d", ANY[0], ANY[1]]);
    user.has(1);
    // Killed again, it goes on with what was not ended.
    let pid = user.pid();
    kill_process(pid, Signal::KILL).expect("it runs");
    ended(pid);
    assert!(
        user.must(&["up", "-d", ANY[0], ANY[1]])
            .contains("service/web unchanged")
    );
}

#[test]
fn an_app_runs_in_one_place_at_a_time() {
    let user = User::new();
    let mut up = Running::start(user.command(&["up", ANY[0], ANY[1]]));
    up.address();
    for verb in [&["up", "-d"][..], &["down"]] {
        let said = user.refused(1, verb);
        assert!(said.contains("runs in the foreground"), "{said}");
    }
    // A node that does not see its socket is kept from what the app keeps.
    let mut other = user.command(&["up", "-d", ANY[0], ANY[1]]);
    other.env("XDG_RUNTIME_DIR", user.place("elsewhere"));
    let refused = other.output().expect("the program starts");
    let said = err(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains(&format!("process {} uses", up.id())),
        "{said}"
    );
    let (status, said) = up.interrupt();
    assert!(status.success(), "{said}");
    user.must(&["up", "-d", ANY[0], ANY[1]]);
    let said = user.refused(1, &["up", ANY[0], ANY[1]]);
    assert!(said.contains("runs in the background"), "{said}");
    // The node of a person is used, and not ended.
    let pid = user.pid();
    user.must(&["down"]);
    ended(pid);
    let mut serve = Running::start(user.command(&["serve", ANY[0], ANY[1]]));
    serve.address();
    serve.line_with("the API is at");
    user.must(&["up", "-d"]);
    user.must(&["down"]);
    assert!(user.node().is_some());
    let (status, said) = serve.interrupt();
    assert!(status.success(), "{said}");
}

#[tokio::test]
async fn what_runs_in_the_background_is_built_before_it() {
    let user = User::new();
    let spec = "app = 'shop'\n[service.web]\ncomponent = 'out/web.wasm'\nroute = ['shop.test/']\n\
                build = 'mkdir -p out && cp source.wasm out/web.wasm && echo made it'\n";
    fs::write(user.place("sampan.toml"), spec).expect("written");
    let said = user.refused(2, &["up", "-d", ANY[0], ANY[1]]);
    assert!(said.contains("`--build` makes it with `mkdir"), "{said}");
    let built = ["up", "-d", "--build", ANY[0], ANY[1]];
    let said = user.refused(1, &built);
    assert!(said.contains("the build of web failed"), "{said}");
    assert!(user.node().is_none(), "nothing was started");
    let source = user.place("source.wasm");
    for (revision, component) in [(1, "hello"), (2, "counter")] {
        fs::copy(guest(component), &source).expect("copied");
        let output = user.ask(&built[..3 + usize::from(revision == 1) * 2]);
        let said = out(&output) + &err(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("made it"), "{said}");
        assert_eq!(get(user.address(), "shop.test", "/").await.status, 200);
        let service = user.must(&["get", "services", "web", "-o", "json"]);
        let service: Value = serde_json::from_str(&service).expect("JSON");
        assert_eq!(service["revision"], revision, "{service}");
    }
    // A build that fails leaves what runs as it is.
    fs::remove_file(&source).expect("removed");
    user.refused(1, &["up", "-d", "--build"]);
    assert!(user.must(&["up", "-d"]).contains("service/web unchanged"));
    assert_eq!(get(user.address(), "shop.test", "/").await.status, 200);
    let pid = user.pid();
    user.must(&["down"]);
    ended(pid);
}

#[test]
fn what_belongs_to_a_profile_runs_for_as_long_as_the_profile_is_asked_for() {
    let user = User::new();
    let component = guest("hello");
    let spec = format!(
        "app = 'shop'\n[service.web]\ncomponent = '{component}'\n\
         [service.peek]\ncomponent = '{component}'\nprofiles = ['debug', 'dev']\n"
    );
    fs::write(user.place("sampan.toml"), spec).expect("written");
    let told = user.must(&["up", "-d", "--profile", "debug", ANY[0], ANY[1]]);
    assert!(told.contains("service/peek added"), "{told}");
    user.has(2);
    let told = user.must(&["up", "-d", "--profile", "dev"]);
    assert!(told.contains("service/peek unchanged"), "{told}");
    let told = user.must(&["up", "-d"]);
    assert!(told.contains("service/peek deleted"), "{told}");
    user.has(1);
    // What `down` ends is the app, whichever profiles are on.
    user.must(&["up", "-d", "--profile", "debug"]);
    user.has(2);
    let pid = user.pid();
    let told = user.must(&["down"]);
    assert!(told.contains("service/peek deleted"), "{told}");
    ended(pid);
}
