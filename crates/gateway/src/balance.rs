//! Picks a pod: power of two choices on requests in flight.
//!
//! Two random pods are compared and the one with fewer requests in flight wins. That comes close
//! to looking at all of them, and does not send every request to the same momentary minimum.
//!
//! Of the pods that run on the thread of the request there is a better choice: no other thread has to
//! be woken, and what comes in together is done together. So a thread on which much comes in stays with
//! its own pods while these answer soon, or have few more requests than others. Without much to do
//! all pods take turns, and one request in [`STRAYS`] goes by the numbers alone in any case: each pod
//! is seen to answer, whatever the threads of its clients.

use std::{cell::Cell, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{endpoint::Endpoint, threads::this_thread};

/// How many requests more than another pod a thread's own one may have, if that is no more than
/// twice as many.
const HOME_LEAD: u32 = 8;
/// Of a thread that has much to do the next request comes so soon, if its pods do not tell.
const SOON: Duration = Duration::from_micros(200);
/// One request of so many is not drawn to its thread's pods.
const STRAYS: u8 = 64;

thread_local! {
    /// When a request on this thread was last given a pod.
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Takes a slot of a ready endpoint with room for a request that came in `now`. `None` if there is
/// none. Endpoints of one thread stand together, in the order of the threads.
pub(crate) fn pick(endpoints: &[Arc<Endpoint>], now: Instant) -> Option<&Arc<Endpoint>> {
    let last = LAST.replace(Some(now));
    let is_soon = last.is_some_and(|last| now.saturating_duration_since(last) < SOON);
    let is_stray = endpoints.len() > 1 && fastrand::u8(..STRAYS) == 0;
    pick_from((!is_stray).then(this_thread), is_soon, endpoints)
}

/// As [`pick`], for the thread of this number, on which one request `is_soon` after another.
fn pick_from(
    thread: Option<usize>,
    is_soon: bool,
    endpoints: &[Arc<Endpoint>],
) -> Option<&Arc<Endpoint>> {
    let all = Choice::among(endpoints)?;
    let home = thread.map_or(&[][..], |thread| own(thread, endpoints));
    let own = match home.len() < endpoints.len() {
        true => Choice::among(home),
        false => None,
    };
    let chosen = match (own, all) {
        (Some(own), Choice { in_flight, .. })
            if own.is_near(in_flight) && (is_soon || own.in_flight > Some(0)) =>
        {
            own
        }
        _ => all,
    };
    match chosen.in_flight {
        Some(_) if chosen.endpoint.try_acquire() => Some(chosen.endpoint),
        _ => least_loaded(endpoints, None),
    }
}

/// The endpoints of a thread.
fn own(thread: usize, endpoints: &[Arc<Endpoint>]) -> &[Arc<Endpoint>] {
    let first = endpoints.partition_point(|endpoint| endpoint.home() < thread);
    let count = endpoints[first..].partition_point(|endpoint| endpoint.home() == thread);
    &endpoints[first..first + count]
}

/// The better one of two endpoints.
#[derive(Clone, Copy)]
struct Choice<'a> {
    endpoint: &'a Arc<Endpoint>,
    /// Its requests in flight, if it has room for one more.
    in_flight: Option<u32>,
}

impl<'a> Choice<'a> {
    /// Of two different endpoints at random the one with fewer requests in flight, or the only one.
    fn among(endpoints: &'a [Arc<Endpoint>]) -> Option<Self> {
        let of = |index: usize| Self {
            endpoint: &endpoints[index],
            in_flight: endpoints[index].room(),
        };
        let count = endpoints.len();
        if count < 2 {
            return (count == 1).then(|| of(0));
        }
        let (first, step) = (fastrand::usize(..count), fastrand::usize(1..count));
        let (a, b) = (of(first), of((first + step) % count));
        Some(match (a.in_flight, b.in_flight) {
            (Some(one), Some(other)) if one <= other => a,
            (Some(_), None) => a,
            _ => b,
        })
    }

    /// Whether it has room, and answers soon, or has few more requests in flight than another, which
    /// may have none.
    fn is_near(&self, other: Option<u32>) -> bool {
        self.in_flight.is_some_and(|own| {
            let has_few = |other: u32| own <= other + other.min(HOME_LEAD);
            other.is_none_or(has_few) || self.endpoint.is_quick()
        })
    }
}

/// Of two different ones at random the one with the lower load, or the only one. `None` if both have
/// no room, and so no load.
pub(crate) fn two_of<T>(
    all: &[Arc<T>],
    load: impl Fn(&Arc<T>) -> Option<u64>,
) -> Option<(&Arc<T>, u64)> {
    let of = |index: usize| Some((&all[index], load(&all[index])?));
    let count = all.len();
    if count < 2 {
        return all.first().and_then(|_| of(0));
    }
    let (first, step) = (fastrand::usize(..count), fastrand::usize(1..count));
    let both = [first, (first + step) % count].map(of);
    both.into_iter().flatten().min_by_key(|(_, load)| *load)
}

/// Takes a slot of the endpoint with the fewest requests in flight among all that have room,
/// leaving out `except`. `None` if none has room.
pub(crate) fn least_loaded<'a>(
    endpoints: &'a [Arc<Endpoint>],
    except: Option<&Endpoint>,
) -> Option<&'a Arc<Endpoint>> {
    if endpoints.is_empty() {
        return None;
    }
    // Ties go to a random one, or the first pod would get all of a light load.
    let start = fastrand::usize(..endpoints.len());
    let (front, back) = endpoints.split_at(start);
    loop {
        let least = back
            .iter()
            .chain(front)
            .filter(|endpoint| !except.is_some_and(|except| std::ptr::eq(except, &***endpoint)))
            .filter_map(|endpoint| Some((endpoint.room()?, endpoint)))
            .min_by_key(|(in_flight, _)| *in_flight)?
            .1;
        // Another request may have taken its last slot. Then look again: each round means that one
        // made progress.
        if least.try_acquire() {
            return Some(least);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use sampan_core::name::{PodName, ServiceKey};

    use super::*;
    use crate::{
        body::Body,
        endpoint::EndpointState,
        queue::Queue,
        upstream::{RequestContext, Upstream, UpstreamFuture},
    };

    /// What the last request of each pod took, in µs: not little.
    const TAKEN: u32 = 50_000;

    struct Silent;

    impl Upstream for Silent {
        fn call(&self, _: Request<Body>, _: &RequestContext) -> UpstreamFuture {
            Box::pin(std::future::pending())
        }
    }

    /// Ready pods with so many requests in flight each, on the threads of these numbers.
    fn pods(pods: &[(usize, u32)]) -> Vec<Arc<Endpoint>> {
        let queue = Arc::<Queue>::default();
        let service = ServiceKey::parse("shop/web").expect("a key");
        let pod = |(slot, (home, count)): (u32, &(usize, u32))| {
            let name = PodName::new(&service, 1, slot);
            let endpoint = Endpoint::on_thread(*home, name, 1, 100, Arc::new(Silent));
            endpoint.attach(&queue, &crate::stats::Counters::default());
            endpoint.set_state(EndpointState::Ready);
            endpoint.took(TAKEN);
            (0..*count).for_each(|_| assert!(endpoint.try_acquire()));
            endpoint
        };
        (0..).zip(pods).map(pod).collect()
    }

    /// How many of 1000 requests of thread 4 each pod gets, one soon after another, while no other load
    /// changes.
    fn shares(of: &[(usize, u32)]) -> Vec<u32> {
        shares_of(of, true)
    }

    fn shares_of(of: &[(usize, u32)], is_soon: bool) -> Vec<u32> {
        let pods = pods(of);
        let mut counts = vec![0; pods.len()];
        for _ in 0..1000 {
            let chosen = pick_from(Some(4), is_soon, &pods).expect("there is room");
            chosen.release();
            let index = pods.iter().position(|pod| Arc::ptr_eq(pod, chosen));
            counts[index.expect("one of them")] += 1;
        }
        counts
    }

    #[test]
    fn a_thread_stays_with_its_pod_while_that_has_not_too_many() {
        assert_eq!(shares(&[(4, 0), (5, 0)]), [1000, 0]);
        assert_eq!(shares(&[(3, 0), (4, 0), (5, 0)]), [0, 1000, 0]);
        assert_eq!(shares(&[(4, 6), (5, 3)]), [1000, 0], "twice as many");
        assert_eq!(shares(&[(4, 7), (5, 3)]), [0, 1000]);
        assert_eq!(shares(&[(3, 20), (4, 28)]), [0, 1000]);
        assert_eq!(shares(&[(3, 20), (4, 29)]), [1000, 0]);
        assert_eq!(shares(&[(3, 0), (4, 1)]), [1000, 0], "one is idle");
    }

    #[test]
    fn a_thread_stays_with_a_pod_that_answers_soon() {
        let pods = pods(&[(4, 30), (5, 3)]);
        let home = || {
            pick_from(Some(4), false, &pods)
                .expect("there is room")
                .home()
        };
        assert_eq!(home(), 5);
        (0..50).for_each(|_| pods[0].took(100));
        assert_eq!(home(), 4);
        (0..8).for_each(|_| pods[0].took(TAKEN));
        assert_eq!(home(), 5);
    }

    #[test]
    fn of_the_pods_of_a_thread_two_are_compared() {
        assert_eq!(shares(&[(3, 0), (4, 1), (4, 0)]), [0, 0, 1000]);
        for count in &shares(&[(4, 0), (4, 0), (4, 0), (9, 0)])[..3] {
            assert!(*count > 200, "{count} of 1000");
        }
    }

    #[test]
    fn without_pods_of_its_own_a_thread_gives_all_their_share() {
        for homes in [[4, 4, 4], [1, 2, 9]] {
            for count in shares(&homes.map(|home| (home, 0))) {
                assert!(count > 200, "{homes:?}: {count} of 1000");
            }
        }
    }

    #[test]
    fn without_much_to_do_a_thread_gives_all_their_share() {
        for count in shares_of(&[(3, 0), (4, 0), (5, 0)], false) {
            assert!(count > 200, "{count} of 1000");
        }
        assert_eq!(shares_of(&[(3, 1), (4, 1)], false), [0, 1000]);
    }

    #[test]
    fn each_pod_is_seen_to_answer() {
        let pods = pods(&[(0, 0), (1, 0)]);
        let mut others = 0;
        let now = Instant::now();
        for _ in 0..10_000 {
            let chosen = pick(&pods, now).expect("there is room");
            chosen.release();
            others += u32::from(chosen.home() == 1);
        }
        assert!((30..200).contains(&others), "{others} of 10000");
    }

    #[test]
    fn a_full_pod_gets_nothing() {
        assert_eq!(shares(&[(4, 100), (5, 99)]), [0, 1000]);
        assert_eq!(shares(&[(3, 100), (4, 99)]), [0, 1000]);
        assert!(pick_from(Some(0), true, &pods(&[(0, 100), (0, 100)])).is_none());
        assert!(pick_from(Some(0), true, &[]).is_none());
    }
}
