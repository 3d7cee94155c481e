//! Measures once a second what services and their pods do.
//!
//! What the gateway and the pods count is read and compared with what it was a second ago: exact
//! means over that second, at a cost that traffic does not change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sampan_core::name::{PodName, ServiceKey};
use sampan_core::provoke;
use sampan_gateway::{EndpointLoad, Latencies, ServiceLoad as Counted};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{Node, context::NodeContext, seen::Seen};
use crate::{
    agent::registry::PodMeasure,
    load::{Measured, PERIOD, PodLoad, ServiceLoad},
};

/// Latencies are told of at least this time, and of at most twice as much.
const LATENCY_WINDOW: Duration = Duration::from_secs(5);

/// What was measured last, and whom to tell.
pub(super) struct Sampler {
    node: Node,
    loads: watch::Sender<Arc<Measured>>,
    seen: Arc<Seen>,
    number: u64,
    services: BTreeMap<ServiceKey, ServiceBefore>,
    pods: BTreeMap<PodName, PodBefore>,
}

/// A service a second ago.
struct ServiceBefore {
    counted: Counted,
    /// When a request was seen last, or the service for the first time.
    active: Instant,
    latencies: Window,
}

/// A pod a second ago.
struct PodBefore {
    at: Instant,
    cpu: Duration,
    throttled: Duration,
    counted: Option<EndpointLoad>,
}

/// The latencies of the last few seconds.
struct Window {
    /// What had been counted when the window began.
    start: Latencies,
    /// What had been counted in its middle: there the next one begins.
    middle: Latencies,
    turned: Instant,
}

impl Sampler {
    pub(super) fn new(context: &NodeContext) -> Self {
        Self {
            node: context.node.clone(),
            loads: context.loads.clone(),
            seen: Arc::clone(&context.seen),
            number: 0,
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
        }
    }

    /// Measures until this is dropped.
    pub(super) async fn run(mut self) {
        let mut seconds = tokio::time::interval(PERIOD);
        // A short second after a long one would be measured from too little.
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            provoke::panic_in(provoke::Task::Sampler);
            let measured = self.measure();
            self.seen.note(&measured);
            self.loads.send_replace(Arc::new(measured));
        }
    }

    fn measure(&mut self) -> Measured {
        let now = Instant::now();
        let mut pods: BTreeMap<ServiceKey, Vec<PodMeasure>> = BTreeMap::new();
        for pod in self.node.registry.measure() {
            let service = pod.pod.service().clone();
            pods.entry(service).or_default().push(pod);
        }
        let mut keys: BTreeSet<_> = pods.keys().cloned().collect();
        keys.extend(self.node.edge.services());
        let (mut before, mut pods_before) = (
            std::mem::take(&mut self.services),
            std::mem::take(&mut self.pods),
        );
        self.number += 1;
        let mut measured = Measured {
            number: self.number,
            ..Measured::default()
        };
        for key in keys {
            let counted = self.node.edge.gateway().load(&key);
            let own = pods.remove(&key).unwrap_or_default();
            let own = self.pods(own, counted.as_ref(), &mut pods_before, now);
            let load = match counted {
                Some(counted) => self.service(&key, counted, before.remove(&key), own, now),
                // No request can reach it any more.
                None => ServiceLoad {
                    pods: own,
                    ..ServiceLoad::default()
                },
            };
            measured.services.insert(key, load);
        }
        measured
    }

    fn service(
        &mut self,
        key: &ServiceKey,
        counted: Counted,
        before: Option<ServiceBefore>,
        pods: Vec<PodLoad>,
        now: Instant,
    ) -> ServiceLoad {
        let latencies = || self.node.edge.gateway().latencies(key).unwrap_or_default();
        let Some(before) = before else {
            let start = latencies();
            let before = ServiceBefore {
                counted,
                active: now,
                latencies: Window {
                    middle: start.clone(),
                    start,
                    turned: now,
                },
            };
            self.services.insert(key.clone(), before);
            return ServiceLoad {
                pods,
                ..ServiceLoad::default()
            };
        };
        let earlier = &before.counted;
        let seconds = seconds(earlier.in_flight.at(), counted.in_flight.at());
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let served = pods.iter().map(|it| it.served).sum();
        let draining: f64 = pods
            .iter()
            .filter(|it| it.drains)
            .map(|it| it.in_flight)
            .sum();
        let in_flight = counted.in_flight.mean_since(&earlier.in_flight);
        let is_active = counted.requests != earlier.requests || in_flight > draining;
        let active = if is_active { now } else { before.active };
        let mut window = before.latencies;
        let quantiles = window.turn(now - active, latencies, now);
        let load = ServiceLoad {
            pods,
            queued: counted.queued.mean_since(&earlier.queued),
            waiting: counted.queued.in_flight(),
            in_flight: Some(in_flight),
            arrived: Some(rate(counted.requests, earlier.requests)),
            served: Some(served),
            idle: now - active,
            p50: quantiles.map(|[p50, _]| p50),
            p99: quantiles.map(|[_, p99]| p99),
        };
        let before = ServiceBefore {
            counted,
            active,
            latencies: window,
        };
        self.services.insert(key.clone(), before);
        load
    }

    fn pods(
        &mut self,
        pods: Vec<PodMeasure>,
        counted: Option<&Counted>,
        before: &mut BTreeMap<PodName, PodBefore>,
        now: Instant,
    ) -> Vec<PodLoad> {
        let mut endpoints: BTreeMap<_, _> = counted
            .iter()
            .flat_map(|it| &it.endpoints)
            .map(|it| (&it.pod, it))
            .collect();
        let mut loads = Vec::with_capacity(pods.len());
        for pod in pods {
            let counted = endpoints.remove(&pod.pod).cloned();
            let earlier = before.remove(&pod.pod);
            loads.push(pod_load(&pod, counted.as_ref(), earlier.as_ref(), now));
            let before = PodBefore {
                at: now,
                cpu: pod.usage.cpu,
                throttled: pod.usage.throttled,
                counted,
            };
            self.pods.insert(pod.pod, before);
        }
        loads
    }
}

