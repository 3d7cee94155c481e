//! What is found out about an instance that has ended, before its callers are told.

use std::{
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    time::{Instant, SystemTime},
};

use sampan_core::{
    fault::Fault,
    object::{Isolation, ServiceKind},
    quantity::ByteSize,
};
use tokio::time::{Instant as Deadline, error::Elapsed};
use wasmtime::{Store, WasmBacktrace};

use super::{
    completion::{Completion, CompletionGuard, within},
    coredump::{self, Pending},
    failure::Failure,
    inbox::Job,
    inner::PodInner,
    template::Template,
};
use crate::{
    admission::inspect::Wasi,
    host::state::State,
    meter::CpuMeter,
    observe::{cell::Cell, observed::Observed, source::InboundRequest},
    report::{Evidence, HostCall, OpenWait, RequestReport, Termination, stack},
};

/// Bytes of a pod's log that come with the end of an instance.
const LOG_BYTES: usize = 4 << 10;

/// What is over when an instance has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Pod,
    Instance,
}

/// What came of the work of an instance for one request.
pub(super) struct Outcome {
    result: Result<wasmtime::Result<()>, Elapsed>,
    /// What it was waiting for when its time was up.
    waits: Vec<OpenWait>,
}

impl Outcome {
    /// Does the work, at most until the deadline. It stays where it is: futures around it would move
    /// it, and it is large.
    pub(super) async fn of(
        work: Pin<&mut impl Future<Output = wasmtime::Result<()>>>,
        cell: &Arc<Cell>,
        deadline: Option<Deadline>,
    ) -> Self {
        let mut work = pin!(Observed::new(work, Arc::clone(cell)));
        let result = within(deadline, work.as_mut()).await;
        let waits = match &result {
            Ok(_) => Vec::new(),
            // As long as the work is there.
            Err(_) => cell.waits().open(),
        };
        Self { result, waits }
    }

    /// Why it came to no good end, if it did not. `unfinished` says whether the guest still has a
    /// body to write.
    pub(super) fn failure(
        &self,
        completion: &Completion,
        unfinished: bool,
        template: &Template,
    ) -> Option<Failure> {
        match &self.result {
            // Some guests can answer only once, and say nothing from then on.
            Ok(Ok(())) if !completion.is_answered() && completion.is_withdrawn() => None,
            Ok(Ok(())) if !completion.is_answered() => Some(Failure::NoResponse),
            // Nothing runs in it any more, so nothing would ever end that body.
            Ok(Ok(())) if unfinished => Some(Failure::Unfinished),
            Ok(Ok(())) => None,
            Ok(Err(error)) => {
                let failure = Failure::of_error(error, template);
                Some(match completion.is_begun() {
                    true => failure,
                    false => failure.of_making(),
                })
            }
            Err(_) => Some(Failure::TimedOut(template.request_timeout)),
        }
    }

    /// What wasmtime says, if that is how it ended.
    pub(super) fn into_error(self) -> Option<wasmtime::Error> {
        self.result.ok().and_then(Result::err)
    }
}

/// What a failure means for the driver of the instance.
pub(super) struct Recorded {
    pub(super) scope: Scope,
    /// The dump that is to be made of the instance, once all callers have been told.
    pub(super) dump: Option<Pending>,
}

/// An instance that has ended badly.
pub(super) struct InstanceEnd<'a> {
    pub(super) failure: &'a Failure,
    /// What wasmtime says, with the guest's stack in it.
    pub(super) error: Option<&'a wasmtime::Error>,
    /// The store, if it was made.
    pub(super) store: Option<&'a Store<State>>,
    /// The requests it was at.
    pub(super) requests: &'a [Arc<InboundRequest>],
    pub(super) waits: Vec<OpenWait>,
    /// Whether the caller has been told of another failure already.
    pub(super) already_reported: bool,
    /// Whether another instance has its place already: then the pod lives on.
    pub(super) has_successor: bool,
}

impl PodInner {
    /// Reports on a pod that is going to be ended from outside.
    pub(super) fn killed(&self, reason: String) -> Arc<Termination> {
        self.condemned.store(true, Ordering::Release);
        let mut evidence = Evidence {
            cpu_budget: self.template.sandbox.request_cpu,
            log: self.context.log.tail(LOG_BYTES),
            ..Evidence::default()
        };
        if let Some(cell) = self.instance() {
            let waits = cell.waits();
            evidence.requests = waits
                .requests
                .iter()
                .map(|inbound| request(inbound))
                .collect();
            evidence.waits = waits.open();
            evidence.note_cpu(&cell.cpu);
        }
        evidence.memory_bytes = self.context.meter.usage().memory_bytes;
        evidence.memory_limit_bytes = self.template.sandbox.memory_bytes;
        Termination::unhealthy(self.context.log.pod().clone(), reason, evidence)
    }

    /// No instance could be made to do this job. If that is the host's fault, the pod is only without
    /// one for now.
    pub(super) fn unmade(&self, failure: Failure, job: Option<Job>) -> Scope {
        let inbound = job
            .as_ref()
            .map(|job| Arc::clone(job.guard.completion().inbound()));
        let scope = match failure.is_of_host() {
            true => {
                self.say(inbound.and_then(|inbound| inbound.id.clone()), &failure);
                Scope::Instance
            }
            false => {
                self.record_failure(InstanceEnd {
                    failure: &failure,
                    error: None,
                    store: None,
                    requests: inbound.as_slice(),
                    waits: Vec::new(),
                    already_reported: false,
                    has_successor: false,
                });
                Scope::Pod
            }
        };
        if let Some(job) = job {
            job.guard.fail(failure, |_| {});
        }
        scope
    }

