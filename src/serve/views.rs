//! What the API shows, from what the agent knows.

use std::{sync::Arc, time::SystemTime};

use sampan_core::{time::Utc, view};
use sampan_runtime::pod::Termination;

use crate::{
    agent::{
        board::{Board, PodStatus},
        events::{Events, Journal},
    },
    api::{Batch, NextBatch, Views},
};

/// The pods and events of this node.
pub(super) struct NodeViews {
    pub(super) board: Arc<Board>,
    pub(super) journal: Arc<Journal>,
}

impl Views for NodeViews {
    fn pods(&self) -> Vec<view::Pod> {
        self.board.all().into_iter().map(pod).collect()
    }

    fn events(&self, after: u64) -> Batch {
        batch(&self.journal.after(after), after)
    }

    fn next_events(&self, after: u64) -> NextBatch {
        let journal = Arc::clone(&self.journal);
        Box::pin(async move { batch(&journal.follow(after).await, after) })
    }
}

fn batch(events: &Events, after: u64) -> Batch {
    let value = |event| serde_json::to_value(event).expect("an event is plain data");
    Batch {
        lines: events.events.iter().map(|event| value(&**event)).collect(),
        last: events.events.last().map_or(after, |event| event.seq),
    }
}

fn pod(status: PodStatus) -> view::Pod {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    view::Pod {
        name: status.pod.to_string(),
        service: status.service.to_string(),
        phase: status.phase.to_owned(),
        ready: status.ready,
        restarts: status.restarts,
        reason: status.reason,
        next_try_ms: status.next_try_in.map(millis),
        starved_probes: status.starved,
        usage: view::Usage {
            cpu_ms: millis(status.usage.cpu),
            memory_bytes: status.usage.memory_bytes,
            memory_peak_bytes: status.usage.memory_peak_bytes,
            instances: status.usage.instances,
            failures: status.usage.failures,
        },
        terminations: status.ends.iter().map(|end| termination(end)).collect(),
    }
}

fn termination(end: &Termination) -> view::Termination {
    let at = end.at.duration_since(SystemTime::UNIX_EPOCH);
    view::Termination {
        time: Utc(at.unwrap_or_default()).to_string(),
        verdict: end.verdict.to_string(),
        reason: end.reason.clone(),
        explanation: end.explain(),
    }
}
