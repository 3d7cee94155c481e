//! Why a request got no proper answer.

use std::{sync::Arc, time::Duration};

use sampan_core::quantity::format_duration;
use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::template::Template;
use crate::{deadlock::Deadlock, meter::Over, observe::cell::Doomed, sandbox::OverBudget};

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
    /// The guest answered with an error code of `wasi:http`.
    #[error("the guest answered with the error code `{0}`")]
    ErrorCode(String),
    /// The instance ended because of another request in it.
    #[error("the instance ended because of another request: {0}")]
    Neighbour(Box<Failure>),
    /// The pod was stopped while its guest was at the request.
    #[error("the pod was stopped before the answer was whole")]
    Stopped,
    /// No instance could take the request.
    #[error("the pod cannot take the request: {0}")]
    Unavailable(String),
}

impl Failure {
    /// What an error of wasmtime means.
    pub(crate) fn of_error(error: &wasmtime::Error, template: &Template) -> Self {
        if let Some(Doomed(deadlock)) = error.downcast_ref() {
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
        match (error.downcast_ref::<Trap>(), template.fuel()) {
            (Some(Trap::OutOfFuel), Some(fuel)) => Self::OutOfFuel(fuel),
            // The root cause says what happened; what stands above it is the backtrace.
            (Some(trap), _) => {
                let trap = trap.to_string();
                // What the reader is told already.
                Self::Trapped(trap.strip_prefix("wasm trap: ").unwrap_or(&trap).to_owned())
            }
            (None, _) => Self::Trapped(error.root_cause().to_string()),
        }
    }
}

/// A measured time, in seconds.
fn seconds(time: &Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

/// A request that failed before its response began.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct CallError {
    /// Why.
    pub failure: Failure,
    /// Whether the guest had called anything outside by then, so that trying the request again
    /// could do it twice.
    pub called_out: bool,
}
