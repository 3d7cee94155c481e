//! `wasi:sockets` of WASI 0.3, in front of wasmtime's own.

use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi::{
    p3::{
        bindings::sockets::{
            ip_name_lookup::{ErrorCode as LookupError, HostWithStore as _},
            types::{
                ErrorCode, Host as _, HostTcpSocket, HostTcpSocketWithStore as _, IpAddress,
                IpAddressFamily, IpSocketAddress, TcpSocket,
            },
        },
        sockets::SocketResult,
    },
    sockets::{WasiSockets, WasiSocketsView as _},
};

use super::name_server;
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

fn lookup(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut lookup = linker.instance(LOOKUP)?;
    lookup.func_wrap_concurrent("resolve-addresses", |accessor, (name,): (String,)| {
        Box::pin(async move {
            let begun = accessor.with(|mut store| {
                let state: &mut State = store.get();
                state.recorder.note("ip-name-lookup.resolve-addresses");
                let dialler = state.tcp.dialler.clone();
                if !dialler.may_look_up(&name) {
                    return Err(LookupError::AccessDenied);
                }
                // Each has a thread look for the name.
                let permits = state.tcp.room();
                let permits = permits.ok_or(LookupError::TemporaryResolverFailure)?;
                let wait = state.cell.register("a lookup", name_server());
                Ok((dialler, wait, permits))
            });
            let (dialler, wait, _permits) = match begun {
                Ok(begun) => begun,
                Err(code) => return Ok((Err(code),)),
            };
            let sockets = accessor.with_getter::<WasiSockets>(State::sockets);
            let looked = WasiSockets::resolve_addresses(&sockets, name.clone());
            let looked = wait.wait(looked).await?;
            Ok((looked.map(|mut addresses| {
                addresses.retain(|address| dialler.show(&name, ip(address)));
                addresses
            }),))
        })
    })
}

fn ip(address: &IpAddress) -> std::net::IpAddr {
    match *address {
        IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
    }
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
    let ty = ResourceType::host::<TcpSocket>();
    types.resource("tcp-socket", ty, |mut store, rep| {
        let state = store.data_mut();
        state.tcp.closed(rep);
        HostTcpSocket::drop(&mut state.sockets(), Resource::new_own(rep))
    })
}
