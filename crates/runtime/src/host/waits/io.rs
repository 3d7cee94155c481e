//! `wasi:io` of WASI 0.2: pollables and streams.

use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, StreamResult,
    bindings::io::{
        poll::{Host as _, HostPollable},
        streams::{Host as _, HostInputStream, HostOutputStream, StreamError},
    },
};

use super::labels::Label;
use crate::{host::state::State, observe::source::Source};

const POLL: &str = "wasi:io/poll@0.2.12";
const STREAMS: &str = "wasi:io/streams@0.2.12";

pub(super) fn observe(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    poll(linker)?;
    input(linker)?;
    output(linker)?;
    write(linker)?;
    splice(linker)
}

fn poll(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut poll = linker.instance(POLL)?;
    poll.func_wrap_async(
        "poll",
        |mut store: StoreContextMut<'_, State>, (list,): (Vec<Resource<DynPollable>>,)| {
            Box::new(async move {
                let state = store.data_mut();
                state.recorder.note("poll.poll");
                let labels = &state.labels;
                let sources = list.iter().map(|it| labels.of_pollable(it)).collect();
                let cell = state.cell.clone();
                let work = state.table.poll(list);
                let ready = cell.block("poll.poll", || sources, work).await??;
                Ok((ready,))
            })
        },
    )?;
    poll.func_wrap_async(
        "[method]pollable.block",
        |mut store: StoreContextMut<'_, State>, (it,): (Resource<DynPollable>,)| {
            Box::new(async move {
                let state = store.data_mut();
                state.recorder.note("pollable.block");
                let source = state.labels.of_pollable(&it);
                let cell = state.cell.clone();
                let work = HostPollable::block(&mut state.table, it);
                cell.block("pollable.block", || vec![source], work)
                    .await??;
                Ok(())
            })
        },
    )?;
    poll.func_wrap_async(
        "[method]pollable.ready",
        |mut store: StoreContextMut<'_, State>, (it,): (Resource<DynPollable>,)| {
            Box::new(async move {
                let state = store.data_mut();
                state.recorder.note("pollable.ready");
                Ok((HostPollable::ready(&mut state.table, it).await?,))
            })
        },
    )?;
    let ty = ResourceType::host::<DynPollable>();
    poll.resource("pollable", ty, |mut store, rep| {
        let state = store.data_mut();
        state.labels.drop_pollable(rep);
        HostPollable::drop(&mut state.table, Resource::new_own(rep))
    })
}

/// What a stream function returns to the guest.
fn told<T>(
    state: &mut State,
    result: StreamResult<T>,
) -> wasmtime::Result<(Result<T, StreamError>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(state.table.convert_stream_error(error)?),)),
    }
}

/// Wraps functions that wait: while one does, the cell knows what could end the wait.
macro_rules! blocking {
    ($streams:ident, $host:ident, $sources:ident, $stream:ty:
     $($name:literal $function:ident($($argument:ident: $type:ty)?);)*) => {$(
        $streams.func_wrap_async(
            concat!("[method]", $name),
            |mut store: StoreContextMut<'_, State>,
             (stream, $($argument)?): (Resource<$stream>, $($type)?)| {
                Box::new(async move {
                    let state = store.data_mut();
                    state.recorder.note($name);
                    let (cell, sources) = (state.cell.clone(), $sources(state, &stream));
                    let work = $host::$function(&mut state.table, stream, $($argument)?);
                    let output = cell.block($name, sources, work).await?;
                    told(store.data_mut(), output)
                })
            },
        )?;
    )*};
}

/// The source behind a stream that the guest reads from.
fn of_input(
    state: &State,
    stream: &Resource<DynInputStream>,
) -> impl FnOnce() -> Vec<Source> + use<> {
    let source = state.labels.of_input(stream);
    move || vec![source]
}

