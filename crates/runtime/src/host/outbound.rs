//! A guest's outgoing HTTP: which requests are allowed, and where they go.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use sampan_core::{
    fault::Fault,
    name::Name,
    object::{self, Grants, HostPattern, INTERNAL_DOMAIN, Scheme},
    spec::node::GuestLimits,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::{client::Client, credentials, own, remedy};
use crate::{
    logs::{CurrentRequest, Note, PodLog},
    neighbours::Neighbours,
    observe::{
        body::{read_by, written_by},
        cell::Cell,
        source::{Call, Source},
    },
};

/// Bytes a guest may write to an outgoing body at once.
const BODY_CHUNK_BYTES: usize = 64 << 10;

type SendResult = Result<(http::Response<WasiBody>, IoResult), Error>;
type IoResult = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// What one pod template may call.
pub(crate) struct Outbound {
    rules: Vec<object::Outbound>,
    services: Vec<Name>,
    neighbours: Option<Arc<dyn Neighbours>>,
    client: Client,
    permits: Arc<Semaphore>,
    /// Time to the head of a response, unless the guest asks for another.
    first_byte_timeout: Duration,
    /// Time between two pieces of a response, unless the guest asks for another.
    between_bytes_timeout: Duration,
}

/// The way of one request.
enum Route {
    Neighbour(Arc<Call>),
    Outside(Arc<str>),
    /// To a service, where there are none.
    Nowhere,
}

impl Route {
    /// Who answers.
    fn answer(&self) -> Source {
        match self {
            Self::Neighbour(call) => Source::Head(Arc::clone(call)),
            Self::Outside(server) => Source::Outside(Arc::clone(server)),
            Self::Nowhere => Source::Unknown,
        }
    }

    /// Who reads the body of the request, and writes that of the response.
    fn body(&self) -> Source {
        match self {
            Self::Neighbour(call) => Source::Body(Arc::clone(call)),
            Self::Outside(_) | Self::Nowhere => self.answer(),
        }
    }
}

/// Where an allowed request goes.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Neighbour(Name),
    Outside,
}

impl Outbound {
    pub(crate) fn new(
        grants: &Grants,
        neighbours: Option<Arc<dyn Neighbours>>,
        limits: &GuestLimits,
    ) -> Self {
        Self {
            rules: grants.outbound.clone(),
            services: grants.services.clone(),
            neighbours,
            client: Client::default(),
            permits: Arc::new(Semaphore::new(limits.outgoing_requests)),
            first_byte_timeout: limits.first_byte_timeout,
            between_bytes_timeout: limits.between_bytes_timeout,
        }
    }

    /// Decides on a request by its URL. The error says what would allow it, if anything would.
    fn target(&self, uri: &http::Uri) -> Result<Target, String> {
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            _ => Scheme::Http,
        };
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_end_matches('.')
            .to_ascii_lowercase();
        if let Some(service) = self.service(&host) {
            let plain = scheme == Scheme::Http && uri.port_u16().is_none_or(|port| port == 80);
            return match service {
                Ok(_) if !plain => Err(format!(
                    "services speak plain http on port 80: `http://{host}/`"
                )),
                Ok(name) => Ok(Target::Neighbour(name)),
                Err(name) => Err(self.without_service(&name)),
            };
        }
        let port = uri.port_u16().unwrap_or(match scheme {
            Scheme::Https => 443,
            Scheme::Http | Scheme::Tcp => 80,
        });
        if own::is_own(&host, port) {
            return Err("no grant: it is an address of this node itself".to_owned());
        }
        let covers = |rule: &object::Outbound| {
            rule.scheme == scheme && rule.port == port && covers_host(&rule.host, &host)
        };
        if self.rules.iter().any(covers) {
            return Ok(Target::Outside);
        }
        let scheme = uri.scheme_str().unwrap_or("http");
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        Err(remedy::rule(&format!("{scheme}://{authority}"), covers))
    }

    /// What is said of a service that is not granted.
    fn without_service(&self, name: &Name) -> String {
        let remedy = format!("`allow.services = [\"{name}\"]` would allow it");
        match self.neighbours.as_ref().is_some_and(|all| all.has(name)) {
            true => remedy,
            false => format!("{remedy} if the app had a service of this name"),
        }
    }

    /// The service a host name means: granted, or not, or none at all.
    fn service(&self, host: &str) -> Option<Result<Name, Name>> {
        let granted = |text: &str| {
            self.services
                .iter()
                .find(|name| name.as_str() == text)
                .cloned()
        };
        let (text, sure) = match host.strip_suffix(INTERNAL_DOMAIN) {
            Some(text) => (text, true),
            None => (host, false),
        };
        if let Some(name) = granted(text) {
            return Some(Ok(name));
        }
        // Without the domain it may be a host outside just as well, unless a service is called so.
        let name = Name::parse(text).ok()?;
        let known = || self.neighbours.as_ref().is_some_and(|all| all.has(&name));
        (sure || known()).then_some(Err(name))
    }
}

