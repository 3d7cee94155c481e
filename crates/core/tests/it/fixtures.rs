//! Spec files as data: `tests/ui/spec/*.toml`, each with what must come of it beside it.
//!
//! `NAME.json` holds the checked app, `NAME.err` the problems as they are shown. Profiles that
//! are on stand in the first line, as in `# profiles: debug, test`. `UPDATE=1` writes what comes
//! out in place of what was expected.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sampan_core::{
    name::Name,
    object::{App, SecretSource},
    secret::{MAX_SECRET_BYTES, SecretValue},
    spec::{self, Input, Problems},
};

/// The folder of the fixtures.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/ui/spec")
}

/// The environment of the fixtures.
pub(crate) fn environment(name: &str) -> Option<String> {
    let value = match name {
        "GREETING" => "hello",
        "REPLICAS" => "5",
        "TRUE" => "true",
        "EMPTY" => "",
        "API_TOKEN" => "hunter2",
        "NUL" => "a\0b",
        "HOST" => "Shop.LOCALHOST",
        "LONG" => return Some("x".repeat(1 << 20)),
        _ => return None,
    };
    Some(value.to_owned())
}

/// The `*.env` files of the folder.
pub(crate) fn read_file(path: &str) -> Result<String, String> {
    if !path.ends_with(".env") || path.contains(['/', '\0']) {
        return Err("no such file".to_owned());
    }
    fs::read_to_string(folder().join(path)).map_err(|_| "no such file".to_owned())
}

/// The secrets of the fixtures.
fn read_secret(_: &Name, source: &SecretSource) -> Result<SecretValue, String> {
    let value = match source {
        SecretSource::Env(name) => match name.as_str() {
            "API_TOKEN" => b"hunter2".to_vec(),
            "EMPTY" => Vec::new(),
            _ => return Err("it is not set".to_owned()),
        },
        SecretSource::File(path) => match path.to_str() {
            Some("db.txt") => b"hunter2\n".to_vec(),
            Some("key.bin") => vec![0xff],
            Some("large.bin") => vec![b'x'; MAX_SECRET_BYTES + 1],
            Some("largest.bin") => vec![b'x'; MAX_SECRET_BYTES],
            _ => return Err("no such file".to_owned()),
        },
    };
    Ok(SecretValue::new(value))
}

/// Loads a text as the fixtures are loaded.
pub(crate) fn load(path: &str, text: &str) -> Result<App, Problems> {
    let profiles: Vec<String> = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# profiles: "))
        .map(|names| names.split(", ").map(str::to_owned).collect())
        .unwrap_or_default();
    let (environment, read_file, profiles) = (&environment, &read_file, profiles.as_slice());
    let input = Input {
        path,
        text,
        environment,
        read_file,
        profiles,
    };
    spec::load_with_secrets(&input, &read_secret)
}

/// Names of the files in the folder with this ending, without it.
pub(crate) fn names(ending: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).expect("the folder of fixtures");
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("a name in UTF-8");
    entries
        .map(|entry| name(entry.expect("an entry of the folder")))
        .filter_map(|name| name.strip_suffix(ending).map(str::to_owned))
        .collect()
}

fn outcome(name: &str) -> (&'static str, &'static str, String) {
    let file = format!("{name}.toml");
    let text = fs::read_to_string(folder().join(&file)).expect("a fixture in UTF-8");
    match load(&file, &text) {
        Ok(app) => {
            let json = serde_json::to_string_pretty(&app).expect("an app is JSON");
            (".json", ".err", json + "\n")
        }
        Err(problems) => {
            check_problems(name, &problems);
            (".err", ".json", problems.to_plain())
        }
    }
}

/// What holds of every problem, whatever it is.
fn check_problems(name: &str, problems: &Problems) {
    let shown = problems.to_plain();
    let coloured = problems.to_coloured();
    assert!(coloured.contains("\u{1b}["), "{name}");
    assert!(
        !shown.contains(|c: char| c.is_control() && c != '\n'),
        "{name}: {shown:?}"
    );
    assert!(!shown.contains("hunter2"), "{name} shows a secret");
    for problem in problems.iter() {
        let place = format!("{}:{}:{}", problem.file, problem.line, problem.column);
        assert!(shown.contains(&place), "{name}: {place}");
        assert!(shown.contains(&problem.key), "{name}: {}", problem.key);
        assert!(
            shown.contains(&problem.message),
            "{name}: {}",
            problem.message
        );
        assert!(
            !problem.hint.is_empty() && shown.contains(&problem.hint),
            "{name}"
        );
    }
}

#[test]
fn every_fixture_comes_out_as_expected() {
    let update = std::env::var_os("UPDATE").is_some();
    let names = names(".toml");
    assert!(names.len() >= 80, "only {} fixtures", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let (ending, other, found) = outcome(name);
        let path = folder().join(format!("{name}{ending}"));
        let stray = folder().join(format!("{name}{other}"));
        if update {
            fs::write(&path, &found).expect("a file of the folder can be written");
            if stray.exists() {
                fs::remove_file(&stray).expect("a file of the folder can be removed");
            }
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(expected) if expected == found => {}
            Ok(expected) => wrong.push(format!("{name}: expected\n{expected}\nfound\n{found}")),
            Err(_) => wrong.push(format!("{name}: no {ending} file; found\n{found}")),
        }
        if stray.exists() {
            wrong.push(format!("{name}: a {other} file although there is {ending}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "UPDATE=1 writes what is found\n\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_expectation_is_left_without_its_fixture() {
    let fixtures = names(".toml");
    for ending in [".err", ".json"] {
        let stray: Vec<String> = names(ending).difference(&fixtures).cloned().collect();
        assert!(
            stray.is_empty(),
            "{ending} files without a fixture: {stray:?}"
        );
    }
}
