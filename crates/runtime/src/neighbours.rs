//! Calls from one service of an app to another, which never leave the process.

use std::{error::Error, pin::Pin, sync::Arc};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use sampan_core::{
    fault::Fault,
    name::{Name, PodName},
};

/// A body as it passes between pods and their callers.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// The answer to a call, when it comes.
pub type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Fault>> + Send>>;

/// The other services of the node, as a guest's `http://NAME.internal/` reaches them.
///
/// Whether a guest may call a service has been decided before.
pub trait Neighbours: Send + Sync + 'static {
    /// Whether there is such a service, granted or not.
    fn has(&self, service: &Name) -> bool;

    /// The pods for a slot of which a waiting request of this service waits, and how many slots
    /// each has. `None` if there may be another way: a slot that is free, or a pod that is not
    /// ready yet.
    fn occupied(&self, service: &Name) -> Option<Vec<(PodName, u32)>>;

    /// Sends a request to a pod of `service`. `request_id` is that of the request the caller is
    /// answering, when that is certain.
    fn call(
        &self,
        service: &Name,
        request: http::Request<Body>,
        request_id: Option<Arc<str>>,
    ) -> Answer;
}
