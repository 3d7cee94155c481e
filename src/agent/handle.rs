//! What a worker knows of the pods it runs: how one is made, asked, counted and ended.

use std::{sync::Arc, time::Duration};

use sampan_core::{
    histogram::Distribution,
    object::Probe,
    plan::{
        probe::{Outcome, ProbeKind},
        restart::Sample,
    },
};
use sampan_gateway::{Body, UpstreamError};
use sampan_runtime::{
    Usage,
    pod::{PodWatch, Termination},
};

/// A pod as long as it lives: between two restarts it is always the same one.
pub(crate) trait PodHandle: Send + Sync + 'static {
    /// Answers a request.
    fn call(
        self: Arc<Self>,
        request: http::Request<Body>,
        request_id: Arc<str>,
    ) -> impl Future<Output = Result<http::Response<Body>, UpstreamError>> + Send + 'static;

    /// Asks the guest a question.
    fn probe(&self, kind: ProbeKind, probe: &Probe) -> impl Future<Output = Outcome> + Send;

    /// What it has used.
    fn usage(&self) -> Usage;

    /// What each of its requests has cost.
    fn request_cpu(&self) -> Distribution;

    /// Tells the guest that it is to stop. The error is what it says, or that it says nothing.
    fn pre_stop(
        self: Arc<Self>,
        timeout: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send + 'static;

    /// The requests it serves and the waits it is blocked on, for the report of its end.
    fn killed(&self, reason: String) -> Arc<Termination>;

    /// Ends it at once.
    fn end(&self);
}

/// Makes the instances of one pod, one after the other.
pub(crate) trait Maker: Send + Sync + 'static {
    type Handle: PodHandle;

    /// Makes one. `watch` is told what becomes of it. The error is why it cannot be made.
    fn make(
        &self,
        watch: Arc<dyn PodWatch>,
    ) -> impl Future<Output = Result<Self::Handle, String>> + Send;
}

/// How many requests an instance had, and how many of them trapped.
pub(super) fn sample(usage: &Usage) -> Sample {
    Sample {
        // It is asked of pods only whose requests have an instance each.
        requests: usage.instances,
        trapped: usage.killed,
    }
}

/// Usages together; a peak is that of the one with the highest.
pub(crate) fn sum(usages: impl IntoIterator<Item = Usage>) -> Usage {
    usages
        .into_iter()
        .fold(Usage::default(), |sum, usage| Usage {
            cpu: sum.cpu + usage.cpu,
            throttled: sum.throttled + usage.throttled,
            memory_bytes: sum.memory_bytes + usage.memory_bytes,
            memory_peak_bytes: sum.memory_peak_bytes.max(usage.memory_peak_bytes),
            instance_peak_bytes: sum.instance_peak_bytes.max(usage.instance_peak_bytes),
            instances: sum.instances + usage.instances,
            failures: sum.failures + usage.failures,
            killed: sum.killed + usage.killed,
            log_lines_dropped: sum.log_lines_dropped + usage.log_lines_dropped,
        })
}

/// An error with its causes in one line.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
