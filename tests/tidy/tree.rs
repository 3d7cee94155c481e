//! The checkout as the rules see it: its text files, all its paths, and what a violation is.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use crate::lexer::{self, Token};

/// What holds no source of ours, by name.
const SKIPPED: &[&str] = &[".git", ".venv", "__pycache__", "node_modules", "target"];

/// Files written by tools or by others: they are in the tree, but the rules do not read them.
const FOREIGN: &[&str] = &["Cargo.lock", "LICENSE", "package-lock.json"];

/// Why a rule is there and how to follow it.
pub(crate) struct Rule {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// What it protects.
    pub(crate) why: &'static str,
    /// How to satisfy it.
    pub(crate) remedy: &'static str,
}

/// One place where a rule does not hold.
pub(crate) struct Violation {
    /// The file, relative to the root, with `/`.
    pub(crate) path: String,
    /// The line, from 1.
    pub(crate) line: usize,
    /// The rule.
    pub(crate) rule: &'static Rule,
    /// What is there.
    pub(crate) found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            rule,
            found,
        } = self;
        writeln!(f, "{path}:{line}: {}: {found}", rule.name)?;
        writeln!(f, "    why: {}", rule.why)?;
        writeln!(f, "    do:  {}", rule.remedy)
    }
}

/// A text file.
pub(crate) struct File {
    /// Where it is, relative to the root, with `/`.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

impl File {
    /// A violation of `rule` in this file.
    pub(crate) fn violation(
        &self,
        line: usize,
        rule: &'static Rule,
        found: impl Into<String>,
    ) -> Violation {
        Violation {
            path: self.path.clone(),
            line,
            rule,
            found: found.into(),
        }
    }

    /// The file's own name, without its folders.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether it is Rust.
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it was written by a tool or by others and is not ours to style.
    pub(crate) fn is_foreign(&self) -> bool {
        FOREIGN.contains(&self.name()) || self.path.contains("wit/deps/")
    }

    /// Whether all of it is test code, by its place.
    pub(crate) fn is_test(&self) -> bool {
        let mut folders = self.path.split('/').rev();
        folders.next() == Some("tests.rs") || folders.any(|part| part == "tests")
    }

    /// Its tokens.
    pub(crate) fn tokens(&self) -> Vec<Token<'_>> {
        lexer::tokens(&self.text)
    }
}

/// The checkout.
pub(crate) struct Tree {
    files: Vec<File>,
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the checkout at `root`. What is not UTF-8 counts as a path only.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self {
            files: Vec::new(),
            paths: BTreeSet::new(),
        };
        tree.walk(root, "")?;
        Ok(tree)
    }

    /// A tree made of these files: the unit tests' bad inputs.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| File {
                path: (*path).into(),
                text: (*text).into(),
            })
            .collect();
        let paths = files.iter().map(|file| file.path.clone()).collect();
        Self { files, paths }
    }

    fn walk(&mut self, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            // In a linked worktree `.git` is a file.
            if SKIPPED.contains(&name.as_str()) {
                continue;
            }
            if kind.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"))?;
                self.paths.insert(path);
            } else if kind.is_file() {
                if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                    self.files.push(File {
                        path: path.clone(),
                        text,
                    });
                }
                self.paths.insert(path);
            }
        }
        Ok(())
    }

    /// The text file at `path`.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Every text file, foreign ones included.
    pub(crate) fn all(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// Every text file of ours.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| !file.is_foreign())
    }

    /// Every Rust file of ours.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.ours().filter(|file| file.is_rust())
    }

    /// Whether a file or folder of that path exists.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_finds_files_and_folders_and_skips_what_is_built() {
        let root = std::env::temp_dir().join(format!("sampan-tidy-{}", std::process::id()));
        for folder in ["src/agent", "target/debug", "workloads/web/target"] {
            fs::create_dir_all(root.join(folder)).expect("a folder");
        }
        for file in [
            "src/agent/worker.rs",
            "target/debug/a.rs",
            "workloads/web/target/b.rs",
        ] {
            fs::write(root.join(file), "//! Text.\n").expect("a file");
        }
        fs::write(root.join("web.wasm"), b"\0asm\xff").expect("a file");

        let tree = Tree::read(&root);
        fs::remove_dir_all(&root).expect("an empty place again");
        let tree = tree.expect("a readable tree");

        let texts: Vec<_> = tree.all().map(|file| file.path.as_str()).collect();
        assert_eq!(texts, ["src/agent/worker.rs"]);
        assert!(tree.has("src/agent"), "folders are paths");
        assert!(tree.has("web.wasm"), "binaries are paths");
        assert!(!tree.has("target"), "what is built is not there");
    }

    #[test]
    fn kinds_of_files_by_their_place() {
        let tree = Tree::of(&[
            ("Cargo.lock", ""),
            ("wit/deps/http/types.wit", ""),
            ("crates/core/src/spec/tests.rs", ""),
            ("tests/it/main.rs", ""),
            ("src/agent.rs", ""),
        ]);
        let ours: Vec<_> = tree.ours().map(|file| file.path.as_str()).collect();
        assert_eq!(
            ours,
            [
                "crates/core/src/spec/tests.rs",
                "tests/it/main.rs",
                "src/agent.rs"
            ]
        );
        let tests: Vec<_> = tree.rust().map(File::is_test).collect();
        assert_eq!(tests, [true, true, false]);
    }
}
