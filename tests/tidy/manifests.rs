//! Which crate may depend on which: the rules over `Cargo.toml` and `Cargo.lock`.

use crate::tree::{File, Rule, Tree, Violation};
use crate::{FENCES, Fence, LIBRARIES, Library};

static EDGES: Rule = Rule {
    name: "crate edges",
    why: "a crate exists to make a forbidden import impossible to write; `store`, `runtime`, \
          `gateway` and `peer` never know one another, and all meet only in `src/`",
    remedy: "move the shared type to `crates/core`, or join the two in `src/serve.rs` through a \
             trait; a new crate needs a row in `LIBRARIES` in `tests/tidy.rs` and a decision in \
             `docs/adr/`",
};

static PURE: Rule = Rule {
    name: "pure dependencies",
    why: "`core` reads no clock, file, socket or entropy, and its manifest is the proof",
    remedy: "pass the value in as an argument; if the library is pure, add it to `LIBRARIES` in \
             `tests/tidy.rs`",
};

static FENCE: Rule = Rule {
    name: "fenced dependencies",
    why: "a heavy dependency stays in the one crate that wraps it, out of everyone else's tests \
          and out of reach of everyone else's code",
    remedy: "use what that crate offers, or extend it; the table is `FENCES` in `tests/tidy.rs`",
};

static LINTS: Rule = Rule {
    name: "lints",
    why: "the lints are set once for the workspace; a package that does not inherit them is not \
          checked",
    remedy: "add `[lints]` with `workspace = true` to the manifest",
};

static SOURCES: Rule = Rule {
    name: "sources",
    why: "a build must give the same result next year: a version range without a floor, a \
          repository or another registry may change or go",
    remedy: "depend on a version that is published on crates.io",
};

/// Where the crates of a lock file may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A dependency as a manifest spells it.
#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    line: usize,
    /// The package's name, through a rename.
    package: String,
    /// Whether it is for tests only.
    test: bool,
    /// Whether it stands in `[workspace.dependencies]`, which gives it to no package yet.
    shared: bool,
    /// Everything after the `=`.
    value: String,
}

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.all() {
        match file.name() {
            "Cargo.toml" => check_manifest(file, &mut found),
            "Cargo.lock" => check_lock(file, &mut found),
            _ => {}
        }
    }
    found
}

fn check_manifest(file: &File, found: &mut Vec<Violation>) {
    let dependencies = dependencies(&file.text);
    for dependency in &dependencies {
        check_source(file, dependency, found);
    }
    let folder = match file.path.strip_suffix("Cargo.toml") {
        Some("") => ".",
        Some(folder) => folder.trim_end_matches('/'),
        None => return,
    };
    // The guests are a workspace of their own.
    let library = folder.strip_prefix("crates/");
    if library.is_none() && folder != "." {
        return;
    }
    for dependency in dependencies.iter().filter(|dependency| !dependency.shared) {
        check_fences(file, folder, dependency, found);
    }
    if let Some(name) = library {
        match LIBRARIES.iter().find(|library| library.folder == name) {
            Some(library) => check_library(file, library, &dependencies, found),
            None => {
                found.push(file.violation(1, &EDGES, format!("`{folder}` is not in the table")))
            }
        }
    }
    if !inherits_lints(&file.text) {
        found.push(file.violation(1, &LINTS, "the workspace's lints are not inherited"));
    }
}

fn check_library(
    file: &File,
    library: &Library,
    dependencies: &[Dependency],
    found: &mut Vec<Violation>,
) {
    for dependency in dependencies {
        let package = dependency.package.as_str();
        if package == "sampan" || package.starts_with("sampan-") {
            if !library.ours.contains(&package) {
                let text = format!("`{}` depends on `{package}`", library.folder);
                found.push(file.violation(dependency.line, &EDGES, text));
            }
        } else if let Some(only) = library.only {
            let allowed =
                only.contains(&package) || (dependency.test && library.tests.contains(&package));
            if !allowed {
                let text = format!("`{}` depends on `{package}`", library.folder);
                found.push(file.violation(dependency.line, &PURE, text));
            }
        }
    }
}

