//! Who may import whom in `src/`.

use crate::lexer::{Kind, Token};
use crate::tree::{File, Rule, Tree, Violation};
use crate::{FENCED_NAMES, FILE_CRATES, MODULES, Module};

static UNKNOWN: Rule = Rule {
    name: "modules",
    why: "the table of modules in `tests/tidy.rs` is the map of `src/`; a module that is not on it \
          could import anything",
    remedy: "add a row to `MODULES` in `tests/tidy.rs` with what the module may name, and a line \
             to `ARCHITECTURE.md`; or make it a child of a module that exists",
};

static IMPORTS: Rule = Rule {
    name: "imports",
    why: "parts meet only in the store and in `serve`: an edge that is not in the table makes two \
          parts one, and neither can be tested or replaced alone",
    remedy: "pass what is needed as an argument from `serve`, or go through the store; if the \
             architecture itself changes, change `MODULES` in `tests/tidy.rs` and \
             `ARCHITECTURE.md` together",
};

static CRATES: Rule = Rule {
    name: "crate imports",
    why: "only `serve` sees all crates; everywhere else a crate that is not named is a crate \
          whose changes cannot break the module",
    remedy: "take the value through a type of `sampan_core` or of the module itself; if the \
             architecture changes, change `MODULES` or `FILE_CRATES` in `tests/tidy.rs`",
};

static FENCED: Rule = Rule {
    name: "fenced names",
    why: "callers that can act differently on errors need types, and only the command line knows \
          about arguments",
    remedy: "use a `thiserror` enum of the module; parse arguments in `src/cli/` and pass values",
};

/// A path of two names or more, cut down to what the tables need.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    line: usize,
    /// The top-level module or the crate.
    root: &'a str,
    /// What follows it, if anything does.
    item: Option<&'a str>,
}

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let Some(inside) = file.path.strip_prefix("src/") else {
            continue;
        };
        let names: Vec<_> = inside.trim_end_matches(".rs").split('/').collect();
        let Some(module) = MODULES.iter().find(|module| module.name == names[0]) else {
            found.push(file.violation(1, &UNKNOWN, format!("`{}` is not in the table", names[0])));
            continue;
        };
        let tokens = file.tokens();
        check_modules(file, module, &own_paths(&tokens, &names), &mut found);
        check_crates(file, module, &tokens, &mut found);
        check_fenced(file, module, &tokens, &mut found);
    }
    found
}

fn check_modules(file: &File, module: &Module, paths: &[Named<'_>], found: &mut Vec<Violation>) {
    for path in paths {
        let name = path.root;
        let glob = name == "*";
        let known = glob || MODULES.iter().any(|module| module.name == name);
        // A name that is no module of the table is an item of the crate's root, or a typing error.
        if known && name != module.name && !module.modules.contains(&name) {
            let text = format!("`{}` names `crate::{name}`", module.name);
            found.push(file.violation(path.line, &IMPORTS, text));
        }
    }
}

fn check_crates(file: &File, module: &Module, tokens: &[Token<'_>], found: &mut Vec<Violation>) {
    let by_file = FILE_CRATES
        .iter()
        .filter(|(path, _)| *path == file.path)
        .map(|(_, name)| *name);
    let allowed: Vec<_> = module.crates.iter().copied().chain(by_file).collect();
    for (index, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Word || !token.text.starts_with("sampan_") || !starts(tokens, index)
        {
            continue;
        }
        for path in leaves(tokens, index) {
            let whole = path.root;
            let item = path.item.map(|item| format!("{whole}::{item}"));
            let name = item.as_deref().unwrap_or(whole);
            if is_crate(whole) && !allowed.contains(&whole) && !allowed.contains(&name) {
                let text = format!("`{}` names `{name}`", module.name);
                found.push(file.violation(path.line, &CRATES, text));
            }
        }
    }
}

/// Whether `name` is a crate of ours: one that some module may name, whole.
fn is_crate(name: &str) -> bool {
    MODULES.iter().any(|module| module.crates.contains(&name))
}

fn check_fenced(file: &File, module: &Module, tokens: &[Token<'_>], found: &mut Vec<Violation>) {
    for (index, token) in tokens.iter().enumerate() {
        let fence = FENCED_NAMES.iter().find(|(name, _)| token.is(name));
        let Some((name, homes)) = fence else { continue };
        let path = tokens.get(index + 1).is_some_and(|next| next.is("::"));
        let import = index > 0 && tokens[index - 1].is("use");
        if (path || import) && starts(tokens, index) && !homes.contains(&module.name) {
            let text = format!("`{}` names `{name}`", module.name);
            found.push(file.violation(token.line, &FENCED, text));
        }
    }
}

/// Whether the word at `index` begins a path.
fn starts(tokens: &[Token<'_>], index: usize) -> bool {
    // `::name` begins one, `a::name` does not.
    let Some(before) = index.checked_sub(1).map(|at| tokens[at]) else {
        return true;
    };
    let within = index.checked_sub(2).map(|at| tokens[at]);
    !before.is("::") || !within.is_some_and(|token| token.kind == Kind::Word && !token.is("use"))
}

/// All paths of a file that lead to a top-level module: `crate::a`, `sampan::a`, `super::…::a`
/// and, in `main.rs`, `a` itself. `names` is the file's own path of modules.
fn own_paths<'a>(tokens: &[Token<'a>], names: &[&str]) -> Vec<Named<'a>> {
    let is_root = names == ["main"];
    let base = if is_root { 0 } else { names.len() };
    let mut paths = Vec::new();
    let mut braces = 0_usize;
    // The depths of braces at which inline modules opened.
    let mut inline: Vec<usize> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.is("{") {
            let opens = index >= 2 && tokens[index - 2].is("mod");
            braces += 1;
            if opens {
                inline.push(braces);
            }
        } else if token.is("}") {
            if inline.last() == Some(&braces) {
                inline.pop();
            }
            braces = braces.saturating_sub(1);
        } else if token.kind == Kind::Word && starts(tokens, index) {
            let depth = base + inline.len();
            paths.extend(from_word(tokens, index, depth));
        }
    }
    paths
}

