//! Why a request got no proper answer.

use std::{sync::Arc, time::Duration};

use sampan_core::{fault::Fault, quantity::format_duration};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::template::Template;
use crate::{meter::Over, observe::cell::DeadlockVictim, report::Deadlock, watchdog::OverBudget};

/// Why a request got no proper answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The guest trapped.
    #[error("the guest trapped: {0}")]
    Trapped(String),
    /// The guest burned its `request_cpu` without a wait.
    #[error(
        "killed for spinning: the guest used more than its `request_cpu` of {} without a wait",
        format_duration(*.0)
    )]
    Spinning(Duration),
    /// The guest computed for far longer than it waited.
    #[error(
        "killed for spinning: the guest computed for {} and waited for {}, which is far more than \
         half of the time with a `request_cpu` of {}; `request_cpu = \"0s\"` lets it",
        seconds(.used), seconds(.waited), format_duration(*.budget)
    )]
    Busy {
        /// CPU time of the request.
        used: Duration,
        /// Time in which it waited.
        waited: Duration,
        /// Its `request_cpu`.
        budget: Duration,
    },
    /// The guest burned its `fuel`.
    #[error("killed: the guest used more than its `fuel` of {0}")]
    OutOfFuel(u64),
    /// The command ended by itself.
    #[error("the command ended with exit code {0}")]
    Exited(i32),
    /// A request came to a command.
    #[error("the component runs `wasi:cli/run`, and answers no requests")]
    NoHandler,
    /// The guest waited for what could never come.
    #[error("stopped as the victim of a proven deadlock")]
    Deadlocked(Arc<Deadlock>),
    /// The deadline came first.
    #[error("timed out: no whole answer within `request_timeout` of {}", format_duration(*.0))]
    TimedOut(Duration),
    /// The guest returned without an answer.
    #[error("the guest returned without a response")]
    NoResponse,
    /// The guest returned without ending the body of its response.
    #[error("the guest returned without finishing its response body")]
    Unfinished,
    /// The guest returned without a response, and its instance had answered a request before.
    #[error(
        "the guest answered nothing, though its instance had answered a request before: some \
         components, as those made of JavaScript, answer one request an instance; with \
         `isolation = \"request\"` or `max_requests = 1` each request has one of its own"
    )]
    OnlyOnce,
    /// The guest answered with an error code of `wasi:http`.
    #[error("the guest answered with the error code `{0}`")]
    ErrorCode(String),
    /// The guest's answer has no form in which a client could be sent it.
    #[error("the guest's answer cannot be sent: {0}")]
    Unsendable(String),
    /// The request has no form in which a guest could be given it.
    #[error("the request cannot be given to a guest: {0}")]
    Inexpressible(String),
    /// The host failed while no guest ran. It says nothing about the guest.
    #[error("the host failed while no code of the guest ran: {0}")]
    Host(String),
    /// The instance ended because of another request in it.
    #[error("the instance ended because of another request: {0}")]
    Neighbour(Box<Failure>),
    /// The pod was stopped while its guest was at the request.
    #[error("the pod was stopped before the answer was whole")]
    Stopped,
    /// The guest does not get ready for its first request in time.
    #[error("its instance takes longer than {} to start", format_duration(*.0))]
    SlowStart(Duration),
    /// No instance could take the request, and that is no fault of the guest.
    #[error("the pod cannot take the request: {0}")]
    Unavailable(String),
}

