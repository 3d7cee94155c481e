//! The bytes of a connection: what comes in is noted, and the end is what it has to be.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::has_budget_remaining,
    time::{Sleep, sleep},
};

use super::{Transport, wire::Wire};
use crate::{Limits, peer::Peer, stall::Stall};

/// Bytes that are dropped at once.
const DROPPED_BYTES: usize = 4 << 10;
/// How often that is done before other tasks have their turn.
const DROPS_A_TURN: u32 = 16;

/// A transport that tells its peer record what comes in, and ends as that asks.
pub(super) struct Watched<T: Transport> {
    io: T,
    wire: Wire,
    /// Whether the client has said that it sends no more.
    is_ended: bool,
    peer: Arc<Peer>,
    write: Stall,
    /// How long the client may read nothing.
    patience: Duration,
    /// How long it has to close its end after the last answer.
    linger: Duration,
    /// The end of that time, once the last answer was sent.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<T: Transport> Watched<T> {
    pub(super) fn new(io: T, peer: Arc<Peer>, limits: &Limits) -> Self {
        Self {
            io,
            wire: Wire::new(),
            is_ended: false,
            peer,
            write: Stall::default(),
            patience: limits.write_idle_timeout,
            linger: limits.linger,
            lingering: None,
        }
    }

    /// Reads and drops what comes in until the client closes its end or time is up. The system
    /// answers bytes that come to a closed socket with a reset, which destroys what the client has
    /// not read yet: RFC 9112 §9.6.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger;
        let end = self
            .lingering
            .get_or_insert_with(|| Box::pin(sleep(linger)));
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        for _ in 0..DROPS_A_TURN {
            let mut bytes = [0; DROPPED_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Passes on how writing went, unless the client has kept it waiting for too long.
    fn written<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            if self.write.over() > Duration::ZERO {
                self.peer.blocked(false);
                self.peer.progressed();
            }
            return written;
        }
        self.peer.blocked(true);
        ready!(self.write.poll(cx, self.patience));
        self.peer.stalled();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: Transport> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        match &read {
            Poll::Ready(Ok(())) if buffer.filled().len() == before && !self.is_ended => {
                // That may have come together with a request. hyper would take it for a client that
                // has gone, and drop the request before it has been worked on at all.
                self.is_ended = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(_) if buffer.filled().len() > before => {
                let received = &mut buffer.filled_mut()[before..];
                self.peer.received(received);
                if let Some(number) = self.wire.read(received) {
                    self.peer.found_two_lengths(number);
                }
            }
            // It may be that this task has had its turn, and not that nothing is there.
            Poll::Pending if has_budget_remaining() => self.peer.starved(),
            Poll::Pending | Poll::Ready(_) => {}
        }
        read
    }
}

impl<T: Transport> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly end would speak for an answer that is not whole.
        if self.peer.must_reset() {
            return Poll::Ready(Ok(()));
        }
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            if self.peer.is_left() {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_linger(cx).map(Ok)
    }
}

impl<T: Transport> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.peer.must_reset() {
            self.io.reset_on_drop();
        }
    }
}
