//! Core modules made components: what toolchains for WASI preview 1 build, with wasmtime's adapter.
//!
//! It is for files of the user who runs the program. A node takes components only: the encoder is
//! not made for input that wants to break it.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as PREVIEW1,
    WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as COMMAND,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as REACTOR,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// What the core modules of a component and its adapter are begun with: `\0asm`, version 1.
const CORE: &[u8] = b"\0asm\x01\0\0\0";
/// What starts a command of WASI preview 1.
const START: &str = "_start";
/// Begins the names of custom sections in which a module carries the types of its component.
const TYPES: &str = "component-type";

/// Why a core module is made no component.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdaptError {
    /// It is for a host that Sampan is not.
    #[error(
        "this is a core module that imports from `{0}`, which is not WASI preview 1: build it for \
         `wasm32-wasip2`, or for `wasm32-wasip1`"
    )]
    Host(String),
    /// The encoder refuses it.
    #[error("this is a core module, and no component can be made of it: {0}")]
    Encode(String),
}

/// The component that the bytes are, or that is made of the core module that they are: of a command
/// for WASI preview 1, and of a module that carries the types of its component. All else is given
/// back as it is.
pub fn component(bytes: &[u8]) -> Result<Cow<'_, [u8]>, AdaptError> {
    if !bytes.starts_with(CORE) {
        return Ok(Cow::Borrowed(bytes));
    }
    // What is damaged is told by the inspection.
    let module = Module::read(bytes).unwrap_or_default();
    if !module.is_typed && !module.starts && !module.imports.contains(&PREVIEW1) {
        return match module.imports.first() {
            Some(host) => Err(AdaptError::Host((*host).to_owned())),
            None => Ok(Cow::Borrowed(bytes)),
        };
    }
    if !module.is_typed
        && let Some(host) = module.imports.iter().find(|name| **name != PREVIEW1)
    {
        return Err(AdaptError::Host((*host).to_owned()));
    }
    let adapter = if module.starts { COMMAND } else { REACTOR };
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(bytes)
        .and_then(|encoder| encoder.adapter(PREVIEW1, adapter))
        .and_then(|mut encoder| encoder.encode());
    match encoded {
        Ok(component) => Ok(Cow::Owned(component)),
        Err(error) => Err(AdaptError::Encode(format!("{error:#}"))),
    }
}

/// What a core module says of where it is to run.
#[derive(Default)]
struct Module<'a> {
    /// Names of modules that it imports from.
    imports: Vec<&'a str>,
    /// Whether it exports [`START`].
    starts: bool,
    /// Whether it has a section of [`TYPES`].
    is_typed: bool,
}

impl<'a> Module<'a> {
    fn read(bytes: &'a [u8]) -> wasmparser::Result<Self> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        module.imports.push(import?.module);
                    }
                }
                Payload::ExportSection(exports) => {
                    for export in exports {
                        module.starts |= export?.name == START;
                    }
                }
                Payload::CustomSection(section) => {
                    module.is_typed |= section.name().starts_with(TYPES);
                }
                _ => {}
            }
        }
        Ok(module)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{
        check,
        inspect::{Inspection, Wasi},
    };

    fn adapted(text: &str) -> Result<Inspection, String> {
        let bytes = wat::parse_str(text).expect("good text");
        let component = super::component(&bytes).map_err(|error| error.to_string())?;
        let again = super::component(&component).expect("a component already");
        assert_eq!(again, component);
        let found = Inspection::of(&component).map_err(|error| error.to_string())?;
        check(&component, &found).map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn commands_of_preview_1_become_commands_of_preview_2() {
        for text in [
            r#"(module (memory (export "memory") 1) (func (export "_start")))"#,
            r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
                (memory (export "memory") 1) (func (export "_start")))"#,
            r#"(module (import "wasi_snapshot_preview1" "fd_write"
                    (func (param i32 i32 i32 i32) (result i32)))
                (memory (export "memory") 1) (func (export "_start")))"#,
        ] {
            let found = adapted(text).expect("a component");
            assert_eq!(
                (found.command, found.http),
                (Some(Wasi::P2), None),
                "{text}"
            );
        }
    }

    #[test]
    fn what_no_component_can_be_made_of_says_why() {
        for (text, wanted) in [
            ("(module)", "build it for `wasm32-wasip2`"),
            (
                r#"(module (import "env" "f" (func)))"#,
                "imports from `env`",
            ),
            (
                r#"(module (import "wasi_unstable" "fd_close" (func)))"#,
                "imports from `wasi_unstable`",
            ),
            (
                r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
                    (import "wbg" "f" (func)))"#,
                "imports from `wbg`",
            ),
            (
                r#"(module (import "wasi_snapshot_preview1" "sched_yeld" (func (result i32)))
                    (func (export "_start")))"#,
                "sched_yeld",
            ),
            (
                r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (param i64)))
                    (func (export "_start")))"#,
                "sched_yield",
            ),
        ] {
            let refused = adapted(text).expect_err(text);
            assert!(
                refused.contains("core module") && refused.contains(wanted),
                "{refused}"
            );
        }
        let mut cut = wat::parse_str(r#"(module (func (export "_start")))"#).expect("good text");
        cut.truncate(cut.len() - 2);
        assert_eq!(component(&cut).as_deref(), Ok(&cut[..]));
    }
}
