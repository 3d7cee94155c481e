//! An etcd of the distribution: members on free ports, in a directory of their own.
//!
//! Where it is not installed a test says so and does nothing, unless `SAMPAN_SERVERS=required` is in
//! the environment, as CI has it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sampan_store::{Etcd, EtcdOptions, EtcdTls};

/// A test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How fast members notice that one is missing.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As they are set from the start.
    Default,
    /// Three times as fast, for tests that are not about it.
    Fast,
}

/// The members of one etcd, which end with this.
pub(crate) struct Cluster {
    program: PathBuf,
    folder: tempfile::TempDir,
    pace: Pace,
    more: Vec<String>,
    scheme: &'static str,
    ports: Vec<(u16, u16)>,
    children: Vec<Option<Child>>,
}

/// The program, if it is installed.
fn program() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').map(|place| Path::new(place).join("etcd"));
    let found = places.find(|it| it.exists());
    if found.is_none() {
        let required = std::env::var("SAMPAN_SERVERS").is_ok_and(|it| it == "required");
        assert!(
            !required,
            "`etcd` is not installed, and SAMPAN_SERVERS says `required`"
        );
        println!("SKIPPED: `etcd` is not installed");
    }
    found
}

/// A directory whose disk is as fast as there is one: what is killed here are processes.
fn folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).unwrap()
}

/// Pairs of ports on which nothing listens now.
pub(crate) fn free_ports(count: usize) -> Vec<(u16, u16)> {
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let all: Vec<_> = (0..count).map(|_| (listen(), listen())).collect();
    let port = |it: &TcpListener| it.local_addr().unwrap().port();
    all.iter().map(|(a, b)| (port(a), port(b))).collect()
}

impl Cluster {
    /// So many members, all of them up, which take what a store has to.
    pub(crate) fn start(count: usize, pace: Pace) -> Option<Self> {
        let large = ["--max-txn-ops=10000", "--max-request-bytes=10485760"];
        let mut cluster = Self::new(count, pace, "http", large.map(str::to_owned).to_vec())?;
        cluster.spawn_all();
        cluster.wait();
        Some(cluster)
    }

    /// One member, as it is set from the start.
    pub(crate) fn as_it_comes() -> Option<Self> {
        let mut cluster = Self::new(1, Pace::Default, "http", Vec::new())?;
        cluster.spawn_all();
        cluster.wait();
        Some(cluster)
    }

    /// One member that asks for certificates, which may not be up yet.
    pub(crate) fn secured(folder: &Path) -> Option<Self> {
        let file = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
        let more = vec![
            file("cert-file", "server"),
            file("key-file", "server.key"),
            file("trusted-ca-file", "ca"),
            "--client-cert-auth".to_owned(),
        ];
        let mut cluster = Self::new(1, Pace::Fast, "https", more)?;
        cluster.spawn_all();
        Some(cluster)
    }

    fn new(count: usize, pace: Pace, scheme: &'static str, more: Vec<String>) -> Option<Self> {
        Some(Self {
            program: program()?,
            folder: folder(),
            pace,
            more,
            scheme,
            ports: free_ports(count),
            children: Vec::new(),
        })
    }

    fn spawn_all(&mut self) {
        for member in 0..self.ports.len() {
            let child = self.spawn(member);
            self.children.push(Some(child));
        }
    }

    fn spawn(&self, member: usize) -> Child {
        let (client, peer) = self.ports[member];
        let (client, peer) = (url(self.scheme, client), url("http", peer));
        let members = self.ports.iter().enumerate();
        let members: Vec<_> = members
            .map(|(number, (_, peer))| format!("m{number}={}", url("http", *peer)))
            .collect();
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--name=m{member}"))
            .arg("--data-dir")
            .arg(self.folder.path().join(format!("m{member}")))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", members.join(",")))
            .args(&self.more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Pace::Fast = self.pace {
            command.args(["--heartbeat-interval=60", "--election-timeout=330"]);
        }
        command.spawn().unwrap()
    }

    /// Waits until there is a leader.
    pub(crate) fn wait(&self) {
        let begun = Instant::now();
        while self.leader().is_none() {
            assert!(begun.elapsed() < PATIENCE, "etcd does not get ready");
            std::thread::yield_now();
        }
    }

    /// The member that leads, if a member that answers knows one that runs.
    pub(crate) fn leader(&self) -> Option<usize> {
        let status: Vec<_> = self.ports.iter().map(|(port, _)| ids(*port)).collect();
        status.iter().flatten().find_map(|(_, leader)| {
            let led_by =
                |it: &Option<(String, String)>| it.as_ref().is_some_and(|it| it.0 == *leader);
            status.iter().position(led_by)
        })
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.ports
            .iter()
            .map(|(port, _)| url(self.scheme, *port))
            .collect()
    }

    pub(crate) fn options(&self) -> EtcdOptions {
        EtcdOptions {
            members: self.urls(),
            prefix: "/sampan/test".to_owned(),
            tls: EtcdTls::default(),
            user: None,
        }
    }

    /// A store that asks this member first, and the others after it.
    pub(crate) async fn open(&self, first: usize) -> Etcd {
        let mut options = self.options();
        options.members.rotate_left(first);
        Etcd::open(&options, PATIENCE).await.unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, member: usize) {
        let mut child = self.children[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Puts a backup in the place of what a member has, which does not run.
    pub(crate) fn restore(&self, member: usize, backup: &Path) {
        let data = self.folder.path().join(format!("m{member}"));
        std::fs::remove_dir_all(&data).unwrap();
        let peer = url("http", self.ports[member].1);
        let restored = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["snapshot", "restore"])
            .arg(backup)
            .arg("--data-dir")
            .arg(&data)
            .arg(format!("--name=m{member}"))
            .arg(format!("--initial-cluster=m{member}={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .output()
            .unwrap();
        assert!(restored.status.success(), "{restored:?}");
    }

    pub(crate) fn restart(&mut self, member: usize) {
        assert!(self.children[member].is_none());
        self.children[member] = Some(self.spawn(member));
    }

    /// SIGSTOP or SIGCONT.
    pub(crate) fn signal(&self, member: usize, signal: Signal) {
        let pid = Pid::from_child(self.children[member].as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            // Also one that is stopped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn url(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

/// What a member says it is, and which one leads: by the gateway for JSON.
fn ids(port: u16) -> Option<(String, String)> {
    let address = ([127, 0, 0, 1], port).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let request = "POST /v3/maintenance/status HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let field = |name: &str| {
        let (_, rest) = answer.split_once(&format!("\"{name}\":\""))?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    Some((field("member_id")?, field("leader")?))
}
