//! The compiling process: limits itself, compiles its standard input, writes code to its output.

use std::{
    env,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    os::fd::AsFd as _,
};

use rustix::process::{Resource, Rlimit, Signal};
use sampan_core::spec::node::CompileLimits;

use crate::engine::CodeClass;

/// The exit code that says the component, not the compiler, is at fault.
pub(crate) const EXIT_INVALID: i32 = 65;
/// The exit code for everything else that went wrong.
const EXIT_FAILED: i32 = 70;
/// How nice the child is to other processes.
const NICENESS: i32 = 10;

const CLASS: &str = "SAMPAN_COMPILE_CLASS";
const ADDRESS_SPACE: &str = "SAMPAN_COMPILE_ADDRESS_SPACE";
const CPU_SECONDS: &str = "SAMPAN_COMPILE_CPU_SECONDS";

/// Address space that the program's allocator, mimalloc, reserves at a time. Of its own accord
/// it takes a gibibyte, which left a child with a lower limit none for its threads.
const RESERVE: (&str, &str) = ("MIMALLOC_ARENA_RESERVE", "32MiB");

/// The child's whole environment.
pub(crate) fn environment(class: CodeClass, limits: &CompileLimits) -> [(&'static str, String); 4] {
    [
        (RESERVE.0, RESERVE.1.to_owned()),
        (CLASS, class.as_str().to_owned()),
        (ADDRESS_SPACE, limits.address_space_bytes.to_string()),
        (CPU_SECONDS, limits.cpu.as_secs().to_string()),
    ]
}

/// Whether this process was started to compile.
pub fn is_wanted() -> bool {
    env::var_os(CLASS).is_some()
}

/// Does the work of the compiling process and returns its exit code.
///
/// The component comes on standard input, the code goes to standard output, which is a file, and
/// the reason of a failure to standard error.
pub fn run() -> i32 {
    match compile() {
        Ok(()) => 0,
        Err(Failure { code, reason }) => {
            // Without a reader there is nothing else to do about a failure.
            let _ = writeln!(io::stderr(), "{reason}");
            code
        }
    }
}

struct Failure {
    code: i32,
    reason: String,
}

fn failed(reason: impl std::fmt::Display) -> Failure {
    Failure {
        code: EXIT_FAILED,
        reason: reason.to_string(),
    }
}

fn compile() -> Result<(), Failure> {
    let class = limit_myself().map_err(failed)?;
    let mut component = Vec::new();
    io::stdin().read_to_end(&mut component).map_err(failed)?;
    let engine = class
        .compiler()
        .map_err(|error| failed(format!("{error:#}")))?;
    let code = engine
        .precompile_component(&component)
        .map_err(|error| Failure {
            code: EXIT_INVALID,
            reason: format!("{error:#}"),
        })?;
    write_code(&code).map_err(failed)
}

/// So much address space, or what this process may have at most.
pub(super) fn possible(bytes: u64) -> u64 {
    let most = rustix::process::getrlimit(Resource::As).maximum;
    most.map_or(bytes, |most| most.min(bytes))
}

fn limit_myself() -> io::Result<CodeClass> {
    let text = |name| env::var(name).map_err(|_| io::Error::other(format!("`{name}` is not set")));
    let number = |name| {
        let text = text(name)?;
        text.parse::<u64>()
            .map_err(|_| io::Error::other(format!("`{name}` is `{text}`")))
    };
    let class = CodeClass::parse(&text(CLASS)?)
        .ok_or_else(|| io::Error::other("there is no such engine class"))?;
    let limit = |soft, hard| Rlimit {
        current: Some(soft),
        maximum: Some(hard),
    };
    let bytes = possible(number(ADDRESS_SPACE)?);
    rustix::process::setrlimit(Resource::As, limit(bytes, bytes))?;
    let seconds = number(CPU_SECONDS)?;
    // A soft limit below the hard one: the signal then says which limit it was.
    rustix::process::setrlimit(Resource::Cpu, limit(seconds, seconds + 1))?;
    rustix::process::setrlimit(Resource::Core, limit(0, 0))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::nice(NICENESS)?;
    Ok(class)
}

/// Makes standard output hold exactly the code, whatever was written to it before.
fn write_code(code: &[u8]) -> io::Result<()> {
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    output.set_len(0)?;
    output.rewind()?;
    output.write_all(code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_environment_says_everything() {
        let class = CodeClass {
            concurrent: true,
            metered: false,
        };
        let limits = CompileLimits {
            cpu: Duration::from_secs(7),
            ..CompileLimits::default()
        };
        let said = environment(class, &limits);
        assert_eq!(
            said.map(|(_, value)| value),
            ["32MiB", "p3", "2147483648", "7"]
        );
    }
}
