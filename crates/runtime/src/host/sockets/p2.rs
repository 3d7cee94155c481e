//! `wasi:sockets` of WASI 0.2, in front of wasmtime's own.

use std::{
    future::poll_fn,
    net::IpAddr,
    task::{Context, Poll, Waker, ready},
    vec,
};

use async_trait::async_trait;
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    p2::{
        DynInputStream, DynOutputStream, DynPollable, SocketResult, TcpSocket, UdpSocket,
        bindings::sockets::{
            network::{ErrorCode, Host as _, IpAddress, IpAddressFamily, IpSocketAddress, Network},
            tcp::HostTcpSocket,
            tcp_create_socket::Host as _,
        },
    },
    sockets::WasiSocketsView as _,
};
use wasmtime_wasi_io::poll::{Pollable, subscribe};

use super::{
    lookup::{Failed, Lookup},
    name_server,
};
use crate::host::{
    state::State,
    waits::labels::{Label, Target},
};

const LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";
const CREATE: &str = "wasi:sockets/tcp-create-socket@0.2.12";
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const CREATE_UDP: &str = "wasi:sockets/udp-create-socket@0.2.12";

type Told<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

pub(in crate::host) fn add(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    lookup(linker)?;
    create(linker)?;
    connect(linker)?;
    linker.instance(CREATE_UDP)?.func_wrap(
        "create-udp-socket",
        |mut store: StoreContextMut<'_, State>, (_,): (IpAddressFamily,)| {
            let state = store.data_mut();
            state.recorder.note("udp-create-socket.create-udp-socket");
            state.tcp.dialler.refuse_udp();
            Ok((Err::<Resource<UdpSocket>, _>(ErrorCode::AccessDenied),))
        },
    )
}

/// What a function returns to the guest.
fn told<T>(state: &mut State, result: SocketResult<T>) -> Told<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(state.sockets().convert_error_code(error)?),
    },))
}

/// A lookup, as a guest has it: it waits for the addresses, and takes them one by one.
struct Stream(Stage);

enum Stage {
    Asked(Lookup),
    Told(Result<vec::IntoIter<IpAddr>, Failed>),
}

impl Stream {
    /// The addresses that are left, if they are known.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<&mut Result<vec::IntoIter<IpAddr>, Failed>> {
        if let Stage::Asked(lookup) = &mut self.0 {
            let found = ready!(lookup.as_mut().poll(cx));
            self.0 = Stage::Told(found.map(Vec::into_iter));
        }
        match &mut self.0 {
            Stage::Told(told) => Poll::Ready(told),
            Stage::Asked(_) => Poll::Pending,
        }
    }
}

#[async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll(cx).map(|_| ())).await;
    }
}

impl From<Failed> for ErrorCode {
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
    lookup.func_wrap(
        "resolve-addresses",
        |mut store: StoreContextMut<'_, State>, (network, name): (Resource<Network>, String)| {
            let state = store.data_mut();
            state.recorder.note("ip-name-lookup.resolve-addresses");
            // That the guest has a network is all there is to it.
            state.table.get(&network)?;
            Ok((match state.tcp.look_up(&name) {
                Ok(lookup) => Ok(state.table.push(Stream(Stage::Asked(lookup)))?),
                Err(failed) => Err(ErrorCode::from(failed)),
            },))
        },
    )?;
    lookup.func_wrap(
        "[method]resolve-address-stream.resolve-next-address",
        |mut store: StoreContextMut<'_, State>, (stream,): (Resource<Stream>,)| {
            let stream = store.data_mut().table.get_mut(&stream)?;
            Ok(
                (match stream.poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Pending => Err(ErrorCode::WouldBlock),
                    Poll::Ready(Err(failed)) => Err((*failed).into()),
                    Poll::Ready(Ok(left)) => Ok(left.next().map(IpAddress::from)),
                },),
            )
        },
    )?;
    lookup.func_wrap(
        "[method]resolve-address-stream.subscribe",
        |mut store: StoreContextMut<'_, State>, (stream,): (Resource<Stream>,)| {
            let state = store.data_mut();
            let pollable = subscribe(&mut state.table, stream)?;
            state
                .labels
                .pollable(&pollable, Label::Source(name_server()));
            Ok((pollable,))
        },
    )?;
    let ty = ResourceType::host::<Stream>();
    lookup.resource("resolve-address-stream", ty, |mut store, rep| {
        let table = &mut store.data_mut().table;
        table.delete(Resource::<Stream>::new_own(rep))?;
        Ok(())
    })
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
