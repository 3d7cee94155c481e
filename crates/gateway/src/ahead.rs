//! What was read of a request body before its request got a slot of a pod: a slot is for requests
//! that the guest can work on.

use std::{mem, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;

use crate::buffers::{Buffers, Room};

/// The least that is added to a buffer at once.
const STEP: usize = 4 << 10;

/// What has been read of a body and not been given to its pod yet.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// The first piece, as it came.
    first: Bytes,
    /// What came after it. Small pieces are put together: each one apart would hold a buffer of
    /// the connection.
    joined: Vec<u8>,
    /// The last piece, for which there was no more room.
    last: Bytes,
    trailers: Option<HeaderMap>,
    /// Whether nothing more is to come.
    is_whole: bool,
    room: Option<Room>,
}

impl Ahead {
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.joined.len() + self.last.len()
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether it has all of the body and gives nothing more of it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_whole && self.len() == 0 && self.trailers.is_none()
    }

    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) {
        self.trailers = trailers;
        self.is_whole = true;
    }

    /// Whether there is room for another piece.
    pub(crate) fn has_room(&self) -> bool {
        self.last.is_empty()
    }

    /// Adds a piece. The first one is in memory already, and so is one without room, which is the
    /// last: neither counts.
    pub(crate) fn push(&mut self, piece: Bytes, buffers: &Arc<Buffers>) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        let needed = self.joined.len() + piece.len();
        if needed > self.joined.capacity() {
            let capacity = needed.max(self.joined.capacity() * 2).max(STEP);
            let room = self.room.get_or_insert_with(|| Room::new(buffers));
            if !room.grow(capacity - self.joined.capacity()) {
                self.last = piece;
                return;
            }
            self.joined.reserve_exact(capacity - self.joined.len());
        }
        self.joined.extend_from_slice(&piece);
    }

    /// The next part for the pod, empty if there is none.
    pub(crate) fn take(&mut self) -> Bytes {
        if !self.first.is_empty() {
            return mem::take(&mut self.first);
        }
        if !self.joined.is_empty() {
            return Bytes::from(mem::take(&mut self.joined));
        }
        self.room = None;
        mem::take(&mut self.last)
    }

    /// The trailers, once all the rest has been taken.
    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }
}