fn check_fences(file: &File, folder: &str, dependency: &Dependency, found: &mut Vec<Violation>) {
    for Fence {
        package,
        feature,
        homes,
    } in FENCES
    {
        if homes.contains(&folder) || !matches(package, &dependency.package) {
            continue;
        }
        match feature {
            None => {
                let text = format!("`{folder}` depends on `{}`", dependency.package);
                found.push(file.violation(dependency.line, &FENCE, text));
            }
            // A test may serve what the code under test calls.
            Some(_) if dependency.test => {}
            Some(feature) => {
                for used in strings(&dependency.value).filter(|used| matches(feature, used)) {
                    let text = format!("`{folder}` uses `{used}` of `{}`", dependency.package);
                    found.push(file.violation(dependency.line, &FENCE, text));
                }
            }
        }
    }
}

/// Whether `name` is what `pattern` says; a trailing `*` stands for any ending.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn check_source(file: &File, dependency: &Dependency, found: &mut Vec<Violation>) {
    let Dependency {
        line,
        package,
        value,
        ..
    } = dependency;
    let any = value == "\"*\"" || entry(value, "version") == Some("*");
    if any {
        found.push(file.violation(*line, &SOURCES, format!("`{package}` takes any version")));
    }
    for key in ["git", "registry", "registry-index"] {
        if let Some(source) = entry(value, key) {
            let text = format!("`{package}` comes from `{source}`");
            found.push(file.violation(*line, &SOURCES, text));
        }
    }
}

fn check_lock(file: &File, found: &mut Vec<Violation>) {
    for (index, line) in file.text.lines().enumerate() {
        if let Some(source) = line.strip_prefix("source = ")
            && source.trim_matches('"') != REGISTRY
        {
            let text = format!("a crate comes from {source}");
            found.push(file.violation(index + 1, &SOURCES, text));
        }
    }
}

fn inherits_lints(manifest: &str) -> bool {
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[lints]";
        } else if inside && line.replace(' ', "") == "workspace=true" {
            return true;
        }
    }
    false
}

/// The dependencies of a manifest, in its order.
fn dependencies(manifest: &str) -> Vec<Dependency> {
    let mut found: Vec<Dependency> = Vec::new();
    // The table we are in, if it holds dependencies.
    let mut table: Option<Table> = None;
    // Brackets that are still open: a value goes on over several lines.
    let mut open = 0_usize;
    for (index, line) in manifest.lines().enumerate() {
        let line = without_comment(line).trim();
        if open > 0 {
            if let Some(last) = found.last_mut().filter(|_| table.is_some()) {
                last.value.push_str(line);
            }
        } else if line.starts_with('[') {
            table = Table::of(line);
            if let Some(Table {
                test,
                shared,
                one: Some(package),
            }) = &table
            {
                found.push(Dependency {
                    line: index + 1,
                    package: package.clone(),
                    test: *test,
                    shared: *shared,
                    value: String::new(),
                });
            }
            continue;
        } else if let (Some(table), Some((key, value))) = (&table, line.split_once('=')) {
            let (key, value) = (key.trim(), value.trim());
            if table.one.is_some() {
                if let Some(last) = found.last_mut() {
                    rename(last, &format!("{key} = {value}"));
                }
            } else {
                let (name, rest) = key.split_once('.').unwrap_or((key, ""));
                let mut dependency = Dependency {
                    line: index + 1,
                    package: name.trim_matches('"').into(),
                    test: table.test,
                    shared: table.shared,
                    value: String::new(),
                };
                let dotted = if rest.is_empty() {
                    String::new()
                } else {
                    format!("{rest} = ")
                };
                rename(&mut dependency, &format!("{dotted}{value}"));
                found.push(dependency);
            }
        }
        let (opened, closed) = brackets(line);
        open = (open + opened).saturating_sub(closed);
    }
    found
}

/// Adds `value` to what is known of `dependency`, and follows a rename in it.
fn rename(dependency: &mut Dependency, value: &str) {
    if let Some(package) = entry(value, "package") {
        dependency.package = package.into();
    }
    dependency.value.push_str(value);
    // Keys of a table on lines of their own stay apart.
    if value.contains(" = ") && !value.starts_with('{') {
        dependency.value.push(' ');
    }
}

