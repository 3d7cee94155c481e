//! The verbs that look and tell: `validate`, `inspect`, `schema`, `init`, `completions`, `version`.

use std::{fs, process::Command};

use crate::rig::{Running, directory, done, err, get, guest, out, repository, sampan};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn validate_says_good_or_everything_that_is_bad() {
    let demo = repository("workloads/sampan.toml").display().to_string();
    let good = done(&["validate", "-f", &demo]);
    assert_eq!(good.status.code(), Some(0), "{}", err(&good));
    assert!(err(&good).contains("9 services, 1 job"), "{}", err(&good));
    let app = json(&out(&done(&["validate", "-f", &demo, "--json"])));
    assert_eq!(app["services"]["hello"]["replicas"], 3);

    let bad = directory(&[("sampan.toml", b"app = 'A'\n[service.x]\n")]);
    let path = bad.path().join("sampan.toml").display().to_string();
    let output = done(&["validate", "-f", &path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("sampan.toml:1:7"), "{}", err(&output));
    assert!(err(&output).contains("component"), "{}", err(&output));
    assert_eq!(
        done(&["validate", "-f", "absent.toml"]).status.code(),
        Some(2)
    );
}

#[test]
fn the_examples_are_good_and_their_components_are_there() {
    let mut examples = 0;
    for folder in ["workloads/deadlock", "workloads/examples"] {
        let folder = repository(folder);
        for entry in folder.read_dir().expect("a folder of the repository") {
            let path = entry.expect("readable").path().display().to_string();
            let output = done(&["validate", "-f", &path, "--json"]);
            assert_eq!(output.status.code(), Some(0), "{path}: {}", err(&output));
            let app = json(&out(&output));
            for kind in ["services", "jobs"] {
                for (name, part) in app[kind].as_object().expect("a map") {
                    let component = part["component"]["path"].as_str().expect("a path");
                    assert!(
                        folder.join(component).is_file(),
                        "`{name}` in {path} has no component"
                    );
                }
            }
            examples += 1;
        }
    }
    assert_eq!(examples, 6);
}

#[test]
fn inspect_tells_the_world_and_what_to_grant() {
    let output = done(&["inspect", &guest("caller")]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    for wanted in [
        "wasi:http/proxy 0.2",
        "outgoing-handler",
        "allow.outbound",
        "[service.caller.allow]",
    ] {
        assert!(
            out(&output).contains(wanted),
            "`{wanted}` is missing in {}",
            out(&output)
        );
    }
    let found = json(&out(&done(&["inspect", &guest("command-p3"), "--json"])));
    assert_eq!(
        (&found["command"], &found["http"]),
        (&"0.3".into(), &serde_json::Value::Null)
    );
    assert_eq!(
        found["digest"].as_str().expect("text").len(),
        "sha256:".len() + 64
    );
}

#[test]
fn what_inspect_says_to_paste_is_a_good_spec() {
    for name in ["env-and-files", "command", "hello-p3"] {
        let text = out(&done(&["inspect", &guest(name)]));
        let paste = text
            .split("to paste into sampan.toml:")
            .nth(1)
            .expect("a part to paste");
        let spec = format!("app = \"a\"\n{paste}");
        let directory = directory(&[("sampan.toml", spec.as_bytes())]);
        let path = directory.path().join("sampan.toml").display().to_string();
        let output = done(&["validate", "-f", &path]);
        assert_eq!(output.status.code(), Some(0), "{spec}\n{}", err(&output));
    }
}

#[test]
fn inspect_says_what_this_host_does_not_have() {
    let there = r#"(import "wasi:random/random@0.2.0" (instance
        (export "get-random-u64" (func (result u64)))))"#;
    let instance = |name: &str| {
        let text = format!(r#"(import "{name}" (instance (export "f" (func))))"#);
        (text, Some(name.to_owned()))
    };
    let candidate = "wasi:io/error@0.2.0-rc-2023-11-10";
    for (import, missing) in [
        (String::new(), None),
        instance("spin:kv/store@0.2.12"),
        instance("wasi:blobstore/container@0.2.0-draft"),
        instance(candidate),
        instance("wasi:clocks/monotonic-clock@0.3.0-rc-2025-09-16"),
        instance("wasi:http/outgoing-handler@0.1.0"),
        (
            r#"(import "log" (func))"#.to_owned(),
            Some("log".to_owned()),
        ),
    ] {
        let text = format!(
            r#"(component {there} {import} (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#
        );
        let bytes = wat::parse_str(&text).expect("good text");
        let files = directory(&[("x.wasm", &bytes)]);
        let path = files.path().join("x.wasm").display().to_string();
        let shown = out(&done(&["inspect", &path]));
        let found = json(&out(&done(&["inspect", &path, "--json"])));
        let imports = found["imports"].as_array().expect("a list");
        let lacking = imports.iter().filter(|it| it["offered"] == false);
        let lacking: Vec<_> = lacking.map(|it| it["name"].as_str()).collect();
        assert_eq!(
            lacking,
            Vec::from_iter(missing.as_deref().map(Some)),
            "{found}"
        );
        assert_eq!(
            shown.contains("does not have it"),
            missing.is_some(),
            "{shown}"
        );
        // It says what loading says.
        let run = done(&["run", &path]);
        if let Some(missing) = &missing {
            assert!(shown.contains("no: the component's imports"), "{shown}");
            assert!(!shown.contains("to paste"), "{shown}");
            let refused = found["refused"].as_str().expect("a reason");
            assert!(refused.contains(missing), "{refused}");
            assert!(err(&run).contains(refused), "{}\n{refused}", err(&run));
        } else {
            assert!(found["refused"].is_null(), "{found}");
            assert!(!err(&run).contains("cannot be satisfied"), "{}", err(&run));
        }
        assert_eq!(
            shown.contains("release candidate"),
            import.contains("-rc-"),
            "{shown}"
        );
    }
}

#[test]
fn inspect_says_what_differs_and_which_world_counts() {
    let other = r#"(component
        (import "wasi:random/random@0.2.0" (instance (export "get-dice" (func (result u64)))))
        (instance $i) (export "wasi:cli/run@0.2.0-rc-2023-12-05" (instance $i))
        (export "wasi:http/handler@0.3.0" (instance $i)))"#;
    let bytes = wat::parse_str(other).expect("good text");
    let files = directory(&[("x.wasm", &bytes)]);
    let path = files.path().join("x.wasm").display().to_string();
    let found = json(&out(&done(&["inspect", &path, "--json"])));
    assert_eq!(
        (&found["command"], &found["http"]),
        (&serde_json::Value::Null, &"0.3".into())
    );
    let refused = found["refused"].as_str().expect("a reason");
    assert!(refused.contains("get-dice"), "{refused}");
}

