//! What the gateway keeps of bodies on their way, so that no pod waits for a slow client. There is
//! one account for the whole node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::Limits;

/// How slow a client may be while others wait for its slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Time that it may be waited for.
    pub(crate) pause: Duration,
    /// Bytes that it has to send or read for each second of that to come back.
    pub(crate) rate: u64,
}

/// The account of the bytes that are read ahead.
#[derive(Debug)]
pub(crate) struct Buffers {
    used: AtomicUsize,
    total: usize,
    /// Bytes that may be read of one request body before its request has a slot.
    pub(crate) request: usize,
    /// Bytes that may be read of one answer whose client does not read.
    pub(crate) answer: usize,
    pub(crate) terms: Terms,
    /// What one client may have of the slots of a service, in percent.
    pub(crate) client_share: u32,
}

impl Buffers {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            total: limits.read_ahead_total,
            request: limits.body_read_ahead,
            answer: limits.answer_read_ahead,
            terms: Terms {
                pause: limits.contended_pause,
                rate: limits.contended_min_rate,
            },
            client_share: limits.client_share,
        })
    }

    /// Bytes that are held now.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }
}

impl Default for Buffers {
    fn default() -> Self {
        // Nothing else has a share in it yet.
        Arc::into_inner(Self::new(&Limits::default())).expect("one owner")
    }
}

/// A part of the account, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    buffers: Arc<Buffers>,
    bytes: usize,
}

impl Room {
    /// Room for nothing yet.
    pub(crate) fn new(buffers: &Arc<Buffers>) -> Self {
        Self {
            buffers: Arc::clone(buffers),
            bytes: 0,
        }
    }

    /// Takes so many bytes more, if they are there.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let total = self.buffers.total;
        let grown = |used: usize| used.checked_add(bytes).filter(|used| *used <= total);
        let is_there = self
            .buffers
            .used
            .fetch_update(Relaxed, Relaxed, grown)
            .is_ok();
        if is_there {
            self.bytes += bytes;
        }
        is_there
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.buffers.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_hold_no_more_than_the_total_and_give_it_back() {
        let buffers = Buffers::new(&Limits {
            read_ahead_total: 10,
            ..Limits::default()
        });
        let (mut one, mut other) = (Room::new(&buffers), Room::new(&buffers));
        assert!(one.grow(6) && other.grow(4));
        assert!(!one.grow(1) && !other.grow(usize::MAX));
        assert_eq!(buffers.used(), 10);
        drop(one);
        assert_eq!(buffers.used(), 4);
        assert!(other.grow(6));
        drop(other);
        assert_eq!(buffers.used(), 0);
    }
}
