//! A wait until a moment, to some microseconds: tokio's own clock goes by milliseconds.

use std::{io, os::fd::OwnedFd, time::Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;

/// A timer of the system.
pub(super) struct Pacer(OwnedFd);

impl Pacer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Makes it one that can be waited for on this thread.
    pub(super) fn ready(self) -> io::Result<Waiting> {
        // A timer is read like a pipe: eight bytes when its time has come, and nothing before.
        Ok(Waiting(Receiver::from_owned_fd_unchecked(self.0)?))
    }
}

/// One that can be waited for.
pub(super) struct Waiting(Receiver);

impl Waiting {
    /// Resolves at this moment, at once if it is over.
    pub(super) async fn until(&self, due: Instant) -> io::Result<()> {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // The connections have a turn even if the pace cannot be kept.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let once = Itimerspec {
            it_interval: none,
            it_value: value,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            self.0.readable().await?;
            match self.0.try_read(&mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}
