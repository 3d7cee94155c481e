//! Links between the pages of the repository, and the shape of the change log.

use crate::tree::{File, Rule, Tree, Violation};

static LINKS: Rule = Rule {
    name: "links",
    why: "a page that points to nothing sends its reader away",
    remedy: "mend the path, relative to the page's own folder, or take the link out",
};

static CHANGES: Rule = Rule {
    name: "change log",
    why: "who upgrades must see what changed; it is known best when it is changed",
    remedy: "keep a `## [Unreleased]` heading above the releases in `CHANGELOG.md`",
};

static TESTS: Rule = Rule {
    name: "tests of capabilities",
    why: "a row without a test is a promise that a change may break unseen",
    remedy: "name a test as [`its_name`](the file that it is in)",
};

/// The page whose rows each name the tests that hold them.
const CAPABILITIES: &str = "docs/capabilities.md";

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    if let Some(page) = tree.file(CAPABILITIES) {
        found.extend(tests_of_rows(tree, page));
    }
    for file in tree.ours().filter(|file| file.path.ends_with(".md")) {
        for (line, target) in links(&file.text) {
            if let Some(path) = target_path(file, target)
                && !path.is_some_and(|path| path.is_empty() || tree.has(&path))
            {
                found.push(file.violation(line, &LINKS, format!("`{target}` does not exist")));
            }
        }
    }
    found.extend(change_log(tree));
    found
}

/// Rows of tables without a test, or with one that is not there.
fn tests_of_rows(tree: &Tree, page: &File) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut in_body = false;
    for (index, line) in page.text.lines().enumerate() {
        let is_row = line.starts_with('|');
        if is_row && in_body {
            let tests = line.rsplit('|').nth(1).unwrap_or_default();
            let mut named = tests.split("[`").skip(1).peekable();
            if named.peek().is_none() {
                found.push(page.violation(index + 1, &TESTS, "a row names no test"));
            }
            for test in named {
                let (name, rest) = test.split_once("`](").unwrap_or((test, ""));
                let target = rest.split(')').next().unwrap_or_default();
                let path = target_path(page, target).flatten();
                let file = path.and_then(|path| tree.file(&path));
                if !file.is_some_and(|file| has_test(&file.text, name)) {
                    let what = format!("`{target}` has no test `{name}`");
                    found.push(page.violation(index + 1, &TESTS, what));
                }
            }
        }
        in_body = is_row && (in_body || line.starts_with("|---"));
    }
    found
}

/// Whether a file has a function of this name with an attribute that makes it a test.
fn has_test(text: &str, name: &str) -> bool {
    let signature = format!("fn {name}(");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        line.starts_with(&signature) || line.starts_with(&format!("async {signature}"))
    };
    let mut at = lines.iter().enumerate().filter(|(_, line)| is_it(line));
    at.any(|(at, _)| {
        let before = lines[..at].iter().rev();
        let mut attributes = before.take_while(|line| line.starts_with("#["));
        attributes.any(|line| line.starts_with("#[test") || line.starts_with("#[tokio::test"))
    })
}

fn change_log(tree: &Tree) -> Option<Violation> {
    let path = "CHANGELOG.md".to_owned();
    let Some(file) = tree.file(&path) else {
        let found = "there is no change log".to_owned();
        return Some(Violation {
            path,
            line: 1,
            rule: &CHANGES,
            found,
        });
    };
    let mut headings = file
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("## "));
    match headings.next() {
        Some((_, line)) if line.trim_matches(['#', ' ', '[', ']']) == "Unreleased" => None,
        Some((index, line)) => Some(file.violation(
            index + 1,
            &CHANGES,
            format!("the first section is `{line}`"),
        )),
        None => Some(file.violation(1, &CHANGES, "there is no section")),
    }
}

/// The targets of a page's links, outside code, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fence = None;
    for (index, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| start.starts_with(mark));
        if mark.is_some() && (fence.is_none() || fence == mark) {
            fence = if fence.is_none() { mark } else { None };
        } else if fence.is_none() {
            found.extend(
                line_links(line)
                    .into_iter()
                    .map(|target| (index + 1, target)),
            );
        }
    }
    found
}

/// The targets in one line: `[text](target)` and `[name]: target`.
fn line_links(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        found.extend(target.split_whitespace().next());
    }
    let mut at = 0;
    while let Some(offset) = line[at..].find("](") {
        let start = at + offset;
        let quoted = line[..start].matches('`').count() % 2 == 1;
        let target = &line[start + 2..];
        let end = target.find(')').unwrap_or(target.len());
        if !quoted {
            found.extend(target[..end].split_whitespace().next());
        }
        at = start + 2;
    }
    found
}

