//! Probes: questions that the guest itself must answer.

use std::{pin::pin, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Empty};
use sampan_core::{
    object::{Check, Isolation, ServiceKind},
    plan::probe::ProbeKind,
    quantity::format_duration,
};
use tokio::{sync::oneshot::Receiver, time::Instant};

use super::{
    completion::{Completion, Head},
    request::{CallError, Expressible, Task},
    running::Pod,
};
use crate::{
    exports::Question,
    neighbours::Body,
    observe::{cell::Cell, source::InboundRequest},
};

/// What a probe says of itself in `User-Agent`.
const USER_AGENT: &str = concat!("sampan-probe/", env!("CARGO_PKG_VERSION"));

/// Thousandths of a core in a core.
const MILLIS: u32 = 1000;

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// The guest said yes.
    Success,
    /// The guest said no, or nothing in time.
    Failure(String),
    /// The guest had no CPU to answer with: this says nothing about it.
    Starved,
}

impl Pod {
    /// Asks the guest a question.
    ///
    /// With `isolation = "pod"` it goes to the very instance, before the requests that wait for
    /// it; else to an instance of its own. An HTTP probe succeeds with a status from 200 to 399;
    /// redirects are not followed, as in
    /// [Kubernetes](https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/).
    ///
    /// `timeout` is wall-clock time without that in which the instance is held back by
    /// `limits.cpu`: a guest that computes gets as much CPU to answer with as without that limit.
    pub async fn probe(&self, check: &Check, kind: ProbeKind, timeout: Duration) -> Probed {
        let begun = Instant::now();
        let longest = self.longest(timeout);
        let (task, inbound) = match self.task(check, kind) {
            Ok(both) => both,
            Err(reason) => return Probed::Failure(reason),
        };
        let (completion, answer) = Completion::new(&inbound, task);
        let watch = ProbeWatch::begin(self, &completion);
        let mut exchange = pin!(self.ask((completion, answer), begun + longest));
        let mut until = begun + timeout;
        loop {
            if let Ok(probed) = tokio::time::timeout_at(until, &mut exchange).await {
                return probed;
            }
            let held = watch.held();
            let more = begun + (timeout + held).min(longest);
            if more > until {
                until = more;
            } else if begun.elapsed() < timeout + held || watch.is_starved(timeout) {
                return Probed::Starved;
            } else {
                let limit = format_duration(timeout);
                let excuse = watch.excuse(held);
                return Probed::Failure(format!("no answer within {limit}{excuse}"));
            }
        }
    }

    /// The longest that a probe may take with the time in which its instance is held back: what a
    /// guest that only computes takes for `timeout` of CPU, and as much again for its neighbours in
    /// the pod.
    fn longest(&self, timeout: Duration) -> Duration {
        match self.inner.template.sandbox.cpu {
            Some(limit) => timeout * (2 * MILLIS).div_ceil(limit.millis.clamp(1, MILLIS)),
            None => timeout,
        }
    }

    /// Tells a guest that has a `pre-stop` that it is to stop, if the pod keeps an instance. After
    /// that a command may take any time to end, which this waits for; one without `pre-stop` cannot
    /// be told. The error says what the guest said, or that it said nothing in time.
    pub async fn pre_stop(&self, timeout: Duration) -> Result<(), String> {
        let can_be_told = self.inner.template.loaded.exports.index(Question::PreStop);
        if self.inner.template.kind() == ServiceKind::Command && can_be_told.is_some() {
            return tokio::select! {
                biased;
                () = self.driver.ended() => Ok(()),
                Err(reason) = self.ask_to_stop(timeout) => Err(reason),
            };
        }
        self.ask_to_stop(timeout).await
    }

    async fn ask_to_stop(&self, timeout: Duration) -> Result<(), String> {
        let exports = &self.inner.template.loaded.exports;
        let keeps = self.inner.template.isolation() == Isolation::Pod;
        if !keeps || exports.index(Question::PreStop).is_none() {
            return Ok(());
        }
        let deadline = Instant::now() + timeout;
        let question = Completion::new(
            &InboundRequest::question("pre-stop"),
            Task::Question(Question::PreStop),
        );
        let exchange = self.ask(question, deadline);
        match tokio::time::timeout_at(deadline, exchange).await {
            Ok(Probed::Failure(reason)) => Err(reason),
            Ok(Probed::Success | Probed::Starved) => Ok(()),
            Err(_) => Err(format!("no answer within {}", format_duration(timeout))),
        }
    }

