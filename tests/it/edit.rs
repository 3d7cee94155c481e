//! `up --build` and `up --watch`: from an edit to what serves.

mod saves;
mod sources;

use std::{fs, path::Path};

use crate::rig::{Running, directory, done, err, get, guest, sampan};

fn command(place: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = sampan(&["up", "--http", "127.0.0.1:0"]);
    command
        .args(arguments)
        .current_dir(place)
        .env("XDG_RUNTIME_DIR", place);
    command
}

fn up(place: &Path, arguments: &[&str]) -> Running {
    let mut running = Running::start(command(place, arguments));
    running.line_with("is up");
    running
}

/// A directory with a spec and the components `hello.wasm` and `counter.wasm`.
fn place(spec: &str) -> tempfile::TempDir {
    let component = |name| fs::read(guest(name)).expect("readable");
    directory(&[
        ("sampan.toml", spec.as_bytes()),
        ("hello.wasm", &component("hello")),
        ("counter.wasm", &component("counter")),
        ("src/which", b"hello"),
    ])
}

const HELLO: &str = "Hello from Sampan!\n";
/// What `counter` says to the first request of an instance.
const COUNTER: &str = "1\n";

#[tokio::test]
async fn what_is_built_runs_and_the_same_command_is_run_once() {
    let place = place(
        "app = 'a'\n\
         [service.api]\n\
         component = 'api.wasm'\n\
         route = ['api.test/']\n\
         build = 'echo made >> log; cp hello.wasm web.wasm; cp counter.wasm api.wasm'\n\
         [service.web]\n\
         component = 'web.wasm'\n\
         route = ['web.test/']\n\
         build = 'echo made >> log; cp hello.wasm web.wasm; cp counter.wasm api.wasm'\n\
         [job.later]\n\
         component = 'later.wasm'\n\
         build = 'echo \"for later\"; cp hello.wasm later.wasm'\n\
         schedule = '0 0 1 1 *'\n",
    );
    fs::copy(guest("command"), place.path().join("hello.wasm.command")).expect("copied");
    let spec = fs::read_to_string(place.path().join("sampan.toml")).expect("readable");
    let spec = spec.replace("hello.wasm later", "hello.wasm.command later");
    fs::write(place.path().join("sampan.toml"), spec).expect("written");
    let mut running = up(place.path(), &["--build"]);
    let address = running.address();
    assert_eq!(get(address, "web.test", "/").await.body, HELLO);
    assert_eq!(get(address, "api.test", "/").await.body, COUNTER);
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let log = fs::read_to_string(place.path().join("log")).expect("readable");
    assert_eq!(log, "made\n");
    for line in ["api   | building api, web: echo made", "later | for later"] {
        assert!(talk.contains(line), "`{line}` is not in {talk}");
    }
}

#[test]
fn a_build_that_fails_ends_it_with_what_failed() {
    for (build, told) in [
        (
            "echo no such luck; exit 3",
            "the build of web failed: `echo no such luck; exit 3` ended with exit code 3",
        ),
        (
            "no-such-program --now",
            "ended with exit code 127; there is no program `no-such-program` in `PATH`",
        ),
        (
            "PATH=/nowhere; cargo build",
            "ended with exit code 127; there is no program `cargo`: install Rust from",
        ),
        ("kill -9 $$$$", "was ended by signal 9"),
    ] {
        let place = place(&format!(
            "app = 'a'\n[service.web]\ncomponent = 'hello.wasm'\nbuild = \"{build}\"\n"
        ));
        for verb in ["up", "apply"] {
            let mut command = sampan(&[verb, "--build"]);
            command.current_dir(place.path());
            command.env("XDG_RUNTIME_DIR", place.path());
            let output = command.output().expect("it starts");
            assert_eq!(output.status.code(), Some(1), "{build}");
            assert!(err(&output).contains(told), "{}", err(&output));
        }
    }
}

#[test]
fn a_component_that_is_not_there_is_to_be_built() {
    let spec = "app = 'a'\n[service.web]\ncomponent = 'no.wasm'\nbuild = 'true'\n";
    let place = place(spec);
    let file = place.path().join("sampan.toml").display().to_string();
    for (arguments, code, told) in [
        (vec!["up"], 1, "`--build` makes it with `true`"),
        (vec!["apply"], 2, "`--build` makes it with `true`"),
        (
            vec!["up", "--build"],
            1,
            "`true` ended well and did not make it",
        ),
        (
            vec!["apply", "--build"],
            2,
            "`true` ended well and did not make it",
        ),
    ] {
        let output = done(&[&arguments[..], &["-f", &file]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(err(&output).contains(told), "{}", err(&output));
    }
}

#[test]
fn ctrl_c_ends_a_build_with_all_of_it() {
    // The lock is held for as long as anything of the build lives.
    let build = "flock lock sh -c 'echo begun; sleep 600 & wait'";
    let place = place(&format!(
        "app = 'a'\n[service.web]\ncomponent = 'hello.wasm'\nbuild = \"{build}\"\n"
    ));
    let mut running = Running::start(command(place.path(), &["--build"]));
    running.line_with("web | begun");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(1), "{talk}");
    assert!(talk.contains("was interrupted"), "{talk}");
    let lock = place.path().join("lock");
    let free = std::process::Command::new("flock")
        .arg(&lock)
        .arg("true")
        .status();
    assert!(free.expect("it starts").success());
}
