//! The link check: does the host have everything a component imports?

use wasm_encoder::{
    Component as Encoder, ComponentImportSection, ComponentTypeRef, CoreTypeSection, ModuleType,
    RawSection,
};
use wasmtime::component::{Component, Linker};

use super::inspect::{Inspection, advice};

/// What a component imports and the host does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Whole interfaces, or functions outside of any, are not there.
    #[error(
        "the host has no {}{}",
        .0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "), advice(.0)
    )]
    Missing(Vec<String>),
    /// An interface is there and not as the component wants it.
    #[error("the host's interface differs from the imported one: {0}")]
    Differs(String),
}

/// Checks a component's imports against a linker, without its code.
pub(crate) fn check<T: 'static>(
    linker: &Linker<T>,
    bytes: &[u8],
    inspection: &Inspection,
) -> Result<(), LinkError> {
    let head = encode_head(bytes, inspection);
    let result = Component::from_binary(linker.engine(), &head)
        .and_then(|head| linker.instantiate_pre(&head).map(drop));
    if result.is_ok() && !inspection.imports_after_head {
        return Ok(());
    }
    let missing = missing(linker, inspection);
    match result {
        _ if !missing.is_empty() => Err(LinkError::Missing(missing)),
        Err(error) => Err(LinkError::Differs(format!("{error:#}"))),
        Ok(()) => Ok(()),
    }
}

/// The component's types and imports as a component without code.
fn encode_head(bytes: &[u8], inspection: &Inspection) -> Vec<u8> {
    let mut head = Encoder::new();
    for (id, range) in &inspection.head {
        head.section(&RawSection {
            id: *id,
            data: &bytes[range.clone()],
        });
    }
    head.finish()
}

/// The imports for whose names the linker has nothing at all, not even of another type.
fn missing<T: 'static>(linker: &Linker<T>, inspection: &Inspection) -> Vec<String> {
    let Some(absent) = refusal(linker, "absent:absent/absent@0.0.0") else {
        return Vec::new();
    };
    let is_missing = |name: &&String| refusal(linker, name).as_ref() == Some(&absent);
    inspection
        .imports
        .iter()
        .filter(is_missing)
        .cloned()
        .collect()
}

/// Why the linker refuses to give a *core module* of this name.
///
/// The host offers instances and functions and never a module, so it always refuses; but it says
/// one thing of a name it has and another of a name it lacks. Asking for an instance would not do:
/// wasmtime takes an empty one for granted, whatever its name.
fn refusal<T: 'static>(linker: &Linker<T>, name: &str) -> Option<String> {
    let mut types = CoreTypeSection::new();
    types.ty().module(&ModuleType::new());
    let mut imports = ComponentImportSection::new();
    imports.import(name, ComponentTypeRef::Module(0));
    let mut probe = Encoder::new();
    probe.section(&types).section(&imports);
    let probe = Component::from_binary(linker.engine(), &probe.finish()).ok()?;
    let error = linker.instantiate_pre(&probe).err()?;
    Some(error.root_cause().to_string())
}

#[cfg(test)]
mod tests {
    use wasmtime::Engine;

    use super::*;

    fn host() -> Linker<()> {
        let mut linker = Linker::new(&Engine::default());
        let mut clock = linker
            .instance("demo:host/clock@0.2.1")
            .expect("a new instance");
        clock
            .func_wrap("now", |_, (): ()| Ok((0_u64,)))
            .expect("a new function");
        linker
    }

    fn check_text(text: &str) -> Result<(), LinkError> {
        let bytes = wat::parse_str(text).expect("good text");
        let inspection = Inspection::of(&bytes).expect("a component");
        check(&host(), &bytes, &inspection)
    }

    #[test]
    fn what_the_host_has_is_admitted_without_its_code() {
        let good = r#"(component
            (import "demo:host/clock@0.2.0" (instance (export "now" (func (result u64)))))
            (core module (func (export "f") i32.const 1 drop)))"#;
        assert_eq!(check_text(good), Ok(()));
    }

    #[test]
    fn every_missing_interface_is_listed() {
        let bad = r#"(component
            (import "demo:host/clock@0.2.0" (instance (export "now" (func (result u64)))))
            (import "demo:host/missing@1.0.0" (instance (export "f" (func))))
            (import "demo:other/missing@2.0.0" (instance)))"#;
        let missing = ["demo:host/missing@1.0.0", "demo:other/missing@2.0.0"].map(String::from);
        assert_eq!(check_text(bad), Err(LinkError::Missing(missing.to_vec())));
    }

    #[test]
    fn a_function_of_another_type_is_named() {
        let bad = r#"(component
            (import "demo:host/clock@0.2.0" (instance (export "later" (func)))))"#;
        let Err(LinkError::Differs(message)) = check_text(bad) else {
            panic!("admitted")
        };
        assert!(message.contains("later"), "{message}");
    }
}
