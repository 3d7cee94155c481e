//! Turns: a change that reads much before it writes gets through among many small ones.
//!
//! Whether a transaction holds is decided by what it compares, whatever turn it had. But one that
//! compares a thousand keys of which one changes every millisecond would never hold. So tasks that
//! write a key or two of an app and try again share their turn, and a change of a whole app has one
//! alone. Apps do not wait for one another.
//!
//! States of the lock of an app: free, shared by some, had by one. It is made when the first task
//! asks for it, and forgotten after the last one has dropped it, both under the lock of the map: so
//! there are never two locks of one app. A task holds one turn at a time, so turns cannot deadlock.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Whose turn it is to write. Turns are taken in the order in which they were asked for.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<Arc<str>, Weak<RwLock<()>>>>);

/// A turn beside others of the same sort, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Shared(#[expect(dead_code, reason = "held")] OwnedRwLockReadGuard<()>);

/// A turn alone, until it is dropped: nothing that takes turns writes between what is read and
/// what is written in it.
#[derive(Debug)]
#[must_use]
pub struct Alone(#[expect(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>);

impl Turns {
    /// Waits for a turn with an app, beside others.
    pub async fn shared(&self, app: &str) -> Shared {
        Shared(self.lock(app).read_owned().await)
    }

    /// Waits for a turn with an app, alone.
    pub async fn alone(&self, app: &str) -> Alone {
        Alone(self.lock(app).write_owned().await)
    }

    fn lock(&self, app: &str) -> Arc<RwLock<()>> {
        let mut locks = self.0.lock();
        if let Some(lock) = locks.get(app).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(RwLock::new(()));
        locks.insert(app.into(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_turn_alone_is_alone_and_comes_before_later_ones() {
        let (turns, shop) = (Turns::default(), "shop");
        let (one, two) = (turns.shared(shop).await, turns.shared(shop).await);
        let mut alone = Box::pin(turns.alone(shop));
        assert!(alone.as_mut().now_or_never().is_none(), "two have a turn");
        let mut later = Box::pin(turns.shared(shop));
        assert!(later.as_mut().now_or_never().is_none(), "it has to wait");
        drop((one, two));
        let alone = alone.now_or_never().expect("its turn");
        assert!(later.as_mut().now_or_never().is_none(), "one is alone");
        drop(alone);
        assert!(later.now_or_never().is_some());
    }

    #[tokio::test]
    async fn apps_do_not_wait_for_one_another_and_leave_nothing_behind() {
        let (turns, shop) = (Turns::default(), "shop");
        let alone = turns.alone(shop).await;
        for number in 0..100 {
            let other = format!("app-{number}");
            assert!(turns.alone(&other).now_or_never().is_some());
        }
        assert!(turns.shared(shop).now_or_never().is_none());
        assert!(turns.0.lock().len() <= 2);
        drop(alone);
        assert!(turns.shared(shop).now_or_never().is_some());
    }
}
