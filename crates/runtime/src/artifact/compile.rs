//! Compiling a component to native code in a process of its own.
//!
//! A component of one megabyte can make the compiler ask for twelve gigabytes and then abort. So
//! the compiler runs in a child, which gives itself limits on address space and CPU time before it
//! reads a byte, and which the parent stops after a wall-clock limit. Whatever happens to the
//! child, the parent lives and can say which limit was hit.

pub mod child;
mod places;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create};
use sampan_core::quantity::format_duration;
pub use sampan_core::spec::node::CompileLimits;
use tokio::io::AsyncReadExt as _;

use crate::{
    engine::CodeClass,
    threads::{self, off_thread},
};
use places::{Owner, Places};

/// Compilations that run at once on one node, of one app half of them at most.
const MAX_COMPILATIONS: usize = 4;
/// Bytes of the child's last words that are kept.
const MAX_LAST_WORDS_BYTES: u64 = 16 << 10;

/// Why a component could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler refuses the component.
    #[error("the component does not compile: {0}")]
    Invalid(String),
    /// The compiler asked for more memory than it may have.
    #[error("compiling needs more memory than `compile.memory` of the node, {} MiB", .0 >> 20)]
    Memory(u64),
    /// The compiler used its CPU time up.
    #[error("compiling takes more CPU time than `compile.cpu` of the node, {}", format_duration(*.0))]
    Cpu(Duration),
    /// The compiler took too long.
    #[error("compiling takes longer than `compile.time` of the node, {}", format_duration(*.0))]
    Wall(Duration),
    /// The compiler crashed or was killed.
    #[error("the compiling process ended with {status}: {last_words}")]
    Crashed {
        /// How it ended.
        status: ExitStatus,
        /// What it wrote last.
        last_words: String,
    },
    /// The compiler could not be started or talked to.
    #[error("cannot run the compiling process{}", threads::remedy(.0))]
    Process(#[from] io::Error),
}

/// Makes the command that runs [`child::run`].
pub type ChildCommand = Arc<dyn Fn() -> Command + Send + Sync>;

/// Compiles components, a few at a time.
pub(crate) struct Compiler {
    command: ChildCommand,
    limits: CompileLimits,
    places: Arc<Places>,
}

impl Compiler {
    pub(crate) fn new(command: ChildCommand, limits: CompileLimits) -> Self {
        Self {
            command,
            limits,
            places: Places::new(MAX_COMPILATIONS),
        }
    }

    /// Compiles `component` for engines of `class`, in a place of `owner`, which it may wait for.
    /// The code comes back in an anonymous file.
    pub(crate) async fn compile(
        &self,
        component: Bytes,
        class: CodeClass,
        owner: &Owner,
    ) -> Result<File, CompileError> {
        let _place = self.places.place(owner).await;
        let files = move || -> io::Result<_> {
            let mut input = anonymous_file("sampan-component")?;
            input.write_all(&component)?;
            input.rewind()?;
            Ok((input, anonymous_file("sampan-code")?))
        };
        let (input, output) = off_thread(files).await?;
        let (status, last_words) = self.run_child(input, output.try_clone()?, class).await?;
        self.judge(status, last_words).map(|()| output)
    }

    async fn run_child(
        &self,
        input: File,
        output: File,
        class: CodeClass,
    ) -> Result<(ExitStatus, String), CompileError> {
        let mut command = (self.command)();
        command
            .env_clear()
            .envs(child::environment(class, &self.limits))
            .stdin(input)
            .stdout(output)
            .stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command)
            // Ctrl-C on a terminal goes to the whole process group: what it means for the child is
            // for the parent to say.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let mut last_words = Vec::new();
        let run = async {
            (&mut stderr)
                .take(MAX_LAST_WORDS_BYTES)
                .read_to_end(&mut last_words)
                .await?;
            // What is beyond the limit is read and dropped: a full pipe would stop the child.
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
            child.wait().await
        };
        let status = match tokio::time::timeout(self.limits.wall, run).await {
            Ok(status) => status?,
            Err(_) => return Err(CompileError::Wall(self.limits.wall)),
        };
        Ok((
            status,
            String::from_utf8_lossy(&last_words).trim().to_owned(),
        ))
    }

    fn judge(&self, status: ExitStatus, last_words: String) -> Result<(), CompileError> {
        // `SIGXCPU` comes at the soft limit, `SIGKILL` at the hard one a second later.
        const CPU_SIGNALS: [i32; 2] = [24, 9];
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(child::EXIT_INVALID), _) => Err(CompileError::Invalid(last_words)),
            (_, Some(signal)) if CPU_SIGNALS.contains(&signal) => {
                Err(CompileError::Cpu(self.limits.cpu))
            }
            _ if is_out_of_memory(&last_words) => Err(CompileError::Memory(child::possible(
                self.limits.address_space_bytes,
            ))),
            _ => Err(CompileError::Crashed { status, last_words }),
        }
    }
}

fn anonymous_file(name: &str) -> io::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?.into())
}

/// Whether these are the words of a process whose allocator was told no.
fn is_out_of_memory(last_words: &str) -> bool {
    [
        "memory allocation of",
        "Cannot allocate memory",
        "out of memory",
    ]
    .iter()
    .any(|sign| last_words.contains(sign))
}

/// Reads a file from its start to its end.
pub(crate) fn read_whole(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(script: &'static str, limits: CompileLimits) -> Compiler {
        let command = move || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            command
        };
        Compiler::new(Arc::new(command), limits)
    }

    async fn fate(script: &'static str) -> Result<Vec<u8>, String> {
        let limits = CompileLimits {
            wall: Duration::from_secs(5),
            ..CompileLimits::default()
        };
        let class = CodeClass {
            concurrent: false,
            metered: false,
        };
        let mut file = compiler(script, limits)
            .compile(Bytes::from_static(b"component"), class, &None)
            .await
            .map_err(|error| error.to_string())?;
        Ok(read_whole(&mut file).expect("a readable file"))
    }

    #[tokio::test]
    async fn every_end_of_the_child_is_told_apart() {
        assert_eq!(
            fate("cat; echo noise >&2").await.as_deref(),
            Ok(&b"component"[..])
        );
        let told = |end: Result<Vec<u8>, String>| end.expect_err("a failure");
        assert!(
            told(fate("echo bad byte >&2; exit 65").await).contains("does not compile: bad byte")
        );
        assert!(
            told(fate("echo 'memory allocation of 9 bytes failed' >&2; kill -ABRT $$").await)
                .contains("2048 MiB")
        );
        assert!(told(fate("kill -XCPU $$").await).contains("`compile.cpu` of the node, 1m"));
        assert!(told(fate("exit 7").await).contains("exit status: 7"));
        assert!(
            told(fate("yes >&2 & exec sleep 60").await).contains("`compile.time` of the node, 5s")
        );
    }
}