/// Where a link leads: `None` if out of the repository, `Some(None)` if to a place that no page may
/// name, else a path from the root (empty for the root and for the page itself).
fn target_path(file: &File, target: &str) -> Option<Option<String>> {
    let target = target.trim_matches(['<', '>']);
    let scheme = target.split_once(':').map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| {
        scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '+')
    }) {
        return None;
    }
    let path = target.split('#').next().unwrap_or(target);
    if path.is_empty() {
        return Some(Some(String::new()));
    }
    if path.starts_with('/') {
        return Some(None);
    }
    let mut parts: Vec<_> = file.path.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Some(None);
                }
            }
            name => parts.push(name),
        }
    }
    Some(Some(parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: (&str, &str) = ("CHANGELOG.md", "## [Unreleased]\n");

    fn found(files: &[(&str, &str)]) -> Vec<(usize, &'static str)> {
        let all = check(&Tree::of(files));
        all.iter()
            .map(|violation| (violation.line, violation.rule.name))
            .collect()
    }

    #[test]
    fn dead_links_are_caught() {
        for text in [
            "\nsee [a](missing.md)",
            "\n[a](b.md) and ![a](missing.png)",
            "\n[a](../missing.md \"title\")",
            "\n[a]: missing.md",
            "\n[a](/docs/b.md)",
            "\n[a](../../b.md)",
            "\n[a](missing.md#part)",
            "\n`code` [`a`](missing.md) `code`",
        ] {
            let all = found(&[LOG, ("docs/a.md", text), ("docs/b.md", "")]);
            assert_eq!(all, [(2, "links")], "{text}");
        }
    }

    #[test]
    fn live_links_and_code_pass() {
        for text in [
            "[a](b.md) [a](b.md#part) [a](../CHANGELOG.md) [a](#here) [a](./b.md)",
            "[a](https://example.com/x) [a](mailto:a@example.com) <https://example.com>",
            "[a]: b.md\n[b]: https://example.com",
            "`[a](missing.md)`",
            "```md\n[a](missing.md)\n```\n[a](b.md)",
            "~~~\n```\n[a](missing.md)\n~~~",
        ] {
            assert_eq!(
                found(&[LOG, ("docs/a.md", text), ("docs/b.md", "")]),
                [],
                "{text}"
            );
        }
        // A fence that is closed hides nothing after it.
        let text = "```\n```\n[a](missing.md)";
        assert_eq!(found(&[LOG, ("docs/a.md", text)]), [(3, "links")]);
    }

    #[test]
    fn a_capability_without_its_test_is_caught() {
        let head = "| what | tests |\n|---|---|\n";
        let test = (
            "tests/a.rs",
            "#[test]\n#[ignore]\nasync fn it_holds() {}\nfn other() {}\n",
        );
        for (row, holds) in [
            ("| x | [`it_holds`](../tests/a.rs) |", true),
            (
                "| [a](#x) | [`it_holds`](../tests/a.rs), [`it_holds`](../tests/a.rs) |",
                true,
            ),
            ("| x | it holds |", false),
            ("| x | [`it_held`](../tests/a.rs) |", false),
            (
                "| x | [`it_holds`](../tests/a.rs), [`other`](../tests/a.rs) |",
                false,
            ),
            ("| x | [`it_holds`](a.md) |", false),
        ] {
            let page = ("docs/capabilities.md", &*format!("{head}{row}\n"));
            let all = found(&[LOG, page, test, ("docs/a.md", "it_holds")]);
            let wanted = [(3, "tests of capabilities")];
            assert_eq!(all, &wanted[usize::from(holds)..], "{row}");
        }
    }

    #[test]
    fn a_change_log_without_its_open_section_is_caught() {
        assert_eq!(found(&[]), [(1, "change log")]);
        assert_eq!(
            found(&[("CHANGELOG.md", "# Changes\n")]),
            [(1, "change log")]
        );
        let late = "# Changes\n\n## [0.1.0]\n\n## [Unreleased]\n";
        assert_eq!(found(&[("CHANGELOG.md", late)]), [(3, "change log")]);
        assert_eq!(found(&[("CHANGELOG.md", "## Unreleased\n")]), []);
    }
}
