//! What is in `dist/` and what it was made from, in hashes, so that it can be checked without a WebAssembly toolchain.
//!
//! `dist/MANIFEST.sha256` has one line a guest: its name, the SHA-256 of its sources, the SHA-256 of its
//! component. The sources of a guest are its own folder and those of the workspace crates it depends
//! on, what the workspace's `Cargo.toml` says of it, and the locked versions of all it is built from and
//! with. Another guest more or less changes none of that.
//!
//! This file is compiled into `xtask` and, by its path, into the tests of Sampan: only `std` and `sha2`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Where the manifest lies, from the folder of the workspace.
pub(crate) const PATH: &str = "dist/MANIFEST.sha256";

/// The command that mends a stale entry, to be followed by the names of the guests.
const REBUILD: &str = "cargo run -p xtask -- build";

/// Packages that are not linked into a guest but decide what its component looks like.
const TOOLS: [&str; 2] = ["wasi-preview1-component-adapter-provider", "wit-component"];

/// One line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name of the guest and of its component.
    pub(crate) guest: String,
    /// SHA-256 of its sources, in hexadecimal digits.
    pub(crate) sources: String,
    /// SHA-256 of its component, in hexadecimal digits.
    pub(crate) component: String,
}

impl Entry {
    /// Hashes the sources and the component of `guest` as they are now.
    pub(crate) fn of(workspace: &Path, guest: &str) -> io::Result<Self> {
        Ok(Self {
            guest: guest.to_owned(),
            sources: sources(workspace, guest)?,
            component: hex(&Sha256::digest(read(&component(workspace, guest))?)),
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.guest, self.sources, self.component)
    }
}

/// Where the component of `guest` lies.
pub(crate) fn component(workspace: &Path, guest: &str) -> PathBuf {
    workspace.join("dist").join(guest).with_extension("wasm")
}

/// Where the sources of a member of the workspace lie: in a folder of its name, or, for `shop-api`, which
/// is a part of a larger example, in `shop/api`.
fn folder(workspace: &Path, package: &str) -> PathBuf {
    let folder = workspace.join(package);
    match package.split_once('-') {
        Some((app, part)) if !folder.is_dir() => workspace.join(app).join(part),
        _ => folder,
    }
}

/// Reads the manifest. Lines that begin with `#` are comments.
pub(crate) fn entries(workspace: &Path) -> io::Result<Vec<Entry>> {
    let path = workspace.join(PATH);
    let text = text(&path)?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [guest, sources, component] => Ok(Entry {
                guest: guest.to_owned(),
                sources: sources.to_owned(),
                component: component.to_owned(),
            }),
            _ => Err(invalid(&path, &format!("bad line `{line}`"))),
        })
        .collect()
}

/// Compares the manifest with the sources and the components, and says of each guest that differs what
/// to do about it. Empty if all is well.
pub(crate) fn problems(workspace: &Path) -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut listed = BTreeSet::new();
    for entry in entries(workspace)? {
        let (guest, now) = (&entry.guest, Entry::of(workspace, &entry.guest)?);
        if entry.sources != now.sources {
            problems.push(format!(
                "the sources of `{guest}` have changed since its component was built: \
                 run `{REBUILD} {guest}` in workloads/"
            ));
        } else if entry.component != now.component {
            problems.push(format!(
                "`dist/{guest}.wasm` is not the component that was built from its sources: \
                 run `{REBUILD} {guest}` in workloads/"
            ));
        }
        listed.insert(component(workspace, guest));
    }
    for path in files(&workspace.join("dist"))? {
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
            && !listed.contains(&path)
        {
            problems.push(format!(
                "`{}` is not in `{PATH}`: remove it, or name it in xtask/src/guest.rs and run `{REBUILD}`",
                path.display()
            ));
        }
    }
    Ok(problems)
}

