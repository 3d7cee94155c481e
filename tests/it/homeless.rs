//! Without a place for compiled code: everything runs, and one warning says what it costs.

use std::{path::Path, process::Command};

use crate::rig::{Running, directory, get, guest, sampan};

/// A warning that says so, and the remedy that it names.
const WARNING: &str = "components are compiled again at each start";
const REMEDY: &str = "XDG_CACHE_HOME";

/// Environments in which nothing can be cached. `home` is a directory that is there.
fn environments(home: &Path) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let path = |name: &str| home.join(name).display().to_string();
    std::fs::write(home.join("file"), b"").expect("written");
    let code = home.join("damaged/sampan/code");
    std::fs::create_dir_all(&code).expect("a directory");
    std::fs::write(code.join("key"), b"short").expect("written");
    vec![
        ("no HOME", vec![]),
        ("a relative one", vec![("HOME", "home".to_owned())]),
        // No user, not even root, makes directories there.
        (
            "one not to be written to",
            vec![("HOME", "/proc".to_owned())],
        ),
        ("no directory", vec![("XDG_CACHE_HOME", path("file"))]),
        ("a damaged key", vec![("XDG_CACHE_HOME", path("damaged"))]),
    ]
}

fn within(arguments: &[&str], environment: &[(&str, String)], place: &Path) -> Command {
    let mut command = Command::new(sampan(&[]).get_program());
    command
        .args(arguments)
        .env_clear()
        .env("XDG_RUNTIME_DIR", place)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(place);
    command
}

#[test]
fn a_command_runs() {
    let place = directory(&[]);
    let command = guest("command");
    for (what, environment) in environments(place.path()) {
        let arguments = ["run", &command, "--", "args", "a"];
        let output = within(&arguments, &environment, place.path()).output();
        let output = output.expect("it starts");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{what}: {talk}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a\n", "{what}");
        assert_eq!(talk.matches(WARNING).count(), 1, "{what}: {talk}");
        assert!(talk.contains(REMEDY), "{what}: {talk}");
    }
    // The remedy works.
    let cache = place.path().join("cache").display().to_string();
    let with = [("XDG_CACHE_HOME", cache)];
    for _ in 0..2 {
        let arguments = ["run", &command, "--", "args", "a"];
        let output = within(&arguments, &with, place.path()).output();
        let output = output.expect("it starts");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a\n");
    }
}

#[tokio::test]
async fn an_app_runs() {
    let text = format!(
        "app = 'a'\n[service.hello]\ncomponent = {hello:?}\nroute = ['hello.test/']\n\
         [service.counter]\ncomponent = {counter:?}\nroute = ['counter.test/']\n",
        hello = guest("hello"),
        counter = guest("counter"),
    );
    let place = directory(&[("sampan.toml", text.as_bytes())]);
    for (what, environment) in environments(place.path()) {
        let arguments = ["up", "--http", "127.0.0.1:0"];
        let mut running = Running::start(within(&arguments, &environment, place.path()));
        let at = running.address();
        for (host, answer) in [
            ("hello.test", "Hello from Sampan!\n"),
            ("counter.test", "1\n"),
        ] {
            assert_eq!(get(at, host, "/").await.body, answer, "{what}");
        }
        let (status, talk) = running.interrupt();
        assert_eq!(status.code(), Some(0), "{what}: {talk}");
        assert_eq!(talk.matches(WARNING).count(), 1, "{what}: {talk}");
        assert!(talk.contains(REMEDY), "{what}: {talk}");
    }
}

#[test]
fn a_daemon_runs_where_it_is_told_to_keep_its_state() {
    let place = directory(&[]);
    for (what, environment) in environments(place.path()) {
        let data = format!("{what}.data");
        let mut arguments = vec!["serve", "--data", &data, "--http", "127.0.0.1:0"];
        let mut running = Running::start(within(&arguments, &environment, place.path()));
        running.address();
        let (status, talk) = running.interrupt();
        assert_eq!(status.code(), Some(0), "{what}: {talk}");
        assert_eq!(talk.matches(WARNING).count(), 1, "{what}: {talk}");
        if what == "no HOME" {
            arguments.drain(1..3);
            let output = within(&arguments, &environment, place.path()).output();
            let output = output.expect("it starts");
            assert_eq!(output.status.code(), Some(1));
            let talk = String::from_utf8_lossy(&output.stderr);
            assert!(talk.contains("`--data` has to name a place"), "{talk}");
        }
    }
}
