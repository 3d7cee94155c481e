//! The slots of a service whose holders may wait for their clients, and how they are taken back.
//!
//! One task for each service looks, and only while a request waits and a holder is known. It is
//! started by the request that begins to wait (after `wanted` was stored) and by the holder that
//! becomes known (after it was entered); it says that it has ended, in `is_looked_at`, under the
//! lock under which it saw that one of the two is missing. So either it has seen both, or the later
//! of the two starts it again.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::hold::Holder;

/// The slots of a service whose holders may wait for their clients.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    next_id: u64,
    holders: HashMap<u64, Weak<dyn Holder>>,
    /// Whether a task looks at them.
    is_looked_at: bool,
}

/// A holder that is known, until this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Arc<Holds>,
    id: u64,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.0.lock().holders.remove(&self.id);
    }
}

impl Holds {
    /// Makes a holder known: a request body or an answer that is not whole.
    pub(super) fn add<H: Holder + 'static>(self: &Arc<Self>, holder: &Arc<H>) -> Hold {
        let holder = Arc::downgrade(holder);
        let mut known = self.0.lock();
        let id = known.next_id;
        known.next_id += 1;
        known.holders.insert(id, holder);
        let holds = Arc::clone(self);
        Hold { holds, id }
    }

    /// Whether a task is to begin to look: there is a holder, and no other task looks.
    pub(super) fn begin(&self) -> bool {
        let mut known = self.0.lock();
        let begins = !known.is_looked_at && !known.holders.is_empty();
        known.is_looked_at |= begins;
        begins
    }

    /// The holders for the task that looks. Without one, or if no request waits, it has ended.
    pub(super) fn look(&self, is_contended: impl FnOnce() -> bool) -> Option<Vec<Arc<dyn Holder>>> {
        let mut known = self.0.lock();
        known.is_looked_at = is_contended() && !known.holders.is_empty();
        let holders = known.holders.values().filter_map(Weak::upgrade);
        known.is_looked_at.then(|| holders.collect())
    }
}

/// Takes slots back from slow clients, so many at the most, from the slowest first.
pub(super) fn take_back(holders: Vec<Arc<dyn Holder>>, wanted: usize, most_waiting: u32) {
    let waits = holders.into_iter();
    let mut waits: Vec<_> = waits
        .filter_map(|holder| Some((holder.stall()?, holder)))
        .collect();
    // The more wait for each slot, the less each holder may cost them: together they lose no more
    // than about one pause, however many slow clients stand in the line, before them or behind; and
    // when these are many, no request waits long for one of them.
    let part = (waits.len() as f64 / f64::from(most_waiting))
        .min(1.0)
        .powi(2);
    waits.retain(|(_, holder)| holder.is_slow(part));
    waits.sort_unstable_by_key(|(stall, _)| Reverse(*stall));
    let slow = waits.into_iter().take(wanted);
    slow.for_each(|(_, holder)| holder.take_back());
}
