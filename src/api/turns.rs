//! Turns of apps: requests about one app are done one after the other, apps side by side.
//!
//! | state | written | read |
//! |---|---|---|
//! | requests of an app, and its turn | under the lock, by taking and dropping a place | under the lock |
//!
//! A place holds its app's turn by an `Arc`, and the entry of the app goes with its last place: so
//! two requests about one app that are there at once always have the same turn.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex as Lock;
use sampan_core::name::Name;
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};

use super::error::ApiError;

/// The turns of one sort of request.
pub(super) struct Turns {
    /// What waits, in the plural.
    what: &'static str,
    limit: usize,
    of_an_app: usize,
    places: Semaphore,
    apps: Lock<HashMap<Name, Waiting>>,
}

/// Requests about one app.
#[derive(Default)]
struct Waiting {
    count: usize,
    turn: Arc<Mutex<()>>,
}

/// A place among the requests that wait or work, until it is dropped.
pub(super) struct Place<'t> {
    turns: &'t Turns,
    app: Name,
    turn: Arc<Mutex<()>>,
    _place: SemaphorePermit<'t>,
}

impl Turns {
    /// Turns for `limit` requests in all, and for `of_an_app` of each app: the requests about one app
    /// never keep those about another from coming in. `what` they are, in the plural, is for people.
    pub(super) fn new(what: &'static str, limit: usize, of_an_app: usize) -> Self {
        Self {
            what,
            limit,
            of_an_app,
            places: Semaphore::new(limit),
            apps: Lock::default(),
        }
    }

    /// A place, if there is one.
    pub(super) fn place(&self, app: &Name) -> Result<Place<'_>, ApiError> {
        let place = self.places.try_acquire();
        let place = place.map_err(|_| ApiError::busy(self.what, self.limit))?;
        let mut apps = self.apps.lock();
        let waiting = apps.entry(app.clone()).or_default();
        if waiting.count >= self.of_an_app {
            let what = format!("{} of the app `{app}`", self.what);
            return Err(ApiError::busy(&what, self.of_an_app));
        }
        waiting.count += 1;
        Ok(Place {
            turns: self,
            app: app.clone(),
            turn: Arc::clone(&waiting.turn),
            _place: place,
        })
    }
}

impl Place<'_> {
    /// Waits until nothing else is done about the app.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut apps = self.turns.apps.lock();
        if let Some(waiting) = apps.get_mut(&self.app) {
            waiting.count -= 1;
            if waiting.count == 0 {
                apps.remove(&self.app);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    #[tokio::test]
    async fn an_app_waits_for_itself_alone() {
        let turns = Turns::new("changes", 16, 2);
        let (first, second) = (turns.place(&name("shop")), turns.place(&name("shop")));
        let (first, second) = (first.expect("a place"), second.expect("a place"));
        let turn = first.turn().await;
        assert!(second.turn().now_or_never().is_none());
        let refused = turns.place(&name("shop")).err().expect("full");
        assert_eq!(
            refused.message,
            "2 changes of the app `shop` are under way already"
        );
        let other = turns.place(&name("blog")).expect("a place");
        assert!(other.turn().now_or_never().is_some());
        drop(turn);
        assert!(second.turn().now_or_never().is_some());
        drop((first, second, other));
        assert!(turns.apps.lock().is_empty());
        assert_eq!(turns.places.available_permits(), 16);
    }

    #[tokio::test]
    async fn all_apps_together_have_a_limit_too() {
        let turns = Turns::new("plans", 2, 2);
        let _first = turns.place(&name("shop")).expect("a place");
        let second = turns.place(&name("blog")).expect("a place");
        let refused = turns.place(&name("news")).err().expect("full");
        assert_eq!(refused.message, "2 plans are under way already");
        drop(second);
        assert!(turns.place(&name("news")).is_ok());
    }
}
