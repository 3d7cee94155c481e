//! What `sampan init --template` and `sampan add` begin a service with: files, and its part of the spec.
//!
//! The files are in `templates/` of the repository. A few words in them stand for what differs:
//! `SERVICE`, `PACKAGE`, `CRATE`, `DIR/`, `CD` and `ROUTE`.

pub(super) mod shop;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::ValueEnum;
use sampan_core::name::Name;

use super::{Stop, output::Output};

/// What a service is begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Template {
    /// Rust, built by Cargo
    Rust,
    /// JavaScript, built by npm
    Js,
    /// Python, built with componentize-py
    Python,
    /// C, built by Zig
    C,
    /// Files without a component: a front end
    Static,
}

/// A file of a template: where it goes, and what is in it.
type File = (&'static str, &'static [u8]);

const RUST: [File; 3] = [
    (
        "Cargo.toml",
        include_bytes!("../../templates/rust/Cargo.toml.in"),
    ),
    (
        "src/lib.rs",
        include_bytes!("../../templates/rust/src/lib.rs"),
    ),
    (
        ".gitignore",
        include_bytes!("../../templates/rust/gitignore"),
    ),
];
const JS: [File; 4] = [
    (
        "package.json",
        include_bytes!("../../templates/js/package.json"),
    ),
    (
        "service.js",
        include_bytes!("../../templates/js/service.js"),
    ),
    (
        "wit/world.wit",
        include_bytes!("../../templates/js/world.wit"),
    ),
    (".gitignore", include_bytes!("../../templates/js/gitignore")),
];
const PYTHON: [File; 4] = [
    (
        "requirements.txt",
        include_bytes!("../../templates/python/requirements.txt"),
    ),
    ("app.py", include_bytes!("../../templates/python/app.py")),
    ("wit/world.wit", include_bytes!("../../templates/world.wit")),
    (
        ".gitignore",
        include_bytes!("../../templates/python/gitignore"),
    ),
];
const C: [File; 6] = [
    ("service.c", include_bytes!("../../templates/c/service.c")),
    ("http.h", include_bytes!("../../templates/c/http.h")),
    ("build.sh", include_bytes!("../../templates/c/build.sh")),
    ("types.bin", include_bytes!("../../templates/c/types.bin")),
    ("wit/world.wit", include_bytes!("../../templates/world.wit")),
    (".gitignore", include_bytes!("../../templates/c/gitignore")),
];

const STATIC: [File; 3] = [
    (
        "public/index.html",
        include_bytes!("../../templates/static/public/index.html"),
    ),
    (
        "public/style.css",
        include_bytes!("../../templates/static/public/style.css"),
    ),
    (
        "public/page.js",
        include_bytes!("../../templates/static/public/page.js"),
    ),
];

/// A service that a template becomes.
pub(super) struct Start<'a> {
    pub(super) template: Template,
    pub(super) service: &'a Name,
    /// Where its files go, relative to the spec: nothing for the directory of the spec itself.
    pub(super) directory: &'a str,
    pub(super) route: &'a str,
}

impl Start<'_> {
    /// What the spec says of it.
    pub(super) fn spec(&self) -> String {
        self.filled(match self.template {
            Template::Rust => include_str!("../../templates/rust/service.toml"),
            Template::Js => include_str!("../../templates/js/service.toml"),
            Template::Python => include_str!("../../templates/python/service.toml"),
            Template::C => include_str!("../../templates/c/service.toml"),
            Template::Static => include_str!("../../templates/static/service.toml"),
        })
    }

    /// Its files, with their paths relative to the spec.
    pub(super) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files: &[File] = match self.template {
            Template::Rust => &RUST,
            Template::Js => &JS,
            Template::Python => &PYTHON,
            Template::C => &C,
            Template::Static => &STATIC,
        };
        let placed = files.iter().map(|(path, bytes)| {
            let bytes = match std::str::from_utf8(bytes) {
                Ok(text) if path.starts_with("Cargo") || path.starts_with("package") => {
                    self.filled(text).into_bytes()
                }
                Ok(_) | Err(_) => bytes.to_vec(),
            };
            (Path::new(self.directory).join(path), bytes)
        });
        placed.collect()
    }

    fn filled(&self, text: &str) -> String {
        let service = self.service.as_str();
        // A package of Cargo cannot begin with a digit.
        let package = match service.starts_with(|it: char| it.is_ascii_digit()) {
            true => format!("app-{service}"),
            false => service.to_owned(),
        };
        let (below, cd) = match self.directory {
            "" => (String::new(), String::new()),
            directory => (format!("{directory}/"), format!("cd {directory} && ")),
        };
        text.replace("SERVICE", service)
            .replace("PACKAGE", &package)
            .replace("CRATE", &package.replace('-', "_"))
            .replace("DIR/", &below)
            .replace("\"CD", &format!("\"{cd}"))
            .replace("ROUTE", self.route)
    }
}

/// Writes files below a directory, or none of them if one is there already.
pub(super) fn write(
    directory: &Path,
    files: &[(PathBuf, Vec<u8>)],
    output: &Output,
) -> Result<(), Stop> {
    // Looked at before anything is written: half an app is worse than none.
    for (name, _) in files {
        let path = directory.join(name);
        if path.exists() {
            return Err(Stop::usage(anyhow::anyhow!(
                "`{}` is already there: name another directory, or remove it",
                path.display()
            )));
        }
    }
    for (name, bytes) in files {
        let path = directory.join(name);
        let written = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = written.and_then(|()| write_new(&path, bytes));
        written.with_context(|| format!("cannot write `{}`", path.display()))?;
        let shown = path.strip_prefix(".").unwrap_or(&path);
        output.talk(&format!("wrote {}", shown.display()));
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?
        .write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sampan_core::{object::App, spec};

    use super::*;

    fn load(text: &str) -> App {
        let input = spec::Input {
            path: "sampan.toml",
            text,
            environment: &|_| None,
            read_file: &|_| Err("there are no files".to_owned()),
            profiles: &[],
        };
        spec::load(&input).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }

    #[test]
    fn every_template_is_a_good_spec_of_files_that_are_there() {
        for template in Template::value_variants() {
            for (service, directory, route) in
                [("web", "", "/"), ("2nd-api", "2nd-api", "b.localhost/")]
            {
                let service = Name::parse(service).expect("a name");
                let start = Start {
                    template: *template,
                    service: &service,
                    directory,
                    route,
                };
                let app = load(&format!("app = 'a'\n\n{}", start.spec()));
                let watched = app.builds.get(&service).map(|build| &build.watch);
                let files: BTreeSet<_> = start.files().into_iter().map(|(path, _)| path).collect();
                assert_eq!(watched.is_none(), *template == Template::Static);
                for watched in watched.into_iter().flatten() {
                    let is_there = files.iter().any(|path| path.starts_with(watched));
                    assert!(is_there, "{watched:?} is not among {files:?}");
                }
                let component = &app.services[&service].component.path;
                assert!(component.starts_with(directory), "{component:?}");
                // A component is still to be built, and a directory of files is there.
                let is_there = files.iter().any(|path| path.starts_with(component));
                assert_eq!(is_there, *template == Template::Static);
                let words = ["SERVICE", "PACKAGE", "CRATE", "DIR/", "ROUTE"];
                for (path, bytes) in start.files() {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let left = words.iter().find(|word| text.contains(**word));
                    assert_eq!(left, None, "{path:?}");
                }
            }
        }
    }
}
