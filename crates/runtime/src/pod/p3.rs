//! One call of a WASI 0.3 handler.

use std::{pin::Pin, sync::Arc};

use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi_http::{
    Error, WasiBody, WasiHttpHooks, WasiHttpView as _,
    p3::{Request, bindings::Service},
};

use super::{
    completion::Completion,
    held::{self, IdleGate},
};
use crate::{
    host::state::State,
    observe::{body::written_by, cell::Cell, source::Source},
};

type Sent = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Like `Request::from_http`, whose future counts as borrowing the hooks.
fn from_http(hooks: &mut dyn WasiHttpHooks, request: http::Request<WasiBody>) -> (Request, Sent) {
    let (parts, body) = request.into_parts();
    let uri = parts.uri.into_parts();
    let headers = wasmtime_wasi_http::FieldMap::new_immutable(hooks, parts.headers);
    let (request, sent) = Request::new(
        parts.method,
        uri.scheme,
        uri.authority,
        uri.path_and_query,
        headers,
        None,
        body,
    );
    (request, Box::pin(sent))
}

/// A request in the table of an instance, and what becomes of the sending of its body.
pub(super) struct Placed {
    request: Resource<Request>,
    sent: Sent,
}

/// Puts a request where a guest can be given it. An error is one of the host.
pub(super) fn place(
    accessor: &Accessor<State>,
    request: http::Request<WasiBody>,
) -> wasmtime::Result<Placed> {
    accessor.with(|mut store| {
        let (request, sent) = from_http(store.data_mut().http().hooks, request);
        let request = store.data_mut().http().table.push(request)?;
        Ok(Placed { request, sent })
    })
}

/// Calls the handler and hands over the head of its response. The body follows from tasks of the
/// guest that go on in the same store. An error is one of the instance, not of the request.
pub(super) async fn answer(
    accessor: &Accessor<State>,
    service: &Service,
    Placed { request, sent }: Placed,
    cell: &Arc<Cell>,
    completion: &Completion,
    gate: &IdleGate,
) -> wasmtime::Result<()> {
    let handle = service.wasi_http_handler().func_handle();
    let call = accessor.with(|store| handle.start_call_concurrent(store, (request,)))?;
    completion.runs_as(call.task());
    let response = match handle.finish_call_concurrent(accessor, call).await? {
        (Ok(response),) => {
            let response = accessor.with(|mut store| {
                let response = store.data_mut().http().table.delete(response)?;
                // One that cannot be sent is no end of the instance.
                wasmtime::error::Ok(response.into_http(&mut store, sent))
            })?;
            match response {
                Ok(response) => {
                    let response = held::with_small_body(response, gate).await;
                    let reader = Source::Caller(Arc::clone(completion.inbound()));
                    Ok(response.map(|body| written_by(cell, reader, body)))
                }
                Err(error) => Err(format!("{error:#}")),
            }
        }
        (Err(code),) => Err(format!("{code:?}")),
    };
    completion.answer(response);
    Ok(())
}
