//! The host functions in which a guest can wait, wrapped so that the host knows for what.
//!
//! Each notes itself with the instance's flight recorder and does what wasmtime's own does.

pub(crate) mod answered;
mod direct;
mod http;
mod io;
pub(crate) mod labels;

use wasmtime::component::Linker;
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host as _;
use wasmtime_wasi::p2::bindings::random::random::Host as _;
use wasmtime_wasi::p3::bindings::clocks::monotonic_clock::HostWithStore as _;
use wasmtime_wasi::random::WasiRandomView as _;

use super::state::State;
use crate::observe::{cell::WaitNote, source::Source};
use labels::Label;

const CLOCK_P2: &str = "wasi:clocks/monotonic-clock@0.2.12";
const RANDOM: &str = "wasi:random/random@0.2.12";
const CLOCK_P3: &str = "wasi:clocks/monotonic-clock@0.3.0";

/// Wraps those of WASI 0.2.
pub(crate) fn observe_p2(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    io::observe(linker)?;
    http::observe(linker)?;
    let mut clock = linker.instance(CLOCK_P2)?;
    clock.func_wrap("subscribe-instant", |mut store, (when,): (u64,)| {
        let state: &mut State = store.data_mut();
        state.recorder.note("monotonic-clock.subscribe-instant");
        let mut clocks = state.clocks();
        let source = until(when.saturating_sub(clocks.now()?));
        let pollable = clocks.subscribe_instant(when)?;
        state.labels.pollable(&pollable, Label::Source(source));
        Ok((pollable,))
    })?;
    clock.func_wrap("subscribe-duration", |mut store, (duration,): (u64,)| {
        let state: &mut State = store.data_mut();
        state.recorder.note("monotonic-clock.subscribe-duration");
        let pollable = state.clocks().subscribe_duration(duration)?;
        let source = until(duration);
        state.labels.pollable(&pollable, Label::Source(source));
        Ok((pollable,))
    })?;
    clock.func_wrap("now", |mut store, (): ()| {
        let state: &mut State = store.data_mut();
        state.recorder.count();
        Ok((state.clocks().now()?,))
    })?;
    let mut random = linker.instance(RANDOM)?;
    random.func_wrap("get-random-bytes", |mut store, (length,): (u64,)| {
        let state: &mut State = store.data_mut();
        state.recorder.note("random.get-random-bytes");
        Ok((state.random().get_random_bytes(length)?,))
    })?;
    Ok(())
}

/// Wraps those of WASI 0.3 that do not register themselves.
pub(crate) fn observe_p3(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut clock = linker.instance(CLOCK_P3)?;
    clock.func_wrap_concurrent("wait-until", |accessor, (when,): (u64,)| {
        let clocks = accessor.with_getter::<WasiClocks>(State::clocks);
        let note = accessor.with(|mut store| timer(store.get(), "monotonic-clock.wait-until"));
        Box::pin(async move { note.wait(WasiClocks::wait_until(&clocks, when)).await })
    })?;
    clock.func_wrap_concurrent("wait-for", |accessor, (duration,): (u64,)| {
        let clocks = accessor.with_getter::<WasiClocks>(State::clocks);
        let note = accessor.with(|mut store| timer(store.get(), "monotonic-clock.wait-for"));
        Box::pin(async move { note.wait(WasiClocks::wait_for(&clocks, duration)).await })
    })?;
    Ok(())
}

/// What ends a wait of so many nanoseconds.
fn until(nanos: u64) -> Source {
    match nanos {
        0 => Source::Past,
        _ => Source::Timer,
    }
}

fn timer(state: &mut State, function: &'static str) -> WaitNote {
    state.recorder.note(function);
    state.cell.register(function, Source::Timer)
}
