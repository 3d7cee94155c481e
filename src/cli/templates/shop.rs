//! The whole app that `sampan init --template shop` begins with.
//!
//! What its parts do is what those of `workloads/shop/` do, from the same files where nothing differs:
//! those are tried in a browser. In its spec and its README, `APP` stands for the name of the app.

use std::path::PathBuf;

use sampan_core::name::Name;

use super::File;

/// Where the name of the app stands.
const NAMED: [File; 2] = [
    (
        "sampan.toml",
        include_bytes!("../../../templates/shop/sampan.toml"),
    ),
    (
        "README.md",
        include_bytes!("../../../templates/shop/README.md"),
    ),
];

const REST: [File; 17] = [
    (
        ".gitignore",
        include_bytes!("../../../templates/shop/gitignore"),
    ),
    (
        "Cargo.toml",
        include_bytes!("../../../templates/shop/Cargo.toml.in"),
    ),
    (
        "api/Cargo.toml",
        include_bytes!("../../../templates/shop/api/Cargo.toml.in"),
    ),
    (
        "api/src/lib.rs",
        include_bytes!("../../../templates/shop/api/src/lib.rs"),
    ),
    (
        "migrate/Cargo.toml",
        include_bytes!("../../../templates/shop/migrate/Cargo.toml.in"),
    ),
    (
        "migrate/src/main.rs",
        include_bytes!("../../../workloads/shop/migrate/src/main.rs"),
    ),
    (
        "public/boat.svg",
        include_bytes!("../../../workloads/shop/public/boat.svg"),
    ),
    (
        "public/index.html",
        include_bytes!("../../../workloads/shop/public/index.html"),
    ),
    (
        "public/shop.css",
        include_bytes!("../../../workloads/shop/public/shop.css"),
    ),
    (
        "public/shop.js",
        include_bytes!("../../../templates/shop/public/shop.js"),
    ),
    (
        "records/Cargo.toml",
        include_bytes!("../../../templates/shop/records/Cargo.toml.in"),
    ),
    (
        "records/src/lib.rs",
        include_bytes!("../../../workloads/shop/records/src/lib.rs"),
    ),
    (
        "records/wit/world.wit",
        include_bytes!("../../../workloads/shop/records/wit/world.wit"),
    ),
    (
        "report/Cargo.toml",
        include_bytes!("../../../templates/shop/report/Cargo.toml.in"),
    ),
    (
        "report/src/main.rs",
        include_bytes!("../../../workloads/shop/report/src/main.rs"),
    ),
    (
        "worker/Cargo.toml",
        include_bytes!("../../../templates/shop/worker/Cargo.toml.in"),
    ),
    (
        "worker/src/main.rs",
        include_bytes!("../../../workloads/shop/worker/src/main.rs"),
    ),
];

/// The files of the app, its spec among them.
pub(in crate::cli) fn files(app: &Name) -> Vec<(PathBuf, Vec<u8>)> {
    let named = NAMED.iter().map(|(path, bytes)| {
        let text = String::from_utf8_lossy(bytes).replace("APP", app.as_str());
        (path.into(), text.into_bytes())
    });
    let rest = REST.iter();
    let rest = rest.map(|(path, bytes)| (path.into(), bytes.to_vec()));
    named.chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sampan_core::spec;

    use super::*;

    #[test]
    fn its_spec_is_good_and_of_files_that_are_there() {
        let files = files(&Name::parse("boats").expect("a name"));
        let (_, text) = &files[0];
        let input = spec::Input {
            path: "sampan.toml",
            text: std::str::from_utf8(text).expect("text"),
            environment: &|_| None,
            read_file: &|_| Err("there are no files".to_owned()),
            profiles: &[],
        };
        let app = spec::load(&input).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(app.name.as_str(), "boats");
        assert_eq!((app.services.len(), app.jobs.len()), (3, 2));
        let paths: BTreeSet<_> = files.iter().map(|(path, _)| path).collect();
        assert_eq!(paths.len(), files.len());
        let commands: BTreeSet<_> = app.builds.values().map(|build| &build.command).collect();
        assert_eq!((app.builds.len(), commands.len()), (4, 1));
        for watched in app.builds.values().flat_map(|build| &build.watch) {
            let is_there = paths.iter().any(|path| path.starts_with(watched));
            assert!(is_there, "{watched:?} is not among {paths:?}");
        }
        let left = files
            .iter()
            .find(|(_, bytes)| bytes.windows(3).any(|it| it == b"APP"));
        assert_eq!(left, None);
    }
}
