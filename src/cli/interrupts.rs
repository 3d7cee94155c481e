//! The signals that ask this program to stop.

use std::fs;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask to stop: Ctrl-C, the one of service managers, Ctrl-\\, and the one that says
/// that the terminal is gone.
///
/// From when this is made, none of them ends the program by itself: so it is made before the
/// program says that there is something to stop.
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// Not if the program was started with it ignored, as shells do in the background.
    quit: Option<Signal>,
    /// Not if the program was started with it ignored, as by `nohup`: then it outlives the terminal.
    hangup: Option<Signal>,
    /// Whether a signal asked that a person or a service manager sends on purpose.
    is_asked: bool,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interrupt(SignalKind);

impl Interrupt {
    /// The exit code of a program that it has ended, as shells count it: 128 and its number.
    pub(super) fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0.as_raw_value()).unwrap_or(u8::MAX)
    }
}

impl Interrupts {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let unless_ignored = |kind: SignalKind| match is_in(ignored, kind) {
            true => Ok(None),
            false => listen(kind).map(Some),
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            quit: unless_ignored(SignalKind::quit())?,
            hangup: unless_ignored(SignalKind::hangup())?,
            is_asked: false,
        })
    }

    /// Waits for the first signal. One that came before counts.
    pub(super) async fn next(&mut self) -> Interrupt {
        let kind = self.any().await;
        self.is_asked = kind != SignalKind::hangup();
        Interrupt(kind)
    }

    /// Waits for a signal that says again what the first one said: now at once.
    ///
    /// A terminal that goes says so once by itself and once through its shell, and service managers
    /// say it after they have asked: so that it is gone never counts as a second time.
    pub(super) async fn again(&mut self) -> Interrupt {
        loop {
            let kind = self.any().await;
            if kind == SignalKind::hangup() {
                continue;
            }
            if self.is_asked {
                return Interrupt(kind);
            }
            self.is_asked = true;
        }
    }

    async fn any(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            () = received(&mut self.quit) => SignalKind::quit(),
            () = received(&mut self.hangup) => SignalKind::hangup(),
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that a process ignores, a bit each, from its status: proc_pid_status(5).
fn ignored(status: &str) -> u64 {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

fn is_in(mask: u64, kind: SignalKind) -> bool {
    mask & (1 << (kind.as_raw_value() - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_the_status() {
        let status = "Name:\tsampan\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001005\n";
        let mask = ignored(status);
        assert!(is_in(mask, SignalKind::hangup()));
        assert!(!is_in(mask, SignalKind::interrupt()));
        assert!(is_in(mask, SignalKind::quit()));
        assert_eq!(ignored("Name:\tsampan\n"), 0);
        assert_eq!(ignored("SigIgn:\tnonsense\n"), 0);
    }

    #[test]
    fn exit_codes_are_those_of_shells() {
        let codes = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
        ];
        assert_eq!(
            codes.map(|kind| Interrupt(kind).exit_code()),
            [129, 130, 143]
        );
    }
}
