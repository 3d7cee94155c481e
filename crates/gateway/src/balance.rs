//! Picks a pod: power of two choices on requests in flight.
//!
//! Two random pods are compared and the one with fewer requests in flight wins. That comes close
//! to looking at all of them, and does not send every request to the same momentary minimum.

use std::sync::Arc;

use crate::endpoint::Endpoint;

/// Takes a slot of a ready endpoint with room. `None` if there is none.
pub(crate) fn pick(endpoints: &[Arc<Endpoint>]) -> Option<&Arc<Endpoint>> {
    let [first, second] = two_of(endpoints)?;
    let chosen = match (first.room(), second.room()) {
        (Some(a), Some(b)) if b < a => Some(second),
        (Some(_), _) => Some(first),
        (None, Some(_)) => Some(second),
        (None, None) => None,
    };
    if let Some(chosen) = chosen
        && chosen.try_acquire()
    {
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
        // Somebody else may have taken its last slot. Then look again: each round means that
        // another request made progress.
        if least.try_acquire() {
            return Some(least);
        }
    }
}
