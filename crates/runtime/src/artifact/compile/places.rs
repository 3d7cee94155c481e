//! The places of compiling processes: a few, shared fairly among apps.
//!
//! | state | written | read |
//! |---|---|---|
//! | places taken, by owner | under the lock, by admitting and by dropping a place | under the lock |
//! | the line of those that wait | under the lock, by asking and by admitting | under the lock |
//!
//! Every place that is dropped, and every request for one, looks through the line, so none is free
//! while one waits that may have it. A place that is sent to a request that has been given up comes
//! back in the same step.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use sampan_core::name::Name;
use tokio::sync::oneshot;

/// For whom something is compiled: an app, or this program itself.
pub(super) type Owner = Option<Name>;

/// The places of compiling processes.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Places taken, by owner. None is 0.
    taken: HashMap<Owner, usize>,
    /// Requests for a place, in the order of their arrival.
    waiting: VecDeque<(Owner, oneshot::Sender<Place>)>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    /// Where it is given back to; `None` when that has been done.
    places: Option<Arc<Places>>,
    owner: Owner,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
        })
    }

    /// Waits for a place. An owner without one is let in before one that has one, and a second one
    /// is only had while half of the places are free: what takes long for one app keeps that app
    /// waiting, and no other.
    pub(super) async fn place(self: &Arc<Self>, owner: &Owner) -> Place {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.waiting.push_back((owner.clone(), sender));
            self.admit(&mut state);
        }
        receiver
            .await
            .expect("a sender is dropped once it has sent")
    }

    /// Gives free places to the requests that may have them.
    fn admit(self: &Arc<Self>, state: &mut State) {
        while let Some(next) = state.next(self.limit) {
            let Some((owner, sender)) = state.waiting.remove(next) else {
                return;
            };
            *state.taken.entry(owner.clone()).or_default() += 1;
            let place = Place {
                places: Some(Arc::clone(self)),
                owner,
            };
            if let Err(mut place) = sender.send(place) {
                // The request was given up. The lock is held, so it is given back here.
                state.release(&place.owner);
                place.places = None;
            }
        }
    }
}

impl State {
    /// The first request in line that may have a place.
    fn next(&self, limit: usize) -> Option<usize> {
        let total: usize = self.taken.values().sum();
        if total >= limit {
            return None;
        }
        let new = |(owner, _): &(Owner, _)| !self.taken.contains_key(owner);
        let new = self.waiting.iter().position(new);
        let more = || (total < limit / 2 && !self.waiting.is_empty()).then_some(0);
        new.or_else(more)
    }

    fn release(&mut self, owner: &Owner) {
        if let Some(count) = self.taken.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(owner);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.take() {
            let mut state = places.state.lock();
            state.release(&self.owner);
            places.admit(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn app(name: &str) -> Owner {
        Some(Name::parse(name).expect("a name"))
    }

    fn now(places: &Arc<Places>, owner: &Owner) -> Option<Place> {
        places.place(owner).now_or_never()
    }

    #[test]
    fn an_app_takes_more_than_one_place_only_while_half_are_free() {
        let places = Places::new(4);
        let (shop, blog, news) = (app("shop"), app("blog"), app("news"));
        let first = now(&places, &shop).expect("free");
        let second = now(&places, &shop).expect("half are free");
        assert!(now(&places, &shop).is_none());
        let other = now(&places, &blog).expect("its first");
        assert!(now(&places, &blog).is_none());
        let last = now(&places, &news).expect("its first");
        assert!(now(&places, &None).is_none(), "all are taken");
        drop((first, second, other));
        assert!(now(&places, &news).is_some(), "half are free again");
        drop(last);
        let state = places.state.lock();
        assert!(state.taken.is_empty() && state.waiting.is_empty());
    }

    #[tokio::test]
    async fn an_app_without_a_place_goes_first_and_requests_given_up_take_none() {
        let places = Places::new(1);
        let (shop, blog) = (app("shop"), app("blog"));
        let first = places.place(&shop).await;
        let waiting = |owner: &Owner| {
            let (places, owner) = (Arc::clone(&places), owner.clone());
            let mut place = Box::pin(async move { places.place(&owner).await });
            assert!((&mut place).now_or_never().is_none());
            place
        };
        let gave_up = waiting(&blog);
        let (same, other) = (waiting(&shop), waiting(&blog));
        drop(gave_up);
        drop(first);
        // Those of one owner keep their order; of one place there is nothing to share.
        let same = same.await;
        drop(same);
        drop(other.await);
        assert!(places.state.lock().taken.is_empty());
        assert!(now(&places, &shop).is_some());
    }

    #[tokio::test]
    async fn a_hundred_of_one_app_keep_another_waiting_for_none_of_them() {
        let places = Places::new(2);
        let (shop, blog) = (app("shop"), app("blog"));
        let held = places.place(&shop).await;
        let mut bombs: Vec<_> = (0..100).map(|_| Box::pin(places.place(&shop))).collect();
        for bomb in &mut bombs {
            assert!(bomb.now_or_never().is_none());
        }
        drop(now(&places, &blog).expect("a place"));
        drop(held);
        assert!((&mut bombs[0]).now_or_never().is_some());
    }
}
