//! Makes components, as `build` of the spec says: one command after the other.

mod tools;

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, pipe},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use sampan_core::{
    name::Name,
    object::{self, App},
};
use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe as pipes,
    task::{self, JoinHandle},
    time::timeout,
};

use super::{
    interrupts::Interrupts,
    output::{one_line, time},
    up::printer::Printer,
};

/// For how long a build may end by itself once it was asked to.
const ENDING: Duration = Duration::from_secs(2);
/// For how long what a build has left running may print after its end.
const LINGERING: Duration = Duration::from_millis(200);
/// The longest line of a build's output. The rest is a line of its own.
const MAX_LINE_BYTES: usize = 8 << 10;

/// One command, and the services and jobs whose components it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Build {
    pub(super) command: String,
    /// Never empty. Output is shown under the first.
    pub(super) names: Vec<Name>,
    /// What all of them watch.
    pub(super) watch: BTreeSet<PathBuf>,
}

/// Why a build has made nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was told to stop.
    Stopped,
    /// It could not be started.
    NotStarted(io::Error),
    /// It ended badly; which program its shell did not find, if that was why.
    Ended(ExitStatus, Option<String>),
}

impl Build {
    /// The builds of an app. What has the same command is built once.
    pub(super) fn of(app: &App) -> Vec<Self> {
        let mut builds: Vec<Self> = Vec::new();
        for (name, object::Build { command, watch }) in &app.builds {
            let place = builds.iter().position(|build| build.command == *command);
            let place = place.unwrap_or_else(|| {
                builds.push(Self {
                    command: command.clone(),
                    names: Vec::new(),
                    watch: BTreeSet::new(),
                });
                builds.len() - 1
            });
            builds[place].names.push(name.clone());
            builds[place].watch.extend(watch.iter().cloned());
        }
        builds
    }

    /// The service or job under whose name its output is shown.
    pub(super) fn name(&self) -> &Name {
        &self.names[0]
    }

    /// Runs it to its end in the directory `base`, or until `stop` resolves: then its processes
    /// have been told to end before this returns. What it prints is shown as it comes.
    pub(super) async fn run(
        &self,
        base: &Path,
        printer: &Printer,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let others = self.names[1..].iter().map(|name| format!(", {name}"));
        let message = match self.names.len() {
            1 => format!("building: {}", self.command),
            _ => format!(
                "building {}{}: {}",
                self.name(),
                others.collect::<String>(),
                self.command
            ),
        };
        printer.own(self.name(), "Building", &one_line(&message));
        let (child, output) = start(&self.command, base).map_err(Failure::NotStarted)?;
        let mut missing = None;
        let line = |line: &str| {
            missing = tools::not_found(line).or(missing.take());
            printer.own(self.name(), "BuildOutput", line);
        };
        let status = ended(child, output, line, stop).await?;
        match status.success() {
            true => {
                let took = format!("built in {}", time(begun.elapsed()));
                printer.own(self.name(), "Built", &took);
                Ok(())
            }
            false => {
                let is_why =
                    |program: &String| status.code() == Some(tools::NOT_FOUND) || program == "zig";
                Err(Failure::Ended(status, missing.filter(is_why)))
            }
        }
    }

    /// Runs these builds one after the other. The error is the first that fails, as a sentence.
    pub(super) async fn all(
        builds: impl IntoIterator<Item = &Self>,
        base: &Path,
        printer: &Printer,
        interrupts: &mut Interrupts,
    ) -> anyhow::Result<()> {
        for build in builds {
            let stop = async {
                interrupts.next().await;
            };
            let run = build.run(base, printer, stop).await;
            run.map_err(|failure| anyhow::anyhow!(build.told(&failure)))?;
        }
        Ok(())
    }