/// The paths that the word at `index`, in a module `depth` below the root, begins.
fn from_word<'a>(tokens: &[Token<'a>], index: usize, depth: usize) -> Vec<Named<'a>> {
    let word = tokens[index];
    let leads = tokens.get(index + 1).is_some_and(|next| next.is("::"));
    let mut at = index;
    let mut left = depth;
    if word.is("super") {
        while tokens[at].is("super") && tokens.get(at + 1).is_some_and(|next| next.is("::")) {
            left = left.saturating_sub(1);
            at += 2;
            if at >= tokens.len() {
                return Vec::new();
            }
        }
        // `super::*` in an inline module stays inside the file's module.
        return if left == 0 && at > index {
            leaves(tokens, at)
        } else {
            Vec::new()
        };
    }
    if leads && (word.is("crate") || word.is("sampan") || (word.is("self") && depth == 0)) {
        return leaves(tokens, index + 2);
    }
    let used = index > 0 && tokens[index - 1].is("use");
    if depth == 0 && (leads || used) && MODULES.iter().any(|module| word.is(module.name)) {
        return leaves(tokens, index);
    }
    Vec::new()
}

/// The paths that the use tree or path at `at` spells out, each cut after two names.
fn leaves<'a>(tokens: &[Token<'a>], at: usize) -> Vec<Named<'a>> {
    let mut paths = Vec::new();
    for (root, after) in branches(tokens, at) {
        let next = tokens.get(after).filter(|token| token.is("::"));
        let items = if next.is_some() {
            branches(tokens, after + 1)
        } else {
            Vec::new()
        };
        if items.is_empty() {
            paths.push(Named {
                line: root.line,
                root: root.text,
                item: None,
            });
        }
        for (item, _) in items {
            // `a::{self}` is `a`.
            let item_text = (!item.is("self")).then_some(item.text);
            paths.push(Named {
                line: item.line,
                root: root.text,
                item: item_text,
            });
        }
    }
    paths
}

