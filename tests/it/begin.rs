//! `sampan init --template` and `sampan add`: what they write can be built and serves.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::rig::{Running, directory, err, eventually, get, sampan, send};

fn run(place: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = sampan(arguments);
    command.current_dir(place).stdin(Stdio::null());
    command.output().expect("it starts")
}

fn good(place: &Path, arguments: &[&str]) -> String {
    let output = run(place, arguments);
    assert!(output.status.success(), "{}", err(&output));
    err(&output)
}

#[test]
fn each_template_is_a_good_app_that_is_not_built_yet() {
    for template in ["rust", "js", "python", "c"] {
        let place = directory(&[]);
        let told = good(place.path(), &["init", "My App", "--template", template]);
        assert!(
            told.ends_with("next: cd My App && sampan up --build --watch\n"),
            "{told}"
        );
        let app = place.path().join("My App");
        let told = good(&app, &["validate"]);
        assert!(told.contains("app `my-app`, 1 service, 0 jobs"), "{told}");
        let up = run(&app, &["up", "--http", "127.0.0.1:0"]);
        assert_eq!(up.status.code(), Some(1));
        assert!(
            err(&up).contains("`--build` makes it with `"),
            "{}",
            err(&up)
        );
        // One more time nothing is overwritten.
        let again = run(place.path(), &["init", "My App", "--template", template]);
        assert_eq!(again.status.code(), Some(2));
        assert!(err(&again).contains("is already there"), "{}", err(&again));
    }
}

#[test]
fn a_service_is_added_and_the_rest_stays_to_the_letter() {
    let spec = "# ours\napp   = 'a'  # name\n\n[service.web]\ncomponent = 'web.wasm'\n\
                [job.old]\ncomponent = 'old.wasm'\nprofiles = ['off']";
    let place = directory(&[("sampan.toml", spec.as_bytes())]);
    good(place.path(), &["add", "api", "--template", "js"]);
    good(place.path(), &["add", "gen", "--template", "rust"]);
    let file = place.path().join("sampan.toml");
    let text = fs::read_to_string(&file).expect("readable");
    assert!(
        text.starts_with(&format!("{spec}\n\n# A service in JavaScript.")),
        "{text}"
    );
    assert!(text.contains("route = [\"gen.localhost/\"]"), "{text}");
    assert!(place.path().join("api/service.js").is_file());
    assert!(place.path().join("gen/src/lib.rs").is_file());
    good(place.path(), &["validate"]);
    for (name, told) in [
        ("web", "there is `web` in app `a` already"),
        ("old", "there is `old` in app `a` already"),
        ("No", "`No` has the character `N`"),
    ] {
        let refused = run(place.path(), &["add", name, "--template", "c"]);
        assert_eq!(refused.status.code(), Some(2), "{name}");
        assert!(err(&refused).contains(told), "{}", err(&refused));
    }
    // A whole app is no part of one.
    let refused = run(place.path(), &["add", "more", "--template", "shop"]);
    assert_eq!(refused.status.code(), Some(2));
    // Files of the user are left alone, and then the spec is too.
    fs::create_dir(place.path().join("mine")).expect("made");
    fs::write(place.path().join("mine/service.c"), "mine").expect("written");
    let refused = run(place.path(), &["add", "mine", "--template", "c"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&file).expect("readable"), text);
    assert!(!place.path().join("mine/http.h").exists());
}

#[test]
fn a_service_is_added_to_an_app_with_a_secret() {
    let spec = "app = 'a'\n[secret.db]\nfile = 'db.txt'\n[service.web]\ncomponent = 'web.wasm'\n\
                env = { PASSWORD = { secret = 'db' } }\n";
    let files: &[(&str, &[u8])] = &[("sampan.toml", spec.as_bytes()), ("db.txt", b"hush")];
    let place = directory(files);
    good(place.path(), &["add", "site", "--template", "static"]);
    let told = good(place.path(), &["validate"]);
    assert!(told.contains("2 services"), "{told}");
}

