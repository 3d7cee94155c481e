//! Builds the guests of this workspace into `dist/`, and checks that `dist/` is what their sources make.

mod component;
mod guest;
mod manifest;
mod toolchain;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use guest::Guest;
use manifest::Entry;
use toolchain::Toolchain;

const USAGE: &str = "\
usage: cargo run -p xtask -- build [GUEST…]    build all guests, or those named, into dist/
       cargo run -p xtask -- check [GUEST…]    build them again from nothing and compare byte for byte
       cargo run -p xtask -- stale             compare dist/ with its manifest; compiles nothing
";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (verb, names) = arguments
        .split_first()
        .map_or(("", &[][..]), |(v, n)| (v.as_str(), n));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent folder")?;
    let done = match verb {
        "build" => build(workspace, &chosen(names)?)?,
        "check" => check(workspace, &chosen(names)?)?,
        "stale" if names.is_empty() => stale(workspace)?,
        _ => {
            eprint!("{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    Ok(if done {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The guests called `names`, or all of them.
fn chosen(names: &[String]) -> Result<Vec<Guest>> {
    if names.is_empty() {
        return Ok(guest::ALL.to_vec());
    }
    let find = |name: &String| {
        let guest = guest::ALL.iter().find(|guest| guest.name == name);
        guest
            .copied()
            .with_context(|| format!("there is no guest `{name}`"))
    };
    names.iter().map(find).collect()
}

fn build(workspace: &Path, guests: &[Guest]) -> Result<bool> {
    let toolchain = Toolchain::find()?;
    fs::create_dir_all(workspace.join("dist"))?;
    if guests.len() < guest::ALL.len() {
        same_compiler(workspace, &toolchain).context("build all guests, not only some")?;
    }
    for guest in guests {
        let bytes = component::make(&toolchain, *guest, workspace, &target(workspace))?;
        let path = manifest::component(workspace, guest.name);
        fs::write(&path, &bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
        println!("{:>9} bytes  dist/{}.wasm", bytes.len(), guest.name);
        // After every guest, so that a build that stops half-way leaves a manifest that is true.
        record(workspace, *guest, &toolchain)?;
    }
    Ok(true)
}

/// Brings the line of `guest` in the manifest up to date and leaves the others as they are.
fn record(workspace: &Path, guest: Guest, toolchain: &Toolchain) -> Result<()> {
    let mut entries = match manifest::entries(workspace) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let known = |name: &str| guest::ALL.iter().any(|guest| guest.name == name);
    entries.retain(|entry| entry.guest != guest.name && known(&entry.guest));
    entries.push(Entry::of(workspace, guest.name)?);
    entries.sort_by(|a, b| a.guest.cmp(&b.guest));
    let lines: String = entries.iter().map(Entry::to_string).collect();
    let text = format!("# guest sources component; {}\n{lines}", toolchain.version);
    Ok(fs::write(workspace.join(manifest::PATH), text)?)
}

/// Fails if what is in `dist/` was built with another compiler, whose bytes cannot be compared.
fn same_compiler(workspace: &Path, toolchain: &Toolchain) -> Result<()> {
    let path = workspace.join(manifest::PATH);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let first = text.lines().next().unwrap_or_default();
    let built_with = first.split_once("; ").map_or("", |(_, version)| version);
    let version = toolchain.version.as_str();
    ensure!(
        built_with == version,
        "dist/ was built with `{built_with}`, and this is `{version}`"
    );
    Ok(())
}

fn check(workspace: &Path, guests: &[Guest]) -> Result<bool> {
    let toolchain = Toolchain::find()?;
    same_compiler(workspace, &toolchain)?;
    // Nothing of an earlier build may be used, so everything is compiled again in an empty folder.
    let target = target(workspace).join("check");
    if target.exists() {
        fs::remove_dir_all(&target)
            .with_context(|| format!("cannot empty `{}`", target.display()))?;
    }
    let mut same = true;
    for guest in guests {
        let built = component::make(&toolchain, *guest, workspace, &target)?;
        let path = manifest::component(workspace, guest.name);
        let kept = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let verdict = if built == kept { "same" } else { "DIFFERENT" };
        println!("{verdict:>9}  dist/{}.wasm", guest.name);
        same &= built == kept;
    }
    Ok(stale(workspace)? && same)
}

fn stale(workspace: &Path) -> Result<bool> {
    let problems = manifest::problems(workspace)?;
    for problem in &problems {
        println!("{problem}");
    }
    Ok(problems.is_empty())
}

/// Where the steps in between are kept.
fn target(workspace: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from)
}