/// SHA-256 over everything that the component of `guest` is made from.
fn sources(workspace: &Path, guest: &str) -> io::Result<String> {
    let lock = Lock::read(&workspace.join("Cargo.lock"))?;
    let mut hash = Sha256::new();
    let packages = lock.closure(guest);
    let settings = settings(&text(&workspace.join("Cargo.toml"))?, &packages);
    update(&mut hash, &["Cargo.toml", &settings]);
    let mut paths = Vec::new();
    for package in packages {
        match &package.checksum {
            Some(checksum) => update(&mut hash, &[&package.name, &package.version, checksum]),
            // A package without a checksum is a member of this workspace.
            None => paths.extend(files(&folder(workspace, &package.name))?),
        }
    }
    for tool in TOOLS {
        for package in lock.packages.iter().filter(|package| package.name == tool) {
            update(&mut hash, &[&package.name, &package.version]);
        }
    }
    for path in paths {
        let name = path
            .strip_prefix(workspace)
            .unwrap_or(&path)
            .to_string_lossy()
            .replace('\\', "/");
        update(&mut hash, &[&name]);
        update(&mut hash, &[&hex(&Sha256::digest(read(&path)?))]);
    }
    Ok(hex(&hash.finalize()))
}

/// The lines of the workspace's `Cargo.toml` that count for a guest made of `packages`: not the list of
/// members, not the profiles of other packages and no blank lines.
fn settings(manifest: &str, packages: &[&Package]) -> String {
    let (mut members, mut foreign) = (false, false);
    let mut kept = String::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            let table = line.trim_start_matches('[').trim_end_matches(']');
            let package = table.strip_prefix("profile.release.package.");
            foreign = package.is_some_and(|name| packages.iter().all(|p| p.name != name));
        }
        members |= line.starts_with("members = [");
        if !members && !foreign && !line.is_empty() {
            kept.push_str(line);
            kept.push('\n');
        }
        members &= !line.ends_with(']');
    }
    kept
}

/// Adds fields, each with an end that cannot be part of it.
fn update(hash: &mut Sha256, fields: &[&str]) {
    for field in fields {
        hash.update(field.as_bytes());
        hash.update([0]);
    }
}

/// All files below `folder`, sorted.
fn files(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).map_err(|error| naming(folder, &error))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.append(&mut files(&entry.path())?);
        } else {
            found.insert(entry.path());
        }
    }
    Ok(found)
}

/// What a lock file says, as far as it is needed here.
struct Lock {
    packages: Vec<Package>,
}

/// A `[[package]]` of a lock file.
#[derive(Default)]
struct Package {
    name: String,
    version: String,
    checksum: Option<String>,
    /// Names, followed by ` version` where the name alone is not clear.
    dependencies: Vec<String>,
}

impl Lock {
    fn read(path: &Path) -> io::Result<Self> {
        let text = text(path)?;
        let packages = text
            .split("[[package]]")
            .skip(1)
            .map(Package::parse)
            .collect();
        Ok(Self { packages })
    }

    /// The package called `root` and all that it depends on, in the order of their names and versions.
    fn closure(&self, root: &str) -> Vec<&Package> {
        let mut found = BTreeMap::new();
        let mut open = vec![root];
        while let Some(wanted) = open.pop() {
            let (name, version) = wanted
                .split_once(' ')
                .map_or((wanted, None), |(n, v)| (n, Some(v)));
            let fits = |p: &&Package| p.name == name && version.is_none_or(|v| v == p.version);
            for package in self.packages.iter().filter(fits) {
                if found
                    .insert((&package.name, &package.version), package)
                    .is_none()
                {
                    open.extend(package.dependencies.iter().map(String::as_str));
                }
            }
        }
        found.into_values().collect()
    }
}

impl Package {
    /// Reads the lines under a `[[package]]`. Cargo writes one value a line, so no TOML parser is needed.
    fn parse(section: &str) -> Self {
        let mut package = Self::default();
        for line in section.lines() {
            let line = line.trim().trim_end_matches(',');
            let value = |text: &str| text.trim_matches('"').to_owned();
            match line.split_once(" = ") {
                Some(("name", name)) => package.name = value(name),
                Some(("version", version)) => package.version = value(version),
                Some(("checksum", checksum)) => package.checksum = Some(value(checksum)),
                None if line.starts_with('"') => package.dependencies.push(value(line)),
                _ => {}
            }
        }
        package
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| naming(path, &error))
}

fn text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| invalid(path, "not UTF-8"))
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("`{}`: {error}", path.display()))
}

fn invalid(path: &Path, problem: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("`{}`: {problem}", path.display()),
    )
}