/// What is said of a name that leads to an address to which no name may lead.
pub(super) fn led_to(address: std::net::IpAddr) -> String {
    format!(
        "leads to `{address}`, which is no public address; `allow.outbound` with the address in place \
         of the name would allow it"
    )
}

pub(super) fn covers_host(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => name == host,
        HostPattern::Below(domain) => host
            .strip_suffix(domain.as_str())
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        HostPattern::Address(address) => {
            let host = host
                .strip_prefix('[')
                .and_then(|h| h.strip_suffix(']'))
                .unwrap_or(host);
            host.parse() == Ok(*address)
        }
    }
}

/// The outgoing side of one instance.
pub(crate) struct Hooks {
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) request: Arc<CurrentRequest>,
    pub(crate) log: Arc<PodLog>,
    pub(crate) cell: Arc<Cell>,
    /// What answers the request that was sent last.
    pub(crate) sent: Option<Source>,
}

impl Hooks {
    /// Whether a request goes to another service of the app, as far as it is allowed.
    pub(super) fn is_of_neighbour(&self, uri: &http::Uri) -> bool {
        matches!(self.outbound.target(uri), Ok(Target::Neighbour(_)))
    }

    fn deny(&self, uri: &http::Uri, reason: &str) {
        deny(&self.log, self.request.get(), uri, reason);
    }
}

