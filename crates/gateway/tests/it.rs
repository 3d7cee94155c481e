//! The gateway as its users see it: through `handle` and `dispatch`, and over connections.

// Clippy takes for tests only the functions marked as such, not what they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "it/fixture.rs"]
mod fixture;

#[path = "it/bodiless.rs"]
mod bodiless;
#[path = "it/connections.rs"]
mod connections;
#[path = "it/corpus.rs"]
mod corpus;
#[path = "it/dispatch.rs"]
mod dispatch;
#[path = "it/endpoints.rs"]
mod endpoints;
#[path = "it/fields.rs"]
mod fields;
#[path = "it/floods.rs"]
mod floods;
#[path = "it/hopeless.rs"]
mod hopeless;
#[path = "it/load.rs"]
mod load;
#[path = "it/nodes.rs"]
mod nodes;
#[path = "it/parked.rs"]
mod parked;
#[path = "it/places.rs"]
mod places;
#[path = "it/queue.rs"]
mod queue;
#[path = "it/retry.rs"]
mod retry;
#[path = "it/routes.rs"]
mod routes;
#[path = "it/shutdown.rs"]
mod shutdown;
#[path = "it/slow.rs"]
mod slow;
#[path = "it/sockets.rs"]
mod sockets;
#[path = "it/status.rs"]
mod status;
#[path = "it/stress.rs"]
mod stress;