impl Failure {
    /// What an error of wasmtime means.
    pub(crate) fn of_error(error: &wasmtime::Error, template: &Template) -> Self {
        if let Some(DeadlockVictim(deadlock)) = error.downcast_ref() {
            return Self::Deadlocked(Arc::clone(deadlock));
        }
        if let Some(OverBudget(over)) = error.downcast_ref() {
            let budget = template.sandbox.request_cpu;
            return match *over {
                Over::Burst => Self::Spinning(budget),
                Over::Rate { used, waited } => Self::Busy {
                    used,
                    waited,
                    budget,
                },
            };
        }
        if let Some(limit) = error.downcast_ref::<PoolConcurrencyLimitError>() {
            return Self::Unavailable(limit.to_string());
        }
        match (error.downcast_ref::<Trap>(), template.fuel) {
            (Some(Trap::OutOfFuel), Some(fuel)) => Self::OutOfFuel(fuel),
            // The root cause says what happened; what stands above it is the backtrace.
            (Some(trap), _) => {
                let trap = trap.to_string();
                // What the reader is told already.
                Self::Trapped(trap.strip_prefix("wasm trap: ").unwrap_or(&trap).to_owned())
            }
            (None, _) => Self::of_no_trap(error),
        }
    }

    /// What an error means that is no trap. Only what a guest sets off is its own: it calls a function
    /// of the host that fails, or asks for its own end. Without a guest on the stack the host was at
    /// work.
    fn of_no_trap(error: &wasmtime::Error) -> Self {
        let text = error.root_cause().to_string();
        match error.is::<WasmBacktrace>() || error.is::<I32Exit>() {
            true => Self::Trapped(text),
            false => Self::Host(text),
        }
    }

    /// The fault that a client and the pod's record have of it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Trapped(_) => Fault::Trapped,
            Self::Spinning(_) | Self::Busy { .. } => Fault::Spinning,
            Self::OutOfFuel(_) => Fault::OutOfFuel,
            Self::Exited(_) => Fault::Exited,
            Self::NoHandler => Fault::NoHandler,
            Self::Deadlocked(_) => Fault::Deadlocked,
            Self::TimedOut(_) => Fault::TimedOut,
            Self::NoResponse
            | Self::OnlyOnce
            | Self::Unfinished
            | Self::ErrorCode(_)
            | Self::Unsendable(_) => Fault::NoResponse,
            Self::Stopped => Fault::Stopped,
            Self::Inexpressible(_) => Fault::BadRequest,
            Self::Host(_) => Fault::Host,
            Self::Unavailable(_) => Fault::Unavailable,
            Self::SlowStart(_) => Fault::Unstartable,
            Self::Neighbour(failure) => match failure.fault() {
                // It was not this request that used the CPU.
                Fault::Spinning | Fault::OutOfFuel => Fault::Trapped,
                fault => fault,
            },
        }
    }

    /// Whether the host or the request is the reason. Then it is no end of a guest: nothing is
    /// counted against the pod.
    pub(super) fn is_of_host(&self) -> bool {
        matches!(
            self,
            Self::Host(_) | Self::Inexpressible(_) | Self::Unavailable(_)
        )
    }

    /// The same of an instance that could not be made: then a fault of the host is that it has
    /// none to offer.
    pub(super) fn of_making(self) -> Self {
        match self {
            Self::Host(text) => Self::Unavailable(text),
            other => other,
        }
    }
}

/// A measured time, in seconds.
fn seconds(time: &Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_without_a_guest_on_the_stack_is_the_hosts() {
        let hosts = wasmtime::Error::msg("no memory").context("making a fiber");
        let failure = Failure::of_no_trap(&hosts);
        assert_eq!(failure, Failure::Host("no memory".to_owned()));
        assert!(failure.is_of_host());
        // Where an instance is made, that is one that the host has not.
        let of_making = failure.of_making();
        assert_eq!(of_making, Failure::Unavailable("no memory".to_owned()));
        assert!(of_making.is_of_host());
        let exit = wasmtime::Error::new(I32Exit(1));
        assert!(matches!(Failure::of_no_trap(&exit), Failure::Trapped(_)));
    }

    #[test]
    fn what_a_guest_does_stays_its_own_where_an_instance_is_made() {
        let second = Duration::from_secs(1);
        for failure in [
            Failure::Trapped("unreachable".to_owned()),
            Failure::Spinning(second),
            Failure::SlowStart(second),
            Failure::NoResponse,
            Failure::TimedOut(second),
        ] {
            assert!(!failure.is_of_host(), "{failure}");
            assert_eq!(failure.clone().of_making(), failure);
        }
    }
}