#[tokio::test]
async fn a_new_app_runs_at_once() {
    let home = directory(&[]);
    let app = home.path().join("new-app");
    let path = app.display().to_string();
    let made = done(&["init", &path]);
    assert_eq!(made.status.code(), Some(0), "{}", err(&made));
    let again = done(&["init", &path]);
    assert_eq!(again.status.code(), Some(2));
    assert!(err(&again).contains("already there"), "{}", err(&again));
    let mut command: Command = sampan(&["up", "--http", "127.0.0.1:0"]);
    command.current_dir(&app);
    let mut running = Running::start(command);
    let at = running.address();
    assert_eq!(get(at, "localhost", "/").await.body, "Hello from Sampan!\n");
    let (_, talk) = running.interrupt();
    assert!(talk.contains(&format!("answers at http://{at}/")), "{talk}");
    assert!(talk.contains("new-app is up"), "{talk}");
}

#[test]
fn ps_is_get_pods() {
    let nowhere = ["--api", "/nowhere/to/be/found.sock"];
    let short = done(&[&["ps"], &nowhere[..]].concat());
    let long = done(&[&["get", "pods"], &nowhere[..]].concat());
    assert_eq!((short.status.code(), err(&short)), (Some(3), err(&long)));
}

#[test]
fn schema_completions_and_version_are_data() {
    let schema = json(&out(&done(&["schema"])));
    assert!(schema["properties"]["service"].is_object(), "{schema}");
    let node = json(&out(&done(&["schema", "--node"])));
    assert!(node["properties"]["gateway"].is_object(), "{node}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            out(&done(&["completions", shell])).contains("sampan"),
            "{shell}"
        );
    }
    assert!(out(&done(&["version"])).starts_with("sampan "));
    assert_eq!(json(&out(&done(&["version", "--json"])))["wasmtime"], "48");
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for arguments in [
        &["fly"][..],
        &["up", "--sideways"],
        &["run"],
        &["up", "--scale", "web"],
    ] {
        let output = done(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_spec_is_checked_against_the_components_that_are_there() {
    let worker = fs::read(guest("worker")).expect("readable");
    let spec = "app = 'a'\n[service.w]\ncomponent = 'worker.wasm'\nroute = ['/']\n\
                readiness = { http = '/' }\n[service.w.autoscale]\nmax = 2\nrps = 5\n\
                [service.later]\ncomponent = 'later.wasm'\nroute = ['/later']\n\
                [service.odd]\ncomponent = 'odd.wasm'\n";
    let place = directory(&[
        ("sampan.toml", spec.as_bytes()),
        ("worker.wasm", &worker),
        ("odd.wasm", b"no component"),
    ]);
    let path = place.path().join("sampan.toml").display().to_string();
    for more in [&[][..], &["--json"]] {
        let arguments = [&["validate", "-f", &path], more].concat();
        let refused = done(&arguments);
        assert_eq!(refused.status.code(), Some(2));
        assert_eq!(out(&refused), "");
        let told = err(&refused);
        for key in ["route", "readiness", "autoscale.rps"] {
            assert!(told.contains(&format!("service.w.{key}")), "{told}");
        }
        assert!(told.contains("sampan.toml:4:9"), "{told}");
    }
    let fits = spec.replace("route = ['/']\nreadiness = { http = '/' }\n", "");
    fs::write(
        &path,
        fits.replace("rps = 5", "cpu = '70%'\n[service.w.limits]\ncpu = '1'"),
    )
    .expect("written");
    let good = done(&["validate", "-f", &path]);
    let told = err(&good);
    assert_eq!(good.status.code(), Some(0), "{told}");
    for said in [
        "not looked at, because they are not there: the components of `later`",
        "the component of `odd` cannot be looked at: not a WebAssembly binary",
    ] {
        assert!(told.contains(said), "{told}");
    }
}
