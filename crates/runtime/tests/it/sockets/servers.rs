//! PostgreSQL and Redis of the distribution, each on a free port and in a directory of its own.
//!
//! Where they are not installed a test says so and does nothing, unless `SAMPAN_SERVERS=required`
//! is in the environment, as CI has it.

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// User and group without rights: PostgreSQL does not run as root.
const UNPRIVILEGED: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(60);

/// The program, if it is installed.
fn find(name: &str, places: &[&str]) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(places.iter().copied());
    let found = places
        .map(|place| Path::new(place).join(name))
        .find(|it| it.exists());
    required(found, name)
}

/// What a test cannot do without, which is `name`.
#[expect(clippy::print_stderr, reason = "that a test did nothing is to be seen")]
pub(super) fn required<T>(found: Option<T>, name: &str) -> Option<T> {
    if found.is_none() {
        let required = std::env::var("SAMPAN_SERVERS").is_ok_and(|it| it == "required");
        assert!(
            !required,
            "`{name}` is not installed, and SAMPAN_SERVERS says `required`"
        );
        eprintln!("SKIPPED: `{name}` is not installed");
    }
    found
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

/// A server of a directory, which runs until this is dropped.
struct Server {
    command: Box<dyn Fn() -> Command + Send>,
    ready: Box<dyn Fn() -> io::Result<bool> + Send>,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start(
        directory: tempfile::TempDir,
        command: impl Fn() -> Command + Send + 'static,
        ready: impl Fn() -> io::Result<bool> + Send + 'static,
    ) -> Self {
        let child = command().spawn().expect("it starts");
        let server = Self {
            command: Box::new(command),
            ready: Box::new(ready),
            child,
            _directory: directory,
        };
        server.wait();
        server
    }

    fn wait(&self) {
        let start = Instant::now();
        while !(self.ready)().expect("it can be asked") {
            assert!(start.elapsed() < PATIENCE, "the server does not get ready");
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // SIGINT: PostgreSQL ends its clients' connections and keeps what was committed.
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("ours");
        self.child.wait().expect("it ends");
    }

    fn restart(&mut self) {
        self.stop();
        self.child = (self.command)().spawn().expect("it starts");
        self.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A command whose output is of no interest, not as root.
fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    // Where PostgreSQL's clients look for certificates, which root's home would not let them.
    command.env("HOME", "/nonexistent");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    if rustix::process::geteuid().is_root() {
        chown(directory.path(), Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("root may");
    }
    directory
}

pub(super) struct Postgres {
    pub(super) port: u16,
    server: Server,
}

impl Postgres {
    /// With the superuser `sampan`, who needs no password.
    pub(super) fn start() -> Option<Self> {
        let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
            .map(|found| found.flatten().map(|it| it.path().join("bin")).collect())
            .unwrap_or_default();
        versions.sort();
        let places: Vec<_> = versions.iter().filter_map(|it| it.to_str()).collect();
        // A link leads to where the other programs are.
        let initdb = find("initdb", &places)?
            .canonicalize()
            .expect("it is there");
        let program = |name: &str| initdb.with_file_name(name);
        let directory = directory();
        let data = directory.path().join("data");
        let made = quiet(&initdb)
            .args(["--username=sampan", "--auth=trust", "--no-sync", "--pgdata"])
            .arg(&data)
            .status();
        assert!(made.expect("it runs").success(), "initdb fails");
        let port = free_port();
        let (postgres, is_ready) = (program("postgres"), program("pg_isready"));
        let sockets = directory.path().to_owned();
        let command = move || {
            let mut command = quiet(&postgres);
            command.arg("-D").arg(&data).arg("-k").arg(&sockets);
            command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-F"]);
            command
        };
        let ready = move || {
            let asked = quiet(&is_ready)
                .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
                .status();
            Ok(asked?.success())
        };
        let server = Server::start(directory, command, ready);
        Some(Self { port, server })
    }

    pub(super) fn restart(&mut self) {
        self.server.restart();
    }
}

pub(super) struct Redis {
    pub(super) port: u16,
    server: Server,
}

impl Redis {
    /// With everything in memory.
    pub(super) fn start() -> Option<Self> {
        let redis = find("redis-server", &[])?;
        let (directory, port) = (directory(), free_port());
        let home = directory.path().to_owned();
        let command = move || {
            let mut command = quiet(&redis);
            command.current_dir(&home);
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--save", "", "--appendonly", "no"]);
            command
        };
        let ready = move || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok());
        let server = Server::start(directory, command, ready);
        Some(Self { port, server })
    }

    pub(super) fn restart(&mut self) {
        self.server.restart();
    }
}
