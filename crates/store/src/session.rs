//! Sessions: what is put in one goes when it ends, so that it says that its owner is there.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::error::StoreError;
use crate::value::{Revision, SessionId};

/// So long before a session can end its owner takes it for ended.
pub const SESSION_MARGIN: Duration = Duration::from_secs(1);

/// A moment on `CLOCK_BOOTTIME`, which goes on while the machine is suspended: a process that has
/// slept through the end of its session sees that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// A moment that never comes.
    pub const NEVER: Self = Self(Duration::MAX);

    /// This moment.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        Self(Duration::try_from(now).expect("it counts from the start of the machine"))
    }

    /// The moment so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// A session that this process holds. It is renewed until it is dropped, which does not end it: its
/// entries stay as long as the store takes to find that it is not renewed.
pub struct Session {
    id: SessionId,
    source: Box<dyn SessionSource>,
}

impl Session {
    /// One that `source` stands behind: for those who write a store.
    pub fn new(id: SessionId, source: impl SessionSource) -> Self {
        let source = Box::new(source);
        Self { id, source }
    }

    /// What transactions name it by.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Until when it certainly lasts: [`SESSION_MARGIN`] before the store may end it, which is its
    /// time after the last renewal that succeeded was sent. Each renewal makes it later.
    pub fn valid_until(&self) -> BootInstant {
        self.source.valid_until()
    }

    /// Resolves when it has ended, or the store is closed.
    pub async fn lost(&self) {
        self.source.lost().await;
    }

    /// Ends it, and with it all its entries.
    pub async fn end(self) -> Result<(), StoreError> {
        self.source.end().await
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.id).finish()
    }
}

/// What stands behind a [`Session`].
#[async_trait]
pub trait SessionSource: Send + Sync + 'static {
    /// See [`Session::valid_until`].
    fn valid_until(&self) -> BootInstant;

    /// See [`Session::lost`].
    async fn lost(&self);

    /// See [`Session::end`].
    async fn end(self: Box<Self>) -> Result<(), StoreError>;
}

/// Waits until a store of this crate is closed.
pub(crate) async fn closed(revisions: Option<watch::Receiver<Revision>>) {
    if let Some(mut revisions) = revisions {
        while revisions.changed().await.is_ok() {}
    }
}
