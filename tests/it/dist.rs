//! The components in `workloads/dist/` belong to their sources; checked by hashes, without a WebAssembly toolchain.

#[path = "../../workloads/xtask/src/manifest.rs"]
mod manifest;

use std::fs;
use std::path::Path;

use manifest::Entry;

#[test]
fn built_guests_belong_to_their_sources() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
    assert!(!manifest::entries(&workspace).unwrap().is_empty());
    let problems = manifest::problems(&workspace).unwrap();
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn the_guests_export_the_interfaces_that_users_copy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = |path: &str| fs::read_to_string(root.join(path)).expect("a file of the repository");
    let (plain, waiting) = (text("wit/sampan.wit"), text("wit/async/sampan.wit"));
    assert_eq!(plain, text("workloads/health/wit/deps/sampan.wit"));
    for guest in ["health-p3", "worker"] {
        assert_eq!(
            waiting,
            text(&format!("workloads/{guest}/wit/deps/sampan.wit"))
        );
    }

    // Below the words at their heads they say the same, with functions that wait and functions that do not.
    let items = |text: &str| {
        text.split_once("\npackage ")
            .map(|(_, items)| items.to_owned())
    };
    let plain = items(&plain).expect("a package");
    assert_eq!(
        items(&waiting),
        Some(plain.replace(": func(", ": async func("))
    );
    assert!(plain.contains(": func("));
}

/// `web` depends on the member `part`, and that on `lib`; `other` is in the lock file for something else.
const LOCK: &str = r#"version = 4

[[package]]
name = "lib"
version = "1.0.0"
source = "registry+https://example.com/index"
checksum = "aa"

[[package]]
name = "other"
version = "1.0.0"
source = "registry+https://example.com/index"
checksum = "bb"

[[package]]
name = "part"
version = "0.1.0"
dependencies = [
 "lib 1.0.0",
]

[[package]]
name = "web"
version = "0.1.0"
dependencies = [
 "part",
]

[[package]]
name = "wit-component"
version = "1.0.0"
source = "registry+https://example.com/index"
checksum = "cc"
"#;

/// A workspace with one guest, `web`, that is up to date.
fn workspace() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in [
        ("Cargo.toml", "[workspace]"),
        ("Cargo.lock", LOCK),
        ("web/src/lib.rs", "//! Web."),
        ("part/src/lib.rs", "//! Part."),
        ("dist/web.wasm", "component"),
    ] {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a file or folder of the test");
        fs::write(path, text).expect("a file or folder of the test");
    }
    let entry = Entry::of(folder.path(), "web").expect("a file or folder of the test");
    let text = format!("# a comment\n{entry}");
    fs::write(folder.path().join(manifest::PATH), text).expect("a file or folder of the test");
    assert_eq!(
        manifest::entries(folder.path()).expect("a file or folder of the test"),
        [entry]
    );
    assert!(
        manifest::problems(folder.path())
            .expect("a file or folder of the test")
            .is_empty()
    );
    folder
}

/// What is wrong once `change` has been made to the text of the file at `path`.
#[track_caller]
fn problem_after(path: &str, change: impl Fn(&str) -> String) -> Option<String> {
    let workspace = workspace();
    let file = workspace.path().join(path);
    let before = fs::read_to_string(&file).unwrap_or_default();
    let after = change(&before);
    assert_ne!(before, after, "the change to {path} changes nothing");
    fs::write(file, after).expect("a file or folder of the test");
    let mut problems = manifest::problems(workspace.path()).expect("a file or folder of the test");
    assert!(problems.len() < 2, "{problems:?}");
    problems.pop()
}

/// A newer release of the package `name` in the lock file.
fn update(name: &str) -> impl Fn(&str) -> String {
    move |text| {
        let (before, after) = text
            .split_once(&format!("\"{name}\"\nversion = \"1.0.0\""))
            .expect("the package");
        let after = after.replacen("checksum = \"", "checksum = \"d", 1);
        format!("{before}\"{name}\"\nversion = \"1.0.1\"{after}").replace("lib 1.0.0", "lib")
    }
}

/// A profile of the package `name` in the workspace's manifest.
fn profile(name: &str) -> impl Fn(&str) -> String {
    move |text| format!("{text}\n\n[profile.release.package.{name}]\nstrip = \"debuginfo\"\n")
}

#[test]
fn a_change_of_anything_a_guest_is_made_from_is_noticed() {
    let comment = |text: &str| format!("{text}\n// more");
    let noticed = [
        problem_after("web/src/lib.rs", comment),
        problem_after("web/src/new.rs", comment),
        problem_after("part/src/lib.rs", comment),
        problem_after("Cargo.toml", comment),
        problem_after("Cargo.toml", profile("web")),
        problem_after("Cargo.toml", profile("lib")),
        problem_after("Cargo.lock", update("lib")),
        problem_after("Cargo.lock", update("wit-component")),
    ];
    let expected = "the sources of `web` have changed since its component was built: \
                    run `cargo run -p xtask -- build web` in workloads/";
    assert_eq!(noticed, [(); 8].map(|()| Some(expected.to_owned())));
}

#[test]
fn a_change_of_another_guest_is_not_taken_for_one_of_this() {
    let members = |text: &str| format!("{text}\nmembers = [\n    \"web\",\n    \"other\",\n]\n");
    for unnoticed in [
        problem_after("Cargo.lock", update("other")),
        problem_after("Cargo.toml", members),
        problem_after("Cargo.toml", profile("other")),
    ] {
        assert_eq!(unnoticed, None);
    }
    // What follows the list of members counts again.
    let after = problem_after("Cargo.toml", |text| {
        format!("{}resolver = \"3\"", members(text))
    });
    assert!(after.is_some());
}

#[test]
fn a_component_from_elsewhere_is_noticed() {
    let changed = problem_after("dist/web.wasm", |text| format!("{text}!")).unwrap();
    assert!(
        changed.starts_with("`dist/web.wasm` is not the component"),
        "{changed}"
    );
    let unlisted = problem_after("dist/more.wasm", |_| "component".to_owned()).unwrap();
    assert!(
        unlisted.ends_with("build`") && unlisted.contains("more.wasm"),
        "{unlisted}"
    );
}

#[test]
fn a_manifest_that_cannot_be_read_is_an_error_that_names_it() {
    let workspace = workspace();
    let path = workspace.path().join(manifest::PATH);
    fs::write(&path, "web 12\n").unwrap();
    let error = manifest::problems(workspace.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("MANIFEST.sha256") && error.contains("`web 12`"),
        "{error}"
    );
    fs::remove_file(path).unwrap();
    let error = manifest::problems(workspace.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("MANIFEST.sha256"), "{error}");
}
