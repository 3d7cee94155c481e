//! Calls of WASI 0.2 that are run where they are made.
//!
//! A guest that sends a request to another service goes on at once, and asks for the response
//! later. wasmtime gives each request a task for that, so the guest has to wait for that task, even
//! if the service answers without waiting for anything. Here the host polls a request without a body
//! once before the guest goes on. If its response is there then, which is so for a service whose
//! fresh instance computes it in one go, no task is made and no other thread is woken. If it is not,
//! the request goes on in a task as it would have.
//!
//! That is for a pod which answers one request at a time. Under load there is always a task that can
//! run, so nothing is woken, and it is cheaper to have many callers run one after the other and then
//! their callees: each finds its code and the processor's tables warm. benches/README.md has the
//! figures.
//!
//! What the callee computes meanwhile is charged to the callee (`observe::observed`), and ends with
//! its next epoch tick at the latest, so a caller waits no longer here than a tick for each service
//! on the way.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use http_body_util::{BodyExt as _, Empty};
use wasmtime::component::Resource;
use wasmtime_wasi::runtime::spawn;
use wasmtime_wasi_http::{
    FieldMap, RequestOptions, WasiBody, WasiHttpHooks as _, WasiHttpView as _,
    p2::{
        bindings::http::types::Scheme,
        body::HostIncomingBody,
        types::{HostFutureIncomingResponse, HostIncomingResponse, HostOutgoingRequest},
    },
};

use crate::{
    host::state::State,
    observe::observed::{self, MAX_DEPTH},
};

impl State {
    /// Sends a request without a body and polls it once. `None`, with nothing done, if it is none
    /// that may be sent in this way; a request that is not valid is none.
    pub(super) fn direct(
        &mut self,
        handle: &Resource<HostOutgoingRequest>,
        options: Option<&Resource<RequestOptions>>,
    ) -> wasmtime::Result<Option<Resource<HostFutureIncomingResponse>>> {
        if !self.answered.is_on || self.pace.is_long() || observed::depth() >= MAX_DEPTH {
            return Ok(None);
        }
        let Some(request) = bodyless(self.table.get(handle)?) else {
            return Ok(None);
        };
        if !self.hooks.is_of_neighbour(request.uri()) {
            return Ok(None);
        }
        let options = options.and_then(|it| self.table.get(it).ok()).cloned();
        self.table
            .delete(Resource::<HostOutgoingRequest>::new_own(handle.rep()))?;
        let answer = self.table.push(HostFutureIncomingResponse::Consumed)?;
        let io = Box::new(std::future::ready(Ok(())));
        let mut sent = Pin::from(self.hooks.send_request(request, options, io));
        // A task that goes on with it polls it again, and is woken from then on.
        let polled = sent.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let rest = match polled {
            Poll::Ready(Ok((response, _))) => {
                self.answered.responses.insert(answer.rep(), response);
                return Ok(Some(answer));
            }
            Poll::Ready(Err(error)) => HostFutureIncomingResponse::Ready(Err(error)),
            Poll::Pending => HostFutureIncomingResponse::Pending(spawn(async move {
                let (response, _) = sent.await?;
                Ok((response, spawn(async {})))
            })),
        };
        *self.table.get_mut(&answer)? = rest;
        Ok(Some(answer))
    }

    /// Gives the guest a response that was there at once. `None` if that of this handle was not, or
    /// the guest has it already.
    pub(super) fn take_direct(
        &mut self,
        answer: &Resource<HostFutureIncomingResponse>,
    ) -> wasmtime::Result<Option<Resource<HostIncomingResponse>>> {
        let Some(response) = self.answered.responses.remove(&answer.rep()) else {
            return Ok(None);
        };
        let (head, body) = response.into_parts();
        let http = self.http();
        let response = HostIncomingResponse {
            status: head.status.as_u16(),
            headers: FieldMap::new_immutable(http.hooks, head.headers),
            body: Some(HostIncomingBody::new(body)),
        };
        Ok(Some(http.table.push(response)?))
    }

    /// The guest has dropped the handle of this number.
    pub(super) fn forget_direct(&mut self, answer: u32) {
        self.answered.responses.remove(&answer);
    }
}

/// The request as it is sent, if it has no body and says nothing else.
fn bodyless(request: &HostOutgoingRequest) -> Option<http::Request<WasiBody>> {
    if request.body.is_some() || request.headers.contains_key(http::header::CONTENT_LENGTH) {
        return None;
    }
    if !matches!(request.scheme, Some(Scheme::Http)) {
        return None;
    }
    let authority = request.authority.as_deref()?;
    let mut uri = http::Uri::builder().scheme("http").authority(authority);
    if let Some(path) = &request.path_with_query {
        uri = uri.path_and_query(path.as_str());
    }
    let body = Empty::new().map_err(|never| match never {});
    let mut sent = http::Request::new(body.boxed_unsync());
    *sent.method_mut() = request.method.clone().try_into().ok()?;
    *sent.uri_mut() = uri.build().ok()?;
    *sent.headers_mut() = request.headers.clone().into();
    let host = http::HeaderValue::from_str(authority).ok()?;
    sent.headers_mut().insert(http::header::HOST, host);
    Some(sent)
}
