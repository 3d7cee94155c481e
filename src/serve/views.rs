//! What the API shows, from what the agent knows.

use std::{sync::Arc, time::SystemTime};

use sampan_core::{time::Utc, view};
use sampan_runtime::{Symbols, pod::Termination};

use crate::events::{Events, Journal};
use crate::{
    agent::board::{Board, PodStatus},
    api::{Batch, NextBatch, OnePod, Views},
};

/// The pods and events of this node.
pub(super) struct NodeViews {
    pub(super) board: Arc<Board>,
    pub(super) journal: Arc<Journal>,
    pub(super) symbols: Arc<Symbols>,
}

impl Views for NodeViews {
    fn pods(&self) -> Vec<view::Pod> {
        let plain = |status| pod(status, &Termination::explain);
        self.board.all().into_iter().map(plain).collect()
    }

    fn pod(&self, name: &str) -> OnePod {
        let mut pods = self.board.all().into_iter();
        let Some(status) = pods.find(|status| status.pod.as_str() == name) else {
            return Box::pin(std::future::ready(None));
        };
        let symbols = Arc::clone(&self.symbols);
        let shown = move || pod(status, &|end| symbols.explain(end));
        Box::pin(async move {
            match tokio::task::spawn_blocking(shown).await {
                Ok(pod) => Some(pod),
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    // The node is going down, and with it whoever waits here.
                    Err(_) => std::future::pending().await,
                },
            }
        })
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

fn pod(status: PodStatus, explain: &dyn Fn(&Termination) -> String) -> view::Pod {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    view::Pod {
        name: status.pod.to_string(),
        service: status.pod.service().name.to_string(),
        phase: status.phase.to_owned(),
        ready: status.ready,
        restarts: status.restarts,
        reason: status.reason,
        next_try_ms: status.next_try_in.map(millis),
        starved_probes: status.starved,
        usage: view::Usage {
            cpu_ms: status.usage.cpu.as_secs_f64() * 1e3,
            memory_bytes: status.usage.memory_bytes,
            memory_peak_bytes: status.usage.memory_peak_bytes,
            instances: status.usage.instances,
            failures: status.usage.failures,
        },
        terminations: status
            .ends
            .iter()
            .map(|end| termination(end, explain(end)))
            .collect(),
    }
}

fn termination(end: &Termination, explanation: String) -> view::Termination {
    let at = end.at.duration_since(SystemTime::UNIX_EPOCH);
    view::Termination {
        time: Utc(at.unwrap_or_default()).to_string(),
        verdict: end.verdict.to_string(),
        reason: end.reason.clone(),
        explanation,
    }
}
