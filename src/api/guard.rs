//! Which requests are answered: none of a web page, and on a port of loopback only those with the
//! token.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap,
        header::{AUTHORIZATION, HOST, ORIGIN},
        uri::Authority,
    },
    middleware::Next,
    response::Response,
};

use super::{
    connections::Place,
    error::{ApiError, Code},
    token::Token,
};

/// Refuses what a browser sends for a web page: no page has any business here.
pub(super) async fn same_origin(request: Request, next: Next) -> Result<Response, ApiError> {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site");
    let own = site.is_none_or(|site| site == "none" || site == "same-origin");
    if headers.contains_key(ORIGIN) || !own {
        return Err(ApiError::new(
            Code::Forbidden,
            "a web page cannot use the API",
        ));
    }
    Ok(next.run(request).await)
}

/// What a request through a port needs.
#[derive(Clone)]
pub(crate) struct Gate {
    token: Token,
    address: IpAddr,
}

/// Lets a request through that has the token and names this machine.
pub(super) async fn admit(
    State(gate): State<Gate>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !has_token(request.headers(), &gate.token) {
        let message = "no token, or a wrong one";
        return Err(ApiError::new(Code::Unauthorized, message)
            .hint("`SAMPAN_TOKEN` or `--token-file` gives it to `sampan`"));
    }
    if !names_us(request.headers(), gate.address) {
        // A stranger whose name points here could have a browser ask on its user's behalf.
        let message = "`Host` is neither a name nor an address of loopback";
        return Err(
            ApiError::new(Code::WrongHost, message).hint("ask `127.0.0.1`, `[::1]` or `localhost`")
        );
    }
    if let Some(place) = request.extensions().get::<Arc<Place>>() {
        place.keep();
    }
    Ok(next.run(request).await)
}

fn has_token(headers: &HeaderMap, token: &Token) -> bool {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(given), None) = (given.next(), given.next()) else {
        return false;
    };
    let given = given.to_str().unwrap_or_default();
    match given.split_once(' ') {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") => token.is(given.trim()),
        _ => false,
    }
}

fn names_us(headers: &HeaderMap, bound: IpAddr) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    if host.as_str().contains('@') {
        return false;
    }
    let host = host.host();
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match bare.unwrap_or(host).parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address == bound,
        Err(_) => false,
    }
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// Others could read the token on the way.
    #[error(
        "the API cannot listen on `{0}`: without TLS it is only for this machine; use `127.0.0.1` \
         or `[::1]`"
    )]
    Open(SocketAddr),
    /// It cannot be bound.
    #[error("the API cannot listen on `{address}`")]
    Io {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A port of loopback.
pub(crate) struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Listens on an address, which must be one of loopback. Port 0 picks a free one.
    pub(crate) fn bind(address: SocketAddr) -> Result<Self, PortError> {
        if !address.ip().is_loopback() {
            return Err(PortError::Open(address));
        }
        let bound = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bound().map_err(|source| PortError::Io { address, source })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn open(self, token: Token) -> io::Result<(tokio::net::TcpListener, Gate)> {
        let gate = Gate::new(token, self.address.ip());
        Ok((tokio::net::TcpListener::from_std(self.listener)?, gate))
    }
}

impl Gate {
    /// What a request needs that comes through this address.
    pub(super) fn new(token: Token, address: IpAddr) -> Self {
        Self { token, address }
    }
}