#[test]
fn a_spec_to_which_no_table_can_be_added_stays_as_it_is() {
    let spec = "app = 'a'\nservice = { web = { component = 'web.wasm' } }\n";
    let place = directory(&[("sampan.toml", spec.as_bytes())]);
    let refused = run(place.path(), &["add", "api", "--template", "js"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        err(&refused).contains("nothing was written"),
        "{}",
        err(&refused)
    );
    let file = fs::read_to_string(place.path().join("sampan.toml"));
    assert_eq!(file.expect("readable"), spec);
    assert!(!place.path().join("api").exists());
}

/// Whether a compiler for WebAssembly is there, with the crates that the template needs.
fn has_target() -> bool {
    let listed = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-wasip2"])
        .output();
    let folder = listed.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    folder.is_ok_and(|folder| !folder.is_empty() && Path::new(&folder).is_dir())
}

#[tokio::test]
async fn the_template_in_rust_is_built_served_and_edited() {
    if !has_target() {
        println!("skipped: there is no target wasm32-wasip2");
        return;
    }
    let place = directory(&[]);
    good(place.path(), &["init", "--template", "rust"]);
    let mut command = sampan(&["up", "--build", "--watch", "--http", "127.0.0.1:0"]);
    command
        .current_dir(place.path())
        .env("XDG_RUNTIME_DIR", place.path());
    let mut running = Running::start(command);
    let address = running.address();
    eventually(address, "any.test", "/a?b=c", |it| {
        it.body == "Hello from Rust at /a?b=c\n"
    })
    .await;
    running.line_with("asked for /a?b=c");
    let source = place.path().join("src/lib.rs");
    let text = fs::read_to_string(&source).expect("readable");
    fs::write(&source, text.replace("from Rust", "from an edit")).expect("written");
    eventually(address, "any.test", "/", |it| {
        it.body == "Hello from an edit at /\n"
    })
    .await;
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn the_whole_app_is_built_and_each_of_its_parts_does_its_work() {
    let place = directory(&[]);
    let told = good(place.path(), &["init", "boats", "--template", "shop"]);
    let next = "next: cd boats && sampan up --build --watch\n";
    assert!(told.ends_with(next), "{told}");
    let app = place.path().join("boats");
    let told = good(&app, &["validate"]);
    let what = "sampan.toml is good: app `boats`, 3 services, 2 jobs";
    assert!(told.contains(what), "{told}");
    if !has_target() {
        println!("skipped the rest: there is no target wasm32-wasip2");
        return;
    }
    let command = |arguments: &[&str]| {
        let mut command = sampan(arguments);
        command
            .current_dir(&app)
            .env("XDG_RUNTIME_DIR", place.path())
            .env("XDG_STATE_HOME", place.path().join("state"));
        command
    };
    let mut running = Running::start(command(&["up", "--build", "--http", "127.0.0.1:0"]));
    // The build takes longer than anything else does: each of these may take as long as that.
    for built in [
        "Compiling wit-parser",
        "Compiling wit-bindgen v",
        "built in",
    ] {
        running.line_with(built);
    }
    let address = running.address();
    let page = get(address, "any.test", "/").await.body;
    assert!(
        page.contains("/shop.js") && page.contains("<form"),
        "{page}"
    );
    let products = get(address, "any.test", "/api/products").await.body;
    assert!(products.contains(r#""id":"oar""#), "{products}");
    let wanted = r#"{"product": "oar", "quantity": 2}"#;
    let order = send(address, "POST", "any.test", "/api/orders", wanted).await;
    assert_eq!(order.status, 201, "{order:?}");
    eventually(address, "any.test", "/api/orders", |it| {
        it.body.contains(r#""state":"packed""#)
    })
    .await;
    running.line_with("packed order 1: 2 × Oar of ash");
    let run = command(&["job", "run", "report", "--wait"]).output();
    let run = run.expect("it starts");
    assert!(run.status.success(), "{}", err(&run));
    running.line_with("2 pieces sold, in /reports/sales-");
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn the_template_of_a_front_end_serves_at_once() {
    let place = directory(&[]);
    good(place.path(), &["init", "--template", "static"]);
    let mut command = sampan(&["up", "--build", "--watch", "--http", "127.0.0.1:0"]);
    command
        .current_dir(place.path())
        .env("XDG_RUNTIME_DIR", place.path());
    let mut running = Running::start(command);
    let address = running.address();
    eventually(address, "any.test", "/", |it| {
        it.body.contains("Hello from a directory")
    })
    .await;
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}
