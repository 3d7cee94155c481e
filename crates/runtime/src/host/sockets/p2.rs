//! `wasi:sockets` of WASI 0.2, in front of wasmtime's own.

use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    p2::{
        DynInputStream, DynOutputStream, DynPollable, SocketResult, TcpSocket,
        bindings::sockets::{
            ip_name_lookup::{Host as _, HostResolveAddressStream, ResolveAddressStream},
            network::{ErrorCode, Host as _, IpAddress, IpAddressFamily, IpSocketAddress, Network},
            tcp::HostTcpSocket,
            tcp_create_socket::Host as _,
        },
    },
    sockets::WasiSocketsView as _,
};

use super::name_server;
use crate::host::{
    state::State,
    waits::labels::{Label, Target},
};

const LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";
const CREATE: &str = "wasi:sockets/tcp-create-socket@0.2.12";
const TCP: &str = "wasi:sockets/tcp@0.2.12";

type Told<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

pub(in crate::host) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    lookup(linker)?;
    create(linker)?;
    connect(linker)
}

/// What a function returns to the guest.
fn told<T>(state: &mut State, result: SocketResult<T>) -> Told<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(state.sockets().convert_error_code(error)?),
    },))
}

fn lookup(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut lookup = linker.instance(LOOKUP)?;
    type Stream = Resource<ResolveAddressStream>;
    lookup.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, State>, (network, name): (Resource<Network>, String)| {
            let state = store.data_mut();
            state.recorder.note("ip-name-lookup.resolve-addresses");
            if !state.tcp.dialler.may_look_up(&name) {
                return Ok((Err(ErrorCode::AccessDenied),));
            }
            // Each has a thread look for the name.
            let Some(permits) = state.tcp.room() else {
                return Ok((Err(ErrorCode::TemporaryResolverFailure),));
            };
            let looked = state.sockets().resolve_addresses(network, name.clone());
            if let Ok(stream) = &looked {
                state.tcp.lookups.insert(stream.rep(), (name, permits));
            }
            told(state, looked)
        },
    )?;
    lookup.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, State>, (stream,): (Stream,)| {
            let state = store.data_mut();
            let lookup = state.tcp.lookups.get(&stream.rep());
            let name = lookup.map(|(name, _)| name.clone()).unwrap_or_default();
            loop {
                let again = Resource::new_borrow(stream.rep());
                let next = state.sockets().resolve_next_address(again);
                match next {
                    Ok(Some(address)) if !state.tcp.dialler.show(&name, ip(&address)) => {}
                    next => return told(state, next),
                }
            }
        },
    )?;
    lookup.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, State>, (stream,): (Stream,)| {
            let state = store.data_mut();
            let pollable = HostResolveAddressStream::subscribe(&mut state.sockets(), stream)?;
            state
                .labels
                .pollable(&pollable, Label::Source(name_server()));
            Ok((pollable,))
        },
    )?;
    let ty = ResourceType::host::<ResolveAddressStream>();
    lookup.resource("resolve-address-stream", ty, |mut store, rep| {
        let state = store.data_mut();
        state.tcp.lookups.remove(&rep);
        HostResolveAddressStream::drop(&mut state.sockets(), Resource::new_own(rep))
    })
}

fn ip(address: &IpAddress) -> std::net::IpAddr {
    match *address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
}

fn create(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut create = linker.instance(CREATE)?;
    create.func_wrap(
        "create-tcp-socket",
        |mut store: StoreContextMut<'_, State>, (family,): (IpAddressFamily,)| {
            let state = store.data_mut();
            state.recorder.note("tcp-create-socket.create-tcp-socket");
            if !state.tcp.dialler.may_open() {
                return Ok((Err(ErrorCode::AccessDenied),));
            }
            let Some(permits) = state.tcp.room() else {
                return Ok((Err(ErrorCode::NewSocketLimit),));
            };
            let created = state.sockets().create_tcp_socket(family);
            if let Ok(socket) = &created {
                state.tcp.opened(socket.rep(), permits);
            }
            told(state, created)
        },
    )
}

fn connect(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut tcp = linker.instance(TCP)?;
    type Connect = (Resource<TcpSocket>, Resource<Network>, IpSocketAddress);
    type Streams = (Resource<DynInputStream>, Resource<DynOutputStream>);
    tcp.func_wrap(
        "[method]tcp-socket.start-connect",
        |mut store: StoreContextMut<'_, State>, (socket, network, address): Connect| {
            let state = store.data_mut();
            state.recorder.note("tcp-socket.start-connect");
            state.tcp.connect(socket.rep(), address.into());
            let begun = state.sockets().start_connect(socket, network, address);
            told(state, begun)
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.finish-connect",
        |mut store: StoreContextMut<'_, State>, (socket,): (Resource<TcpSocket>,)| {
            let state = store.data_mut();
            let server = state.tcp.server(socket.rep());
            let connected: SocketResult<Streams> = state.sockets().finish_connect(socket);
            if let Ok((input, output)) = &connected {
                state.labels.input(input, server.clone());
                state.labels.output_to(output, Target::Server(server));
            }
            told(state, connected)
        },
    )?;
    tcp.func_wrap(
        "[method]tcp-socket.subscribe",
        |mut store: StoreContextMut<'_, State>, (socket,): (Resource<TcpSocket>,)| {
            let state = store.data_mut();
            let server = state.tcp.server(socket.rep());
            let pollable: Resource<DynPollable> =
                HostTcpSocket::subscribe(&mut state.sockets(), socket)?;
            state.labels.pollable(&pollable, Label::Source(server));
            Ok((pollable,))
        },
    )?;
    let ty = ResourceType::host::<TcpSocket>();
    tcp.resource("tcp-socket", ty, |mut store, rep| {
        let state = store.data_mut();
        state.tcp.closed(rep);
        HostTcpSocket::drop(&mut state.sockets(), Resource::new_own(rep))
    })
}
