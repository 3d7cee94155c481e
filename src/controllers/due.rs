//! When each key is to be looked at next: a queue by time, so that to find what is due costs
//! nothing for what is not.

use std::collections::{BTreeMap, BTreeSet};

use sampan_core::plan::{autoscale::Decision, rollout::Ended};
use tokio::time::Instant;

use super::object::Object;

/// When a key is looked at next.
#[derive(Default)]
pub(super) struct Due {
    /// It is being reconciled.
    pub(super) busy: bool,
    pub(super) at: Option<Instant>,
    /// Reconciles in a row that failed.
    pub(super) failures: u32,
    /// The decision of the autoscaler that the present one carries out.
    pub(super) scaled: Option<Decision>,
    /// How the rollout ends with the present one.
    pub(super) ended: Option<Ended>,
}

/// All keys that are being reconciled or are to be.
#[derive(Default)]
pub(super) struct Agenda {
    keys: BTreeMap<Object, Due>,
    /// Those that are not busy, by their time.
    queue: BTreeSet<(Instant, Object)>,
    /// Keys that were looked at to find what is due.
    #[cfg(test)]
    pub(super) visited: u64,
}

impl Agenda {
    /// The keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Object> {
        self.keys.keys()
    }

    /// Has a key looked at by this time. The earlier of two holds.
    pub(super) fn by(&mut self, object: Object, at: Instant) {
        let due = self.keys.entry(object.clone()).or_default();
        let earlier = due.at.map_or(at, |due| due.min(at));
        let last = due.at.replace(earlier);
        if due.busy || last == Some(earlier) {
            return;
        }
        if let Some(last) = last {
            self.queue.remove(&(last, object.clone()));
        }
        self.queue.insert((earlier, object));
    }

    /// Takes all that is due, in the order of its time. Each is to be looked at once.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Object> {
        let mut taken = Vec::new();
        while let Some((at, object)) = self.queue.pop_first() {
            #[cfg(test)]
            {
                self.visited += 1;
            }
            if at > now {
                self.queue.insert((at, object));
                break;
            }
            if let Some(due) = self.keys.get_mut(&object) {
                due.at = None;
            }
            taken.push(object);
        }
        taken
    }

    /// There was nothing to do for a key that was taken.
    pub(super) fn idle(&mut self, object: &Object) {
        if self.keys.get(object).is_some_and(|due| due.at.is_none()) {
            self.keys.remove(object);
        }
    }

    /// A key that was taken is being reconciled from now on. When it is to be looked at again counts
    /// from its end.
    pub(super) fn begin(
        &mut self,
        object: &Object,
        scaled: Option<Decision>,
        ended: Option<Ended>,
    ) {
        let due = self.keys.entry(object.clone()).or_default();
        due.busy = true;
        (due.scaled, due.ended) = (scaled, ended);
        if let Some(at) = due.at {
            self.queue.remove(&(at, object.clone()));
        }
    }

    /// A key is not being reconciled any more. Returns what is known of it as it was, with the
    /// failures that it has now.
    pub(super) fn end(&mut self, object: &Object, failed: bool) -> Due {
        let Some(due) = self.keys.get_mut(object) else {
            return Due::default();
        };
        due.busy = false;
        due.failures = if failed { due.failures + 1 } else { 0 };
        let was = Due {
            scaled: due.scaled.take(),
            ended: due.ended.take(),
            ..*due
        };
        match (due.at, failed) {
            (Some(at), _) => drop(self.queue.insert((at, object.clone()))),
            // How often it has failed is to be known when it is tried again.
            (None, true) => {}
            (None, false) => drop(self.keys.remove(object)),
        }
        was
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sampan_core::name::ServiceKey;

    use super::*;

    fn object(number: u32) -> Object {
        Object::Service(ServiceKey::parse(&format!("shop/s{number}")).expect("a key"))
    }

    #[test]
    fn the_earlier_of_two_times_holds() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        agenda.by(object(1), later);
        agenda.by(object(1), now);
        agenda.by(object(1), later);
        assert_eq!(agenda.next(), Some(now));
        assert_eq!(agenda.take(now), [object(1)]);
        assert_eq!((agenda.take(later), agenda.next()), (vec![], None));
    }

    #[test]
    fn what_is_busy_waits_for_its_end() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.by(object(1), now);
        assert_eq!(agenda.take(now), [object(1)]);
        // It was said when it wants to be looked at again, and begins.
        agenda.by(object(1), now + Duration::from_secs(5));
        agenda.begin(&object(1), None, None);
        agenda.by(object(1), now);
        assert_eq!((agenda.take(now), agenda.next()), (vec![], None));
        assert_eq!(agenda.end(&object(1), false).failures, 0);
        assert_eq!(agenda.take(now), [object(1)]);
        agenda.idle(&object(1));
        assert_eq!(agenda.keys().count(), 0);
    }

    #[test]
    fn failures_in_a_row_are_counted() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.by(object(1), now);
        for failures in 1..4 {
            assert_eq!(agenda.take(now), [object(1)]);
            agenda.begin(&object(1), None, None);
            assert_eq!(agenda.end(&object(1), true).failures, failures);
            agenda.by(object(1), now);
        }
        agenda.take(now);
        agenda.begin(&object(1), None, None);
        agenda.end(&object(1), false);
        assert_eq!(agenda.keys().count(), 0);
    }

    /// A turn of the loop for each of a thousand keys looks at two keys, and not at all of them.
    #[test]
    fn to_find_what_is_due_costs_nothing_for_what_is_not() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        (0..1000).for_each(|number| agenda.by(object(number), later));
        for number in 0..1000 {
            agenda.by(object(number), now);
            for taken in agenda.take(now) {
                agenda.begin(&taken, None, None);
            }
        }
        assert!(agenda.visited <= 2000, "{} keys", agenda.visited);
    }
}
