//! The compiler for guests, and the flags that make its output the same on every machine.
//!
//! Two ways, chosen by the environment:
//! - With rustup: nothing to set. The targets come from `rustup target add`.
//! - With another compiler that has the sources of the standard library but no build of it for
//!   WebAssembly: `WASM_RUSTC` names it, the library is built along (`-Zbuild-std`), and `WASI_LIBC`
//!   names the folder with the libc of WASI 0.1 (`libc.a`, `crt1-*.o`).

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::guest::{Base, Guest};

/// A compiler, and where it keeps its things.
pub(crate) struct Toolchain {
    /// What the compiler says of itself.
    pub(crate) version: String,
    /// Where the sources of the standard library may lie.
    library: Vec<PathBuf>,
    /// What stands for that place in a standard library that comes built.
    library_name: String,
    /// The folder into which Cargo unpacks the sources of packages.
    packages: PathBuf,
    /// Set if the standard library is to be built along.
    own: Option<Own>,
}

/// What is needed to build the standard library along.
struct Own {
    rustc: PathBuf,
    linker: PathBuf,
    libc: Option<PathBuf>,
}

impl Toolchain {
    /// Looks at the environment and asks the compiler.
    pub(crate) fn find() -> Result<Self> {
        let own = match env::var_os("WASM_RUSTC") {
            Some(rustc) => Some(Own {
                rustc: rustc.into(),
                linker: linker()?,
                libc: env::var_os("WASI_LIBC").map(PathBuf::from),
            }),
            None => None,
        };
        let rustc = own
            .as_ref()
            .map_or(OsStr::new("rustc"), |own| own.rustc.as_os_str());
        let mut version = ask(rustc, &["--version"])?;
        if own.is_some() {
            version.push_str(", standard library built along");
        }
        let library = Path::new(&ask(rustc, &["--print", "sysroot"])?).join("lib/rustlib/src/rust");
        let verbose = ask(rustc, &["--version", "--verbose"])?;
        let commit = verbose
            .lines()
            .find_map(|line| line.strip_prefix("commit-hash: "));
        let library_name = format!("/rustc/{}", commit.unwrap_or("unknown"));
        // It may be a link to elsewhere, and either path can end up in a binary.
        let library = library
            .canonicalize()
            .into_iter()
            .chain([library])
            .collect();
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
        let packages = home
            .context("neither CARGO_HOME nor HOME is set")?
            .join("registry/src");
        Ok(Self {
            version,
            library,
            library_name,
            packages,
            own,
        })
    }

    /// The command that compiles `guest` to a core module in the folder `target`.
    pub(crate) fn compile(&self, guest: Guest, workspace: &Path, target: &Path) -> Result<Command> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let triple = guest.base.target();
        let mut command = Command::new(cargo);
        command.current_dir(workspace);
        command.args(["build", "--release", "--locked", "--package", guest.name]);
        command
            .args(["--target", triple, "--target-dir"])
            .arg(target);
        let mut flags = self.remaps(workspace)?;
        if let Some(own) = &self.own {
            command.arg("-Zbuild-std=std,panic_abort");
            command.env("RUSTC", &own.rustc).env("RUSTC_BOOTSTRAP", "1");
            let variable = triple.replace('-', "_").to_uppercase();
            command.env(format!("CARGO_TARGET_{variable}_LINKER"), &own.linker);
            flags.append(&mut own.libc_flags(guest.base)?);
        }
        let flags = flags.join(OsStr::new("\u{1f}"));
        command
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", flags);
        Ok(command)
    }

    /// Flags that replace the paths of this machine in the output by the same ones everywhere.
    fn remaps(&self, workspace: &Path) -> Result<Vec<OsString>> {
        let mut pairs = vec![(workspace.to_owned(), "workloads")];
        // Within it there is a folder for each registry, whose name depends on the machine's settings.
        let registries = fs::read_dir(&self.packages)
            .with_context(|| format!("cannot list `{}`", self.packages.display()))?;
        for registry in registries {
            pairs.push((registry?.path(), "packages"));
        }
        pairs.extend(
            self.library
                .iter()
                .map(|path| (path.clone(), self.library_name.as_str())),
        );
        let flag = |(from, to): (PathBuf, &str)| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(from);
            flag.push("=");
            flag.push(to);
            flag
        };
        Ok(pairs.into_iter().map(flag).collect())
    }
}

impl Own {
    /// Links the libc of `WASI_LIBC` instead of the one that comes with a target of rustup.
    fn libc_flags(&self, base: Base) -> Result<Vec<OsString>> {
        let start = match base {
            Base::Bare | Base::Library | Base::Program => return Ok(Vec::new()),
            Base::Reactor => "crt1-reactor.o",
            Base::Command => "crt1-command.o",
        };
        let libc = self.libc.as_ref().context("WASI_LIBC is not set")?;
        let mut search = OsString::from("-L");
        search.push(libc);
        let mut object = OsString::from("-Clink-arg=");
        object.push(libc.join(start));
        Ok(vec!["-Clink-self-contained=no".into(), search, object])
    }
}

/// The linker that comes with every rustup toolchain.
fn linker() -> Result<PathBuf> {
    let sysroot = ask(OsStr::new("rustc"), &["--print", "sysroot"])?;
    let host = ask(OsStr::new("rustc"), &["--print", "host-tuple"])?;
    Ok(Path::new(&sysroot)
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld"))
}

fn ask(rustc: &OsStr, arguments: &[&str]) -> Result<String> {
    let what = || {
        format!(
            "cannot ask `{}` for {}",
            rustc.display(),
            arguments.join(" ")
        )
    };
    let output = Command::new(rustc)
        .args(arguments)
        .output()
        .with_context(what)?;
    ensure!(
        output.status.success(),
        "{}: it ended with {}",
        what(),
        output.status
    );
    Ok(String::from_utf8(output.stdout)
        .with_context(what)?
        .trim()
        .to_owned())
}
