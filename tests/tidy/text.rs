//! What every text file of the tree must look like.

use crate::EMPTY_WORDS;
use crate::code;
use crate::tree::{File, Rule, Tree, Violation};

static HEADER: Rule = Rule {
    name: "header",
    why: "a reader must see from the first line what lives in a file",
    remedy: "begin the file with a `//!` line that says it",
};

static FILE_NAME: Rule = Rule {
    name: "file name",
    why: "files are found by name: ten of `mod.rs` look the same, and a drawer without a label \
          fills with everything",
    remedy: "write `foo.rs` and `foo/` instead of `foo/mod.rs`; name the file after what it holds",
};

static MARK: Rule = Rule {
    name: "marks",
    why: "a mark for later is work that is never done and a reader cannot judge",
    remedy: "do it now, or leave it out and write an issue",
};

static TRAILING: Rule = Rule {
    name: "trailing whitespace",
    why: "it makes differences that no reader sees",
    remedy: "cut it; `cargo fmt` does so for Rust",
};

static MACHINE: Rule = Rule {
    name: "machine path",
    why: "an absolute path of one machine breaks on every other",
    remedy: "use a path relative to the repository, or a variable",
};

static PRONOUN: Rule = Rule {
    name: "pronouns",
    why: "a reader has to find out which component, client or value is meant",
    remedy: "say the noun: see the words in `STYLE.md`",
};

/// Marks for unfinished work, written so that this file does not hold them itself.
const MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
];

/// Pronouns for a component in prose, in lower case, written so that this file does not hold them.
const PRONOUNS: &[&str] = &[
    concat!("who", "ever"),
    concat!("some", "body"),
    concat!("no", "body"),
    concat!("any", "body"),
    concat!("every", "body"),
    concat!("what it ", "is at"),
];

/// Prose that stays as it is: the list of these words, decisions, which are superseded and not
/// rewritten, and guests, whose components belong to a hash of their sources.
const SETTLED: &[&str] = &["STYLE.md", "docs/adr/", "workloads/"];

/// The folders that people and machines of builds live in.
const MACHINES: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

/// Files whose white space is data: output that a test compares byte by byte.
const EXACT: &[&str] = &[".err", ".snap"];

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.ours() {
        check_name(file, &mut found);
        if file.is_rust() && !file.text.starts_with("//!") {
            found.push(file.violation(1, &HEADER, "the first line is not a `//!` line"));
        }
        for (index, line) in file.text.lines().enumerate() {
            check_line(file, index + 1, line, &mut found);
        }
    }
    found
}

fn check_name(file: &File, found: &mut Vec<Violation>) {
    if file.name() == "mod.rs" {
        found.push(file.violation(1, &FILE_NAME, "`mod.rs`"));
    }
    let empty = code::words(&file.path)
        .into_iter()
        .find(|word| EMPTY_WORDS.contains(&word.as_str()));
    if let Some(word) = empty {
        found.push(file.violation(1, &FILE_NAME, format!("`{word}` in a path")));
    }
}

fn check_line(file: &File, number: usize, line: &str, found: &mut Vec<Violation>) {
    let exact = EXACT.iter().any(|ending| file.path.ends_with(ending));
    if !exact && line.trim_end() != line {
        found.push(file.violation(number, &TRAILING, "white space at the end of the line"));
    }
    for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
        found.push(file.violation(number, &MARK, format!("`{mark}`")));
    }
    let settled = SETTLED.iter().any(|start| file.path.starts_with(start));
    if let Some(prose) = prose(file, line).filter(|_| !settled) {
        let prose = prose.to_lowercase();
        for word in PRONOUNS.iter().filter(|word| has_word(&prose, word)) {
            found.push(file.violation(number, &PRONOUN, format!("`{word}` in prose")));
        }
    }
    for place in MACHINES.iter().filter(|place| has_path(line, place)) {
        found.push(file.violation(number, &MACHINE, format!("a path under `{place}`")));
    }
}

/// What of a line is written for people: all of a page, and the comments of other files.
fn prose<'a>(file: &File, line: &'a str) -> Option<&'a str> {
    match file.path.rsplit('.').next() {
        Some("md") => Some(line),
        Some("rs" | "wit") => line.find("//").map(|start| &line[start..]),
        _ => line.find('#').map(|start| &line[start..]),
    }
}

