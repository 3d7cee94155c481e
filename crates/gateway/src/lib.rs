//! Sampan's HTTP load balancer.
//!
//! A request from a client goes: [`Server`] (connections) → route by host and path → queue of the
//! service → power of two choices among its ready pods → a function call into the pod
//! ([`Upstream`]). A request from another service comes in at [`Gateway::dispatch`] and goes the
//! same way from the queue on.
//!
//! The request path reads one snapshot that is never changed, only replaced: whole by
//! [`Gateway::publish`], in parts by [`Gateway::change`]. It meets the
//! control side at one lock only: that of the queue of its service, if the request has to wait or
//! ends a wait. Where its guest ends its pod, [`Endpoint::set_state`] takes that of the endpoint.

mod ahead;
mod answer;
mod balance;
mod body;
mod budget;
mod buffers;
mod busy;
mod client;
mod discard;
mod ejection;
mod endpoint;
mod exchange;
pub mod filter;
mod forwarded;
mod gateway;
mod headers;
mod histogram;
mod hold;
mod load;
mod node;
mod peer;
mod problem;
mod proxy;
mod queue;
mod request;
mod response;
pub mod route;
mod sending;
mod server;
mod snapshot;
mod stall;
mod stats;
mod streamed;
mod targets;
mod threads;
mod ticket;
mod trace;
mod upstream;
mod visit;

pub use body::{Body, BodyError, empty, full};
pub use busy::Reading;
pub use endpoint::{Endpoint, EndpointState};
pub use gateway::Gateway;
pub use histogram::{LATENCY_BOUNDS, Latencies};
pub use load::{EndpointLoad, ServiceLoad};
pub use node::{NodeEndpoint, Offer};
pub use response::ResponseBody;
pub use sampan_core::spec::node::GatewayLimits as Limits;
pub use server::{Accept, Drained, Server, TcpAccept, Transport};
pub use snapshot::{Published, ServiceConfig};
pub use stats::{RevisionStats, ServiceStats};
pub use targets::Targets;
pub use threads::number_thread;
pub use trace::{MAX_REQUEST_ID_BYTES, RequestId, TraceParent};
pub use upstream::{AnsweredBy, RequestContext, Upstream, UpstreamError, UpstreamFuture};
pub use visit::{Reservation, Turned};
