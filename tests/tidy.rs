//! The tidy test: the rules of `ARCHITECTURE.md` and `STYLE.md` that a compiler does not check.
//!
//! It needs nothing but the standard library, so that it can run before anything else is built:
//!
//! ```sh
//! mkdir -p target/ci && rustc --edition 2024 --test tests/tidy.rs -o target/ci/tidy && target/ci/tidy
//! ```
//!
//! All violations are reported at once. Every rule has a unit test with an input that it must
//! catch. The tables below are the rules' data: a change of the architecture is a change of a row.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/declared.rs"]
mod declared;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/markdown.rs"]
mod markdown;
#[path = "tidy/modules.rs"]
mod modules;
#[path = "tidy/size.rs"]
mod size;
#[path = "tidy/text.rs"]
mod text;
#[path = "tidy/tree.rs"]
mod tree;

use std::path::PathBuf;

use tree::{Tree, Violation};

/// A top-level module of `src/` and what it may name.
pub(crate) struct Module {
    /// Its name: `agent` covers `src/agent.rs` and everything in `src/agent/`.
    name: &'static str,
    /// Top-level modules of `src/` that it may name.
    modules: &'static [&'static str],
    /// Our crates that it may name, whole (`sampan_core`) or one item (`sampan_gateway::Upstream`).
    crates: &'static [&'static str],
}

/// Who may import whom in `src/`. Rows of modules that do not exist yet do no harm.
const MODULES: &[Module] = &[
    Module {
        name: "main",
        modules: &["cli", "panics"],
        crates: &[],
    },
    Module {
        name: "panics",
        modules: &[],
        crates: &["sampan_core", "sampan_runtime"],
    },
    Module {
        name: "cli",
        modules: &["serve", "cluster", "config", "file", "client"],
        crates: &["sampan_core"],
    },
    Module {
        name: "cluster",
        modules: &["clock", "mirror"],
        crates: &["sampan_core", "sampan_peer", "sampan_store"],
    },
    Module {
        name: "clock",
        modules: &[],
        crates: &["sampan_core"],
    },
    Module {
        name: "events",
        modules: &[],
        crates: &["sampan_core"],
    },
    Module {
        name: "load",
        modules: &[],
        crates: &["sampan_core"],
    },
    Module {
        name: "mirror",
        modules: &[],
        crates: &["sampan_core", "sampan_store"],
    },
    Module {
        name: "secrets",
        modules: &[],
        crates: &["sampan_core", "sampan_store"],
    },
    Module {
        name: "serve",
        modules: &[
            "agent",
            "api",
            "artifacts",
            "clock",
            "cluster",
            "config",
            "controllers",
            "edge",
            "events",
            "file",
            "load",
            "mirror",
            "panics",
            "secrets",
            "telemetry",
        ],
        crates: &[
            "sampan_core",
            "sampan_peer",
            "sampan_store",
            "sampan_runtime",
            "sampan_gateway",
        ],
    },
    Module {
        name: "api",
        modules: &[
            "artifacts",
            "clock",
            "events",
            "file",
            "load",
            "mirror",
            "secrets",
        ],
        crates: &["sampan_core", "sampan_store"],
    },
    Module {
        name: "artifacts",
        modules: &["file"],
        crates: &["sampan_core"],
    },
    Module {
        name: "controllers",
        modules: &["clock", "events", "load", "mirror", "panics"],
        crates: &["sampan_core", "sampan_store"],
    },
    Module {
        name: "agent",
        modules: &[
            "artifacts",
            "clock",
            "events",
            "mirror",
            "panics",
            "secrets",
        ],
        crates: &[
            "sampan_core",
            "sampan_store",
            "sampan_runtime",
            // The data path's one exception: the agent implements the gateway's trait.
            "sampan_gateway::Body",
            "sampan_gateway::BodyError",
            "sampan_gateway::RequestContext",
            "sampan_gateway::Upstream",
            "sampan_gateway::UpstreamError",
        ],
    },
    Module {
        name: "edge",
        modules: &["mirror"],
        crates: &["sampan_core", "sampan_store", "sampan_gateway"],
    },
    Module {
        name: "client",
        modules: &["config", "file"],
        crates: &["sampan_core"],
    },
    Module {
        name: "file",
        modules: &[],
        crates: &["sampan_core", "sampan_runtime::admission"],
    },
    Module {
        name: "config",
        modules: &[],
        crates: &["sampan_core"],
    },
    Module {
        name: "telemetry",
        modules: &[],
        crates: &["sampan_core"],
    },
];

