//! `wasi:http` of WASI 0.2: whose body is whose, and which answer belongs to which call.

use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceType},
};
use wasmtime_wasi_http::{
    RequestOptions, WasiHttpView as _,
    p2::{
        bindings::http::{outgoing_handler::Host as _, types},
        body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody},
        types::{HostFutureIncomingResponse, HostOutgoingRequest, HostOutgoingResponse},
    },
};

use super::labels::Label;
use crate::{host::state::State, observe::source::Source};

const TYPES: &str = "wasi:http/types@0.2.12";
const HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";

type Store<'a> = StoreContextMut<'a, State>;

pub(super) fn observe(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    incoming(linker)?;
    outgoing(linker)?;
    calls(linker)
}

fn incoming(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]incoming-body.stream",
        |mut store: Store<'_>, (body,): (Resource<HostIncomingBody>,)| {
            let state = store.data_mut();
            let stream = types::HostIncomingBody::stream(&mut state.http(), body)?;
            if let Ok(stream) = &stream {
                state.labels.input(stream, Source::Registered);
            }
            Ok((stream,))
        },
    )?;
    types.func_wrap(
        "[method]future-trailers.subscribe",
        |mut store: Store<'_>, (trailers,): (Resource<HostFutureTrailers>,)| {
            let state = store.data_mut();
            let pollable = types::HostFutureTrailers::subscribe(&mut state.http(), trailers)?;
            let label = Label::Source(Source::Registered);
            state.labels.pollable(&pollable, label);
            Ok((pollable,))
        },
    )
}

fn outgoing(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]outgoing-response.body",
        |mut store: Store<'_>, (response,): (Resource<HostOutgoingResponse>,)| {
            let state = store.data_mut();
            state.recorder.note("outgoing-response.body");
            let body = types::HostOutgoingResponse::body(&mut state.http(), response)?;
            let inbound = state.cell.waits().requests.first().cloned();
            if let (Ok(body), Some(inbound)) = (&body, inbound) {
                state.labels.response_body(body, inbound);
            }
            Ok((body,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.body",
        |mut store: Store<'_>, (request,): (Resource<HostOutgoingRequest>,)| {
            let state = store.data_mut();
            state.recorder.note("outgoing-request.body");
            let rep = request.rep();
            let body = types::HostOutgoingRequest::body(&mut state.http(), request)?;
            if let Ok(body) = &body {
                state.labels.request_body(rep, body);
            }
            Ok((body,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-body.write",
        |mut store: Store<'_>, (body,): (Resource<HostOutgoingBody>,)| {
            let state = store.data_mut();
            let of = Resource::<HostOutgoingBody>::new_borrow(body.rep());
            let stream = types::HostOutgoingBody::write(&mut state.http(), body)?;
            if let Ok(stream) = &stream {
                state.labels.output(stream, &of);
            }
            Ok((stream,))
        },
    )
}

fn calls(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut handler = linker.instance(HANDLER)?;
    type Send = (
        Resource<HostOutgoingRequest>,
        Option<Resource<RequestOptions>>,
    );
    handler.func_wrap(
        "handle",
        |mut store: Store<'_>, (request, options): Send| {
            let state = store.data_mut();
            state.recorder.note("outgoing-handler.handle");
            let rep = request.rep();
            let sent = match state.direct(&request, options.as_ref())? {
                Some(answer) => Ok(answer),
                None => state.http().handle(request, options),
            };
            let source = state.hooks.sent.take().unwrap_or(Source::Unknown);
            state.labels.sent(rep, sent.as_ref().ok(), source);
            match sent {
                Ok(answer) => Ok((Ok(answer),)),
                Err(error) => Ok((Err(error.downcast()?),)),
            }
        },
    )?;
    let mut types = linker.instance(TYPES)?;
    types.func_wrap(
        "[method]future-incoming-response.subscribe",
        |mut store: Store<'_>, (answer,): (Resource<HostFutureIncomingResponse>,)| {
            let state = store.data_mut();
            let source = state.labels.of_answer(&answer);
            let pollable = types::HostFutureIncomingResponse::subscribe(&mut state.http(), answer)?;
            state.labels.pollable(&pollable, Label::Source(source));
            Ok((pollable,))
        },
    )?;
    types.func_wrap(
        "[method]future-incoming-response.get",
        |mut store: Store<'_>, (answer,): (Resource<HostFutureIncomingResponse>,)| {
            let state = store.data_mut();
            if let Some(response) = state.take_direct(&answer)? {
                return Ok((Some(Ok(Ok(response))),));
            }
            let response = types::HostFutureIncomingResponse::get(&mut state.http(), answer)?;
            Ok((response,))
        },
    )?;
    types.resource(
        "future-incoming-response",
        ResourceType::host::<HostFutureIncomingResponse>(),
        |mut store, answer| {
            let state: &mut State = store.data_mut();
            state.forget_direct(answer);
            let answer = Resource::<HostFutureIncomingResponse>::new_own(answer);
            types::HostFutureIncomingResponse::drop(&mut state.http(), answer)
        },
    )
}
