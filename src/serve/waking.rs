//! Tells the node that leads that requests wait here at services at zero, so that it makes a pod.
//!
//! Each service is told of once, and again after a pause that doubles, as long as requests wait: usually a
//! pod is there by then. When requests begin to wait anywhere the pauses are short again: a service may
//! have had a pod and have none again. What cannot be told, because no node
//! leads or the one that does is not reached, is told again until the requests have gone: each waits for
//! its `queue_timeout`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use sampan_core::name::ServiceKey;
use sampan_gateway::Gateway;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{member::Member, told::WAKE};
use crate::{cluster::Standing, controllers::autoscale::Callers, load::PERIOD};

/// The most services of which is told at once. The others are told of right after them.
const MAX_AT_ONCE: usize = 256;
/// The pause before a service is told of again at which requests still wait. It doubles.
const AGAIN: Duration = Duration::from_millis(50);
/// The longest such pause: that between two reports, which say it as well.
const MAX_AGAIN: Duration = PERIOD;
/// Time that the node that leads has to hear it.
const TELL_TIME: Duration = Duration::from_secs(1);
/// The pause before it is told again.
const RETRY: Duration = Duration::from_millis(50);

/// The node that leads, as this one reaches it.
pub(super) trait Leading: Send + Sync + 'static {
    /// Resolves when another node leads, or the first.
    fn changed(&mut self) -> BoxFuture<'_, ()>;

    /// Whether it is this node.
    fn is_here(&self) -> bool;

    /// Has this node plan for services at which requests wait here.
    fn here(&self);

    /// Tells another node that requests wait at these services.
    fn tell<'a>(&'a self, services: &'a [ServiceKey]) -> BoxFuture<'a, Result<(), String>>;
}

/// Tells of requests that wait, until this is dropped. `gateway` is where they do.
pub(super) async fn run(gateway: &dyn Callers, mut leading: impl Leading) {
    let mut told = Told::default();
    loop {
        let mut next = None;
        if leading.is_here() {
            leading.here();
        } else {
            let due = told.due(gateway.waiting(), Instant::now());
            next = told.next();
            if !due.is_empty() {
                match leading.tell(&due).await {
                    Ok(()) => told.note(due, Instant::now()),
                    Err(reason) => {
                        tracing::debug!(reason, "requests wait at services at zero");
                        tokio::select! {
                            () = sleep(RETRY) => {}
                            () = leading.changed() => {}
                        }
                    }
                }
                continue;
            }
        }
        tokio::select! {
            () = gateway.called() => told.begin(),
            () = leading.changed() => {}
            () = until(next) => {}
        }
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

/// The services that were told of and at which requests still wait: when each was told of last, and the
/// pause before it is told of again.
#[derive(Default)]
struct Told(BTreeMap<ServiceKey, (Instant, Duration)>);

impl Told {
    /// Those of the services that are to be told of, no more than are told of at once.
    fn due(&mut self, waiting: Vec<ServiceKey>, now: Instant) -> Vec<ServiceKey> {
        let mut before = std::mem::take(&mut self.0);
        for service in &waiting {
            if let Some(told) = before.remove_entry(service) {
                self.0.extend([told]);
            }
        }
        let is_due = |it: &ServiceKey| {
            self.0
                .get(it)
                .is_none_or(|(told, pause)| *told + *pause <= now)
        };
        let due = waiting.into_iter().filter(is_due);
        due.take(MAX_AT_ONCE).collect()
    }

    /// When the next of them is due again.
    fn next(&self) -> Option<Instant> {
        self.0.values().map(|(told, pause)| *told + *pause).min()
    }

    fn note(&mut self, services: Vec<ServiceKey>, now: Instant) {
        for service in services {
            let before = self.0.get(&service).map(|(_, pause)| *pause * 2);
            let pause = before.unwrap_or(AGAIN).min(MAX_AGAIN);
            self.0.insert(service, (now, pause));
        }
    }

    /// Requests have begun to wait, which may be at any of them.
    fn begin(&mut self) {
        self.0.values_mut().for_each(|(_, pause)| *pause = AGAIN);
    }
}

/// The node that leads, as a member of a cluster reaches it.
pub(super) struct OfCluster {
    member: Arc<Member>,
    standing: tokio::sync::watch::Receiver<Standing>,
}

impl OfCluster {
    pub(super) fn new(member: &Arc<Member>) -> Self {
        Self {
            member: Arc::clone(member),
            standing: member.standing(),
        }
    }
}

impl Leading for OfCluster {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.standing.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn is_here(&self) -> bool {
        self.standing.borrow().leads()
    }

    fn here(&self) {
        self.member.calls.here();
    }

    fn tell<'a>(&'a self, services: &'a [ServiceKey]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async {
            let leader = self.member.peers.leader();
            let leader = leader.ok_or_else(|| "no node leads".to_owned())?;
            let text = serde_json::to_vec(services).map_err(|error| error.to_string())?;
            let told = self.member.peers.tell(&leader, WAKE, Bytes::from(text));
            let late = || Err(format!("no answer in {} s", TELL_TIME.as_secs()));
            timeout(TELL_TIME, told).await.unwrap_or_else(|_| late())
        })
    }
}

/// Requests that wait at any node of a cluster, for the one that leads.
pub(super) struct ClusterCallers {
    pub(super) gateway: Gateway,
    pub(super) member: Arc<Member>,
}

impl Callers for ClusterCallers {
    fn called(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.member.calls.came())
    }

    fn waiting(&self) -> Vec<ServiceKey> {
        let mut waiting = self.gateway.parked_services();
        waiting.extend(self.member.calls.services());
        waiting
    }

    fn woken(&self, service: &ServiceKey) {
        self.member.calls.answered(service);
    }
}

#[cfg(test)]
mod tests;
