//! Everything the host offers to guests.

use wasmtime::{Engine, component::Linker};
use wasmtime_wasi_config::WasiConfig;

use super::{files::GuestFiles, state::State, waits};
use crate::{engine::CodeClass, observe};

/// Everything the host offers to guests of a class.
pub(crate) fn linker(engine: &Engine, class: CodeClass) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    files_p2(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if observe::ON {
        waits::observe_p2(&mut linker)?;
    }
    wasmtime_wasi_config::add_to_linker(&mut linker, |state: &mut State| {
        WasiConfig::from(&*state.config)
    })?;
    if class.concurrent {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        files_p3(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        if observe::ON {
            waits::observe_p3(&mut linker)?;
        }
    }
    Ok(linker)
}

/// Files of WASI 0.2.
fn files_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
    linker.allow_shadowing(true);
    types::add_to_linker::<State, GuestFiles>(linker, State::files)?;
    preopens::add_to_linker::<State, GuestFiles>(linker, State::files)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Files of WASI 0.3.
fn files_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p3::bindings::filesystem::{preopens, types};
    linker.allow_shadowing(true);
    types::add_to_linker::<State, GuestFiles>(linker, State::files)?;
    preopens::add_to_linker::<State, GuestFiles>(linker, State::files)?;
    linker.allow_shadowing(false);
    Ok(())
}
