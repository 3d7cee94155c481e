//! `wasi:sockets` of WASI 0.3, in front of wasmtime's own.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut as _, StoreContextMut,
    component::{
        Access, FutureConsumer, FutureReader, Linker, LinkerInstance, Resource, ResourceType,
        Source, StreamReader,
    },
};
use wasmtime_wasi::{
    p3::{
        bindings::sockets::{
            ip_name_lookup::ErrorCode as LookupError,
            types::{
                ErrorCode, Host as _, HostTcpSocket, HostTcpSocketWithStore as _, IpAddress,
                IpAddressFamily, IpSocketAddress, TcpSocket, UdpSocket,
            },
        },
        sockets::SocketResult,
    },
    sockets::{WasiSockets, WasiSocketsView as _},
};

use super::{Held, lookup::Failed, name_server};
use crate::host::state::State;

const LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.3.0";
const TYPES: &str = "wasi:sockets/types@0.3.0";

pub(in crate::host) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    lookup(linker)?;
    sockets(linker)
}

/// What a function returns to the guest.
fn told<T>(
    state: &mut State,
    result: SocketResult<T>,
) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(state.sockets().convert_error_code(error)?),
    },))
}

impl From<Failed> for LookupError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Denied => Self::AccessDenied,
            Failed::NoRoom => Self::TemporaryResolverFailure,
            Failed::NoName => Self::InvalidArgument,
            Failed::Unresolved => Self::NameUnresolvable,
        }
    }
}

fn lookup(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut lookup = linker.instance(LOOKUP)?;
    lookup.func_wrap_concurrent("resolve-addresses", |accessor, (name,): (String,)| {
        Box::pin(async move {
            let begun = accessor.with(|mut store| {
                let state: &mut State = store.get();
                state.recorder.note("ip-name-lookup.resolve-addresses");
                let lookup = state.tcp.look_up(&name)?;
                Ok((lookup, state.cell.register("a lookup", name_server())))
            });
            let found = match begun {
                Ok((lookup, wait)) => wait.wait(lookup).await,
                Err(failed) => Err(failed),
            };
            let addresses = |found: Vec<_>| found.into_iter().map(IpAddress::from).collect();
            Ok((found.map(addresses).map_err(LookupError::from)
                as Result<Vec<IpAddress>, LookupError>,))
        })
    })
}

type Ended = FutureReader<Result<(), ErrorCode>>;

/// What a stream of a socket ends with. Until then it holds what the socket takes.
fn holding(
    mut store: StoreContextMut<'_, State>,
    ended: Ended,
    held: Option<Held>,
) -> wasmtime::Result<Ended> {
    let Some(held) = held else {
        return Ok(ended);
    };
    let (told, ended_and_told) = oneshot::channel();
    ended.pipe(&mut store, Holding(Some((held, told))))?;
    FutureReader::new(&mut store, ended_and_told)
}

struct Holding(Option<(Held, oneshot::Sender<Result<(), ErrorCode>>)>);

impl FutureConsumer<State> for Holding {
    type Item = Result<(), ErrorCode>;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, State>,
        mut source: Source<'_, Self::Item>,
        _: bool,
    ) -> Poll<wasmtime::Result<()>> {
        let mut result = None;
        source.read(store, &mut result)?;
        if let (Some(result), Some((held, told))) = (result, self.0.take()) {
            drop(held);
            // A guest need not want to know.
            let _ = told.send(result);
        }
        Poll::Ready(Ok(()))
    }
}

/// The streams of a socket, which may outlive its handle.
fn streams(types: &mut LinkerInstance<'_, State>) -> wasmtime::Result<()> {
    type Send = (Resource<TcpSocket>, StreamReader<u8>);
    types.func_wrap(
        "[method]tcp-socket.send",
        |mut store: StoreContextMut<'_, State>, (socket, data): Send| {
            let held = store.data().tcp.held(socket.rep());
            let access = Access::<_, WasiSockets>::new(store.as_context_mut(), State::sockets);
            let ended = WasiSockets::send(access, socket, data)?;
            Ok((holding(store, ended, held)?,))
        },
    )?;
    types.func_wrap(
        "[method]tcp-socket.receive",
        |mut store: StoreContextMut<'_, State>, (socket,): (Resource<TcpSocket>,)| {
            let held = store.data().tcp.held(socket.rep());
            let access = Access::<_, WasiSockets>::new(store.as_context_mut(), State::sockets);
            let (stream, ended) = WasiSockets::receive(access, socket)?;
            Ok(((stream, holding(store, ended, held)?),))
        },
    )
}

fn sockets(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[static]tcp-socket.create",
        |mut store: StoreContextMut<'_, State>, (family,): (IpAddressFamily,)| {
            let state = store.data_mut();
            state.recorder.note("tcp-socket.create");
            if !state.tcp.dialler.may_open() {
                return Ok((Err(ErrorCode::AccessDenied),));
            }
            let Some(permits) = state.tcp.room() else {
                let full = "this pod or this node has as many sockets as it may have";
                return Ok((Err(ErrorCode::Other(Some(full.to_owned()))),));
            };
            let created = HostTcpSocket::create(&mut state.sockets(), family);
            if let Ok(socket) = &created {
                state.tcp.opened(socket.rep(), permits);
            }
            told(state, created)
        },
    )?;
    types.func_wrap(
        "[static]udp-socket.create",
        |mut store: StoreContextMut<'_, State>, (_,): (IpAddressFamily,)| {
            let state = store.data_mut();
            state.recorder.note("udp-socket.create");
            state.tcp.dialler.refuse_udp();
            Ok((Err::<Resource<UdpSocket>, _>(ErrorCode::AccessDenied),))
        },
    )?;
    type Connect = (Resource<TcpSocket>, IpSocketAddress);
    types.func_wrap_concurrent(
        "[method]tcp-socket.connect",
        |accessor, (socket, address): Connect| {
            Box::pin(async move {
                let wait = accessor.with(|mut store| {
                    let state: &mut State = store.get();
                    state.recorder.note("tcp-socket.connect");
                    let server = state.tcp.connect(socket.rep(), address.into());
                    state.cell.register("tcp-socket.connect", server)
                });
                let sockets = accessor.with_getter::<WasiSockets>(State::sockets);
                let connected = WasiSockets::connect(&sockets, socket, address);
                let connected = wait.wait(connected).await;
                accessor.with(|mut store| told(store.get(), connected))
            })
        },
    )?;
    streams(&mut types)?;
    let ty = ResourceType::host::<TcpSocket>();
    types.resource("tcp-socket", ty, |mut store, rep| {
        let state = store.data_mut();
        state.tcp.closed(rep);
        HostTcpSocket::drop(&mut state.sockets(), Resource::new_own(rep))
    })
}
