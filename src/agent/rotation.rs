//! A pod's place among those that get requests, as the agent sees it.

use std::pin::Pin;

use tokio::time::Instant;

/// A pod's place among those that get requests.
pub(crate) trait Rotation: Send + Sync + 'static {
    /// Lets it have requests or not: when this returns, every later request sees it.
    fn set_ready(&self, ready: bool);

    /// Forgets what its last instance did: it has a new one, which is not ready yet.
    fn renew(&self);

    /// Says that it cannot become ready before this, or that it may at any time.
    fn rest_until(&self, until: Option<Instant>);

    /// Takes it out for good.
    fn leave(&self);

    /// Its requests in flight.
    fn in_flight(&self) -> u32;

    /// Resolves when it has left and none is in flight.
    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}
