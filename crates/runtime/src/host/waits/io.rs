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
                let work = state.table().poll(list);
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
                let work = HostPollable::block(state.table(), it);
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
                Ok((HostPollable::ready(state.table(), it).await?,))
            })
        },
    )?;
    let ty = ResourceType::host::<DynPollable>();
    poll.resource("pollable", ty, |mut store, rep| {
        let state = store.data_mut();
        state.labels.drop_pollable(rep);
        HostPollable::drop(state.table(), Resource::new_own(rep))
    })
}

/// What a stream function returns to the guest.
fn told<T>(
    state: &mut State,
    result: StreamResult<T>,
) -> wasmtime::Result<(Result<T, StreamError>,)> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(state.table().convert_stream_error(error)?),)),
    }
}

fn input(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut streams = linker.instance(STREAMS)?;
    type In = (Resource<DynInputStream>, u64);
    streams.func_wrap_async(
        "[method]input-stream.blocking-read",
        |mut store: StoreContextMut<'_, State>, (stream, length): In| {
            Box::new(async move {
                let state = store.data_mut();
                state.recorder.note("input-stream.blocking-read");
                let source = state.labels.of_input(&stream);
                let cell = state.cell.clone();
                let work = HostInputStream::blocking_read(state.table(), stream, length);
                let wait = cell.block("input-stream.blocking-read", || vec![source], work);
                let read = wait.await?;
                told(store.data_mut(), read)
            })
        },
    )?;
    streams.func_wrap_async(
        "[method]input-stream.blocking-skip",
        |mut store: StoreContextMut<'_, State>, (stream, length): In| {
            Box::new(async move {
                let state = store.data_mut();
                state.recorder.note("input-stream.blocking-skip");
                let source = state.labels.of_input(&stream);
                let cell = state.cell.clone();
                let work = HostInputStream::blocking_skip(state.table(), stream, length);
                let wait = cell.block("input-stream.blocking-skip", || vec![source], work);
                let skipped = wait.await?;
                told(store.data_mut(), skipped)
            })
        },
    )?;
    streams.func_wrap(
        "[method]input-stream.read",
        |mut store: StoreContextMut<'_, State>, (stream, length): In| {
            let state = store.data_mut();
            state.recorder.note("input-stream.read");
            let read = HostInputStream::read(state.table(), stream, length);
            told(state, read)
        },
    )?;
    streams.func_wrap(
        "[method]input-stream.subscribe",
        |mut store: StoreContextMut<'_, State>, (stream,): (Resource<DynInputStream>,)| {
            let state = store.data_mut();
            let source = state.labels.of_input(&stream);
            let pollable = HostInputStream::subscribe(state.table(), stream)?;
            state.labels.pollable(&pollable, Label::Source(source));
            Ok((pollable,))
        },
    )?;
    let ty = ResourceType::host::<DynInputStream>();
    streams.resource_async("input-stream", ty, |mut store, rep| {
        Box::new(async move {
            let state: &mut State = store.data_mut();
            state.labels.drop_input(rep);
            HostInputStream::drop(state.table(), Resource::new_own(rep)).await
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
    streams.func_wrap_async(
        "[method]output-stream.blocking-write-and-flush",
        |mut store: StoreContextMut<'_, State>,
         (to, bytes): (Resource<DynOutputStream>, Vec<u8>)| {
            Box::new(async move {
                const NAME: &str = "output-stream.blocking-write-and-flush";
                let state = store.data_mut();
                state.recorder.note(NAME);
                let (cell, sources) = (state.cell.clone(), of_output(state, &to));
                let work = HostOutputStream::blocking_write_and_flush(state.table(), to, bytes);
                let written = cell.block(NAME, sources, work).await?;
                told(store.data_mut(), written)
            })
        },
    )?;
    streams.func_wrap_async(
        "[method]output-stream.blocking-write-zeroes-and-flush",
        |mut store: StoreContextMut<'_, State>, (to, length): (Resource<DynOutputStream>, u64)| {
            Box::new(async move {
                const NAME: &str = "output-stream.blocking-write-zeroes-and-flush";
                let state = store.data_mut();
                state.recorder.note(NAME);
                let (cell, sources) = (state.cell.clone(), of_output(state, &to));
                let table = state.table();
                let work = HostOutputStream::blocking_write_zeroes_and_flush(table, to, length);
                let written = cell.block(NAME, sources, work).await?;
                told(store.data_mut(), written)
            })
        },
    )?;
    streams.func_wrap_async(
        "[method]output-stream.blocking-flush",
        |mut store: StoreContextMut<'_, State>, (to,): (Resource<DynOutputStream>,)| {
            Box::new(async move {
                const NAME: &str = "output-stream.blocking-flush";
                let state = store.data_mut();
                state.recorder.note(NAME);
                let (cell, sources) = (state.cell.clone(), of_output(state, &to));
                let work = HostOutputStream::blocking_flush(state.table(), to);
                let flushed = cell.block(NAME, sources, work).await?;
                told(store.data_mut(), flushed)
            })
        },
    )?;
    let ty = ResourceType::host::<DynOutputStream>();
    streams.resource_async("output-stream", ty, |mut store, rep| {
        Box::new(async move {
            let state: &mut State = store.data_mut();
            state.labels.drop_output(rep);
            HostOutputStream::drop(state.table(), Resource::new_own(rep)).await
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
            let room = HostOutputStream::check_write(state.table(), to);
            told(state, room)
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.write",
        |mut store: StoreContextMut<'_, State>,
         (to, bytes): (Resource<DynOutputStream>, Vec<u8>)| {
            let state = store.data_mut();
            state.recorder.note("output-stream.write");
            let written = HostOutputStream::write(state.table(), to, bytes);
            told(state, written)
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.subscribe",
        |mut store: StoreContextMut<'_, State>, (stream,): (Resource<DynOutputStream>,)| {
            let state = store.data_mut();
            let target = state.labels.of_output(&stream);
            let pollable = HostOutputStream::subscribe(state.table(), stream)?;
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
                let work = HostOutputStream::blocking_splice(state.table(), to, from, length);
                let moved = cell.block(NAME, sources, work).await?;
                told(store.data_mut(), moved)
            })
        },
    )
}
