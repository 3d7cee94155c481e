//! A request to a service, and the record of how it ended.

use std::sync::{Arc, atomic::Ordering};

use http::StatusCode;
use sampan_core::time::Took;
use tokio::time::Instant;
use tracing::{
    Span,
    field::{debug, display},
};

use crate::{
    peer::Peer,
    queue::Slot,
    snapshot::Service,
    stats::{Answers, End},
    targets::Place,
};

/// A request to a service, from its arrival to the last byte of its answer. Whatever happens to
/// it, it is counted once.
#[derive(Debug)]
pub(crate) struct Exchange {
    service: Arc<Service>,
    /// Where it is counted.
    answers: Arc<Answers>,
    /// The connection it came on; none if it came from another service.
    peer: Option<Arc<Peer>>,
    started: Instant,
    /// Whether it is counted here: that of another node is counted there.
    is_counted: bool,
    ended: bool,
    /// What a log or a trace shows of it: it is open from here to the last byte of the answer.
    span: Span,
}

impl Exchange {
    /// Begins with a request. The span has the fields `pod`, `status`, `end` and `took`, which are
    /// recorded as they become known.
    pub(crate) fn begin(service: &Arc<Service>, peer: Option<&Arc<Peer>>, span: Span) -> Self {
        let started = Instant::now();
        service.counters.busy.begin(started);
        Self {
            service: Arc::clone(service),
            answers: Arc::clone(&service.counters.unplaced),
            peer: peer.cloned(),
            started,
            is_counted: true,
            ended: false,
            span,
        }
    }

    /// Begins with a request of another node, which counts it for the service.
    pub(crate) fn of_another_node(service: &Arc<Service>, span: Span) -> Self {
        Self {
            service: Arc::clone(service),
            answers: Arc::clone(&service.counters.unplaced),
            peer: None,
            started: Instant::now(),
            is_counted: false,
            ended: false,
            span,
        }
    }

    /// The span that its work belongs to.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// When the request arrived.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Counts the head of the answer.
    pub(crate) fn answered(&self, status: StatusCode) {
        if self.is_counted {
            self.answers.answered(status);
        }
        self.span.record("status", status.as_u16());
    }

    /// A pod of this slot answers: what follows is counted among the answers of its revision.
    pub(crate) fn placed(&mut self, slot: &Slot) {
        let answers = match (slot.place(), slot.by()) {
            (Place::Pod(endpoint), _) => {
                self.span.record("pod", display(endpoint.pod()));
                endpoint.answers()
            }
            (Place::Node(_), Some(by)) => {
                self.span.record("pod", by.pod.to_str().unwrap_or_default());
                Some(self.service.counters.of_revision(by.revision))
            }
            (Place::Node(_), None) => None,
        };
        if let Some(answers) = answers {
            self.answers = answers;
        }
    }

    /// Notes whether the pod of this slot has answered.
    pub(crate) fn judge(&self, slot: &Slot, has_answered: bool) {
        self.service.judge(slot, has_answered);
    }

    /// Notes that the answer failed after its head.
    pub(crate) fn answer_failed(&self) {
        if let Some(peer) = &self.peer {
            peer.answer_failed();
        }
    }

    /// The same exchange. What becomes of this one is counted no more.
    pub(crate) fn hand_over(&mut self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            answers: Arc::clone(&self.answers),
            peer: self.peer.clone(),
            started: self.started,
            is_counted: self.is_counted,
            ended: std::mem::replace(&mut self.ended, true),
            span: std::mem::replace(&mut self.span, Span::none()),
        }
    }

    /// Counts the end of the answer, which is now. Only the first call counts, and says when it is.
    pub(crate) fn end(&mut self, end: End) -> Option<Instant> {
        if self.ended {
            return None;
        }
        self.ended = true;
        let now = Instant::now();
        let latency = now.saturating_duration_since(self.started);
        self.span.record("end", debug(end));
        self.span.record("took", display(Took(latency)));
        if self.is_counted {
            self.answers.ended(end, latency);
            self.service.counters.busy.end(now);
        }
        Some(now)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let cut = self.peer.as_ref().map(|peer| &peer.cut);
        match cut.filter(|cut| cut.begun.load(Ordering::Acquire)) {
            Some(cut) => {
                cut.dropped.fetch_add(1, Ordering::Relaxed);
                self.end(End::Dropped)
            }
            None => self.end(End::Canceled),
        };
    }
}
