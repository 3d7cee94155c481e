//! Admission: what a component is and what it needs, found out before anything is compiled.
//!
//! The bytes are read once and everything is decided on those bytes. The link check does not
//! compile the component either: it takes the head of the component, its types and imports, as a
//! component of its own that has no code, and lets wasmtime match that against the host.

pub mod adapt;
pub mod inspect;
pub mod link;

use crate::{
    LoadError,
    runtime::{class_of, fit},
    sandbox::linker,
};
use inspect::Inspection;

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
