//! Refusals and failures as HTTP: their status, and a body by RFC 9457.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;

use sampan_core::fault::Fault;

use crate::{Limits, filter::Refusal, headers::X_REQUEST_ID, trace::RequestId};

/// Everything the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Refused(Refusal),
    NoRoute,
    Dispatch(Fault),
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
        match self {
            Self::Refused(refusal) => refusal.describe(),
            Self::NoRoute => (
                StatusCode::NOT_FOUND,
                "no service answers for this host and path",
            ),
            Self::Dispatch(fault) => (status(fault), fault.detail()),
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

/// The status of an answer that is given in place of a pod's.
pub(crate) fn status(fault: Fault) -> StatusCode {
    StatusCode::from_u16(fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
