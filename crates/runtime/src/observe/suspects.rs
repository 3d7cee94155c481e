//! Instances that could be part of a deadlock, on their way to the thread that looks for one.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

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
    fn lock(&self) -> MutexGuard<'_, Reported<T>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread look at this one, and at all others.
    pub(crate) fn report(&self, suspect: &Arc<T>) {
        let mut reported = self.lock();
        let known = reported.all.entry(Arc::as_ptr(suspect).addr());
        known.or_insert_with(|| Arc::downgrade(suspect));
        reported.is_new = true;
        self.wake.notify_one();
    }

    /// Has the thread look once more at those it knows.
    pub(crate) fn look_again(&self) {
        self.lock().is_new = true;
    }

    /// Waits for something new, for at most this long. Says whether there is.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let is_old = |reported: &mut Reported<T>| !reported.is_new;
        let waited = self.wake.wait_timeout_while(self.lock(), limit, is_old);
        let (mut reported, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut reported.is_new)
    }

    /// All that are there and are suspects still; the others are forgotten.
    pub(crate) fn still(&self, is_suspect: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut found = Vec::new();
        self.lock().all.retain(|_, suspect| {
            let suspect = suspect.upgrade().filter(|it| is_suspect(it));
            found.extend(suspect.clone());
            suspect.is_some()
        });
        found
    }
}
