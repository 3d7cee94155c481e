//! Admission: what a component is and what it needs, found out before anything is compiled.
//!
//! The bytes are read once and everything is decided on those bytes. The link check does not
//! compile the component either: it takes the head of the component, its types and imports, as a
//! component of its own that has no code, and lets wasmtime match that against the host.

pub mod adapt;
pub mod inspect;
pub mod link;

use sampan_core::digest::Digest;

use crate::{
    artifact::compile::CompileError,
    engine::{CodeClass, EngineClass, MAX_MEMORY_BYTES},
    host::linker::linker,
};
use inspect::{InspectError, Inspection, Wasi};
use link::LinkError;

/// Why a component cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not a component.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The bytes are not those that were asked for.
    #[error("the component's digest is `{found}`, and `sha256:{wanted}` is wanted")]
    Digest {
        /// 64 hex digits.
        wanted: String,
        /// Of the bytes.
        found: Digest,
    },
    /// It exports nothing that Sampan can run.
    #[error(
        "the component exports neither an HTTP handler nor `wasi:cli/run` of WASI 0.2 or 0.3; its \
         exports: {}{}", list(.0), inspect::advice(.0)
    )]
    World(Vec<String>),
    /// The host lacks something it imports.
    #[error("the component's imports cannot be satisfied")]
    Link(#[from] LinkError),
    /// It needs more than an instance may have.
    #[error("the component needs {need}, and at most {limit} are possible")]
    Resources {
        /// What it needs.
        need: String,
        /// What there is.
        limit: String,
    },
    /// It could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Its code cannot be mapped, or needs more memories, tables or the like than an instance of
    /// the pool has.
    #[error("the compiled code cannot be loaded: {0}")]
    Code(String),
    /// The engine could not be made.
    #[error(
        "the WebAssembly engine cannot start, for which a process may have address space \
         (`ulimit -v`) and memory maps (`vm.max_map_count`): {0}"
    )]
    Engine(String),
}

impl LoadError {
    /// Whether this says nothing of the component: the host could not look at it, or compile it.
    pub fn is_of_the_host(&self) -> bool {
        match self {
            Self::Engine(_)
            | Self::Compile(CompileError::Process(_) | CompileError::Crashed { .. }) => true,
            Self::Inspect(_)
            | Self::Digest { .. }
            | Self::World(_)
            | Self::Link(_)
            | Self::Resources { .. }
            | Self::Compile(_)
            | Self::Code(_) => false,
        }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Checks everything about a component that can be checked without compiling it, against all that
/// the host offers. `bytes` are those that the inspection is of.
pub fn check(bytes: &[u8], inspection: &Inspection) -> Result<(), LoadError> {
    fit(inspection, u64::MAX)?;
    // The host offers the same whether there is room for an instance or not.
    let class = class_of(inspection, false, false).code;
    let engine = class.compiler();
    let linker = engine.and_then(|engine| linker(&engine, class));
    let linker = linker.map_err(|error| LoadError::Engine(format!("{error:#}")))?;
    Ok(link::check(&linker, bytes, inspection)?)
}

/// Whether a component has a world and a size with which it could run here.
pub(crate) fn fit(inspection: &Inspection, memory_bytes: u64) -> Result<(), LoadError> {
    if inspection.http.is_none() && inspection.command.is_none() {
        return Err(LoadError::World(inspection.exports.clone()));
    }
    let limit = memory_bytes.min(MAX_MEMORY_BYTES as u64);
    if inspection.initial_memory_bytes > limit {
        return Err(LoadError::Resources {
            need: format!(
                "{} MiB of initial memory",
                inspection.initial_memory_bytes >> 20
            ),
            limit: format!("{} MiB", limit >> 20),
        });
    }
    Ok(())
}

/// The class of engine a component needs: async as soon as anything of it is WASI 0.3.
pub(crate) fn class_of(inspection: &Inspection, metered: bool, dumping: bool) -> EngineClass {
    let is_p3 = |name: &String| name.starts_with("wasi:") && name.contains("@0.3.");
    let concurrent = inspection.http == Some(Wasi::P3)
        || inspection.command == Some(Wasi::P3)
        || inspection
            .imports
            .iter()
            .chain(&inspection.exports)
            .any(is_p3);
    let code = CodeClass {
        concurrent,
        metered,
    };
    EngineClass { code, dumping }
}
