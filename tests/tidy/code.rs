//! What code may say: printing, purity of `core`, names.

use crate::lexer::{self, Kind, Token};
use crate::tree::{Rule, Tree, Violation};
use crate::{EMPTY_WORDS, PRINTER};

static PRINTS: Rule = Rule {
    name: "prints",
    why: "data goes to stdout and talk to stderr, with one idea of colour and terminals, only if \
          one file does it",
    remedy: "return the value and let `src/cli/output.rs` show it, or write a `tracing` event",
};

static PURE: Rule = Rule {
    name: "purity",
    why: "`core` decides as a function of its arguments: a decision that reads the world cannot be \
          replayed, enumerated or tested on a table",
    remedy: "take `now`, the text or the random number as an argument; use `BTreeMap` and \
             `BTreeSet`, whose order is the same in every run",
};

static NAMES: Rule = Rule {
    name: "names",
    why: "a name says what a thing does; a word that fits everything says nothing and attracts \
          everything",
    remedy: "name the thing by its verb or by what it holds: see the words in `STYLE.md`",
};

const PRINT_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Modules of the standard library that reach the world.
const WORLD: &[&str] = &["env", "fs", "os", "process", "thread"];

/// Types of the standard library that reach the world.
const WORLDLY: &[&str] = &[
    "HashMap",
    "HashSet",
    "RandomState",
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
];

/// Keywords that a new name follows.
const DEFINES: &[&str] = &["enum", "fn", "mod", "struct", "trait", "type"];

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let tokens = file.tokens();
        let mut report = |rule, (line, text): (usize, String)| {
            found.push(file.violation(line, rule, text));
        };
        names(&tokens)
            .into_iter()
            .for_each(|place| report(&NAMES, place));
        let shipped = file.path.starts_with("src/")
            || (file.path.starts_with("crates/") && file.path.contains("/src/"));
        if !shipped || file.is_test() {
            continue;
        }
        let code = lexer::production(&tokens);
        if file.path != PRINTER {
            prints(&code)
                .into_iter()
                .for_each(|place| report(&PRINTS, place));
        }
        if file.path.starts_with("crates/core/") {
            impure(&code)
                .into_iter()
                .for_each(|place| report(&PURE, place));
        }
    }
    found
}

fn prints(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let calls = tokens.windows(2).filter(|pair| {
        pair[0].kind == Kind::Word && PRINT_MACROS.contains(&pair[0].text) && pair[1].is("!")
    });
    calls
        .map(|pair| (pair[0].line, format!("`{}!`", pair[0].text)))
        .collect()
}

fn impure(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.kind != Kind::Word {
            continue;
        }
        let next = |offset: usize| tokens.get(index + offset);
        let leads = next(1).is_some_and(|token| token.is("::"));
        if WORLDLY.contains(&token.text) {
            found.push((token.line, format!("`{}`", token.text)));
        } else if matches!(token.text, "SystemTime" | "Instant")
            && leads
            && next(2).is_some_and(|token| token.is("now"))
        {
            found.push((token.line, format!("`{}::now`", token.text)));
        } else if token.is("std") && leads {
            found.extend(world_modules(tokens, index + 2));
        }
    }
    found
}

/// The modules of `WORLD` that the path or use tree after `std::` names.
fn world_modules(tokens: &[Token<'_>], at: usize) -> Vec<(usize, String)> {
    let Some(first) = tokens.get(at) else {
        return Vec::new();
    };
    let end = if first.is("{") {
        lexer::after_group(tokens, at)
    } else {
        at + 1
    };
    let named = tokens[at..end]
        .iter()
        .enumerate()
        .filter(|(offset, token)| {
            // Inside the braces only the first name of each branch is a module of `std`.
            let heads = *offset == 0 || matches!(tokens[at + offset - 1].text, "{" | ",");
            token.kind == Kind::Word && heads && WORLD.contains(&token.text)
        });
    named
        .map(|(_, token)| (token.line, format!("`std::{}`", token.text)))
        .collect()
}

fn names(tokens: &[Token<'_>]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for pair in tokens.windows(2) {
        let (keyword, name) = (pair[0], pair[1]);
        let defines = keyword.kind == Kind::Word && DEFINES.contains(&keyword.text);
        if !defines || name.kind != Kind::Word {
            continue;
        }
        let vague = words(name.text)
            .into_iter()
            .any(|word| EMPTY_WORDS.contains(&word.as_str()));
        let filler = name.text.starts_with("do_") || name.text.ends_with("_impl");
        if vague || filler {
            found.push((name.line, format!("`{} {}`", keyword.text, name.text)));
        }
    }
    found
}

/// The words of a name in either case, in lower case.
pub(crate) fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(last) = words.last_mut()
        {
            last.extend(c.to_lowercase());
        }
    }
    words
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
    fn printing_is_caught() {
        for name in PRINT_MACROS {
            let source = format!("fn f() {{\n    {name}!(\"x\");\n}}");
            let wanted = [format!("2 prints: `{name}!`")];
            assert_eq!(found("src/cli/up.rs", &source), wanted);
            assert_eq!(found("crates/core/src/a.rs", &source), wanted);
            assert_eq!(found("src/cli/output.rs", &source), [""; 0]);
            assert_eq!(found("workloads/web/src/lib.rs", &source), [""; 0]);
            assert_eq!(found("src/cli/up/tests.rs", &source), [""; 0]);
        }
        for source in [
            "// println!()",
            "a(\"println!\")",
            "#[cfg(test)] mod t { println!(); }",
        ] {
            assert_eq!(found("src/cli/up.rs", source), [""; 0], "{source}");
        }
    }

    #[test]
    fn a_core_that_reads_the_world_is_caught() {
        for (source, what) in [
            ("use std::fs;", "std::fs"),
            ("use std::{fmt, env::var};", "std::env"),
            ("fn f() { std::process::exit(1) }", "std::process"),
            ("fn f() { Instant::now(); }", "Instant::now"),
            (
                "fn f() { std::time::SystemTime::now(); }",
                "SystemTime::now",
            ),
            ("use std::net::TcpStream;", "TcpStream"),
            ("use std::collections::HashMap;", "HashMap"),
        ] {
            let wanted = [format!("1 purity: `{what}`")];
            assert_eq!(found("crates/core/src/plan.rs", source), wanted);
            assert_eq!(found("crates/runtime/src/a.rs", source), [""; 0]);
        }
        for source in [
            "use std::{fmt, net::IpAddr}; fn f(now: std::time::Duration) {}",
            "use std::{collections::{BTreeMap, btree_map::env}};",
            "#[cfg(test)] mod tests { use std::fs; }",
        ] {
            assert_eq!(
                found("crates/core/src/plan.rs", source),
                [""; 0],
                "{source}"
            );
        }
    }

    #[test]
    fn empty_names_are_caught() {
        for (source, what) in [
            ("struct PodManager;", "struct PodManager"),
            ("mod util;", "mod util"),
            ("fn do_start() {}", "fn do_start"),
            ("fn start_impl() {}", "fn start_impl"),
            ("trait CommonParts {}", "trait CommonParts"),
        ] {
            assert_eq!(
                found("tests/it/a.rs", source),
                [format!("1 names: `{what}`")]
            );
        }
        for source in [
            "fn double() {}",
            "struct Miscount;",
            "fn utilisation() {}",
            "mod simple;",
        ] {
            assert_eq!(found("src/a.rs", source), [""; 0], "{source}");
        }
    }
}
