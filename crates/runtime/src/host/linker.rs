//! Everything the host offers to guests.

use wasmtime::{Engine, component::Linker};
use wasmtime_wasi::{p2::bindings::filesystem as files_p2, p3::bindings::filesystem as files_p3};
use wasmtime_wasi_config::WasiConfig;

use super::{files::GuestFiles, keyvalue, logging, sockets, state::State, waits};
use crate::{engine::CodeClass, observe};

/// Everything the host offers to guests of a class.
pub(crate) fn linker(engine: &Engine, class: CodeClass) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let to = &mut linker;
    wasmtime_wasi::p2::add_to_linker_async(to)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(to)?;
    wasmtime_wasi_config::add_to_linker(to, |state: &mut State| WasiConfig::from(&*state.config))?;
    keyvalue::add(to)?;
    logging::add(to)?;
    if class.concurrent {
        wasmtime_wasi::p3::add_to_linker(to)?;
        wasmtime_wasi_http::p3::add_to_linker(to)?;
    }
    // What comes now takes the place of wasmtime's own.
    to.allow_shadowing(true);
    files_p2::types::add_to_linker::<State, GuestFiles>(to, State::files)?;
    files_p2::preopens::add_to_linker::<State, GuestFiles>(to, State::files)?;
    sockets::p2::add(to)?;
    if observe::ON {
        waits::observe_p2(to)?;
    }
    if class.concurrent {
        files_p3::types::add_to_linker::<State, GuestFiles>(to, State::files)?;
        files_p3::preopens::add_to_linker::<State, GuestFiles>(to, State::files)?;
        sockets::p3::add(to)?;
        if observe::ON {
            waits::observe_p3(to)?;
        }
    }
    to.allow_shadowing(false);
    Ok(linker)
}
