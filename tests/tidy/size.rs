//! How long a file and a function may be.

use crate::lexer::{self, Kind, Token};
use crate::tree::{File, Rule, Tree, Violation};
use crate::{FILE_LINES, FUNCTION_LINES};

static LONG_FILE: Rule = Rule {
    name: "file length",
    why: "a file is read as a whole; one that does not fit in a head holds more than one thing",
    remedy: "find the second thing in it and give it a file of its own in the folder beside it",
};

static LONG_FUNCTION: Rule = Rule {
    name: "function length",
    why: "a function that does not fit on a screen is not checked by its reader",
    remedy: "name the steps and make each a function; move literal data into a constant",
};

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in tree.rust() {
        let tokens = file.tokens();
        let lines = production_lines(file, &tokens);
        if lines > FILE_LINES {
            let text = format!("{lines} lines of production code, at most {FILE_LINES}");
            found.push(file.violation(1, &LONG_FILE, text));
        }
        for (name, line, lines) in functions(&tokens) {
            if lines > FUNCTION_LINES {
                let text = format!("`{name}` has {lines} lines, at most {FUNCTION_LINES}");
                found.push(file.violation(line, &LONG_FUNCTION, text));
            }
        }
    }
    found
}

/// The file's lines without those of its `#[cfg(test)]` items; none in a file of tests.
fn production_lines(file: &File, tokens: &[Token<'_>]) -> usize {
    if file.is_test() {
        return 0;
    }
    let all = file.text.lines().count();
    let tests: usize = lexer::test_items(tokens)
        .into_iter()
        .filter_map(|range| {
            let item = &tokens[range];
            Some(item.last()?.line + 1 - item.first()?.line)
        })
        .sum();
    all.saturating_sub(tests)
}

/// Every function with a body: its name, the line of its `fn`, its lines.
fn functions<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let Some(name) = tokens.get(index + 1) else {
            break;
        };
        // `fn(u8)` is a type.
        if token.is("fn") && name.kind == Kind::Word {
            let end = lexer::after_item(tokens, index);
            let last = &tokens[end - 1];
            if last.is("}") {
                found.push((name.text, token.line, last.line + 1 - token.line));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str, source: &str) -> Vec<(usize, &'static str)> {
        let all = check(&Tree::of(&[(path, source)]));
        all.iter()
            .map(|violation| (violation.line, violation.rule.name))
            .collect()
    }

    #[test]
    fn a_long_file_is_caught_and_its_tests_are_not_counted() {
        let code = "const A: u8 = 0;\n".repeat(FILE_LINES);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert_eq!(names("src/a.rs", &code), []);
        assert_eq!(names("src/a.rs", &format!("{code}{tests}")), []);
        assert_eq!(
            names("src/a.rs", &format!("{tests}{code}\n")),
            [(1, "file length")]
        );
        assert_eq!(names("src/a/tests.rs", &format!("{code}{code}")), []);
        // A declaration of tests does not hide what follows it.
        let hidden = format!("#[cfg(test)]\nmod tests;\n{code}\n");
        assert_eq!(names("src/a.rs", &hidden), [(1, "file length")]);
    }

    #[test]
    fn a_long_function_is_caught_wherever_it_is() {
        let body = "    a();\n".repeat(FUNCTION_LINES - 2);
        assert_eq!(names("src/a.rs", &format!("\nfn f() {{\n{body}}}\n")), []);
        let long = format!("\nfn f<'a>(x: [u8; 2]) -> &'a str\nwhere\n{{\n{body}}}\n");
        assert_eq!(names("src/a.rs", &long), [(2, "function length")]);
        assert_eq!(names("tests/it/a.rs", &long), [(2, "function length")]);
        let method = format!("impl A {{ async fn g(&self) {{ /* }} */ \"}}\";\n\n\n{body}}} }}");
        assert_eq!(names("src/a.rs", &method), [(1, "function length")]);
    }

    #[test]
    fn types_and_declarations_are_no_functions() {
        let source = format!(
            "type F = fn(u8);\ntrait T {{ fn f();\n{} }}\n",
            "\n".repeat(80)
        );
        assert_eq!(names("src/a.rs", &source), []);
    }
}