/// Single files of `src/` that may name one crate more than their module.
const FILE_CRATES: &[(&str, &str)] = &[
    ("src/cli/cluster.rs", "sampan_peer"),
    ("src/cli/compile.rs", "sampan_runtime"),
    ("src/cli/inspect.rs", "sampan_runtime"),
    ("src/cli/process.rs", "sampan_runtime"),
    ("src/cli/run.rs", "sampan_runtime"),
];

/// Outside crates that only some modules of `src/` may name.
const FENCED_NAMES: &[(&str, &[&str])] =
    &[("anyhow", &["main", "cli"]), ("clap", &["main", "cli"])];

/// One of our library crates and what its manifest may name.
pub(crate) struct Library {
    /// Its folder under `crates/`.
    folder: &'static str,
    /// Packages of ours that it may depend on.
    ours: &'static [&'static str],
    /// All it may depend on besides, or `None` for no closed list.
    only: Option<&'static [&'static str]>,
    /// What its tests may use beyond `only`.
    tests: &'static [&'static str],
}

const LIBRARIES: &[Library] = &[
    Library {
        folder: "core",
        ours: &[],
        // Pure libraries: none reads a clock, a file, a socket or entropy.
        only: Some(&[
            "annotate-snippets",
            "base16ct",
            "base64",
            "croner",
            "icu_properties",
            "ipnet",
            "jiff",
            "percent-encoding",
            "schemars",
            "serde",
            "serde_json",
            "sha2",
            "strsim",
            "thiserror",
            "toml",
            "toml_parser",
            "zeroize",
        ]),
        tests: &["proptest", "regex"],
    },
    Library {
        folder: "peer",
        ours: &["sampan-core"],
        only: None,
        tests: &[],
    },
    Library {
        folder: "store",
        ours: &["sampan-core"],
        only: None,
        tests: &[],
    },
    Library {
        folder: "runtime",
        ours: &["sampan-core"],
        only: None,
        tests: &[],
    },
    Library {
        folder: "gateway",
        ours: &["sampan-core"],
        only: None,
        tests: &[],
    },
];

/// A dependency that only some packages may have.
pub(crate) struct Fence {
    /// The package's name; a trailing `*` stands for any ending.
    package: &'static str,
    /// The feature that is fenced off; `None` for the package as a whole.
    feature: Option<&'static str>,
    /// Folders of the packages that may have it; the root package is `.`.
    homes: &'static [&'static str],
}

const FENCES: &[Fence] = &[
    Fence {
        package: "wasmtime*",
        feature: None,
        homes: &["crates/runtime"],
    },
    Fence {
        package: "wit-component",
        feature: None,
        homes: &["crates/runtime"],
    },
    Fence {
        package: "wasi-preview1-component-adapter-provider",
        feature: None,
        homes: &["crates/runtime"],
    },
    Fence {
        package: "rusqlite",
        feature: None,
        homes: &["crates/store"],
    },
    Fence {
        package: "libsqlite3-sys",
        feature: None,
        homes: &["crates/store"],
    },
    Fence {
        package: "tonic*",
        feature: None,
        homes: &["crates/store"],
    },
    Fence {
        package: "prost*",
        feature: None,
        homes: &["crates/store"],
    },
    Fence {
        package: "hyper",
        feature: Some("server"),
        // The API and the port for other nodes bound their connections themselves.
        homes: &["crates/gateway", "crates/peer", "."],
    },
    Fence {
        package: "hyper-util",
        feature: Some("server*"),
        homes: &["crates/gateway"],
    },
    Fence {
        package: "tokio-rustls",
        feature: None,
        homes: &["crates/peer"],
    },
    Fence {
        package: "rcgen",
        feature: None,
        homes: &["crates/peer"],
    },
    Fence {
        package: "rustls-webpki",
        feature: None,
        homes: &["crates/peer"],
    },
    Fence {
        package: "clap*",
        feature: None,
        homes: &["."],
    },
    Fence {
        package: "anyhow",
        feature: None,
        homes: &["."],
    },
];

