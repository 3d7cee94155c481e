//! Probes: questions that the guest itself must answer.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use sampan_core::object::{Check, Isolation};
use tokio::time::Instant;

use super::{CallError, Pod};
use crate::{host::neighbours::Body, observe::source::Asked};

/// What a probe says of itself in `User-Agent`.
const USER_AGENT: &str = concat!("sampan-probe/", env!("CARGO_PKG_VERSION"));

/// Which question a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Has it started?
    Startup,
    /// May it get requests?
    Readiness,
    /// Should it go on?
    Liveness,
}

impl fmt::Display for ProbeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Startup => "startup",
            Self::Readiness => "readiness",
            Self::Liveness => "liveness",
        })
    }
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The guest said yes.
    Success,
    /// The guest said no, or nothing in time.
    Failure(String),
    /// The guest had no CPU to answer with: this says nothing about it.
    Starved,
}

impl Pod {
    /// Asks the guest a question.
    ///
    /// With `isolation = "pod"` it goes to the very instance, before the requests that wait for
    /// it; else to an instance of its own. An HTTP probe succeeds with a status from 200 to 399;
    /// redirects are not followed, as in
    /// [Kubernetes](https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/).
    pub async fn probe(&self, check: &Check, kind: ProbeKind, timeout: Duration) -> Probed {
        let deadline = Instant::now() + timeout;
        let asked = async {
            match check {
                Check::Http(path) => self.ask_http(path, deadline).await,
                Check::Export => Probed::Failure(format!("no export answers the {kind} probe")),
            }
        };
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(probed) => probed,
            Err(_) => Probed::Failure(format!("no answer within {timeout:?}")),
        }
    }

    async fn ask_http(&self, path: &str, deadline: Instant) -> Probed {
        let request = http::Request::get(path)
            .header(http::header::HOST, self.name().as_str())
            .header(http::header::USER_AGENT, USER_AGENT)
            .body(Empty::<Bytes>::new());
        let request = match request {
            Ok(request) => request,
            Err(error) => return Probed::Failure(error.to_string()),
        };
        // A kept instance cannot be made to give a question up without losing it: it goes on with
        // it for as long as a request may take, and only the asking ends.
        let deadline = match self.shared.template.isolation() {
            Isolation::Request => Some(deadline),
            Isolation::Pod => self.shared.template.deadline(),
        };
        let asked = Asked::new(None, &request, None);
        match self.exchange(request, asked, deadline, None).await {
            Ok(response) => read(response).await,
            Err(CallError { failure, .. }) => Probed::Failure(failure.to_string()),
        }
    }
}

/// Reads an answer to its end: a guest whose reader leaves may well trap.
async fn read(response: http::Response<Body>) -> Probed {
    let (head, mut body) = response.into_parts();
    while let Some(frame) = body.frame().await {
        if let Err(error) = frame {
            return Probed::Failure(error.to_string());
        }
    }
    match head.status.as_u16() {
        200..=399 => Probed::Success,
        status => Probed::Failure(format!("status {status}")),
    }
}