/// The first names of the use tree at `at`, each with the index after it.
fn branches<'a>(tokens: &[Token<'a>], at: usize) -> Vec<(Token<'a>, usize)> {
    let Some(token) = tokens.get(at) else {
        return Vec::new();
    };
    if token.kind == Kind::Word || token.is("*") {
        return vec![(*token, at + 1)];
    }
    if !token.is("{") {
        return Vec::new();
    }
    let end = crate::lexer::after_group(tokens, at);
    let mut found = Vec::new();
    let mut index = at + 1;
    let mut fresh = true;
    while index + 1 < end {
        let token = &tokens[index];
        if fresh {
            found.extend(branches(tokens, index));
            fresh = false;
        }
        if token.is("{") {
            index = crate::lexer::after_group(tokens, index);
        } else {
            fresh = token.is(",");
            index += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, source: &str) -> Vec<String> {
        check(&Tree::of(&[(path, source)]))
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
    fn a_forbidden_edge_is_caught_however_it_is_written() {
        for source in [
            "use crate::edge::Publisher;",
            "use crate::{edge::Publisher};",
            "use crate::{agent::Worker, edge::{A, B}};",
            "use crate::{self, edge};",
            "fn f() { crate::edge::publish::<u8>(); }",
            "fn f(x: &crate::edge::A) {}",
            "use super::edge;",
            "mod inner { use super::super::edge::A; }",
            "mod inner { fn f() { crate::edge::a() } }",
            "pub use sampan::edge;",
            "macro_rules! m { () => { $crate::edge::a() } }",
        ] {
            let all = found("src/agent.rs", source);
            assert!(!all.is_empty(), "{source} was not caught");
            assert!(
                all.iter()
                    .all(|v| v == "1 imports: `agent` names `crate::edge`"),
                "{all:?}"
            );
        }
        assert_eq!(
            found(
                "src/agent/worker/run.rs",
                "\nuse super::super::super::edge;"
            )
            .len(),
            1
        );
        assert_eq!(
            found("src/serve.rs", "use crate::*;"),
            ["1 imports: `serve` names `crate::*`"]
        );
    }

    #[test]
    fn the_root_may_name_the_command_line_only() {
        assert!(
            found(
                "src/main.rs",
                "mod cli; mod serve; fn main() { cli::main() }"
            )
            .is_empty()
        );
        for source in [
            "fn main() { serve::start() }",
            "use serve::start;",
            "use self::serve;",
        ] {
            assert_eq!(
                found("src/main.rs", source),
                ["1 imports: `main` names `crate::serve`"]
            );
        }
    }

    #[test]
    fn allowed_edges_and_look_alikes_pass() {
        for (path, source) in [
            (
                "src/serve.rs",
                "use crate::{agent::A, edge::{self, B}, tasks};",
            ),
            (
                "src/agent/worker.rs",
                "use super::usage::A; use crate::agent::usage::B;",
            ),
            ("src/agent/worker.rs", "mod tests { use super::*; }"),
            (
                "src/agent.rs",
                "// crate::edge\nconst A: &str = \"crate::edge\";",
            ),
            (
                "src/agent.rs",
                "use sampan_core::edge::Edge; use other::edge;",
            ),
            ("src/agent.rs", "pub(in crate::agent) fn f() {}"),
            ("src/cli/up.rs", "use crate::serve; use crate::cli::output;"),
        ] {
            assert_eq!(found(path, source), [""; 0], "{path}: {source}");
        }
    }

    #[test]
    fn a_module_that_is_not_in_the_table_is_caught() {
        let all = found("src/scheduler/queue.rs", "//! Queue.\n");
        assert_eq!(all, ["1 modules: `scheduler` is not in the table"]);
    }

    #[test]
    fn a_forbidden_crate_is_caught() {
        for (path, source, name) in [
            (
                "src/edge.rs",
                "use sampan_runtime::Runtime;",
                "sampan_runtime::Runtime",
            ),
            (
                "src/main.rs",
                "fn main() { ::sampan_gateway::run(); }",
                "sampan_gateway::run",
            ),
            (
                "src/agent.rs",
                "use sampan_gateway::{Upstream, Server};",
                "sampan_gateway::Server",
            ),
            ("src/agent.rs", "use sampan_gateway as g;", "sampan_gateway"),
            (
                "src/agent.rs",
                "use sampan_gateway::*;",
                "sampan_gateway::*",
            ),
            (
                "src/cli/up.rs",
                "use sampan_runtime::Runtime;",
                "sampan_runtime::Runtime",
            ),
        ] {
            let all = found(path, source);
            assert_eq!(all.len(), 1, "{source}: {all:?}");
            assert!(all[0].ends_with(&format!("names `{name}`")), "{all:?}");
        }
    }

    #[test]
    fn allowed_crates_pass() {
        for (path, source) in [
            (
                "src/agent.rs",
                "use sampan_gateway::Upstream; use sampan_gateway::{Body, UpstreamError};",
            ),
            (
                "src/agent.rs",
                "use sampan_core::{name::Name, spec}; let sampan_dir = 1;",
            ),
            (
                "src/cli/inspect.rs",
                "use sampan_runtime::admission::Report;",
            ),
            (
                "src/serve.rs",
                "use sampan_gateway::Server; use sampan_runtime::Runtime;",
            ),
        ] {
            assert_eq!(found(path, source), [""; 0], "{path}: {source}");
        }
    }

    #[test]
    fn fenced_names_are_caught() {
        for source in [
            "use anyhow::Context;",
            "fn f() -> anyhow::Result<()> {}",
            "use anyhow;",
        ] {
            assert_eq!(
                found("src/edge.rs", source),
                ["1 fenced names: `edge` names `anyhow`"]
            );
            assert_eq!(found("src/cli/up.rs", source), [""; 0]);
        }
        assert_eq!(found("src/serve.rs", "use clap::Parser;").len(), 1);
        assert_eq!(
            found("src/serve.rs", "use crate::config::anyhow::X;").len(),
            0
        );
    }
}