    /// A failure with what failed, in a sentence.
    pub(super) fn told(&self, failure: &Failure) -> String {
        let names: Vec<_> = self.names.iter().map(Name::as_str).collect();
        format!(
            "the build of {} failed: `{}` {failure}",
            names.join(", "),
            one_line(&self.command)
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use std::os::unix::process::ExitStatusExt as _;
        match self {
            Self::Stopped => f.write_str("was interrupted"),
            Self::NotStarted(error) => write!(f, "cannot be started: {error}"),
            Self::Ended(status, missing) => {
                match (status.code(), status.signal()) {
                    (Some(code), _) => write!(f, "ended with exit code {code}")?,
                    (None, Some(signal)) => write!(f, "was ended by signal {signal}")?,
                    (None, None) => write!(f, "ended: {status}")?,
                }
                match missing {
                    Some(program) => write!(f, "; {}", tools::remedy(program)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What to do about a component that cannot be read, if the spec says how it is made.
pub(super) fn remedy(app: &App, name: &Name, error: &io::Error, has_built: bool) -> Option<String> {
    let build = app.builds.get(name)?;
    let command = one_line(&build.command);
    let is_missing = error.kind() == io::ErrorKind::NotFound;
    match (is_missing, has_built) {
        (false, _) => None,
        (true, false) => Some(format!("`--build` makes it with `{command}`")),
        (true, true) => Some(format!(
            "`{command}` ended well and did not make it: `component` has to be the file, and `static` the \
             directory, that it writes"
        )),
    }
}

/// A process that leads a group of its own. Dropped before it has ended, it ends with the group.
struct Leader {
    group: Option<Pid>,
    end: JoinHandle<io::Result<ExitStatus>>,
}

impl Leader {
    fn new(mut child: Child) -> Self {
        Self {
            group: i32::try_from(child.id()).ok().and_then(Pid::from_raw),
            end: task::spawn_blocking(move || child.wait()),
        }
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = (&mut self.end).await.map_err(io::Error::other).flatten();
        self.group = None;
        status
    }

    /// Tells all of its processes.
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // A group that is gone needs no signal.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn start(command: &str, base: &Path) -> io::Result<(Child, pipes::Receiver)> {
    // One pipe for both, so that lines come in the order in which they were written.
    let (output, input) = pipe()?;
    let output = pipes::Receiver::from_owned_fd(OwnedFd::from(output))?;
    let child = Command::new("/bin/sh")
        .args(["-c", command])
        .current_dir(base)
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        // Ctrl-C in a terminal is for this program, which tells the build.
        .process_group(0)
        .spawn()?;
    Ok((child, output))
}

/// Waits for the end of a build, and shows each line that it prints.
async fn ended(
    child: Child,
    output: pipes::Receiver,
    line: impl FnMut(&str),
    stop: impl Future<Output = ()>,
) -> Result<ExitStatus, Failure> {
    let mut leader = Leader::new(child);
    let end = async {
        tokio::select! {
            status = leader.wait() => return status.map_err(Failure::NotStarted),
            () = stop => {}
        }
        leader.signal(Signal::TERM);
        if timeout(ENDING, leader.wait()).await.is_err() {
            leader.signal(Signal::KILL);
            // It ends at once, so that nothing of it is left when this program is done.
            let _ = leader.wait().await;
        }
        Err(Failure::Stopped)
    };
    let lines = lines(output, line);
    tokio::pin!(end, lines);
    tokio::select! {
        () = &mut lines => end.await,
        status = &mut end => {
            // What it has left running may keep the pipe open for ever.
            let _ = timeout(LINGERING, lines).await;
            status
        }
    }
}

/// Shows each line until there is no more writer.
async fn lines(mut output: pipes::Receiver, mut show: impl FnMut(&str)) {
    let mut held = Vec::with_capacity(MAX_LINE_BYTES);
    let mut show_bytes = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_end();
        if !text.is_empty() {
            show(text);
        }
    };
    // An error is an end too: nothing more can be shown.
    while let Ok(1..) = output.read_buf(&mut held).await {
        // A progress bar goes back to the beginning of its line: each state of it is a line here.
        while let Some(end) = held.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            show_bytes(&held[..end]);
            held.drain(..=end);
        }
        if held.len() >= MAX_LINE_BYTES {
            show_bytes(&held);
            held.clear();
        }
    }
    show_bytes(&held);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(text: &str) -> App {
        let input = sampan_core::spec::Input {
            path: "sampan.toml",
            text,
            environment: &|_| None,
            read_file: &|_| Err("there are no files".to_owned()),
            profiles: &[],
        };
        sampan_core::spec::load(&input).expect("a good spec")
    }

    #[test]
    fn the_same_command_is_one_build() {
        let app = app(r#"
            app = "shop"
            [service.web]
            component = "web.wasm"
            build = "make"
            watch = ["web"]
            [service.api]
            component = "api.wasm"
            build = "make"
            watch = ["api", "web"]
            [service.plain]
            component = "plain.wasm"
            [job.migrate]
            component = "migrate.wasm"
            build = "make migrate"
        "#);
        let builds = Build::of(&app);
        let shown: Vec<_> = builds
            .iter()
            .map(|build| {
                let names: Vec<_> = build.names.iter().map(Name::as_str).collect();
                (build.command.as_str(), names, build.watch.len())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("make", vec!["api", "web"], 2),
                ("make migrate", vec!["migrate"], 0)
            ]
        );
    }

    async fn run(command: &str, stop: impl Future<Output = ()>) -> (Vec<String>, String) {
        let (child, output) = start(command, Path::new("/")).expect("it starts");
        let mut seen = Vec::new();
        let end = ended(child, output, |line| seen.push(line.to_owned()), stop).await;
        let end = match end {
            Ok(status) => Failure::Ended(status, None).to_string(),
            Err(failure) => failure.to_string(),
        };
        (seen, end)
    }

    #[tokio::test]
    async fn lines_come_in_their_order_with_the_exit_code() {
        let long = MAX_LINE_BYTES + 10;
        let command = format!(
            "echo out; echo err >&2; pwd; printf '10%%\\r20%%\\r\\n\\n'; \
             printf '%{long}s' x | tr ' ' y; exit 7"
        );
        let (seen, end) = run(&command, std::future::pending()).await;
        assert_eq!(seen[..5], ["out", "err", "/", "10%", "20%"]);
        assert_eq!(seen[5..].concat().len(), long);
        assert_eq!(end, "ended with exit code 7");
    }

    #[tokio::test]
    async fn what_it_leaves_running_is_not_waited_for() {
        let (seen, end) = run("echo begun; sleep 600 & echo $!", std::future::pending()).await;
        assert_eq!(end, "ended with exit code 0");
        let left: i32 = seen[1].parse().expect("a process id");
        let left = Pid::from_raw(left).expect("a process id");
        rustix::process::kill_process(left, Signal::KILL).expect("it runs");
    }

    #[tokio::test]
    async fn told_to_stop_it_ends_with_its_children() {
        let directory = tempfile::tempdir().expect("a directory");
        let mark = directory.path().join("mark");
        // The child holds a lock for as long as it lives; the shell would go on without it.
        let command = format!(
            "trap '' TERM; flock {0} sh -c 'echo held; exec sleep 600'; sleep 600",
            mark.display()
        );
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut stop = Some(stop);
        let (child, output) = start(&command, Path::new("/")).expect("it starts");
        let held = |_: &str| drop(stop.take());
        let end = ended(child, output, held, async {
            // A sender that is gone is what this waits for.
            let _ = stopped.await;
        });
        assert!(matches!(end.await, Err(Failure::Stopped)));
        let free = Command::new("flock").arg(&mark).arg("true").status();
        assert!(free.expect("it starts").success());
    }
}
