//! The HTTP client behind a guest's outgoing requests: pooled, with every address checked.

use std::{
    error::Error as StdError,
    io, iter,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use wasmtime_wasi_http::{Error, WasiBody};

use super::addresses::may_lead_to;

/// Time a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Unused connections kept for one server.
const MAX_IDLE_PER_HOST: usize = 32;

type Plain = legacy::Client<HttpConnector<CheckedResolver>, WasiBody>;
type Tls = legacy::Client<HttpsConnector<HttpConnector<CheckedResolver>>, WasiBody>;

/// Finds the addresses of a name. The ports do not count.
type Lookup = fn(Name) -> Addresses;
type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

fn system_lookup(name: Name) -> Addresses {
    Box::pin(async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.collect()) })
}

/// A client for the outgoing requests of one pod template.
pub(crate) struct Client {
    lookup: Lookup,
    plain: OnceLock<Plain>,
    /// Apart, because reading the system's root certificates takes milliseconds.
    tls: OnceLock<Result<Tls, String>>,
}

impl Default for Client {
    fn default() -> Self {
        Self::with_lookup(system_lookup)
    }
}

impl Client {
    fn with_lookup(lookup: Lookup) -> Self {
        Self {
            lookup,
            plain: OnceLock::new(),
            tls: OnceLock::new(),
        }
    }

    /// Sends a request. `prohibited` is told where its host leads if it may not lead there.
    pub(crate) async fn send(
        &self,
        request: http::Request<WasiBody>,
        prohibited: impl FnOnce(IpAddr),
    ) -> Result<http::Response<hyper::body::Incoming>, Error> {
        let sent = if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
            let tls = self.tls.get_or_init(|| tls_client(self.lookup)).as_ref();
            let tls = tls.map_err(|error| Error::InternalError(Some(error.clone())))?;
            tls.request(request).await
        } else {
            self.plain
                .get_or_init(|| builder().build(connector(self.lookup)))
                .request(request)
                .await
        };
        sent.map_err(|error| match leads_to(&error) {
            Some(address) => {
                prohibited(address);
                Error::HttpRequestDenied
            }
            None => explain(&error),
        })
    }
}

fn builder() -> legacy::Builder {
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST);
    builder
}

fn connector(lookup: Lookup) -> HttpConnector<CheckedResolver> {
    let mut connector = HttpConnector::new_with_resolver(CheckedResolver(lookup));
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    connector
}

fn tls_client(lookup: Lookup) -> Result<Tls, String> {
    let provider = rustls::crypto::ring::default_provider();
    let https = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(provider)
        .map_err(|error| format!("the system's root certificates cannot be read: {error}"))?
        .https_only()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector(lookup));
    Ok(builder().build(https))
}

/// Resolves names and drops the addresses that only a grant by number opens.
///
/// The connection is then made to one of the addresses that are left, so that a name that resolves
/// differently a moment later gains nothing. Addresses written in the URL do not come here: the
/// grant has been checked against them.
#[derive(Clone)]
struct CheckedResolver(Lookup);

/// All addresses of a name are ones that may not be reached through it. This is the first.
#[derive(Debug, thiserror::Error)]
#[error("the name resolves to no public address")]
struct Prohibited(IpAddr);

impl tower_service::Service<Name> for CheckedResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = (self.0)(name.clone());
        Box::pin(async move {
            let mut addresses = found.await?;
            let Some(first) = addresses.first().map(SocketAddr::ip) else {
                return Err(io::ErrorKind::NotFound.into());
            };
            addresses.retain(|address| may_lead_to(name.as_str(), address.ip()));
            if addresses.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    Prohibited(first),
                ));
            }
            Ok(addresses.into_iter())
        })
    }
}

/// The address to which the host of a request leads and may not lead, if that is why it failed.
fn leads_to(error: &legacy::Error) -> Option<IpAddr> {
    let first: &(dyn StdError + 'static) = error;
    let mut causes = iter::successors(Some(first), |&cause| cause.source());
    let io = causes.find_map(|cause| cause.downcast_ref::<io::Error>()?.get_ref());
    Some(io?.downcast_ref::<Prohibited>()?.0)
}

/// Finds the error code of `wasi:http` that says most.
fn explain(error: &legacy::Error) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return Error::ConnectionRefused,
                io::ErrorKind::TimedOut => return Error::ConnectionTimeout,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                    return Error::ConnectionTerminated;
                }
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    return Error::DestinationUnavailable;
                }
                _ => {}
            }
        }
        if error.is::<rustls::Error>() {
            return Error::TlsProtocolError;
        }
        if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
            if hyper.is_incomplete_message() {
                return Error::HttpResponseIncomplete;
            }
            if hyper.is_timeout() {
                return Error::ConnectionReadTimeout;
            }
        }
        cause = error.source();
    }
    if error.is_connect() {
        return Error::DnsError {
            rcode: None,
            info_code: None,
        };
    }
    Error::HttpProtocolError
}

#[cfg(test)]
mod tests;
