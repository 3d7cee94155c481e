//! The path of a request: check, route, take a slot, call the pod, once more if that is harmless,
//! and answer.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST},
    request::Parts,
    uri::PathAndQuery,
};
use http_body_util::BodyExt;
use sampan_core::{fault::Fault, name::ServiceKey};
use std::{
    future::{pending, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::time::Instant;
use tracing::{Span, field::Empty};

use crate::{
    body::{self, Body, BodyError, ClientBody},
    client, discard,
    exchange::Exchange,
    filter::{self, Refusal},
    forwarded::{self, Origin},
    gateway::Gateway,
    headers::{
        self, Sender, TRACEPARENT, TRACESTATE, X_FORWARDED_FOR, X_FORWARDED_HOST,
        X_FORWARDED_PROTO, X_REAL_IP, X_REQUEST_ID,
    },
    peer::{Activity, Cut, Peer},
    problem::{self, Problem},
    queue::{Asker, FAR, Lane, Slot},
    request::{self, RequestBody},
    response::ResponseBody,
    sending::{BodyFault, Sending},
    snapshot::Backend,
    stall::BodyPace,
    stats::End,
    threads::this_thread,
    trace::{RequestId, TraceParent},
    upstream::{AnsweredBy, RequestContext, UpstreamError},
};

/// Fields that the gateway adds to a request: host, request id, trace and where it comes from.
const ADDED_FIELDS: usize = 6;

impl Gateway {
    /// Answers a request from outside. This is the whole path of a request but for its connection.
    ///
    /// Dropping the future, or later the response body, ends the request.
    pub async fn handle<B>(
        &self,
        request: Request<B>,
        client: Option<SocketAddr>,
    ) -> Response<ResponseBody>
    where
        B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
    {
        let peer = Peer::new(client, Arc::<Cut>::default(), self.limits());
        self.serve(request, &peer).await
    }

    /// Sends a request from one service to another by its name, with the same balancing, queue and
    /// limits as outside traffic, but without a route.
    ///
    /// The call keeps the request id of `parent` and belongs to its trace. The guest's word on
    /// forwarding and on request ids is dropped.
    ///
    /// # Errors
    ///
    /// As [`Fault`] says. An answer that fails after its head fails in its body.
    pub async fn dispatch(
        &self,
        service: &ServiceKey,
        request: Request<Body>,
        parent: &RequestContext,
    ) -> Result<Response<ResponseBody>, Fault> {
        let backend = self.service(service).ok_or(Fault::NoService)?;
        let (mut parts, body) = request.into_parts();
        headers::strip_request(&mut parts.headers, Sender::Client);
        set_authority(&mut parts);
        let traceparent = continue_trace(&mut parts.headers, Some(parent.traceparent));
        let context = RequestContext {
            traceparent,
            ..parent.clone()
        };
        let request = Request::from_parts(parts, body);
        let answer = forward(self, &backend, request, &context, None).await;
        answer.map_err(|failure| failure.error)
    }

    /// Answers a request that came on a connection.
    pub(crate) async fn serve(
        &self,
        request: Request<impl ClientBody + Send + 'static>,
        peer: &Arc<Peer>,
    ) -> Response<ResponseBody> {
        let activity = Activity::begin(peer, request.version());
        let (mut parts, body) = request.into_parts();
        let (id, origin) = match peer.sender {
            Sender::Client => (None, Origin::default()),
            Sender::Proxy => {
                let id = parts.headers.get(X_REQUEST_ID).and_then(RequestId::accept);
                let proxies = &self.limits().trusted_proxies;
                (id, forwarded::told(&parts.headers, proxies))
            }
        };
        let id = id.unwrap_or_else(RequestId::random);
        let method = parts.method.clone();
        let version = parts.version;
        let admitted = match peer.next_says_two_lengths() {
            true => Err(Problem::Refused(Refusal::Framing)),
            false => admit(self, &mut parts, peer.sender),
        };
        let outcome = match admitted {
            Ok(backend) => {
                let traceparent = continue_trace(&mut parts.headers, None);
                let context = RequestContext {
                    request_id: id.clone(),
                    traceparent,
                    client: origin.client.or(peer.address),
                };
                say_forwarded(&mut parts.headers, origin, peer);
                let request = Request::from_parts(parts, body);
                forward(self, &backend, request, &context, Some(peer))
                    .await
                    .map_err(|failure| (Problem::Dispatch(failure.error), failure.by))
            }
            Err(problem) => {
                self.count_unrouted();
                Err((problem, None))
            }
        };
        let response = outcome.unwrap_or_else(|(problem, by)| {
            let mut response = problem.response(&method, &id, self.limits());
            if let Some(by) = by {
                by.say(response.headers_mut());
            }
            if problem.ends_connection() && version < Version::HTTP_2 {
                // Where its next request begins is no longer sure.
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response.map(ResponseBody::fixed)
        });
        response.map(|body| body.with_activity(activity))
    }
}

/// Checks a request from outside, finds its service, and makes the head what a pod may see.
fn admit(gateway: &Gateway, parts: &mut Parts, sender: Sender) -> Result<Arc<Backend>, Problem> {
    let authority = filter::check(parts, gateway.limits()).map_err(Problem::Refused)?;
    let backend = gateway
        .route(authority, parts.uri.path())
        .ok_or(Problem::NoRoute)?;
    headers::strip_request(&mut parts.headers, sender);
    // For the fields that the gateway adds; growing once is cheaper than at every other one.
    parts.headers.reserve(ADDED_FIELDS);
    set_authority(parts);
    Ok(backend)
}

/// Moves the authority of the target to the `Host` field and leaves the target in origin form.
fn set_authority(parts: &mut Parts) {
    let Some(authority) = parts.uri.authority() else {
        return;
    };
    let host = HeaderValue::from_str(authority.as_str());
    parts
        .headers
        .insert(HOST, host.expect("an authority is visible ASCII"));
    let target = parts.uri.path_and_query().cloned();
    parts.uri = match target {
        // `http://host?query`: in origin form an empty path is `/`, RFC 9112 §3.2.1.
        Some(target) if target.as_str().starts_with('?') => {
            let with_path = Bytes::from(format!("/{}", target.as_str()));
            // One that is too long with the slash stays as it came.
            PathAndQuery::from_maybe_shared(with_path).map_or_else(|_| target.into(), Uri::from)
        }
        target => target.map_or_else(Uri::default, Uri::from),
    };
}

/// Continues the trace of the request, else that of its parent, else begins one. A `tracestate`
/// without a valid `traceparent` means nothing and is dropped.
fn continue_trace(headers: &mut HeaderMap, parent: Option<TraceParent>) -> TraceParent {
    let mut fields = headers.get_all(TRACEPARENT).iter();
    let sent = match (fields.next(), fields.next()) {
        (Some(field), None) => TraceParent::parse(field.as_bytes()),
        _ => None,
    };
    if sent.is_none() {
        headers.remove(TRACESTATE);
    }
    sent.or(parent)
        .map_or_else(TraceParent::random, TraceParent::child)
}

/// Says where a request comes from: what a trusted proxy has told, else what the connection tells.
/// One address, one host, one scheme; a guest has nothing to choose between.
fn say_forwarded(headers: &mut HeaderMap, origin: Origin, peer: &Peer) {
    let told = origin.client.map(forwarded::to_field);
    if let Some(address) = told.or_else(|| peer.forwarded_for.clone()) {
        // It came from a trusted proxy, which may have let that of its client pass.
        if headers.contains_key(X_REAL_IP) {
            headers.insert(X_REAL_IP, address.clone());
        }
        headers.insert(X_FORWARDED_FOR, address);
    }
    if let Some(host) = origin.host.or_else(|| headers.get(HOST).cloned()) {
        headers.insert(X_FORWARDED_HOST, host);
    }
    let proto = if origin.is_https { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
}

/// Why there is no answer, and from which pod, if the service wants that to be said.
struct Failure {
    error: Fault,
    by: Option<AnsweredBy>,
}

/// Gets the answer of a service, and counts it.
async fn forward(
    gateway: &Gateway,
    backend: &Arc<Backend>,
    request: Request<impl ClientBody + Send + 'static>,
    context: &RequestContext,
    peer: Option<&Arc<Peer>>,
) -> Result<Response<ResponseBody>, Failure> {
    let mut exchange = Exchange::begin(&backend.service, peer, span(backend, context));
    let is_head = request.method() == Method::HEAD;
    let arrived = exchange.started();
    let mut answer = pin!(answer(
        gateway,
        backend,
        request,
        context,
        peer.is_some(),
        arrived
    ));
    // In its span at each poll, where it is: an adapter would move it, and it is large.
    let answer = poll_fn(|cx| exchange.span().in_scope(|| answer.as_mut().poll(cx)));
    match answer.await {
        Ok((response, slot)) => {
            let says_pod = backend.config.debug_headers;
            let mut response = respond(response, slot, exchange, is_head, says_pod);
            let id = context.request_id.to_header();
            response.headers_mut().insert(X_REQUEST_ID, id);
            Ok(response)
        }
        Err((error, slot)) => {
            if let Some(slot) = &slot {
                exchange.placed(slot);
            }
            if error == Fault::ClientGone {
                exchange.end(End::Canceled);
            } else {
                exchange.answered(problem::status(error));
                exchange.end(End::Complete);
            }
            let slot = slot.filter(|_| backend.config.debug_headers);
            let by = slot.and_then(|slot| slot.by().cloned());
            Err(Failure { error, by })
        }
    }
}

/// What a pod has answered, as it goes on from here.
pub(crate) fn respond(
    response: Response<Body>,
    slot: Slot,
    mut exchange: Exchange,
    is_head: bool,
    says_pod: bool,
) -> Response<ResponseBody> {
    exchange.placed(&slot);
    exchange.answered(response.status());
    let (mut head, body) = response.into_parts();
    headers::strip_response(&mut head.headers);
    if let Some(by) = slot.by().filter(|_| says_pod) {
        by.say(&mut head.headers);
    }
    let length = expected_length(&mut head.headers);
    let body = match discard::has_body(is_head, head.status) {
        true => ResponseBody::streamed(body, length, exchange, slot),
        false => ResponseBody::none(body, exchange, slot),
    };
    Response::from_parts(head, body)
}

/// The span of a request to a service.
pub(crate) fn span(backend: &Backend, context: &RequestContext) -> Span {
    tracing::debug_span!(
        "request",
        service = %backend.config.name,
        id = %context.request_id,
        pod = Empty,
        status = Empty,
        end = Empty,
        took = Empty,
    )
}

/// How many bytes of body the head promises, if it does. A promise that cannot be read is removed.
fn expected_length(headers: &mut HeaderMap) -> Option<u64> {
    let field = headers.get(CONTENT_LENGTH)?;
    let length = field.to_str().ok().and_then(|text| text.parse().ok());
    let is_only = headers.get_all(CONTENT_LENGTH).iter().nth(1).is_none();
    if length.is_none() || !is_only {
        headers.remove(CONTENT_LENGTH);
        return None;
    }
    length
}

/// How many pods a request is sent to that each give it back: then there is something wrong that
/// sending does not mend.
pub(crate) const MAX_RETURNS: u32 = 3;

/// Calls a pod, and others if a request comes back from it or has failed harmlessly. With an error
/// comes the slot of the pod that failed, if one did.
async fn answer(
    gateway: &Gateway,
    backend: &Arc<Backend>,
    request: Request<impl ClientBody + Send + 'static>,
    context: &RequestContext,
    is_outside: bool,
    arrived: Instant,
) -> Result<(Response<Body>, Slot), (Fault, Option<Slot>)> {
    if request.body().size_hint().lower() > backend.config.body {
        return Err((Fault::BodyTooLarge, None));
    }
    let queue = &backend.service.queue;
    let (mut parts, body) = request.into_parts();
    let limits = gateway.limits();
    // A service that calls another may take its time over its body: its own request has a deadline.
    let pace = match is_outside {
        true => BodyPace::of(limits),
        false => BodyPace::unlimited(),
    };
    let limited = |body| RequestBody::new(body, backend.config.body, limits.body_chunk, pace);
    let mut body = (!body.is_end_stream()).then(|| Box::pin(limited(body)));
    // Shares are for what comes from outside: a client whose request calls back would wait for
    // itself.
    let client = context.client.filter(|_| is_outside);
    let asker = Asker {
        client: client.and_then(|it| client::of(it.ip(), &limits.trusted_proxies)),
        lane: Lane::Ahead,
        thread: this_thread(),
    };
    let slot = slot_for(backend, body.as_mut(), asker, is_outside, arrived).await;
    let (slot, queued) = slot.map_err(|error| (error, None))?;

    parts
        .headers
        .insert(X_REQUEST_ID, context.request_id.to_header());
    parts
        .headers
        .insert(TRACEPARENT, context.traceparent.to_header());
    // A second try of what a guest has had needs another pod, and a request without a body.
    let has_others = backend.targets.len() > 1 || !backend.targets.nodes.is_empty();
    let spare =
        (body.is_none() && has_others && parts.method.is_idempotent()).then(|| parts.clone());
    let mut sending = None;
    let (body, fault) = match body {
        Some(mut body) => {
            sending = body.as_mut().send(queue.buffers.terms);
            let fault = body.fault();
            (body.boxed_unsync(), Some(fault))
        }
        None => (body::empty(), None),
    };
    let request = Request::from_parts(parts, body);
    let mut attempt = Attempt {
        gateway,
        backend,
        context,
        fault,
        sending,
        spare,
        arrived,
        queued,
        asker,
    };
    attempt.run(request, slot).await
}

/// A request on its way through pods until one has an answer.
struct Attempt<'a> {
    gateway: &'a Gateway,
    backend: &'a Arc<Backend>,
    context: &'a RequestContext,
    fault: Option<Arc<BodyFault>>,
    /// What of the body is still to come.
    sending: Option<Arc<Sending>>,
    /// What is sent a second time if a guest has had the first and that did no harm.
    spare: Option<Parts>,
    arrived: Instant,
    /// When its time in the queue began.
    queued: Instant,
    asker: Asker,
}

impl Attempt<'_> {
    async fn run(
        &mut self,
        mut request: Request<Body>,
        mut slot: Slot,
    ) -> Result<(Response<Body>, Slot), (Fault, Option<Slot>)> {
        let mut returns = 0;
        loop {
            if let Some(sending) = &self.sending {
                slot.hold_for(sending);
            }
            let fault = self.fault.clone();
            let error = match call(self.backend, &mut slot, request, self.context, fault).await {
                Ok(response) => return Ok((response, slot)),
                Err(error) => error,
            };
            let failed = error.kind();
            (request, slot) = match error {
                UpstreamError::Returned { request, .. } if returns + 1 < MAX_RETURNS => {
                    returns += 1;
                    (*request, self.next(slot).await?)
                }
                UpstreamError::Refused { request } => (*request, self.again(slot).await?),
                UpstreamError::Failed {
                    repeatable: true, ..
                }
                | UpstreamError::FailedElsewhere {
                    repeatable: true, ..
                } => match self.second(slot, failed) {
                    Ok(again) => again,
                    Err(slot) => return Err((failed, Some(slot))),
                },
                UpstreamError::Returned { .. }
                | UpstreamError::FailedElsewhere { .. }
                | UpstreamError::Failed { .. } => return Err((failed, Some(slot))),
            };
        }
    }

    /// The next slot for a request that another node has refused, within the time that it may wait.
    async fn again(&self, slot: Slot) -> Result<Slot, (Fault, Option<Slot>)> {
        let timeout = self.backend.config.queue_timeout;
        let until = self.queued.checked_add(timeout);
        let until = until.unwrap_or_else(|| Instant::now() + FAR);
        let queue = &self.backend.service.queue;
        let slot = queue.acquire_again(slot, until, self.asker).await;
        slot.map_err(|error| (error, None))
    }

    /// The slot of another pod for a request that came back: one that is free, or in the queue for
    /// what is left of its time there.
    async fn next(&self, slot: Slot) -> Result<Slot, (Fault, Option<Slot>)> {
        let counters = &self.backend.service.counters;
        let queue = &self.backend.service.queue;
        // The set of pods may have changed by now.
        let backend = self.gateway.service(&self.backend.config.name);
        let backend = backend.ok_or((Fault::NoService, None))?;
        let other = queue.acquire_other(&backend.targets, &slot, Fault::Unavailable);
        if let Some(other) = other {
            counters.retried();
            return Ok(other);
        }
        drop(slot);
        let left = backend.config.queue_timeout;
        let left = left.saturating_sub(self.arrived.elapsed());
        let now = Instant::now();
        let slot = queue.acquire(&backend.targets, left, now, self.asker, pending());
        let slot = slot.await.map_err(|error| (error, None))?;
        counters.retried();
        Ok(slot)
    }

    /// The same request once more, and the slot of another pod for it, if there is one and the
    /// service's budget allows it; else the slot that there was.
    fn second(&mut self, slot: Slot, failed: Fault) -> Result<(Request<Body>, Slot), Slot> {
        let service = &self.backend.service;
        let others = self.gateway.service(&self.backend.config.name);
        let (Some(parts), Some(others)) = (self.spare.take(), others) else {
            return Err(slot);
        };
        let other = service.queue.acquire_other(&others.targets, &slot, failed);
        let Some(other) = other else {
            return Err(slot);
        };
        if !service.may_retry() {
            service.counters.retry_denied();
            return Err(slot);
        }
        service.counters.retried();
        Ok((Request::from_parts(parts, body::empty()), other))
    }
}

/// Gets a slot for a request, once its client keeps pace with its body, and says when its time in the
/// queue began. A call from another service
/// gets it at once: what its guest still writes may depend on the answer.
async fn slot_for(
    backend: &Backend,
    body: Option<&mut Pin<Box<RequestBody<impl ClientBody>>>>,
    mut asker: Asker,
    is_outside: bool,
    arrived: Instant,
) -> Result<(Slot, Instant), Fault> {
    let (queue, timeout) = (&backend.service.queue, backend.config.queue_timeout);
    let Some(body) = body.filter(|_| is_outside) else {
        let slot = queue.acquire(&backend.targets, timeout, arrived, asker, pending());
        return Ok((slot.await?, arrived));
    };
    let buffers = &queue.buffers;
    asker.lane = request::read_ahead(body, buffers).await?;
    let rest = request::read_on(body, buffers);
    let queued = Instant::now();
    let slot = queue.acquire(&backend.targets, timeout, queued, asker, rest);
    Ok((slot.await?, queued))
}

/// Calls one pod once, and notes if it gave no answer. One that it gave is judged when it is whole.
pub(crate) async fn call(
    backend: &Backend,
    slot: &mut Slot,
    request: Request<Body>,
    context: &RequestContext,
    fault: Option<Arc<BodyFault>>,
) -> Result<Response<Body>, UpstreamError> {
    let answer = slot.place().upstream().call(request, context);
    let answer = match fault {
        None => answer.await,
        Some(fault) => tokio::select! {
            // Not what the pod made of the broken body, if both are there.
            biased;
            kind = fault.wait() => Err(UpstreamError::new(*kind)),
            answer = answer => match fault.get() {
                Some(kind) => Err(UpstreamError::new(*kind)),
                None => answer,
            },
        },
    };
    // Nothing after an interim status would be an answer.
    let answer = answer.and_then(|response| match response.status().is_informational() {
        true => Err(UpstreamError::new(Fault::NoResponse)),
        false => Ok(response),
    });
    slot.is_answered_by(|| match &answer {
        Ok(response) => AnsweredBy::of(response.headers()),
        Err(UpstreamError::FailedElsewhere { by, .. }) => by.as_deref().cloned(),
        Err(_) => None,
    });
    if answer.as_ref().is_err_and(|error| error.kind().is_of_pod()) {
        backend.service.judge(slot, false);
    }
    answer
}
