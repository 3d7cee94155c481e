//! The daemon with real guests and real sockets: nothing is lost while everything changes.
//!
//! `SAMPAN_ROLLOUTS`, `SAMPAN_CLIENTS`, `SAMPAN_KILLS` and `SAMPAN_MIN_READY` make the tests as long
//! as one likes.

#![allow(
    clippy::print_stderr,
    reason = "figures that are printed with `--nocapture`"
)]

mod autoscale;
mod bad;
mod carried;
mod commands;
mod control;
mod denied;
mod etcd;
mod full;
mod jobs;
mod keyvalue;
mod killed;
mod load;
mod log;
mod lost;
mod outage;
mod panics;
mod printed;
mod schedules;
mod secrets;
mod slow;
mod soak;
mod sqlite;
mod statics;
mod verbs;
mod volumes;
mod whole;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::rig::{Running, directory, done, err, guest, out, sampan, times};

/// A daemon with a directory of its own, in which the spec of its one app is too.
struct Daemon {
    running: Option<Running>,
    directory: tempfile::TempDir,
    /// Variables of its environment.
    variables: Vec<(&'static str, String)>,
    /// Arguments beside those that each daemon has.
    more: Vec<String>,
    /// The most address space that it may have.
    address_space_mib: Option<u64>,
    /// The size of the file system that its data is on, in place of the one of everything else.
    disk_mib: Option<u64>,
}

impl Daemon {
    fn start() -> Self {
        Self::start_with("")
    }

    /// A daemon of a node with these limits.
    fn start_with(limits: &str) -> Self {
        let mut daemon = Self::new();
        std::fs::write(daemon.place("node.toml"), limits).expect("written");
        daemon.launch();
        daemon
    }

    /// One that is not started yet.
    fn new() -> Self {
        Self {
            running: None,
            directory: directory(&[("node.toml", b"")]),
            variables: Vec::new(),
            more: Vec::new(),
            address_space_mib: None,
            disk_mib: None,
        }
    }

    /// Starts it, or starts it again.
    fn launch(&mut self) {
        self.running = Some(Running::start(self.command()));
    }

    /// The program, under the limits that it has.
    fn program(&self, arguments: &[&str]) -> Command {
        let program = sampan(arguments);
        let mut limited = match (self.address_space_mib, self.disk_mib) {
            (None, None) => return program,
            (Some(mib), _) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--as={}", mib << 20));
                limited
            }
            (None, Some(mib)) => self.on_small_disk(mib),
        };
        limited.arg(program.get_program()).args(arguments);
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited
    }

    /// Runs what follows with a file system in memory at the data directory, which it alone sees and
    /// which goes with it.
    fn on_small_disk(&self, mib: u64) -> Command {
        let data = self.place("data");
        std::fs::create_dir_all(&data).expect("made");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        command.arg(format!(
            "mount -t tmpfs -o size={mib}m,mode=700 none '{data}' && exec \"$0\" \"$@\""
        ));
        command
    }

    /// Whether the system lets this user make one.
    fn has_small_disk(&self) -> bool {
        let tried = self.on_small_disk(1).arg("true").output();
        tried.is_ok_and(|it| it.status.success())
    }

    /// What starts it.
    fn command(&self) -> Command {
        let (data, api, limits) = (self.place("data"), self.api(), self.place("node.toml"));
        let mut arguments = vec![
            "serve",
            "--data",
            &data,
            "--api",
            &api,
            "--http",
            "127.0.0.1:0",
            "--config",
            &limits,
        ];
        arguments.extend(self.more.iter().map(String::as_str));
        let mut command = self.program(&arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("it has been started")
    }

    fn place(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn api(&self) -> String {
        self.place("api.sock")
    }

    /// Runs a verb against it.
    fn ask(&self, arguments: &[&str]) -> Output {
        let api = self.api();
        let arguments: Vec<_> = arguments.iter().copied().chain(["--api", &api]).collect();
        done(&arguments)
    }

    /// The same, which must succeed.
    fn must(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let code = output.status.code();
        assert_eq!(code, Some(0), "{arguments:?}: {}", err(&output));
        out(&output)
    }

    /// Writes the spec of its app.
    fn spec(&self, text: &str) -> String {
        let path = self.place("sampan.toml");
        std::fs::write(&path, format!("app = 'a'\n{text}")).expect("written");
        path
    }

    /// Applies a spec and waits for what comes of it.
    fn apply(&self, text: &str) {
        let path = self.spec(text);
        self.must(&["apply", "-f", &path, "--wait"]);
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let with: Vec<_> = arguments.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.must(&with)).expect("JSON")
    }

    /// One of its services.
    fn service(&self, name: &str) -> Value {
        let found = self.json(&["get", "services", name]);
        match found {
            Value::Array(mut all) => all.remove(0),
            one => one,
        }
    }

    /// All events it keeps, the oldest first.
    fn events(&self) -> Vec<Value> {
        let text = self.must(&["events", "--json"]);
        let event = |line| serde_json::from_str(line).expect("JSON");
        text.lines().map(event).collect()
    }
}

/// A guest as a component of its own, which differs from the original in nothing that matters.
fn variant(name: &str, number: u8, directory: &Path) -> PathBuf {
    let mut bytes = std::fs::read(guest(name)).expect("a guest");
    // A custom section with the name `v` and one byte.
    bytes.extend([0, 3, 1, b'v', number]);
    let path = directory.join(format!("{name}-{number}.wasm"));
    std::fs::write(&path, bytes).expect("written");
    path
}