    /// Accounts for an instance that failed, and tells the pod's watch. Says what is over with it.
    ///
    /// To be called before a caller is told of the failure, so that the pod is out of rotation when
    /// it is.
    pub(super) fn record_failure(&self, ended: InstanceEnd<'_>) -> Recorded {
        let failure = ended.failure;
        let refused = ended
            .store
            .is_some_and(|it| it.data().limiter.refused().is_some());
        let verdict = match failure.fault() {
            Fault::Trapped if refused => Fault::OutOfMemory,
            fault => fault,
        };
        let exit_code = match failure {
            Failure::Exited(code) => Some(*code),
            _ => None,
        };
        if exit_code != Some(0) {
            self.context.meter.count_failure(verdict.ends_pod());
        }
        // Before the log says what is in here anyway.
        let mut evidence = self
            .context
            .may_look()
            .then(|| self.gather_evidence(&ended));
        let mut dump = None;
        if let Some(evidence) = &mut evidence {
            (evidence.coredump, dump) =
                coredump::consider(self, ended.store, ended.error, verdict).unzip();
        }
        if !ended.already_reported {
            let request = match ended.requests {
                [only] => only.id.clone(),
                _ => None,
            };
            self.say(request, failure);
        }
        let mut reason = match failure {
            Failure::Deadlocked(deadlock) => deadlock.to_string(),
            other => other.to_string(),
        };
        if let (Fault::TimedOut, Some(wait)) = (verdict, ended.waits.first()) {
            reason = format!(
                "{reason}; it was waiting in `{}` for {}",
                wait.function, wait.on
            );
        }
        if verdict == Fault::OutOfMemory {
            let limit = ByteSize(self.template.sandbox.memory_bytes);
            reason = format!("its memory limit of {limit} refused it more; {reason}");
        }
        let termination = Arc::new(Termination {
            pod: self.context.log.pod().clone(),
            verdict,
            exit_code,
            reason,
            at: SystemTime::now(),
            evidence: evidence.map(Box::new),
        });
        let is_all = self.template.isolation() == Isolation::Pod && !ended.has_successor;
        // A command has no next request for which another instance could be made.
        let is_over = verdict.ends_pod() || self.template.kind() == ServiceKind::Command;
        let scope = if is_over && is_all {
            self.watch.terminated(&termination);
            Scope::Pod
        } else {
            self.watch.instance_failed(&termination);
            Scope::Instance
        };
        Recorded {
            scope,
            dump: dump.flatten(),
        }
    }

    /// Accounts for an instance that was at one request only, and tells its caller. `is_open` says
    /// whether the guest still has a body to write.
    pub(super) fn close(
        &self,
        outcome: &Outcome,
        failure: Failure,
        store: &Store<State>,
        guard: CompletionGuard,
        is_open: bool,
    ) -> Recorded {
        let completion = guard.completion();
        let recorded = self.record_failure(InstanceEnd {
            failure: &failure,
            error: outcome
                .result
                .as_ref()
                .ok()
                .and_then(|it| it.as_ref().err()),
            store: Some(store),
            requests: std::slice::from_ref(completion.inbound()),
            waits: outcome.waits.clone(),
            already_reported: completion.failure().is_some(),
            has_successor: false,
        });
        if completion.is_answered() && !is_open && self.template.wasi == Wasi::P2 {
            // A guest that died after finishing its response has answered all the same.
            guard.well();
        } else {
            guard.fail(failure, |_| {});
        }
        recorded
    }

    fn gather_evidence(&self, ended: &InstanceEnd<'_>) -> Evidence {
        let log = self.context.log.tail(LOG_BYTES);
        let backtrace = ended
            .error
            .and_then(|error| error.downcast_ref::<WasmBacktrace>());
        let mut evidence = Evidence {
            requests: ended
                .requests
                .iter()
                .map(|inbound| request(inbound))
                .collect(),
            backtrace: backtrace.map(stack::frames).unwrap_or_default(),
            component: self.template.loaded.file.clone(),
            cpu_budget: self.template.sandbox.request_cpu,
            waits: ended.waits.clone(),
            log,
            deadlock: match ended.failure {
                Failure::Deadlocked(deadlock) => Some(Arc::clone(deadlock)),
                _ => None,
            },
            ..Evidence::default()
        };
        let Some(store) = ended.store else {
            return evidence;
        };
        let state = store.data();
        let now = Instant::now();
        evidence.samples = state.samples.clone();
        evidence.note_cpu(&state.cell.cpu);
        evidence.late = match ended.failure {
            Failure::Spinning(_) | Failure::Busy { .. } => Some(state.cell.cpu.late()),
            _ => None,
        };
        let left = || store.get_fuel().unwrap_or(0);
        let fuel = self.template.fuel;
        evidence.fuel = fuel.map(|all| (all.saturating_sub(left()), all));
        (evidence.memory_bytes, evidence.memory_limit_bytes) = state.limiter.held();
        evidence.memory_refused_bytes = state.limiter.refused();
        evidence.host_calls = state.recorder.made();
        let call = |(function, at): (_, Instant)| HostCall {
            function,
            before: now.saturating_duration_since(at),
        };
        evidence.last_host_calls = state.recorder.last().map(call).collect();
        evidence
    }
}

impl Evidence {
    fn note_cpu(&mut self, cpu: &CpuMeter) {
        let waited = cpu.waited();
        self.cpu = cpu.spent();
        self.waits_ended = waited.times;
        self.waited = waited.time;
        self.cpu_since_wait = waited.cpu_since;
    }
}

fn request(inbound: &InboundRequest) -> RequestReport {
    RequestReport {
        id: inbound.id.clone(),
        line: inbound.line(),
        since: inbound.since.elapsed(),
    }
}
