//! That every file of Rust is a module of the file above it.

use crate::lexer::Token;
use crate::tree::{File, Rule, Tree, Violation};

static UNDECLARED: Rule = Rule {
    name: "undeclared file",
    why: "no compiler reads a file that no `mod` names: its tests do not run, and nothing says so",
    remedy: "write `mod NAME;` in the file above it, or remove the file",
};

/// Where a crate or a binary of tests begins.
const ROOTS: &[&str] = &["lib.rs", "main.rs", "build.rs"];

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let is_module = |file: &&File| is_module(&file.path) && !is_declared(tree, file);
    let undeclared = tree.rust().filter(is_module);
    let found = undeclared.map(|file| file.violation(1, &UNDECLARED, "no `mod` names this file"));
    found.collect()
}

/// Whether a file is to be a module: below `src/`, and in a folder below `tests/`.
fn is_module(path: &str) -> bool {
    let mut folders: Vec<_> = path.split('/').collect();
    let name = folders.pop().unwrap_or_default();
    let below = |root: &str| folders.iter().position(|folder| *folder == root);
    let is_in_tests = below("tests").is_some_and(|at| at + 1 < folders.len());
    // Programs of their own stand in `bin`.
    let is_in_src = below("src").is_some() && below("bin").is_none();
    let is_root =
        ROOTS.contains(&name) && folders.last().is_some_and(|it| *it == "src" || *it == "it");
    (is_in_tests || is_in_src) && !is_root
}

/// Whether the file above it, or one beside that file, names it.
fn is_declared(tree: &Tree, file: &File) -> bool {
    let Some((folder, name)) = file.path.rsplit_once('/') else {
        return true;
    };
    let module = name.trim_end_matches(".rs");
    let above = [".rs", "/lib.rs", "/main.rs"].map(|end| format!("{folder}{end}"));
    let mut above = above.iter().filter_map(|path| tree.file(path)).peekable();
    // Without a root there is no crate that the file could be part of.
    let is_of_no_crate = above.peek().is_none() && folder.rsplit('/').next() == Some("src");
    is_of_no_crate || above.any(|above| names(&above.tokens(), module))
}

fn names(tokens: &[Token<'_>], module: &str) -> bool {
    let texts = tokens
        .windows(3)
        .map(|it| [it[0].text, it[1].text, it[2].text]);
    texts.into_iter().any(|it| it == ["mod", module, ";"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undeclared(files: &[(&str, &str)]) -> Vec<String> {
        let found = check(&Tree::of(files)).into_iter();
        found.map(|violation| violation.path).collect()
    }

    #[test]
    fn a_file_that_no_module_names_is_caught() {
        let files = [
            ("src/main.rs", "mod a;"),
            ("src/a.rs", "mod b;\n// mod c;"),
            ("src/a/b.rs", ""),
            ("src/a/c.rs", ""),
            ("src/d.rs", ""),
            ("crates/x/tests/it.rs", "mod it { mod e; }"),
            ("crates/x/tests/it/e.rs", ""),
            ("crates/x/tests/it/f.rs", ""),
            ("crates/x/src/lib.rs", ""),
            ("tests/it/main.rs", "#[path = \"g.rs\"]\nmod g;"),
            ("tests/it/g.rs", ""),
            ("tests/tidy.rs", ""),
            ("benches/b.rs", ""),
        ];
        let wanted = ["src/a/c.rs", "src/d.rs", "crates/x/tests/it/f.rs"];
        assert_eq!(undeclared(&files), wanted);
    }
}