/// Whether `word` stands in `line` by itself, not inside a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && (word.ends_with('!') || !after.is_some_and(part))
    })
}

/// Whether an absolute path in `line` begins with `start`.
fn has_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        // After a name it is the middle of a relative path or of an address.
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-})]>*$".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let all = check(&Tree::of(&[(path, text)]));
        all.iter()
            .map(|violation| (violation.line, violation.rule.name))
            .collect()
    }

    #[test]
    fn a_missing_header_is_caught() {
        for text in [
            "",
            "use a;\n",
            "\n//! Late.\n",
            "/// Wrong.\n",
            "// Plain.\n",
        ] {
            assert_eq!(
                found("workloads/web/src/lib.rs", text),
                [(1, "header")],
                "{text:?}"
            );
        }
        assert_eq!(found("src/a.rs", "//! Here.\n"), []);
        assert_eq!(found("docs/a.md", "no Rust\n"), []);
    }

    #[test]
    fn bad_file_names_are_caught() {
        for path in [
            "src/agent/mod.rs",
            "src/helpers.rs",
            "tests/common/server.rs",
            "crates/core/src/string_util.rs",
            "docs/misc.md",
        ] {
            assert_eq!(found(path, "//! X.\n"), [(1, "file name")], "{path}");
        }
        for path in ["src/model.rs", "src/commonwealth.rs", "docs/management.md"] {
            assert_eq!(found(path, "//! X.\n"), [], "{path}");
        }
    }

    #[test]
    fn marks_for_later_are_caught() {
        for mark in MARKS {
            let text = format!("//! X.\n// {mark}(later)\n");
            assert_eq!(found("src/a.rs", &text), [(2, "marks")], "{mark}");
            assert_eq!(
                found("justfile", &format!("# {mark}\n")),
                [(1, "marks")],
                "{mark}"
            );
        }
        for word in [
            "photodo!",
            "method todos",
            concat!("A_TO", "DO"),
            concat!("XX", "XX"),
        ] {
            assert_eq!(found("docs/a.md", word), [], "{word}");
        }
    }

    #[test]
    fn pronouns_in_prose_are_caught() {
        for word in PRONOUNS {
            let title = word.replacen(&word[..1], &word[..1].to_uppercase(), 1);
            for text in [
                format!("//! X.\n/// {title} asks.\n"),
                format!("//! X.\nf(); // for {word}\n"),
            ] {
                assert_eq!(found("src/a.rs", &text), [(2, "pronouns")], "{text}");
            }
            assert_eq!(
                found("docs/a.md", &format!("To {word}.\n")),
                [(1, "pronouns")]
            );
            assert_eq!(
                found("a.toml", &format!("a = 1 # {word}\n")),
                [(1, "pronouns")]
            );
            // A name, data and a decision of old.
            let name = word.replace(' ', "_");
            let code = format!("//! X.\nfn {name}_waits() {{ f(\"{word}\") }}\n");
            assert_eq!(found("src/a.rs", &code), []);
            assert_eq!(found("docs/adr/0001-a.md", word), []);
        }
    }

    #[test]
    fn trailing_white_space_is_caught() {
        for end in [" ", "\t", "\u{a0}"] {
            let text = format!("a\nb{end}\n");
            assert_eq!(found("docs/a.md", &text), [(2, "trailing whitespace")]);
            assert_eq!(found("tests/ui/spec/a.err", &text), []);
        }
        assert_eq!(found("docs/a.md", "a\r\n"), []);
    }

    #[test]
    fn paths_of_one_machine_are_caught() {
        for start in MACHINES {
            for text in [
                format!("{start}x"),
                format!("a = \"{start}x\""),
                format!("file://{start}x"),
            ] {
                assert_eq!(found("a.toml", &text), [(1, "machine path")], "{text}");
            }
            for text in [
                format!("src{start}x"),
                format!("https://example.com{start}x"),
            ] {
                assert_eq!(found("a.toml", &text), [], "{text}");
            }
        }
    }

    #[test]
    fn what_tools_write_is_left_alone() {
        assert_eq!(found("workloads/Cargo.lock", "a \n"), []);
        assert_eq!(found("wit/deps/common/types.wit", "a \n"), []);
    }
}
