//! A request on its way to a guest: in the one form in which every world of `wasi:http` can be
//! given it, found out before anything is done for it.

use std::{error::Error as StdError, sync::Arc};

use http::{
    Uri,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use wasmtime_wasi_http::{Error, WasiBody};

use super::failure::Failure;
use crate::{
    exports::Question,
    neighbours::Body,
    observe::{
        body::read_by,
        cell::Cell,
        source::{InboundRequest, Source},
    },
};

/// The host of a request that names none: HTTP/1.0 lets a client leave that out, and a guest of
/// WASI 0.2 is told an authority with every request.
const NO_AUTHORITY: &str = "localhost";

/// A request that a guest can be given, as it came.
#[derive(Debug)]
pub(super) struct Expressible {
    request: http::Request<Body>,
    /// Its target in absolute form.
    target: Uri,
}

impl Expressible {
    /// Finds out how a guest is to see the target of a request.
    ///
    /// # Errors
    ///
    /// [`Failure::Inexpressible`] if it names its authority in a way that is none.
    pub(super) fn parse(request: http::Request<Body>) -> Result<Self, Failure> {
        let target = target(&request)
            .map_err(|what| Failure::Inexpressible(format!("{what} is no authority")))?;
        Ok(Self { request, target })
    }

    /// The request as it came.
    pub(super) fn into_inner(self) -> http::Request<Body> {
        self.request
    }

    /// The request as the guest of `reader` is given it. With this its handling begins.
    pub(super) fn into_guest(
        self,
        reader: &Arc<Cell>,
        inbound: &Arc<InboundRequest>,
    ) -> http::Request<WasiBody> {
        let writer = Source::Caller(Arc::clone(inbound));
        self.absolute().map(|body| read_by(reader, writer, body))
    }

    fn absolute(self) -> http::Request<WasiBody> {
        let Self {
            mut request,
            target,
        } = self;
        *request.uri_mut() = target;
        request.map(|body| match body.is_end_stream() {
            true => Empty::new().map_err(|never| match never {}).boxed_unsync(),
            false => body.map_err(request_error).boxed_unsync(),
        })
    }
}

/// The target in absolute form, or what of it is wrong.
fn target(request: &http::Request<Body>) -> Result<Uri, String> {
    let mut target = request.uri().clone().into_parts();
    if target.authority.is_none() {
        let host = request.headers().get(HOST);
        let authority = match host.filter(|host| !host.is_empty()) {
            None => Authority::from_static(NO_AUTHORITY),
            Some(host) => Authority::try_from(host.as_bytes())
                .map_err(|_| format!("`{}`", host.as_bytes().escape_ascii()))?,
        };
        target.authority = Some(authority);
    }
    target.scheme = Some(Scheme::HTTP);
    target
        .path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    Uri::from_parts(target).map_err(|_| format!("that of `{}`", request.uri()))
}

/// What a guest is told about a request body that failed.
fn request_error(_: Box<dyn StdError + Send + Sync>) -> Error {
    Error::ConnectionTerminated
}

/// What an instance is to do.
#[derive(Debug)]
pub(super) enum Task {
    Request(Box<Expressible>),
    Question(Question),
}

/// A request that failed before its response began.
#[derive(Debug, thiserror::Error)]
#[error("{failure}")]
pub struct CallError {
    /// Why there is no answer.
    pub failure: Failure,
    /// What is left of the request.
    pub remains: Remains,
}

impl CallError {
    /// It failed before a guest had begun. `task` is what a guest was to do.
    pub(super) fn before(failure: Failure, task: Option<Task>) -> Self {
        match (failure, task) {
            // There is no time left to try it elsewhere.
            (failure @ Failure::TimedOut(_), _) => Self::over(failure),
            (failure, Some(Task::Request(request))) => Self {
                failure,
                remains: Remains::Whole(Box::new(request.into_inner())),
            },
            (failure, Some(Task::Question(_)) | None) => Self::over(failure),
        }
    }

    /// There is nothing to try again.
    pub(super) fn over(failure: Failure) -> Self {
        let remains = Remains::Nothing { repeatable: false };
        Self { failure, remains }
    }
}

/// What is left of a request that failed.
#[derive(Debug)]
pub enum Remains {
    /// All of it: no guest had begun to handle it. It is as it was when the pod was given it.
    Whole(Box<http::Request<Body>>),
    /// Nothing: a guest has had it, or its time is up.
    Nothing {
        /// Whether the request neither ended its instance nor could have, and the instance had
        /// called nothing outside by then. To send an equal request does no harm if its method is
        /// idempotent.
        repeatable: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, host: Option<&[u8]>) -> http::Request<Body> {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let mut request = http::Request::new(body);
        *request.uri_mut() = target.parse().expect("a target");
        if let Some(host) = host {
            let host = http::HeaderValue::from_bytes(host).expect("a value");
            request.headers_mut().insert(HOST, host);
        }
        request
    }

    #[test]
    fn every_way_to_name_the_authority_is_one_to_the_guest() {
        for (target, host, seen) in [
            ("/a?b", None, "http://localhost/a?b"),
            ("/a?b", Some("test"), "http://test/a?b"),
            ("/a?b", Some(""), "http://localhost/a?b"),
            ("/a", Some("[::1]:8080"), "http://[::1]:8080/a"),
            ("http://test/a", None, "http://test/a"),
            ("http://test/a", Some("other"), "http://test/a"),
            ("https://test", None, "http://test/"),
            ("*", Some("test"), "http://test*"),
            ("test:80", None, "http://test:80/"),
        ] {
            let request = request(target, host.map(str::as_bytes));
            let parsed = Expressible::parse(request).map(Expressible::absolute);
            match (parsed, seen) {
                (Ok(request), seen) => assert_eq!(request.uri(), seen, "{target} {host:?}"),
                (Err(failure), _) => panic!("{target} {host:?}: {failure}"),
            }
        }
    }

    #[test]
    fn an_authority_that_is_none_is_the_requests_own_fault() {
        for host in [&b"a b"[..], b"\xff", b"a/b", b"a?b", b"[::1", b"a:b:c:d"] {
            match Expressible::parse(request("/", Some(host))) {
                Err(Failure::Inexpressible(_)) => {}
                other => panic!("{}: {other:?}", host.escape_ascii()),
            }
        }
    }

    #[test]
    fn what_comes_back_is_what_was_given() {
        let given = request("/a?b", Some(b"test"));
        let back = Expressible::parse(given).map(Expressible::into_inner);
        let back = back.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(back.uri(), "/a?b");
        assert_eq!(back.headers().len(), 1);
    }
}
