//! Refusals and failures as HTTP: their status, and a body by RFC 9457.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;

use crate::{
    Limits, failure::UpstreamErrorKind, filter::Refusal, headers::X_REQUEST_ID, trace::RequestId,
};

/// Why a request to a service was not answered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatchError {
    /// No service has this name, or it was removed while the request waited. 503.
    #[error("the service is not there")]
    NoService,
    /// No pod is free, and as many requests wait as may. 503.
    #[error("too many requests wait for the service")]
    QueueFull,
    /// No pod became free in time. 503.
    #[error("no pod of the service became free in time")]
    QueueTimeout,
    /// No pod is ready, and none can become so while the request may wait. 503.
    #[error("no pod of the service is ready, and none will be in time")]
    NoPod,
    /// The request body is larger than the service allows. 413.
    #[error("the request body is larger than the service allows")]
    BodyTooLarge,
    /// The pod gave no response. The status follows the kind.
    #[error("the pod gave no response: {0}")]
    Upstream(UpstreamErrorKind),
}

impl DispatchError {
    /// The status that a client sees.
    pub fn status(self) -> StatusCode {
        Problem::Dispatch(self).describe().0
    }
}

/// Everything the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Refused(Refusal),
    NoRoute,
    Dispatch(DispatchError),
}

/// The methods a `405` offers.
const ALLOWED: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The members of RFC 9457, in its order, and the request id.
#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'static str,
    request_id: &'a str,
}

impl Problem {
    /// Status and detail. The words are fixed: nothing of the inside gets out.
    pub(crate) fn describe(self) -> (StatusCode, &'static str) {
        use {DispatchError as D, StatusCode as S, UpstreamErrorKind as U};
        match self {
            Self::Refused(refusal) => refusal.describe(),
            Self::NoRoute => (S::NOT_FOUND, "no service answers for this host and path"),
            Self::Dispatch(error) => match error {
                D::NoService => (S::SERVICE_UNAVAILABLE, "the service is not there"),
                D::QueueFull => (
                    S::SERVICE_UNAVAILABLE,
                    "no pod is free and too many requests wait",
                ),
                D::QueueTimeout => (S::SERVICE_UNAVAILABLE, "no pod became free in time"),
                D::NoPod => (
                    S::SERVICE_UNAVAILABLE,
                    "no pod is ready, and none will be in time",
                ),
                D::BodyTooLarge | D::Upstream(U::BodyTooLarge) => {
                    (S::PAYLOAD_TOO_LARGE, "the request body is too large")
                }
                D::Upstream(U::Trapped) => (S::INTERNAL_SERVER_ERROR, "the service failed"),
                D::Upstream(U::NoResponse) => {
                    (S::INTERNAL_SERVER_ERROR, "the service gave no answer")
                }
                D::Upstream(U::TimedOut) => {
                    (S::GATEWAY_TIMEOUT, "the service did not answer in time")
                }
                D::Upstream(U::Spinning) => (S::GATEWAY_TIMEOUT, "the service took too much CPU"),
                D::Upstream(U::Deadlocked) => (
                    S::LOOP_DETECTED,
                    "the request was part of a deadlock of services",
                ),
                D::Upstream(U::Unavailable) => (
                    S::SERVICE_UNAVAILABLE,
                    "the service could not take the request",
                ),
                D::Upstream(U::Host) => (S::INTERNAL_SERVER_ERROR, "the host failed"),
                D::Upstream(U::BadRequest) => (S::BAD_REQUEST, "the request is malformed"),
                D::Upstream(U::ClientSlow) => {
                    (S::REQUEST_TIMEOUT, "the request body came too slowly")
                }
                D::Upstream(U::ClientGone) => (S::BAD_REQUEST, "the request body ended early"),
            },
        }
    }

    /// Whether an HTTP/1 connection must not be used for another request.
    pub(crate) fn ends_connection(self) -> bool {
        let ends = [StatusCode::BAD_REQUEST, StatusCode::REQUEST_TIMEOUT];
        matches!(self, Self::Refused(_)) || ends.contains(&self.describe().0)
    }

    /// The response to a request with this method and id.
    pub(crate) fn response(
        self,
        method: &Method,
        id: &RequestId,
        limits: &Limits,
    ) -> Response<Bytes> {
        let (status, detail) = self.describe();
        let title = status.canonical_reason().unwrap_or("Error");
        let document = Document {
            r#type: "about:blank",
            title,
            status: status.as_u16(),
            detail,
            request_id: id.as_str(),
        };
        let mut body = serde_json::to_vec(&document).expect("a struct of strings and a number");
        body.push(b'\n');
        let is_head = method == Method::HEAD;
        let mut response = Response::new(if is_head {
            Bytes::new()
        } else {
            Bytes::from(body)
        });
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(X_REQUEST_ID, id.to_header());
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                let wait = limits.retry_after;
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                headers.insert(RETRY_AFTER, seconds.into());
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static(ALLOWED));
            }
            _ => {}
        }
        response
    }
}
