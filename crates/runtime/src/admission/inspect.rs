//! What a component says of itself: its world, imports, exports and initial memory.

use std::ops::Range;

use sampan_core::{digest::Digest, object::ServiceKind, spec::Found};
use wasmparser::{Encoding, Parser, Payload};

/// The largest component that is looked at.
pub const MAX_COMPONENT_BYTES: usize = 64 << 20;
/// Packages of WASI of which there is a release; others have only ever been proposed.
const RELEASED: &[&str] = &[
    "cli",
    "clocks",
    "filesystem",
    "http",
    "io",
    "random",
    "sockets",
];
/// A page of linear memory.
const PAGE_BYTES: u64 = 64 << 10;

/// A version of WASI that an export follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// WASI 0.2.
    P2,
    /// WASI 0.3.
    P3,
}

/// What a component says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Size of the component in bytes.
    pub size_bytes: usize,
    /// Names of the imports, in their order, with versions.
    pub imports: Vec<String>,
    /// Names of the exports, in their order, with versions.
    pub exports: Vec<String>,
    /// Set when it exports the HTTP handler of a WASI version.
    pub http: Option<Wasi>,
    /// Set when it exports `wasi:cli/run` of a WASI version.
    pub command: Option<Wasi>,
    /// Sum of the initial sizes of its linear memories.
    pub initial_memory_bytes: u64,
    /// Sections at the start of the bytes that hold nothing but types and imports.
    pub(crate) head: Vec<(u8, Range<usize>)>,
    /// Whether imports are found after the head too, so that the head alone is not enough to link.
    pub(crate) imports_after_head: bool,
}

/// Why some bytes are not a component that can be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// The bytes are not WebAssembly.
    #[error("not a WebAssembly binary: it starts with `{0}`")]
    NotWasm(String),
    /// The bytes are the text format.
    #[error("this is WebAssembly text; make a binary of it with `wasm-tools parse`")]
    Text,
    /// The bytes are a core module.
    #[error(
        "this is a core module, not a component: build it for `wasm32-wasip2`; of one for WASI \
         preview 1, `sampan run`, `up` and `apply` make a component"
    )]
    CoreModule,
    /// The bytes are too many.
    #[error("the component has {0} bytes, and at most {MAX_COMPONENT_BYTES} are accepted")]
    TooLarge(usize),
    /// The bytes are damaged.
    #[error("the component is damaged at byte {offset}: {message}")]
    Damaged {
        /// Where the damage shows.
        offset: usize,
        /// What is wrong there.
        message: String,
    },
}

impl Inspection {
    /// Reads a component, skipping all code.
    pub fn of(bytes: &[u8]) -> Result<Self, InspectError> {
        check_shape(bytes)?;
        let mut found = Self {
            digest: Digest::of(bytes),
            size_bytes: bytes.len(),
            imports: Vec::new(),
            exports: Vec::new(),
            http: None,
            command: None,
            initial_memory_bytes: 0,
            head: Vec::new(),
            imports_after_head: false,
        };
        found.read(bytes).map_err(|error| InspectError::Damaged {
            offset: error.offset(),
            message: error.message().to_owned(),
        })?;
        let exports = |interface: &str, wasi| {
            let mut names = found.exports.iter().filter_map(|name| name.split_once('@'));
            names
                .any(|(name, version)| name == interface && wasi_of(version) == Some(wasi))
                .then_some(wasi)
        };
        // The standard library of a language may add the older export to whatever is built with it,
        // with nothing behind it. So the newer one is what the component was made for.
        let either = |p3, p2| exports(p3, Wasi::P3).or_else(|| exports(p2, Wasi::P2));
        let http = either("wasi:http/handler", "wasi:http/incoming-handler");
        let command = either("wasi:cli/run", "wasi:cli/run");
        Ok(Self {
            http,
            command,
            ..found
        })
    }

    /// What a service of it is. One that exports both answers requests.
    pub fn found(&self) -> Found {
        match (self.http, self.command) {
            (None, Some(wasi)) => Found {
                kind: ServiceKind::Command,
                is_callable: wasi == Wasi::P3,
            },
            (Some(_), _) | (None, None) => Found::HTTP,
        }
    }

    fn read(&mut self, bytes: &[u8]) -> wasmparser::Result<()> {
        let mut depth = 0_u32;
        let mut in_head = true;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            match &payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                    depth += 1;
                    in_head = false;
                    continue;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::MemorySection(memories) => {
                    for memory in memories.clone() {
                        let bytes = memory?.initial.saturating_mul(PAGE_BYTES);
                        self.initial_memory_bytes = self.initial_memory_bytes.saturating_add(bytes);
                    }
                }
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports.clone() {
                        self.imports.push(import?.name.name.to_owned());
                    }
                    self.imports_after_head |= !in_head;
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports.clone() {
                        self.exports.push(export?.name.name.to_owned());
                    }
                    in_head = false;
                }
                Payload::ComponentTypeSection(_)
                | Payload::ComponentAliasSection(_)
                | Payload::CustomSection(_)
                | Payload::Version { .. } => {}
                _ if depth == 0 => in_head = false,
                _ => {}
            }
            if in_head
                && !matches!(payload, Payload::CustomSection(_))
                && let Some(section) = payload.as_section()
            {
                self.head.push(section);
            }
        }
        Ok(())
    }
}