fn deny(log: &PodLog, request: Option<Arc<str>>, uri: &http::Uri, reason: &str) {
    log.note(Note::Denial, request, || {
        format!("denied: outgoing request to `{uri}`; {reason}")
    });
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        // The guest's own report on how it got along with the response: nothing depends on it.
        _: IoResult,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let request = credentials::from_url(request);
        let target = match self.outbound.target(request.uri()) {
            Ok(target) => target,
            Err(reason) => {
                // The guest is told at once.
                self.sent = Some(Source::Unknown);
                self.deny(request.uri(), &reason);
                return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
            }
        };
        self.cell.call_out();
        let outbound = Arc::clone(&self.outbound);
        let options = options.unwrap_or_default();
        let request_id = self.request.get();
        let log = Arc::clone(&self.log);
        let cell = Arc::clone(&self.cell);
        let route = outbound.route(target, request.uri(), &cell);
        self.sent = Some(route.answer());
        let request = match cell.registers() {
            true => request.map(|body| written_by(&cell, route.body(), body)),
            false => request,
        };
        Box::new(async move {
            let note = cell
                .registers()
                .then(|| cell.register("client.send", route.answer()));
            let permit = Arc::clone(&outbound.permits)
                .try_acquire_owned()
                .map_err(|_| Error::ConnectionLimitReached)?;
            let patience = options.connect_timeout.unwrap_or_default()
                + options
                    .first_byte_timeout
                    .unwrap_or(outbound.first_byte_timeout);
            let writer = route.body();
            let send = outbound.send(route, request, request_id, &log);
            let sent = tokio::time::timeout(patience, send);
            let sent = match note {
                Some(note) => note.wait(sent).await,
                None => sent.await,
            };
            let response = sent.map_err(|_| Error::ConnectionReadTimeout)??;
            let between = options
                .between_bytes_timeout
                .unwrap_or(outbound.between_bytes_timeout);
            let watched = |body| WatchedBody::new(body, between, permit).boxed_unsync();
            let response = response.map(|body| read_by(&cell, writer, watched(body)));
            let io: IoResult = Box::new(std::future::ready(Ok(())));
            Ok((response, io))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES
    }
}

impl Outbound {
    fn route(&self, target: Target, uri: &http::Uri, caller: &Arc<Cell>) -> Route {
        match (target, &self.neighbours) {
            (Target::Neighbour(name), Some(neighbours)) => {
                Route::Neighbour(Call::new(name, caller.pod(), &caller.run, neighbours))
            }
            (Target::Neighbour(_), None) => Route::Nowhere,
            (Target::Outside, _) => {
                let server = uri.authority().map_or("", |authority| authority.as_str());
                Route::Outside(format!("the server `{server}`").into())
            }
        }
    }

    async fn send(
        &self,
        route: Route,
        request: http::Request<WasiBody>,
        request_id: Option<Arc<str>>,
        log: &PodLog,
    ) -> Result<http::Response<WasiBody>, Error> {
        let call = match route {
            Route::Outside(_) => return self.send_outside(request, request_id, log).await,
            Route::Nowhere => return Err(Error::DestinationNotFound),
            Route::Neighbour(call) => call,
        };
        let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        // The pod that gets it takes it from there.
        request.extensions_mut().insert(Arc::clone(&call));
        let mut answer = call
            .neighbours()
            .call(&call.service.name, request, request_id.clone());
        let answer = std::future::poll_fn(|cx| {
            let poll = answer.as_mut().poll(cx);
            if poll.is_pending() {
                call.queue();
            }
            poll
        });
        let response = tokio::select! {
            response = answer => response,
            () = call.failed() => Err(Fault::Deadlocked),
        };
        call.settle();
        let response = response.map_err(|error| match error {
            Fault::NoService => Error::DestinationNotFound,
            Fault::NoHandler => {
                let service = &call.service.name;
                log.note(Note::Denial, request_id, || {
                    format!(
                        "refused: call of `{service}`, which runs a command (`wasi:cli/run`) and \
                         answers no requests"
                    )
                });
                Error::HttpRequestDenied
            }
            Fault::QueueFull
            | Fault::QueueTimeout
            | Fault::NoPod
            | Fault::Unavailable
            | Fault::Unstartable
            | Fault::Exited => Error::DestinationUnavailable,
            Fault::TimedOut | Fault::Spinning | Fault::OutOfFuel => Error::HttpResponseTimeout,
            Fault::Deadlocked => Error::LoopDetected,
            Fault::Trapped
            | Fault::OutOfMemory
            | Fault::NoResponse
            | Fault::Stopped
            | Fault::Unhealthy
            | Fault::Host
            | Fault::BodyTooLarge
            | Fault::BadRequest
            | Fault::ClientSlow
            | Fault::ClientGone
            | Fault::NodeLost => Error::ConnectionTerminated,
        })?;
        let cut = |_| Error::HttpResponseIncomplete;
        Ok(response.map(|body| body.map_err(cut).boxed_unsync()))
    }
}

impl Outbound {
    async fn send_outside(
        &self,
        request: http::Request<WasiBody>,
        request_id: Option<Arc<str>>,
        log: &PodLog,
    ) -> Result<http::Response<WasiBody>, Error> {
        let uri = request.uri().clone();
        let prohibited = |address| {
            let reason = format!("its host {}", led_to(address));
            deny(log, request_id, &uri, &reason);
        };
        let response = self.client.send(request, prohibited).await?;
        Ok(response.map(|body| body.map_err(Error::from).boxed_unsync()))
    }
}

pin_project! {
    /// A response body that fails when it stands still, and counts as under way until it ends.
    struct WatchedBody {
        body: WasiBody,
        patience: Duration,
        #[pin]
        timer: Option<Sleep>,
        permit: OwnedSemaphorePermit,
    }
}

impl WatchedBody {
    fn new(body: WasiBody, patience: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self {
            body,
            patience,
            timer: None,
            permit,
        }
    }
}

impl http_body::Body for WatchedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut this = self.project();
        if let Poll::Ready(frame) = Pin::new(&mut *this.body).poll_frame(cx) {
            this.timer.set(None);
            return Poll::Ready(frame);
        }
        if this.timer.is_none() {
            let deadline = Instant::now() + *this.patience;
            this.timer.set(Some(tokio::time::sleep_until(deadline)));
        }
        if let Some(timer) = this.timer.as_pin_mut() {
            ready!(timer.poll(cx));
        }
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
