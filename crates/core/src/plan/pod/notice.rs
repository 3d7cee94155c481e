//! What is told of a pod: a reason for programs, a text for people.

use std::time::Duration;

use crate::{
    event::Reason,
    object::{RestartPolicy, ServiceKind},
    plan::{
        probe::ProbeKind,
        restart::{CRASH_LOOP, End},
    },
    quantity::format_duration,
    time::Took,
};

/// A change of a pod, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// For programs.
    pub reason: Reason,
    /// For people: a sentence whose subject is the pod.
    pub text: String,
}

/// `liveness probe failed 3 times in a row: status 500`.
pub(super) fn failed_in_a_row(kind: ProbeKind, row: u32, why: &str) -> String {
    match row {
        1 => format!("{kind} failed: {why}"),
        row => format!("{kind} failed {row} times in a row: {why}"),
    }
}

impl Notice {
    fn new(reason: Reason, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { reason, text }
    }

    pub(super) fn started(next: ProbeKind) -> Self {
        Self::new(Reason::Started, format!("started, waiting for its {next}"))
    }

    pub(super) fn start_failed(why: &str) -> Self {
        Self::new(Reason::Failed, format!("cannot start: {why}"))
    }

    pub(super) fn terminated(end: &End) -> Self {
        match end {
            End::Well => Self::new(Reason::Completed, "ended by itself, with exit code 0"),
            End::Failed(why) => Self::new(Reason::Failed, format!("failed: {why}")),
        }
    }

    pub(super) fn killing(why: &str) -> Self {
        Self::new(Reason::Killing, format!("killed: {why}"))
    }

    pub(super) fn ready_after(took: Duration) -> Self {
        Self::new(Reason::Ready, format!("ready after {}", Took(took)))
    }

    pub(super) fn ready() -> Self {
        Self::new(Reason::Ready, "ready")
    }

    pub(super) fn unready(why: String) -> Self {
        Self::new(Reason::Unready, format!("not ready: {why}"))
    }

    pub(super) fn unhealthy(kind: ProbeKind, failures: u32, why: &str) -> Self {
        let text = format!("{kind} failed, the first time of {failures}: {why}");
        Self::new(Reason::Unhealthy, text)
    }

    pub(super) fn starved(kind: ProbeKind, times: u64) -> Self {
        let plural = if times == 1 { "" } else { "s" };
        let text = format!(
            "{kind} does not count, because the pod got no CPU: {times} time{plural} so far"
        );
        Self::new(Reason::Starved, text)
    }

    pub(super) fn back_off(streak: u32, delay: Duration, end: &End) -> Self {
        let next = format!("next try in {}", format_duration(delay));
        let what = match end {
            End::Well => "ends",
            End::Failed(_) => "failures",
        };
        match streak >= CRASH_LOOP {
            true => Self::new(
                Reason::CrashLoopBackOff,
                format!("CrashLoopBackOff: {next}, after {streak} {what} in a row"),
            ),
            false => Self::new(Reason::BackOff, format!("BackOff: {next}")),
        }
    }

    pub(super) fn unprepared(failures: u32, delay: Duration) -> Self {
        let next = format_duration(delay);
        let text = match failures {
            1 => format!("BackOff: next try in {next}"),
            failures => format!("BackOff: next try in {next}, after {failures} failures in a row"),
        };
        Self::new(Reason::BackOff, text)
    }

    pub(super) fn restarting(restarts: u32) -> Self {
        Self::new(
            Reason::Restarting,
            format!("restarting, restart {restarts}"),
        )
    }

    pub(super) fn not_restarted(policy: RestartPolicy) -> Self {
        let policy = match policy {
            RestartPolicy::Always => "always",
            RestartPolicy::OnFailure => "on-failure",
            RestartPolicy::Never => "never",
        };
        let text = format!("stopped, and not restarted: its restart policy is `{policy}`");
        Self::new(Reason::Stopped, text)
    }

    pub(super) fn draining(in_flight: u32) -> Self {
        let plural = if in_flight == 1 { "" } else { "s" };
        let text = format!("draining, {in_flight} request{plural} in flight");
        Self::new(Reason::Draining, text)
    }

    pub(super) fn stopped() -> Self {
        Self::new(Reason::Stopped, "stopped")
    }

    pub(super) fn cut_off(kind: ServiceKind, drain: Duration) -> Self {
        let drain = format_duration(drain);
        let text = match kind {
            ServiceKind::Http | ServiceKind::Static => {
                format!("stopped: requests were still in flight after {drain}")
            }
            ServiceKind::Command => format!("stopped: it had not ended by itself after {drain}"),
        };
        Self::new(Reason::Stopped, text)
    }

    pub(super) fn ended_while_draining(end: &End) -> Self {
        let text = match end {
            End::Well => "stopped: it ended by itself while draining".to_owned(),
            End::Failed(why) => format!("stopped: it failed while draining: {why}"),
        };
        Self::new(Reason::Stopped, text)
    }
}
