//! Instances that could be part of a deadlock, on their way to the thread that looks for one.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

/// What has been reported, and whether anything is new since it was last looked at.
pub(crate) struct Suspects<T> {
    reported: Mutex<Reported<T>>,
    wake: Condvar,
}

struct Reported<T> {
    /// By their addresses.
    all: HashMap<usize, Weak<T>>,
    is_new: bool,
}

impl<T> Default for Suspects<T> {
    fn default() -> Self {
        let (all, is_new) = (HashMap::new(), false);
        Self {
            reported: Mutex::new(Reported { all, is_new }),
            wake: Condvar::new(),
        }
    }
}

impl<T> Suspects<T> {
    /// Has the thread look at this one, and at all others.
    pub(crate) fn report(&self, suspect: &Arc<T>) {
        let mut reported = self.reported.lock();
        let known = reported.all.entry(Arc::as_ptr(suspect).addr());
        known.or_insert_with(|| Arc::downgrade(suspect));
        reported.is_new = true;
        self.wake.notify_one();
    }

    /// Has the thread look once more at those it knows.
    pub(crate) fn look_again(&self) {
        self.reported.lock().is_new = true;
    }

    /// Waits for something new, for at most this long. Says whether there is.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let mut reported = self.reported.lock();
        let is_old = |reported: &mut Reported<T>| !reported.is_new;
        self.wake.wait_while_for(&mut reported, is_old, limit);
        std::mem::take(&mut reported.is_new)
    }

    /// All that are there and are suspects still; the others are forgotten.
    pub(crate) fn still(&self, is_suspect: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut found = Vec::new();
        self.reported.lock().all.retain(|_, suspect| {
            let suspect = suspect.upgrade().filter(|it| is_suspect(it));
            found.extend(suspect.clone());
            suspect.is_some()
        });
        found
    }
}
