//! What other nodes tell this one: what they have measured, and at which services at zero requests
//! wait there.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use sampan_core::{
    load::Report,
    name::{Name, ServiceKey},
};
use sampan_peer::{Body, RequestBody, full};
use serde::de::DeserializeOwned;

use crate::cluster::{Calls, Reports};

/// Where a node says what it has measured.
pub(super) const LOADS: &str = "/peer/loads";
/// Where a node says at which services requests wait.
pub(super) const WAKE: &str = "/peer/wake";
/// The most bytes of what is told at once: a report is some hundred bytes for each service with an
/// autoscaler, and some thirty for each pod.
const MAX_TOLD: usize = 16 << 20;

/// Takes what a node tells this one, which may lead. Gives back a request for something else.
pub(super) async fn take(
    (reports, calls): (&Reports, &Calls),
    leads: bool,
    caller: &Name,
    request: Request<RequestBody>,
) -> Result<Response<Body>, Request<RequestBody>> {
    let path = request.uri().path();
    let (is_report, is_call) = (path == LOADS, path == WAKE);
    if !is_report && !is_call {
        return Err(request);
    }
    if request.method() != Method::POST {
        return Ok(said(StatusCode::METHOD_NOT_ALLOWED, "it is told with POST"));
    }
    // A report is taken all the same: by the next second this node may lead.
    if is_call && !leads {
        let reason = "this node does not lead";
        return Ok(said(StatusCode::MISDIRECTED_REQUEST, reason));
    }
    let taken = async {
        let body = Limited::new(request.into_body(), MAX_TOLD).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        match is_report {
            true => reports.take(caller.clone(), read::<Report>(&body)?),
            false => calls.take(read::<Vec<ServiceKey>>(&body)?),
        }
        Ok::<_, String>(())
    };
    Ok(match taken.await {
        Ok(()) => said(StatusCode::OK, ""),
        Err(reason) => {
            tracing::warn!(node = %caller, reason, "what a node tells this one cannot be read");
            said(StatusCode::BAD_REQUEST, &reason)
        }
    })
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

fn said(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(text.to_owned()));
    *response.status_mut() = status;
    response
}
