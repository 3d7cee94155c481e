//! The node in the background that `up -d` starts: how it is started, and how it sees itself.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    os::{
        fd::BorrowedFd,
        unix::{fs::OpenOptionsExt as _, net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use http::Method;
use rustix::io::{FdFlags, fcntl_setfd};
use sampan_core::view;
use serde::{Deserialize, Serialize};

use super::{EXIT_FAILED, Stop, output::Output};
use crate::{
    client::{Client, ClientError},
    config, file,
    serve::control::Ending,
};

/// How often it is looked whether the node answers.
const LOOK: Duration = Duration::from_millis(20);
/// How long a node may take to answer after its start.
const MAX_START: Duration = Duration::from_secs(60);
/// How long it is waited for its end.
const MAX_END: Duration = Duration::from_secs(30);
/// What the log of the program may have before it is begun anew.
const MAX_LOG_BYTES: u64 = 1 << 20;
/// What is shown of it when a start fails.
const MAX_SHOWN_BYTES: u64 = 16 << 10;

/// How a node in the background was started: kept while it is to run, in the file `background` below
/// its data directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Note {
    /// Where it was told to listen.
    pub(super) http: SocketAddr,
    /// Its configuration.
    pub(super) config: Option<PathBuf>,
}

impl Note {
    /// That of a node that should run, whether it does or not.
    pub(super) fn find() -> Option<Self> {
        let directory = config::data_directory().ok()?;
        let text = file::text(&directory.join(NOTE)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

/// The file with the note.
const NOTE: &str = "background";

/// A node in the background, as it sees itself.
pub(super) struct Background {
    data: PathBuf,
    note: Note,
    ending: Arc<Ending>,
}

impl Background {
    /// Leaves the session of the terminal from which it was started.
    pub(super) fn begin(data: &Path, note: Note) -> Self {
        // It fails where the process has one already.
        let _ = rustix::process::setsid();
        Self {
            data: data.to_owned(),
            note,
            ending: Arc::default(),
        }
    }

    /// What ends it with its last app.
    pub(super) fn ending(&self) -> Arc<Ending> {
        Arc::clone(&self.ending)
    }

    /// Notes that it is to run.
    pub(super) fn note(&self) -> anyhow::Result<()> {
        let path = self.data.join(NOTE);
        let text = serde_json::to_string(&self.note)?;
        fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// Resolves when it has come to its end, which is noted; never if it is none.
    pub(super) async fn ended(this: Option<&Self>) {
        let Some(this) = this else {
            return std::future::pending().await;
        };
        this.ending.asked().await;
        if let Err(error) = fs::remove_file(this.data.join(NOTE)) {
            tracing::warn!(%error, "the note of the node in the background stays");
        }
    }
}

/// A node that is started to look after what apps keep while no node runs. It has no apps, so that
/// [`end`] ends it.
pub(super) async fn caretaker(output: &Output) -> Result<Client, Stop> {
    let wanted = Wanted {
        socket: config::daemon_socket(),
        http: ([127, 0, 0, 1], 0).into(),
        config: None,
    };
    Ok(wanted.found(output).await?.client)
}

/// Ends a node, if it ends with its last app and has none, and waits until it is gone. Returns
/// whether it ends.
pub(super) async fn end(client: &Client) -> Result<bool, ClientError> {
    match client.ask(Method::POST, "/v1/stop").await {
        // It may have ended before its answer was read.
        Ok(()) | Err(ClientError::Unreachable { .. } | ClientError::Broken { .. }) => {}
        // It has other apps, or was not started by `up -d`.
        Err(ClientError::Refused(refused)) if refused.code != "Internal" => return Ok(false),
        Err(error) => return Err(error),
    }
    let begun = Instant::now();
    if let Client::Socket(socket) = client {
        while is_alive(socket) && begun.elapsed() < MAX_END {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(true)
}

/// Whether a process answers at a socket.
pub(super) fn is_alive(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// What a node is to be started with, if none runs.
pub(super) struct Wanted {
    pub(super) socket: PathBuf,
    pub(super) http: SocketAddr,
    pub(super) config: Option<PathBuf>,
}

/// A node that runs.
pub(super) struct Found {
    pub(super) client: Client,
    pub(super) node: view::Node,
    /// Whether it was started just now.
    pub(super) is_new: bool,
}

impl Wanted {
    /// The node that runs, or one that is started now and has opened its doors. What keeps it from
    /// doing so has been told.
    pub(super) async fn found(&self, output: &Output) -> Result<Found, Stop> {
        if is_alive(&self.socket) {
            return self.joined(false).await;
        }
        let log = Log::open()?;
        let mut child = self.start(&log)?;
        let bar = output.spinner("starting a node in the background".to_owned());
        let begun = Instant::now();
        let started = loop {
            if let Some(status) = child.try_wait().context("cannot wait for the node")? {
                break Some(status);
            }
            if self.answers(child.id()).await {
                break None;
            }
            if begun.elapsed() > MAX_START {
                // It may have ended just now.
                let _ = child.kill();
                break Some(child.wait().context("cannot wait for the node")?);
            }
            tokio::time::sleep(LOOK).await;
        };
        bar.finish_and_clear();
        match started {
            None => self.joined(true).await,
            // Another one was quicker.
            Some(_) if is_alive(&self.socket) => self.joined(false).await,
            Some(status) => Err(log.failed(status, output)),
        }
    }

    async fn joined(&self, is_new: bool) -> Result<Found, Stop> {
        let client = Client::Socket(self.socket.clone());
        let nodes: Vec<view::Node> = client.get("/v1/nodes").await?;
        let node = nodes
            .into_iter()
            .next()
            .context("the node says nothing of itself")?;
        Ok(Found {
            client,
            node,
            is_new,
        })
    }

    async fn answers(&self, pid: u32) -> bool {
        is_alive(&self.socket) && self.joined(true).await.is_ok_and(|it| it.node.pid == pid)
    }

    /// Starts a process that has nothing of this one but its environment and its user.
    fn start(&self, log: &Log) -> anyhow::Result<Child> {
        let program = std::env::current_exe().context("cannot find this program")?;
        keep_descriptors();
        let mut command = Command::new(program);
        command
            .arg0("sampan")
            .args(["serve", "--background", "--http", &self.http.to_string()])
            .arg("--api")
            .arg(&self.socket)
            .arg("--data")
            .arg(&log.directory);
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.file.try_clone()?)
            .stderr(log.file.try_clone()?);
        command
            .spawn()
            .context("cannot start a node in the background")
    }
}

/// Has no descriptor of this process go to the processes that it starts: a shell may have left the
/// lock of a script open.
#[allow(unsafe_code)]
fn keep_descriptors() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|it| it.parse().ok());
        let Some(number) = number.filter(|number| *number > 2) else {
            continue;
        };
        // SAFETY: the number is that of a descriptor that was open a moment ago. It is used for one
        // system call that changes no file: if it has been closed meanwhile the call fails, and if
        // it is that of another file by now, that one is closed on exec like all that Rust opens.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        // The one that lists the directory is among them, and closed by now.
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
}

/// What the program says of itself in the background: `node.log` below the data directory.
struct Log {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    /// Where what the next node says begins.
    begin: u64,
}

impl Log {
    fn open() -> anyhow::Result<Self> {
        let directory = config::data_directory()?;
        let path = directory.join("node.log");
        let opened = || {
            if !file::own_directory(&directory)? {
                let told =
                    "others may write to the directory: `chmod go-w` makes it this user's own";
                return Err(io::Error::other(told));
            }
            let mut options = OpenOptions::new();
            options.create(true).append(true).read(true).mode(0o600);
            let file = options.open(&path)?;
            if file.metadata()?.len() > MAX_LOG_BYTES {
                file.set_len(0)?;
            }
            let begin = file.metadata()?.len();
            Ok((file, begin))
        };
        let opened = opened().with_context(|| format!("cannot write to `{}`", path.display()));
        let (file, begin) = opened?;
        Ok(Self {
            directory,
            path,
            file,
            begin,
        })
    }

    /// Shows what the node has said before its end.
    fn failed(&self, status: ExitStatus, output: &Output) -> Stop {
        let mut text = Vec::new();
        let mut read = || {
            let mut file = &self.file;
            let end = file.metadata()?.len();
            let from = self.begin.max(end.saturating_sub(MAX_SHOWN_BYTES));
            file.seek(SeekFrom::Start(from))?;
            file.take(MAX_SHOWN_BYTES).read_to_end(&mut text)
        };
        if let Err(error) = read() {
            output.talk(&format!("cannot read `{}`: {error}", self.path.display()));
        }
        let text = String::from_utf8_lossy(&text);
        for line in text.lines() {
            output.talk(line);
        }
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if text.is_empty() || code.is_none() {
            output.talk(&format!("the node in the background ended: {status}"));
        }
        Stop::Quiet(code.filter(|code| *code != 0).unwrap_or(EXIT_FAILED))
    }
}
