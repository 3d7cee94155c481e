//! How many files an instance may hold open: each takes a descriptor of this process.

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _},
    p2::bindings::filesystem::types::{self as p2, HostDescriptor as _},
    p3::bindings::filesystem::types::{self as p3, HostDescriptorWithStore as _},
};

use crate::sandbox::State;

const TYPES_P2: &str = "wasi:filesystem/types@0.2.12";
const TYPES_P3: &str = "wasi:filesystem/types@0.3.0";
/// The one function that opens anything.
const OPEN_AT: &str = "[method]descriptor.open-at";

type OpenP2 = (
    Resource<Descriptor>,
    p2::PathFlags,
    String,
    p2::OpenFlags,
    p2::DescriptorFlags,
);

type OpenP3 = (
    Resource<Descriptor>,
    p3::PathFlags,
    String,
    p3::OpenFlags,
    p3::DescriptorFlags,
);

/// Puts a limit before the function of WASI 0.2 that opens files. It answers `insufficient-memory`
/// beyond it: WASI has no code of its own for that.
pub(crate) fn limit_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES_P2)?;
    types.func_wrap_async(OPEN_AT, |mut store, arguments: OpenP2| {
        Box::new(async move {
            let (directory, path_flags, path, open_flags, flags) = arguments;
            if store.data_mut().may_open_no_more() {
                return Ok((Err(p2::ErrorCode::InsufficientMemory),));
            }
            let mut view = store.data_mut().filesystem();
            let opened = view.open_at(directory, path_flags, path, open_flags, flags);
            match opened.await {
                Ok(file) => Ok((Ok(file),)),
                Err(error) => Ok((Err(error.downcast()?),)),
            }
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for WASI 0.3.
pub(crate) fn limit_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES_P3)?;
    types.func_wrap_concurrent(OPEN_AT, |accessor, arguments: OpenP3| {
        let files = accessor.with_getter::<WasiFilesystem>(State::filesystem);
        Box::pin(async move {
            let (directory, path_flags, path, open_flags, flags) = arguments;
            if files.with(|mut store| store.data_mut().may_open_no_more()) {
                return Ok((Err(p3::ErrorCode::InsufficientMemory),));
            }
            let opened =
                WasiFilesystem::open_at(&files, directory, path_flags, path, open_flags, flags);
            match opened.await {
                Ok(file) => Ok((Ok(file),)),
                Err(error) => Ok((Err(error.downcast()?),)),
            }
        })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Engine};

    use super::*;

    /// Shadowing would define a function that nobody calls without a word, after an update that
    /// renames the real one.
    #[test]
    fn what_is_limited_is_what_guests_call() {
        let mut config = Config::new();
        config.wasm_component_model_async(true);
        let engine = Engine::new(&config).expect("an engine");
        let mut linker = Linker::<State>::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI 0.2");
        wasmtime_wasi::p3::add_to_linker(&mut linker).expect("WASI 0.3");
        for types in [TYPES_P2, TYPES_P3] {
            let mut types = linker.instance(types).expect("an instance");
            let again = types.func_wrap(OPEN_AT, |_, ()| Ok(()));
            assert!(again.is_err(), "it is not there");
        }
    }
}
