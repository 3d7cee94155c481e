//! A system that lets no more threads and processes be started.

use std::{
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::{Resource, getrlimit, getuid};

use crate::rig::{Running, directory, done, err, guest, sampan};

/// A user whom such a limit holds for, if this one is not.
const NOBODY: u32 = 65534;

/// Runs it as a user whom the limit holds for, with directories of its own below this one.
fn limited(mut command: Command, place: &Path) -> Command {
    command.env("XDG_CACHE_HOME", place.join("cache"));
    command.env("XDG_STATE_HOME", place.join("state"));
    if getuid().is_root() {
        chown(place, Some(NOBODY), Some(NOBODY)).expect("it is root's");
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn path(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

#[test]
fn a_start_without_threads_says_so() {
    let directory = directory(&[]);
    let place = directory.path();
    let (data, api) = (path(place, "data"), path(place, "api.sock"));
    let hello = guest("hello");
    for arguments in [
        &["serve", "--data", &data, "--api", &api][..],
        &["run", &hello, "--addr", "127.0.0.1:0"],
        &["get", "pods", "--api", &api],
    ] {
        let mut command = Command::new("prlimit");
        let program = sampan(arguments);
        command.arg("--nproc=1:1").arg(program.get_program());
        command.args(arguments).stdin(Stdio::null());
        let output = limited(command, place).output().expect("it starts");
        let said = err(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for wanted in ["lets this process start 0 of", "`ulimit -u`", "pids.max"] {
            assert!(said.contains(wanted), "`{wanted}` is missing in {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn threads_and_processes_that_run_out_are_said_and_end_nothing() {
    let directory = directory(&[]);
    let place = directory.path();
    let (data, api) = (path(place, "data"), path(place, "api.sock"));
    let http = "127.0.0.1:0";
    let command = sampan(&["serve", "--data", &data, "--api", &api, "--http", http]);
    let mut running = Running::start(limited(command, place));
    running.address();
    let spec = path(place, "sampan.toml");
    let hello = guest("hello");
    let text = format!("app = 'a'\n[service.web]\ncomponent = '{hello}'\nroute = ['/']\n");
    std::fs::write(&spec, text).expect("written");
    let pid = running.id().to_string();
    let limit = |soft: &str| {
        let mut command = Command::new("prlimit");
        command.args(["--pid", &pid, &format!("--nproc={soft}:")]);
        let status = limited(command, place).status();
        assert!(status.expect("it starts").success());
    };
    let before = getrlimit(Resource::Nproc).current;
    limit("1");
    let refused = done(&["apply", "-f", &spec, "--api", &api]);
    let said = err(&refused);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    for wanted in ["cannot run the compiling process", "`ulimit -u`"] {
        assert!(said.contains(wanted), "`{wanted}` is missing in {said}");
    }
    limit(&before.map_or("unlimited".to_owned(), |it| it.to_string()));
    let applied = done(&["apply", "-f", &spec, "--api", &api, "--wait"]);
    assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
    let (status, said) = running.interrupt();
    assert!(status.success(), "{status}: {said}");
}