/// What the heading of a table with dependencies says.
struct Table {
    test: bool,
    shared: bool,
    /// The package, if the table is about one only: `[dependencies.serde]`.
    one: Option<String>,
}

impl Table {
    fn of(heading: &str) -> Option<Self> {
        let names = segments(heading.trim_matches(['[', ']']));
        let at = names.iter().position(|name| {
            matches!(
                name.as_str(),
                "dependencies" | "dev-dependencies" | "build-dependencies"
            )
        })?;
        Some(Self {
            test: names[at] == "dev-dependencies",
            shared: names[0] == "workspace",
            one: names.get(at + 1).cloned(),
        })
    }
}

/// The parts of a dotted key; dots in quotes do not count.
fn segments(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    for c in key.chars() {
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && matches!(c, '"' | '\'') {
            quote = Some(c);
        } else if quote.is_none() && c == '.' {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts.iter().map(|part| part.trim().to_owned()).collect()
}

/// The string under `key` in an inline table or a list of `key = "value"`.
fn entry<'a>(value: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = value;
    while let Some(at) = rest.find(key) {
        let word = rest[..at].ends_with([' ', '{', ',']) || at == 0;
        let after = rest[at + key.len()..].trim_start();
        if word && let Some(text) = after.strip_prefix('=') {
            return text.trim_start().strip_prefix('"')?.split('"').next();
        }
        rest = &rest[at + key.len()..];
    }
    None
}

/// The quoted strings of a value.
fn strings(value: &str) -> impl Iterator<Item = &str> {
    value.split('"').skip(1).step_by(2)
}

/// How many brackets a line opens and closes, outside strings.
fn brackets(line: &str) -> (usize, usize) {
    let code: String = line.split('"').step_by(2).collect();
    (
        code.matches(['[', '{']).count(),
        code.matches([']', '}']).count(),
    )
}

/// The line up to a `#` that is not in a string.
fn without_comment(line: &str) -> &str {
    let mut inside = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => inside = !inside,
            '#' if !inside => return &line[..at],
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTED: &str = "[lints]\nworkspace = true\n";

    fn found(path: &str, manifest: &str) -> Vec<String> {
        let text = format!("{manifest}\n{LINTED}");
        check(&Tree::of(&[(path, &text)]))
            .iter()
            .map(|violation| {
                format!(
                    "{} {}: {}",
                    violation.line, violation.rule.name, violation.found
                )
            })
            .collect()
    }

    #[test]
    fn a_manifest_is_read_in_all_its_spellings() {
        let manifest = r#"
[package]
name = "x" # not a dependency
[dependencies]
a = "1"
b.workspace = true
c = { version = "1", features = [
    "x", # why
    "y",
] }
d = { package = "real", version = "2" }
[dependencies.e]
version = "3"
package = "other"
[target.'cfg(target_os = "linux")'.dev-dependencies]
f = "1"
[workspace.dependencies]
g = "1"
[features]
h = []
"#;
        let all = dependencies(manifest);
        let names: Vec<_> = all.iter().map(|d| (d.line, d.package.as_str())).collect();
        let wanted = [
            (5, "a"),
            (6, "b"),
            (7, "c"),
            (11, "real"),
            (12, "other"),
            (16, "f"),
            (18, "g"),
        ];
        assert_eq!(names, wanted);
        assert!(all[5].test && !all[4].test);
        assert!(all[6].shared && !all[5].shared);
        assert_eq!(strings(&all[2].value).collect::<Vec<_>>(), ["1", "x", "y"]);
        assert_eq!(entry(&all[4].value, "version"), Some("3"));
    }

    #[test]
    fn libraries_that_must_not_know_one_another() {
        for (path, dependency) in [
            ("crates/core/Cargo.toml", "sampan-store"),
            ("crates/gateway/Cargo.toml", "sampan-runtime"),
            ("crates/runtime/Cargo.toml", "sampan-gateway"),
            ("crates/store/Cargo.toml", "sampan"),
        ] {
            for table in [
                "dependencies",
                "dev-dependencies",
                "target.'cfg(unix)'.dependencies",
            ] {
                let all = found(path, &format!("[{table}]\n{dependency}.workspace = true"));
                assert_eq!(all.len(), 1, "{path}: {all:?}");
                assert!(all[0].starts_with("2 crate edges: "), "{all:?}");
            }
        }
        assert_eq!(
            found(
                "crates/runtime/Cargo.toml",
                "[dependencies]\nsampan-core = \"1\""
            ),
            [""; 0]
        );
        assert_eq!(found("crates/extra/Cargo.toml", "").len(), 1);
    }

    #[test]
    fn core_stays_pure() {
        let core = "crates/core/Cargo.toml";
        for dependency in ["tokio", "hyper", "rand", "fastrand", "tracing", "tempfile"] {
            let all = found(
                core,
                &format!("[dependencies]\n{dependency}.workspace = true"),
            );
            assert_eq!(all.len(), 1, "{dependency}: {all:?}");
            assert!(all[0].starts_with("2 pure dependencies: "), "{all:?}");
        }
        let renamed = "[dependencies]\nserde = { package = \"tokio\", version = \"1\" }";
        assert_eq!(found(core, renamed).len(), 1);
        assert_eq!(found(core, "[dependencies]\nproptest = \"1\"").len(), 1);
        assert_eq!(found(core, "[dev-dependencies]\nproptest = \"1\""), [""; 0]);
    }

    #[test]
    fn fences_hold() {
        let gateway = "crates/gateway/Cargo.toml";
        let root = "Cargo.toml";
        let server = "[dependencies]\nhyper = { workspace = true, features = [\n\"server\" ] }";
        assert_eq!(
            found(gateway, "[dependencies]\nwasmtime-wasi = \"48\"").len(),
            1
        );
        assert_eq!(
            found(root, "[dev-dependencies]\nwasmtime.workspace = true").len(),
            1
        );
        assert_eq!(found(gateway, "[dependencies]\nanyhow = \"1\"").len(), 1);
        assert_eq!(found("crates/runtime/Cargo.toml", server).len(), 1);
        let auto = "[dependencies.hyper-util]\nfeatures = [\"server-auto\"]";
        assert_eq!(found("crates/runtime/Cargo.toml", auto).len(), 1);

        assert_eq!(found(gateway, server), [""; 0]);
        assert_eq!(found(root, &server.replace("[dep", "[dev-dep")), [""; 0]);
        assert_eq!(
            found(root, "[workspace.dependencies]\nwasmtime = \"48\""),
            [""; 0]
        );
        assert_eq!(
            found(
                "crates/runtime/Cargo.toml",
                "[dependencies]\nwasmtime = \"48\""
            ),
            [""; 0]
        );
    }

    #[test]
    fn lints_are_inherited() {
        let all = check(&Tree::of(&[(
            "Cargo.toml",
            "[package]\n[other]\nworkspace = true\n",
        )]));
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].rule.name, "lints");
    }

    #[test]
    fn other_sources_are_caught() {
        for (path, dependency) in [
            ("Cargo.toml", "[workspace.dependencies]\na = \"*\""),
            ("Cargo.toml", "[dependencies]\na = { version = \"*\" }"),
            (
                "Cargo.toml",
                "[dependencies]\na = { git = \"https://example.com/a\" }",
            ),
            (
                "workloads/Cargo.toml",
                "[dependencies.a]\ngit = \"https://example.com/a\"",
            ),
            (
                "Cargo.toml",
                "[dependencies]\na = { version = \"1\", registry = \"mine\" }",
            ),
        ] {
            let all = found(path, dependency);
            assert_eq!(all.len(), 1, "{dependency}: {all:?}");
            assert!(all[0].contains(" sources: "), "{all:?}");
        }
        let lock = "[[package]]\nname = \"a\"\nsource = \"git+https://example.com/a\"\n";
        let all = check(&Tree::of(&[("Cargo.lock", lock)]));
        assert_eq!((all.len(), all[0].line), (1, 3));
        let lock = format!("source = \"{REGISTRY}\"\n");
        assert!(check(&Tree::of(&[("workloads/Cargo.lock", &lock)])).is_empty());
    }
}
