//! The verbs that ask a node, when there is none or the command line is wrong.

use std::time::Instant;

use crate::rig::{PATIENCE, directory, err, out, sampan};

/// Exit code and standard error with nothing that runs.
fn alone(arguments: &[&str]) -> (Option<i32>, String) {
    let runtime = directory(&[]);
    let output = sampan(arguments)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env_remove("SAMPAN_API")
        .output()
        .expect("the program starts");
    assert_eq!(out(&output), "", "{arguments:?}");
    (output.status.code(), err(&output))
}

#[test]
fn a_wrong_spec_is_exit_code_2() {
    let files = directory(&[
        ("bad.toml", b"app = 'a'\n[service.web]\ncomponnt = 'x'\n"),
        ("lost.toml", b"app = 'a'\n[service.web]\ncomponent = 'lost.wasm'\n"),
        (
            "pinned.toml",
            b"app = 'a'\n[service.web]\ncomponent = 'web.wasm'\ndigest = 'sha256:1111111111111111111111111111111111111111111111111111111111111111'\n",
        ),
        ("web.wasm", b"not looked into here"),
    ]);
    let path = |name: &str| files.path().join(name).display().to_string();
    let (bad, lost, pinned) = (path("bad.toml"), path("lost.toml"), path("pinned.toml"));
    for (arguments, said) in [
        (
            &["apply", "-f", "absent.toml"][..],
            "there is no spec `absent.toml`",
        ),
        (&["apply", "-f", &bad], "did you mean `component`?"),
        (&["plan", "-f", &bad], "bad.toml:3:1"),
        (&["delete", "-f", &bad], "did you mean `component`?"),
        (&["apply", "-f", &lost], "cannot read the component"),
        (
            &["plan", "-f", &pinned],
            "and the spec demands `sha256:1111",
        ),
    ] {
        let (code, text) = alone(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    for (arguments, said) in [
        (&["apply", "--timeout", "soon"][..], "`soon`"),
        (&["delete"], "<APP"),
        (&["delete", "a", "-f", "sampan.toml"], "cannot be used with"),
        (&["get", "boats"], "boats"),
        (&["get", "pods", "-o", "yaml"], "yaml"),
        (&["describe", "web"], "write it as `KIND/NAME`"),
        (&["describe", "boat/web"], "there is no kind `boat`"),
        (&["logs"], "<NAME>"),
        (&["logs", "web", "--since", "yesterday"], "`yesterday`"),
        (&["scale"], "<SERVICE=N>"),
        (&["scale", "web"], "write it as `SERVICE=N`"),
        (
            &["scale", "web=1001"],
            "`1001` is not a number from 0 to 1000",
        ),
        (&["scale", "web=-1"], "`-1` is not a number from 0 to 1000"),
        (&["restart"], "<NAME>"),
        (&["rollout", "status"], "<SERVICE>"),
        (&["rollout", "undo", "web", "--to", "last"], "last"),
        (
            &["get", "pods", "--api", "http://192.0.2.1:1"],
            "is not an address of this machine",
        ),
        (
            &[
                "get",
                "pods",
                "--api",
                "http://[::1]:1",
                "--token-file",
                "absent",
            ],
            "cannot read the token `absent`",
        ),
    ] {
        let (code, text) = alone(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}

#[test]
fn nobody_to_ask_is_exit_code_3() {
    let files = directory(&[
        (
            "sampan.toml",
            b"app = 'a'\n[service.web]\ncomponent = 'web.wasm'\n",
        ),
        ("web.wasm", b"not looked into here"),
    ]);
    let spec = files.path().join("sampan.toml").display().to_string();
    let nowhere = files.path().join("no.sock").display().to_string();
    for verb in [
        &["apply", "-f", &spec][..],
        &["apply", "-f", &spec, "--wait"],
        &["plan", "-f", &spec],
        &["delete", "-f", &spec],
        &["delete", "a"],
        &["get", "services"],
        &["get", "pods", "web-1-0", "-o", "json"],
        &["get", "events", "--watch"],
        &["describe", "service/web"],
        &["describe", "pod", "web-1-0"],
        &["logs", "web", "-f"],
        &["events", "-f"],
        &["scale", "web=2"],
        &["restart", "web"],
        &["rollout", "status", "web"],
        &["rollout", "history", "web"],
        &["rollout", "undo", "web", "--to", "1"],
        &["rollout", "pause", "web"],
    ] {
        let (code, text) = alone(verb);
        assert_eq!(code, Some(3), "{verb:?}: {text}");
        assert!(text.contains("no daemon is running"), "{verb:?}: {text}");
        let at = [verb, &["--api", &nowhere]].concat();
        let (code, text) = alone(&at);
        assert_eq!(code, Some(3), "{at:?}: {text}");
        assert!(
            text.contains(&format!("cannot reach `{nowhere}`")),
            "{at:?}: {text}"
        );
    }
}

#[test]
fn completions_without_a_node_are_silent() {
    let runtime = directory(&[]);
    let since = Instant::now();
    let output = sampan(&["--", "sampan", "restart", ""])
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .output()
        .expect("the program starts");
    assert_eq!(
        (output.status.code(), err(&output)),
        (Some(0), String::new())
    );
    assert!(since.elapsed() < PATIENCE);
    let verbs = sampan(&["--", "sampan", "roll"])
        .env("XDG_RUNTIME_DIR", runtime.path())
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "1")
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .output()
        .expect("the program starts");
    assert!(out(&verbs).contains("rollout"), "{}", out(&verbs));
}