    fn task(&self, check: &Check, kind: ProbeKind) -> Result<(Task, Arc<InboundRequest>), String> {
        let path = match check {
            Check::Http(path) => path,
            Check::Export => {
                let question = Question::Probe(kind);
                let exports = &self.inner.template.loaded.exports;
                return match exports.index(question) {
                    Some(_) => Ok((
                        Task::Question(question),
                        InboundRequest::question(name(kind)),
                    )),
                    None => Err("the guest does not export `sampan:pod/health`".to_owned()),
                };
            }
        };
        let request = http::Request::get(path)
            .header(http::header::HOST, self.name().as_str())
            .header(http::header::USER_AGENT, USER_AGENT)
            .body(Empty::new().map_err(|never| match never {}).boxed_unsync())
            .map_err(|error| error.to_string())?;
        let inbound = InboundRequest::probe(&request);
        let request = Expressible::parse(request).map_err(|failure| failure.to_string())?;
        Ok((Task::Request(Box::new(request)), inbound))
    }

    async fn ask(&self, question: (Arc<Completion>, Receiver<Head>), deadline: Instant) -> Probed {
        // A kept instance cannot be made to give a question up without losing it: it goes on with
        // it for as long as a request may take, and only the asking ends.
        let deadline = match self.inner.template.isolation() {
            Isolation::Request => Some(deadline),
            Isolation::Pod => self.inner.template.deadline(),
        };
        match self.exchange(question, deadline, None).await {
            Ok(response) => read(response).await,
            Err(CallError { failure, .. }) => Probed::Failure(failure.to_string()),
        }
    }
}

/// The function of `sampan:pod/health` that answers a probe.
fn name(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "started",
        ProbeKind::Readiness => "ready",
        ProbeKind::Liveness => "live",
    }
}

/// Watches over a probe: whether its instance is given a processor.
struct ProbeWatch {
    /// The instance that stays, if one does.
    kept: Option<KeptInstance>,
    completion: Arc<Completion>,
}

/// The instance that stays, as it was when the probe began.
struct KeptInstance {
    cell: Arc<Cell>,
    starved: Duration,
    held: Duration,
}

impl ProbeWatch {
    fn begin(pod: &Pod, completion: &Arc<Completion>) -> Self {
        let kept = |cell: Arc<Cell>| KeptInstance {
            starved: cell.starved(),
            held: cell.run.held(),
            cell,
        };
        Self {
            kept: pod.inner.instance().map(kept),
            completion: Arc::clone(completion),
        }
    }

    /// For how long the instance was held back meanwhile.
    fn held(&self) -> Duration {
        match &self.kept {
            Some(kept) => kept.cell.run.held().saturating_sub(kept.held),
            None => {
                let cell = self.completion.instance();
                cell.map_or(Duration::ZERO, |cell| cell.run.held())
            }
        }
    }

    /// Whether there was no answer because nothing could run the guest.
    fn is_starved(&self, timeout: Duration) -> bool {
        match &self.kept {
            // Its task has a question to take, and was not run.
            Some(kept) if kept.cell.run.is_idle() => true,
            Some(kept) => kept.cell.starved().saturating_sub(kept.starved) * 2 > timeout,
            None => match self.completion.probed() {
                // It has no instance yet: it waits for its turn, or for a place.
                None => true,
                Some((cell, waited)) => (*waited + cell.starved()) * 2 > timeout,
            },
        }
    }

    /// What else the instance does, which may be why; and what of the time did not count.
    fn excuse(&self, held: Duration) -> String {
        let mut excuse = match held.as_millis() {
            0 => String::new(),
            millis => format!(" and the {millis} ms in which `limits.cpu` held it back"),
        };
        let Some(KeptInstance { cell, .. }) = &self.kept else {
            return excuse;
        };
        let waits = cell.waits();
        let other = waits
            .requests
            .iter()
            .find(|it| !Arc::ptr_eq(it, self.completion.inbound()));
        let other = other.map(|other| format!("it serves {other}"));
        let wait = waits.open().into_iter().next();
        let wait = wait.map(|wait| format!("waits in `{}` for {}", wait.function, wait.on));
        match (other, wait) {
            (Some(other), Some(wait)) => excuse += &format!(": {other}, and {wait}"),
            (Some(other), None) => excuse += &format!(": {other}"),
            (None, Some(wait)) => excuse += &format!(": it {wait}"),
            (None, None) => {}
        }
        excuse
    }
}

/// The most of an answer that is shown.
const MAX_REASON_BYTES: usize = 200;

/// Reads an answer to its end: a guest whose reader leaves may well trap.
async fn read(response: http::Response<Body>) -> Probed {
    let (head, mut body) = response.into_parts();
    let mut reason = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let room = MAX_REASON_BYTES - reason.len();
                let data = frame
                    .data_ref()
                    .map_or(&[][..], |data| &data[..data.len().min(room)]);
                reason.extend_from_slice(data);
            }
            Err(error) => return Probed::Failure(error.to_string()),
        }
    }
    match head.status.as_u16() {
        200..=399 => Probed::Success,
        status => {
            let reason = String::from_utf8_lossy(&reason);
            let first = reason.lines().next().unwrap_or_default();
            Probed::Failure(match first {
                "" => format!("status {status}"),
                text => format!("status {status}: {text}"),
            })
        }
    }
}