/// The release of WASI that a version belongs to. Release candidates belong to none: their
/// interfaces are others.
fn wasi_of(version: &str) -> Option<Wasi> {
    if is_candidate(version) {
        return None;
    }
    match version {
        v if v.starts_with("0.2.") => Some(Wasi::P2),
        v if v.starts_with("0.3.") => Some(Wasi::P3),
        _ => None,
    }
}

fn is_candidate(version: &str) -> bool {
    version.contains('-')
}

/// What helps against interfaces of these names, if anything is known that does.
pub(crate) fn advice(names: &[String]) -> &'static str {
    let candidate = |name: &String| {
        let Some((interface, version)) = name.split_once('@') else {
            return false;
        };
        let package = interface.strip_prefix("wasi:");
        let package = package.and_then(|it| it.split('/').next());
        is_candidate(version) && package.is_some_and(|it| RELEASED.contains(&it))
    };
    match names.iter().any(candidate) {
        true => {
            "; a release candidate of WASI is not what was released: build it again with tools for \
             WASI 0.2 or 0.3"
        }
        false => "",
    }
}

/// Tells the usual mistakes from a component before anything is parsed.
fn check_shape(bytes: &[u8]) -> Result<(), InspectError> {
    if bytes.len() > MAX_COMPONENT_BYTES {
        return Err(InspectError::TooLarge(bytes.len()));
    }
    if !bytes.starts_with(b"\0asm") {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(16)]);
        if start.trim_start().starts_with('(') {
            return Err(InspectError::Text);
        }
        return Err(InspectError::NotWasm(start.escape_debug().to_string()));
    }
    match Parser::new(0).parse_all(bytes).next() {
        Some(Ok(Payload::Version {
            encoding: Encoding::Module,
            ..
        })) => Err(InspectError::CoreModule),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).expect("good text")
    }

    #[test]
    fn world_and_memory_are_found() {
        let bytes = component(
            r#"(component
                (import "wasi:io/poll@0.2.3" (instance))
                (core module (memory 3))
                (core module (memory 2) (func))
                (component (import "inner" (func)))
                (instance $handler)
                (export "wasi:http/incoming-handler@0.2.3" (instance $handler))
                (export "wasi:cli/run@0.3.0" (instance $handler)))"#,
        );
        let found = Inspection::of(&bytes).expect("a component");
        assert_eq!(found.imports, ["wasi:io/poll@0.2.3"]);
        assert_eq!(found.exports.len(), 2);
        assert_eq!(
            (found.http, found.command),
            (Some(Wasi::P2), Some(Wasi::P3))
        );
        assert_eq!(found.initial_memory_bytes, 5 << 16);
        assert_eq!(found.size_bytes, bytes.len());
        assert_eq!(found.digest, Digest::of(&bytes));
        assert!(!found.imports_after_head);
    }

    #[test]
    fn the_newer_of_two_worlds_counts_and_release_candidates_do_not() {
        let versions = |exports: &[&str]| {
            let exports = exports.iter();
            let exports = exports.map(|name| format!(r#"(export "{name}" (instance $i))"#));
            let text = format!("(component (instance $i) {})", exports.collect::<String>());
            let found = Inspection::of(&component(&text)).expect("a component");
            (found.http, found.command)
        };
        let (run2, run3) = ("wasi:cli/run@0.2.6", "wasi:cli/run@0.3.0");
        let (handler2, handler3) = (
            "wasi:http/incoming-handler@0.2.0",
            "wasi:http/handler@0.3.1",
        );
        assert_eq!(versions(&[run2, run3]), (None, Some(Wasi::P3)));
        assert_eq!(versions(&[run3, run2]), (None, Some(Wasi::P3)));
        assert_eq!(
            versions(&[handler2, run2]),
            (Some(Wasi::P2), Some(Wasi::P2))
        );
        assert_eq!(versions(&[handler2, handler3]), (Some(Wasi::P3), None));
        for other in [
            "wasi:cli/run@0.2.0-rc-2023-12-05",
            "wasi:http/handler@0.3.0-rc-2025-09-16",
            "wasi:http/handler@0.2.0",
            "wasi:cli/run@0.4.0",
            "my:cli/run@0.2.0",
        ] {
            assert_eq!(versions(&[other]), (None, None), "{other}");
        }
        assert_eq!(
            versions(&["wasi:cli/run@0.2.0-rc-1", run2]),
            (None, Some(Wasi::P2))
        );
    }

    #[test]
    fn the_usual_mistakes_have_messages_of_their_own() {
        let message = |bytes: &[u8]| {
            Inspection::of(bytes)
                .expect_err("not a component")
                .to_string()
        };
        assert!(message(b"(component)").contains("text"));
        assert!(message(&component("(module)")).contains("core module"));
        assert!(message(b"\x7fELF\x02").contains(r"\u{7f}ELF"));
        assert!(message(b"").contains("not a WebAssembly binary"));
        let mut cut = component(r#"(component (import "a" (func)))"#);
        cut.truncate(cut.len() - 2);
        assert!(message(&cut).contains("damaged at byte"));
    }
}