fn pod_load(
    pod: &PodMeasure,
    counted: Option<&EndpointLoad>,
    before: Option<&PodBefore>,
    now: Instant,
) -> PodLoad {
    // What it used before it was ready is what it takes to start.
    let cpu = before.map(|before| match pod.ready {
        Some((since, used)) if since > before.at => {
            (pod.usage.cpu.saturating_sub(used)).as_secs_f64() / seconds(since, now)
        }
        _ => pod.usage.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds(before.at, now),
    });
    let since = before.and_then(|before| Some((before.at, before.counted.as_ref()?)));
    let (requests, served, in_flight) = match (counted, since) {
        (Some(counted), Some((at, earlier))) => (
            counted.requests.saturating_sub(earlier.requests) as f64 / seconds(at, now),
            ended(counted).saturating_sub(ended(earlier)) as f64 / seconds(at, now),
            counted.in_flight.mean_since(&earlier.in_flight),
        ),
        (Some(counted), None) => (0.0, 0.0, f64::from(counted.in_flight.in_flight())),
        (None, _) => (0.0, 0.0, 0.0),
    };
    PodLoad {
        pod: pod.pod.clone(),
        phase: pod.phase,
        ready: pod.ready.is_some(),
        was_ready: matches!((pod.ready, before), (Some((since, _)), Some(before)) if since <= before.at),
        drains: pod.drains,
        cpu,
        throttled: before.map_or(0.0, |before| {
            let held = pod.usage.throttled.saturating_sub(before.throttled);
            held.as_secs_f64() / seconds(before.at, now)
        }),
        cpu_limit: pod.spec.cpu,
        memory_bytes: pod.usage.memory_bytes,
        instance_peak_bytes: pod.usage.instance_peak_bytes,
        memory_limit: pod.spec.memory,
        requests,
        served,
        in_flight,
    }
}

/// Requests that a pod got and that have ended.
fn ended(counted: &EndpointLoad) -> u64 {
    let in_flight = u64::from(counted.in_flight.in_flight());
    counted.requests.saturating_sub(in_flight)
}

impl Window {
    /// The median and the 99th percentile, if anything ended. There has been no request for
    /// `quiet`.
    fn turn(
        &mut self,
        quiet: Duration,
        latencies: impl Fn() -> Latencies,
        now: Instant,
    ) -> Option<[Duration; 2]> {
        if quiet > 3 * LATENCY_WINDOW {
            // It has turned twice since: there is nothing in it.
            return None;
        }
        let is_over = now - self.turned >= LATENCY_WINDOW;
        let counted = latencies();
        let since = counted.since(&self.start);
        if is_over {
            self.turned = now;
            self.start = std::mem::replace(&mut self.middle, counted);
        }
        Some([since.quantile(0.5)?, since.quantile(0.99)?])
    }
}

/// The time between two looks, which may be so close that no clock tells them apart.
fn seconds(from: Instant, to: Instant) -> f64 {
    (to - from).as_secs_f64().max(1e-6)
}