fn input(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(STREAMS)?;
    type In = (Resource<DynInputStream>, u64);
    blocking! { streams, HostInputStream, of_input, DynInputStream:
        "input-stream.blocking-read" blocking_read(length: u64);
        "input-stream.blocking-skip" blocking_skip(length: u64);
    }
    streams.func_wrap(
        "[method]input-stream.read",
        |mut store: StoreContextMut<'_, State>, (stream, length): In| {
            let state = store.data_mut();
            state.recorder.note("input-stream.read");
            let read = HostInputStream::read(&mut state.table, stream, length);
            told(state, read)
        },
    )?;
    streams.func_wrap(
        "[method]input-stream.subscribe",
        |mut store: StoreContextMut<'_, State>, (stream,): (Resource<DynInputStream>,)| {
            let state = store.data_mut();
            let source = state.labels.of_input(&stream);
            let pollable = HostInputStream::subscribe(&mut state.table, stream)?;
            state.labels.pollable(&pollable, Label::Source(source));
            Ok((pollable,))
        },
    )?;
    let ty = ResourceType::host::<DynInputStream>();
    streams.resource_async("input-stream", ty, |mut store, rep| {
        Box::new(async move {
            let state: &mut State = store.data_mut();
            state.labels.drop_input(rep);
            HostInputStream::drop(&mut state.table, Resource::new_own(rep)).await
        })
    })
}

/// The source behind a stream that the guest writes to.
fn of_output(
    state: &State,
    stream: &Resource<DynOutputStream>,
) -> impl FnOnce() -> Vec<Source> + use<> {
    let target = state.labels.of_output(stream);
    move || vec![target.map_or(Source::Unknown, |target| target.source())]
}

fn output(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(STREAMS)?;
    blocking! { streams, HostOutputStream, of_output, DynOutputStream:
        "output-stream.blocking-write-and-flush" blocking_write_and_flush(bytes: Vec<u8>);
        "output-stream.blocking-write-zeroes-and-flush" blocking_write_zeroes_and_flush(length: u64);
        "output-stream.blocking-flush" blocking_flush();
    }
    let ty = ResourceType::host::<DynOutputStream>();
    streams.resource_async("output-stream", ty, |mut store, rep| {
        Box::new(async move {
            let state: &mut State = store.data_mut();
            state.labels.drop_output(rep);
            HostOutputStream::drop(&mut state.table, Resource::new_own(rep)).await
        })
    })
}

/// What writes without waiting.
fn write(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(STREAMS)?;
    streams.func_wrap(
        "[method]output-stream.check-write",
        |mut store: StoreContextMut<'_, State>, (to,): (Resource<DynOutputStream>,)| {
            let state = store.data_mut();
            state.recorder.note("output-stream.check-write");
            let room = HostOutputStream::check_write(&mut state.table, to);
            told(state, room)
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.write",
        |mut store: StoreContextMut<'_, State>,
         (to, bytes): (Resource<DynOutputStream>, Vec<u8>)| {
            let state = store.data_mut();
            state.recorder.note("output-stream.write");
            let written = HostOutputStream::write(&mut state.table, to, bytes);
            told(state, written)
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.subscribe",
        |mut store: StoreContextMut<'_, State>, (stream,): (Resource<DynOutputStream>,)| {
            let state = store.data_mut();
            let target = state.labels.of_output(&stream);
            let pollable = HostOutputStream::subscribe(&mut state.table, stream)?;
            state.labels.pollable(&pollable, Label::Output(target));
            Ok((pollable,))
        },
    )
}

fn splice(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(STREAMS)?;
    type Splice = (Resource<DynOutputStream>, Resource<DynInputStream>, u64);
    streams.func_wrap_async(
        "[method]output-stream.blocking-splice",
        |mut store: StoreContextMut<'_, State>, (to, from, length): Splice| {
            Box::new(async move {
                const NAME: &str = "output-stream.blocking-splice";
                let state = store.data_mut();
                state.recorder.note(NAME);
                let (cell, room) = (state.cell.clone(), of_output(state, &to));
                let data = state.labels.of_input(&from);
                let sources = || room().into_iter().chain([data]).collect();
                let work = HostOutputStream::blocking_splice(&mut state.table, to, from, length);
                let moved = cell.block(NAME, sources, work).await?;
                told(store.data_mut(), moved)
            })
        },
    )
}