/// The page that has the table of the modules of every crate.
const PAGE_OF_LAYERS: &str = "ARCHITECTURE.md";

/// The only file that prints.
const PRINTER: &str = "src/cli/output.rs";

/// Lines of production code in a file; `#[cfg(test)]` items are not counted.
const FILE_LINES: usize = 600;

/// Lines of a function, from its `fn` to its closing brace.
const FUNCTION_LINES: usize = 70;

/// Words that say nothing about what a thing does.
const EMPTY_WORDS: &[&str] = &[
    "manager", "helper", "helpers", "util", "utils", "common", "misc",
];

/// Every rule, over the whole tree.
fn violations(tree: &Tree) -> Vec<Violation> {
    let rules: &[fn(&Tree) -> Vec<Violation>] = &[
        imports::check,
        layers::check,
        manifests::check,
        size::check,
        code::check,
        declared::check,
        text::check,
        markdown::check,
    ];
    let mut found: Vec<_> = rules.iter().flat_map(|rule| rule(tree)).collect();
    found.sort_by(|a, b| (&a.path, a.line, a.rule.name).cmp(&(&b.path, b.line, b.rule.name)));
    found
}

/// The folder of the checkout.
fn root() -> PathBuf {
    match option_env!("CARGO_MANIFEST_DIR") {
        Some(root) => root.into(),
        None => std::env::current_dir().expect("a current directory"),
    }
}

#[test]
#[ignore = "prints which file of a crate names what of which other: `just modules`"]
fn print_the_modules() {
    let tree = Tree::read(&root()).expect("the checkout is readable");
    for graph in modules::graphs(&tree) {
        println!("{}", layers::shown(&graph));
    }
}

#[test]
#[ignore = "writes the table of layers in `ARCHITECTURE.md`: `just layers`"]
fn write_the_layers() {
    let tree = Tree::read(&root()).expect("the checkout is readable");
    let page = tree.file(PAGE_OF_LAYERS).expect("the page is there");
    let text = layers::written(&page.text, &modules::graphs(&tree)).expect("the page has marks");
    std::fs::write(root().join(PAGE_OF_LAYERS), text).expect("the page can be written");
}

#[test]
fn the_tree_is_tidy() {
    let root = root();
    let tree = Tree::read(&root).expect("the checkout is readable");
    // A walk that found nothing would find nothing wrong.
    assert!(
        tree.file("Cargo.toml").is_some(),
        "no `Cargo.toml` in `{}`",
        root.display()
    );
    assert!(
        tree.file("src/main.rs").is_some(),
        "no `src/main.rs` in `{}`",
        root.display()
    );

    let found = violations(&tree);
    let report: String = found
        .iter()
        .map(|violation| format!("{violation}\n"))
        .collect();
    assert!(
        found.is_empty(),
        "the tree is not tidy: {} violations\n\n{report}",
        found.len()
    );
}

#[test]
fn violations_are_reported_all_at_once_and_in_order() {
    let tree = Tree::of(&[
        ("CHANGELOG.md", "## [Unreleased]\n"),
        ("src/edge.rs", "//! Edge.\nuse crate::agent::A;\n"),
        (
            "src/agent.rs",
            "//! Agent.\nfn f() { println!(); }\nuse crate::edge::E; \n",
        ),
    ]);
    let found = violations(&tree);
    let places: Vec<_> = found
        .iter()
        .map(|v| (v.path.as_str(), v.line, v.rule.name))
        .collect();
    assert_eq!(
        places,
        [
            ("src/agent.rs", 2, "prints"),
            ("src/agent.rs", 3, "imports"),
            ("src/agent.rs", 3, "trailing whitespace"),
            ("src/edge.rs", 2, "imports"),
        ]
    );
    let shown = found[0].to_string();
    for part in ["src/agent.rs:2: prints: ", "\n    why: ", "\n    do:  "] {
        assert!(shown.contains(part), "{part:?} is missing in {shown:?}");
    }
}
