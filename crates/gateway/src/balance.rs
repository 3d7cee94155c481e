//! Picks a pod: power of two choices on requests in flight.
//!
//! Two random pods are compared and the one with fewer requests in flight wins. That comes close
//! to looking at all of them, and does not send every request to the same momentary minimum.
//!
//! Under load there is a better choice: the pod that serves other requests of the same thread. It
//! runs on that thread next, with all of them in one go. So a thread stays with its own pod while
//! that has few more requests than another one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::endpoint::Endpoint;

/// How many requests more than another pod a thread's own one may have, if that is no more than
/// twice as many.
const HOME_LEAD: u32 = 4;

thread_local! {
    /// The number of this thread among those that balance.
    static THREAD: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Relaxed)
    };
}

/// Takes a slot of a ready endpoint with room. `None` if there is none.
pub(crate) fn pick(endpoints: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
    pick_from(THREAD.with(|number| *number), endpoints)
}

/// As [`pick`], for the thread of this number.
fn pick_from(thread: usize, endpoints: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
    let [first, second] = two_of(endpoints)?;
    let home = &endpoints[thread % endpoints.len()];
    let [a, b] = [first.room(), second.room()];
    let Some(least) = a.into_iter().chain(b).min() else {
        return least_loaded(endpoints, None);
    };
    let is_at_home = home
        .room()
        .is_some_and(|has| (1..=least + least.min(HOME_LEAD)).contains(&has));
    let chosen = match a {
        _ if is_at_home => home,
        Some(a) if b.is_none_or(|b| a <= b) => first,
        _ => second,
    };
    if chosen.try_acquire() {
        return Some(chosen);
    }
    least_loaded(endpoints, None)
}

/// Two different endpoints at random, or twice the only one.
fn two_of(endpoints: &[Arc<Endpoint>]) -> Option<[&Arc<Endpoint>; 2]> {
    match endpoints {
        [] => None,
        [only] => Some([only, only]),
        _ => {
            let first = fastrand::usize(..endpoints.len());
            let step = fastrand::usize(1..endpoints.len());
            Some([
                &endpoints[first],
                &endpoints[(first + step) % endpoints.len()],
            ])
        }
    }
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

    struct Silent;

    impl Upstream for Silent {
        fn call(&self, _: Request<Body>, _: &RequestContext) -> UpstreamFuture {
            Box::pin(std::future::pending())
        }
    }

    /// Ready pods with so many requests in flight each.
    fn pods(in_flight: &[u32]) -> Vec<Arc<Endpoint>> {
        let queue = Arc::<Queue>::default();
        let service = ServiceKey::parse("shop/web").expect("a key");
        let pod = |(slot, count): (u32, &u32)| {
            let name = PodName::new(&service, 1, slot);
            let endpoint = Endpoint::new(name, 1, 100, Arc::new(Silent));
            endpoint.attach(&queue, &crate::stats::Counters::default());
            endpoint.set_state(EndpointState::Ready);
            (0..*count).for_each(|_| assert!(endpoint.try_acquire()));
            endpoint
        };
        (0..).zip(in_flight).map(pod).collect()
    }

    /// How many of 1000 requests of thread 4 each pod gets, while no other load changes.
    fn shares(in_flight: &[u32]) -> Vec<u32> {
        let pods = pods(in_flight);
        let mut counts = vec![0; pods.len()];
        for _ in 0..1000 {
            let chosen = pick_from(4, &pods).expect("there is room");
            chosen.release();
            let index = pods.iter().position(|pod| Arc::ptr_eq(pod, chosen));
            counts[index.expect("one of them")] += 1;
        }
        counts
    }

    #[test]
    fn a_busy_thread_stays_with_its_pod_while_that_has_not_too_many() {
        assert_eq!(shares(&[5, 3]), [1000, 0], "its own may have twice as many");
        assert_eq!(shares(&[6, 3]), [1000, 0]);
        assert_eq!(shares(&[7, 3]), [0, 1000]);
        assert_eq!(shares(&[24, 20]), [1000, 0]);
        assert_eq!(shares(&[25, 20]), [0, 1000]);
        assert_eq!(
            shares(&[1, 0]),
            [0, 1000],
            "who has nothing to do goes first"
        );
    }

    #[test]
    fn without_load_every_pod_gets_its_share() {
        for count in shares(&[0, 0, 0]) {
            assert!(count > 200, "{count} of 1000");
        }
    }

    #[test]
    fn a_full_pod_gets_nothing() {
        assert_eq!(shares(&[100, 99]), [0, 1000]);
        assert!(pick_from(0, &pods(&[100, 100])).is_none());
        assert!(pick_from(0, &[]).is_none());
    }
}
