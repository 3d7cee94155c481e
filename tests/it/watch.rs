//! `up --watch`: what would be loaded is what runs, however it came to be there.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::rig::{Running, directory, eventually, get, guest, sampan};

/// A service for each component, at `NAME.test`.
fn app(components: &[(&str, &str)]) -> String {
    let services = components.iter().map(|(name, path)| {
        format!("[service.{name}]\ncomponent = {path:?}\nroute = ['{name}.test/']\n")
    });
    format!("app = 'a'\n{}", services.collect::<String>())
}

fn up(place: &Path) -> Running {
    let mut command = sampan(&["up", "--watch", "--http", "127.0.0.1:0"]);
    command.current_dir(place).env("XDG_RUNTIME_DIR", place);
    let mut running = Running::start(command);
    running.line_with("is up");
    running
}

const HELLO: &str = "Hello from Sampan!\n";
/// What `counter` says to the first request of an instance.
const COUNTER: &str = "1\n";

#[tokio::test]
async fn links_and_folders_lead_to_what_runs() {
    let components = [
        ("link", "link.wasm"),
        ("folder", "current/c.wasm"),
        ("mount", "mount/c.wasm"),
        ("behind", "behind.wasm"),
        ("swapped", "build/c.wasm"),
        ("apart", "apart.wasm"),
    ];
    let hello = fs::read(guest("hello")).expect("readable");
    let counter = fs::read(guest("counter")).expect("readable");
    let spec = app(&components);
    let place = directory(&[
        ("sampan.toml", spec.as_bytes()),
        ("old.wasm", &hello),
        ("new.wasm", &counter),
        ("release1/c.wasm", &hello),
        ("release2/c.wasm", &counter),
        ("mount/..v1/c.wasm", &hello),
        ("mount/..v2/c.wasm", &counter),
        ("target.wasm", &hello),
        ("build/c.wasm", &hello),
        ("build.new/c.wasm", &counter),
        ("apart.wasm", &hello),
    ]);
    let at = |path: &str| place.path().join(path);
    for (target, path) in [
        ("old.wasm", "link.wasm"),
        ("release1", "current"),
        ("..v1", "mount/..data"),
        ("..data/c.wasm", "mount/c.wasm"),
        ("target.wasm", "behind.wasm"),
    ] {
        symlink(target, at(path)).expect("a link");
    }
    let mut running = up(place.path());
    let address = running.address();
    for (name, _) in components {
        assert_eq!(get(address, &format!("{name}.test"), "/").await.body, HELLO);
    }
    let swap = |target: &str, path: &str| {
        symlink(target, at("next")).expect("a link");
        fs::rename(at("next"), at(path)).expect("renamed");
    };
    swap("new.wasm", "link.wasm");
    swap("release2", "current");
    swap("..v2", "mount/..data");
    fs::write(at("target.wasm"), &counter).expect("written");
    fs::rename(at("build"), at("build.old")).expect("renamed");
    fs::rename(at("build.new"), at("build")).expect("renamed");
    for (name, _) in components {
        let wanted = if name == "apart" { HELLO } else { COUNTER };
        eventually(address, &format!("{name}.test"), "/", |it| {
            it.body == wanted
        })
        .await;
    }
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert!(!talk.contains("service/apart revision"), "{talk}");
}

#[tokio::test]
async fn what_is_gone_runs_on_and_comes_back() {
    let hello = fs::read(guest("hello")).expect("readable");
    let counter = fs::read(guest("counter")).expect("readable");
    let spec = app(&[("web", "c.wasm")]);
    let place = directory(&[("sampan.toml", spec.as_bytes()), ("c.wasm", &hello)]);
    let file = place.path().join("c.wasm");
    let mut running = up(place.path());
    let address = running.address();
    for (revision, bytes, wanted) in [(2, &counter, COUNTER), (1, &hello, HELLO)] {
        let before = get(address, "web.test", "/").await.body;
        fs::remove_file(&file).expect("removed");
        running.line_with("cannot read the component");
        assert_eq!(get(address, "web.test", "/").await.body, before);
        fs::write(&file, bytes).expect("written");
        eventually(address, "web.test", "/", |it| it.body == wanted).await;
        // Until then the old pod may answer too.
        running.line_with(&format!("revision {revision} has taken over"));
    }
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn static_files_are_swapped_as_a_whole() {
    let spec = "app = 'a'\n[service.site]\nstatic = 'public'\nroute = ['site.test/']\n";
    let place = directory(&[
        ("sampan.toml", spec.as_bytes()),
        ("public/index.html", b"one"),
        ("public/deep/er/page.html", b"deep"),
    ]);
    let mut running = up(place.path());
    let address = running.address();
    assert_eq!(get(address, "site.test", "/").await.body, "one");
    assert_eq!(
        get(address, "site.test", "/deep/er/page.html").await.body,
        "deep"
    );
    fs::write(place.path().join("public/deep/er/page.html"), "deeper").expect("written");
    eventually(address, "site.test", "/deep/er/page.html", |it| {
        it.body == "deeper"
    })
    .await;
    assert_eq!(get(address, "site.test", "/").await.body, "one");
    let (status, said) = running.interrupt();
    assert!(status.success(), "{status}: {said}");
}
