//! Another node as the gateway calls it.
//!
//! A request is whole until the node has begun with it: one without a body anyway, one with a small
//! body because it is kept until the answer begins, and one with a large body because it is sent only
//! once a slot is reserved for it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full, Limited};
use sampan_core::{fault::Fault, name::ServiceKey};
use sampan_gateway::{
    AnsweredBy, Body, BodyError, RequestContext, Upstream, UpstreamError, UpstreamFuture,
};
use sampan_peer::{AnswerBody, AnswerError, Client, PeerError, Remote};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::wire::{self, RESERVE};

/// The most bytes of a request body that are kept until the answer begins.
const KEPT: u64 = 64 << 10;
/// Time a node has to reserve a slot.
const RESERVING: Duration = Duration::from_secs(1);
/// The most bytes in which it says so.
const RESERVED: usize = 64;

/// The pods of a service on another node.
#[derive(Clone)]
pub(super) struct ForwardTo {
    pub(super) client: Arc<Client>,
    pub(super) remote: Remote,
    pub(super) service: ServiceKey,
    /// Requests that may be there at once.
    pub(super) places: Arc<Semaphore>,
}

/// A small body.
#[derive(Clone)]
struct Kept {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl Upstream for ForwardTo {
    fn call(&self, request: Request<Body>, context: &RequestContext) -> UpstreamFuture {
        let (to, client) = (self.clone(), context.client);
        Box::pin(async move { to.forward(request, client).await })
    }
}

impl ForwardTo {
    async fn forward(
        self,
        request: Request<Body>,
        client: Option<SocketAddr>,
    ) -> Result<Response<Body>, UpstreamError> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return refused(request);
        };
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            // It names a server and no path.
            return Err(UpstreamError::new(Fault::BadRequest));
        }
        match body.size_hint().exact() {
            Some(length) if length <= KEPT => {
                let body = kept(body).await?;
                self.send_kept(parts, &body, client, place).await
            }
            _ => self.send_long(parts, body, client, place).await,
        }
    }

    async fn send_kept(
        &self,
        parts: Parts,
        body: &Kept,
        client: Option<SocketAddr>,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, UpstreamError> {
        let whole = || Request::from_parts(parts.clone(), body.to_body());
        match self.send(whole(), client, None).await {
            Ok(answer) => self.answered(answer, place),
            Err(error) if error.has_begun() => Err(lost(&parts.method)),
            Err(_) => refused(whole()),
        }
    }

    async fn send_long(
        &self,
        parts: Parts,
        body: Body,
        client: Option<SocketAddr>,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, UpstreamError> {
        let Some(reservation) = self.reserve().await else {
            return refused(Request::from_parts(parts, body));
        };
        let request = Request::from_parts(parts, body);
        match self.send(request, client, Some(reservation)).await {
            Ok(answer) => self.answered(answer, place),
            // A part of the body may be gone.
            Err(error) if error.has_begun() => Err(UpstreamError::new(Fault::NodeLost)),
            Err(_) => Err(UpstreamError::new(Fault::Unavailable)),
        }
    }

    /// A slot for a request. Nothing of the request begins with this.
    async fn reserve(&self) -> Option<u64> {
        let mut request = Request::post(RESERVE).body(sampan_peer::empty()).ok()?;
        wire::ask_for_slot(request.headers_mut(), &self.service).ok()?;
        let reserving = async {
            let answer = self.client.send(&self.remote, request).await.ok()?;
            let body = Limited::new(answer.into_body(), RESERVED);
            let said = body.collect().await.ok()?.to_bytes();
            std::str::from_utf8(&said).ok()?.parse().ok()
        };
        timeout(RESERVING, reserving).await.ok().flatten()
    }

    async fn send(
        &self,
        request: Request<Body>,
        client: Option<SocketAddr>,
        reservation: Option<u64>,
    ) -> Result<Response<AnswerBody>, PeerError> {
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        // What belongs to this process ends here.
        request.extensions_mut().clear();
        // Names of services and addresses are fields.
        let said = wire::ask(request.headers_mut(), &self.service, client, reservation);
        debug_assert!(said.is_ok());
        self.client.send(&self.remote, request).await
    }

    /// What the node has answered. The place is free when the answer has ended.
    fn answered(
        &self,
        answer: Response<AnswerBody>,
        place: OwnedSemaphorePermit,
    ) -> Result<Response<Body>, UpstreamError> {
        let by = AnsweredBy::of(answer.headers());
        if let Some((kind, repeatable)) = wire::failed(answer.headers()) {
            let by = by.map(Box::new);
            return Err(UpstreamError::FailedElsewhere {
                kind,
                repeatable,
                by,
            });
        }
        if by.is_none() {
            let (node, status) = (&self.remote.node, answer.status());
            tracing::warn!(%node, %status, "a node answers what no pod has answered");
            return Err(UpstreamError::new(Fault::NodeLost));
        }
        Ok(answer.map(|body| {
            let broken = move |error: AnswerError| {
                let _place = &place;
                BodyError::Upstream(match error.is_reset() {
                    true => Fault::NoResponse,
                    false => Fault::NodeLost,
                })
            };
            body.map_err(broken).boxed_unsync()
        }))
    }
}

/// A request of which nothing has begun.
fn refused<T>(request: Request<Body>) -> Result<T, UpstreamError> {
    let request = Box::new(request);
    Err(UpstreamError::Refused { request })
}

/// The node has gone with a request that it may have begun.
fn lost(method: &Method) -> UpstreamError {
    UpstreamError::FailedElsewhere {
        kind: Fault::NodeLost,
        repeatable: [Method::GET, Method::HEAD, Method::OPTIONS].contains(method),
        by: None,
    }
}

/// Reads a small body.
async fn kept(body: Body) -> Result<Kept, UpstreamError> {
    if body.is_end_stream() {
        return Ok(Kept {
            bytes: Bytes::new(),
            trailers: None,
        });
    }
    let collected = body.collect().await;
    let collected = collected.map_err(|error| UpstreamError::new((&error).into()))?;
    Ok(Kept {
        trailers: collected.trailers().cloned(),
        bytes: collected.to_bytes(),
    })
}

impl Kept {
    fn to_body(&self) -> Body {
        let bytes = Full::new(self.bytes.clone()).map_err(BodyError::from);
        match self.trailers.clone() {
            None if self.bytes.is_empty() => sampan_gateway::empty(),
            None => bytes.boxed_unsync(),
            Some(trailers) => bytes
                .with_trailers(std::future::ready(Some(Ok(trailers))))
                .boxed_unsync(),
        }
    }
}
