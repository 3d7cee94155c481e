//! What is counted on this node, for Prometheus.
//!
//! Nothing is counted here: each request for the metrics reads what the gateway, the registry, the
//! runtime and the controllers have. Every label comes from a spec or from this program, so
//! that no client can make the text longer. A service that is gone is in it no more.

mod exposition;
mod families;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    time::SystemTime,
};

use sampan_core::{
    fault::Fault, histogram::Distribution, name::ServiceKey, plan::rollout::Outcome, time::Utc,
};
use sampan_gateway::{LATENCY_BOUNDS, RevisionStats, ServiceStats};
use sampan_runtime::Timings;

use super::Node;
use crate::{
    agent::registry::{PHASES, ServiceTotals},
    controllers::rollouts::{RolloutTotals, Rollouts},
    load::Decided,
};
use exposition::{Exposition, Family};

const CODE_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is known of one service.
#[derive(Default)]
struct OfService {
    stats: ServiceStats,
    revisions: Vec<RevisionStats>,
    pods: ServiceTotals,
    request_cpu: Distribution,
    rollouts: RolloutTotals,
}

/// What is known beside what the gateway, the registry and the controllers count.
pub(super) struct Known<'a> {
    pub(super) decided: &'a Decided,
    /// Nodes that do not say what they measure.
    pub(super) silent: usize,
    /// Since when the node has been up.
    pub(super) started: SystemTime,
    /// Lines that could not be kept.
    pub(super) lost: u64,
}

/// The metrics of a node.
pub(super) fn text(node: &Node, rollouts: &Rollouts, known: &Known<'_>) -> String {
    let gateway = node.edge.gateway();
    let mut out = Exposition::default();
    let services = services(node, rollouts);
    let mut all = OfServices {
        out: &mut out,
        services: &services,
    };
    all.requests();
    let mut single = |family, value: u64| all.out.family(family).add(&[], value);
    single(&families::UNROUTED, gateway.unrouted());
    single(&families::REFUSED, gateway.refused_connections());
    all.pods();
    scaled(all.out, known.decided);
    all.out.family(&families::SILENT).add(&[], known.silent);
    all.usage();
    timings(all.out, node.runtime.timings());
    all.rolled();
    out.family(&families::LINES_LOST).add(&[], known.lost);
    let version = env!("CARGO_PKG_VERSION");
    out.family(&families::BUILD).add(&[&version], 1);
    let Utc(started) = known.started.into();
    out.family(&families::START).add(&[], started.as_secs_f64());
    out.finish()
}

/// All services that requests can reach or that still have pods.
fn services(node: &Node, rollouts: &Rollouts) -> BTreeMap<ServiceKey, OfService> {
    let gateway = node.edge.gateway();
    let (mut pods, mut rollouts) = (node.registry.totals(), rollouts.totals());
    let alive = |totals: &ServiceTotals| totals.phases.iter().any(|count| *count > 0);
    let with_pods = pods.iter().filter(|(_, totals)| alive(totals));
    let mut keys: BTreeSet<_> = with_pods.map(|(key, _)| key.clone()).collect();
    keys.extend(node.edge.services());
    let known = |key: ServiceKey| {
        let known = OfService {
            stats: gateway.stats(&key).unwrap_or_default(),
            revisions: gateway.revision_stats(&key),
            pods: pods.remove(&key).unwrap_or_default(),
            request_cpu: node.registry.request_cpu(&key),
            rollouts: rollouts.remove(&key).unwrap_or_default(),
        };
        (key, known)
    };
    keys.into_iter().map(known).collect()
}

type Services = BTreeMap<ServiceKey, OfService>;

/// What is known of each service, as text.
struct OfServices<'a> {
    out: &'a mut Exposition,
    services: &'a Services,
}

impl OfServices<'_> {
    /// A number of each service.
    fn each<V: Display>(&mut self, family: &'static Family, value: impl Fn(&OfService) -> V) {
        let mut samples = self.out.family(family);
        for (ServiceKey { app, name }, known) in self.services {
            samples.add(&[app, name], value(known));
        }
    }

    /// A number of each revision.
    fn each_revision(&mut self, family: &'static Family, value: impl Fn(&RevisionStats) -> u64) {
        let mut samples = self.out.family(family);
        for (ServiceKey { app, name }, known) in self.services {
            for stats in &known.revisions {
                samples.add(&[app, name, &revision(stats)], value(stats));
            }
        }
    }

    fn requests(&mut self) {
        let mut samples = self.out.family(&families::REQUESTS);
        for (ServiceKey { app, name }, known) in self.services {
            for stats in &known.revisions {
                for (class, count) in CODE_CLASSES.iter().zip(stats.classes) {
                    samples.add(&[app, name, &revision(stats), class], count);
                }
            }
        }
        self.each_revision(&families::ERRORS, |it| it.classes[4] + it.broken);
        self.each_revision(&families::CANCELED, |it| it.canceled);
        self.each_revision(&families::DROPPED, |it| it.dropped);
        let mut samples = self.out.family(&families::DURATION);
        for (ServiceKey { app, name }, known) in self.services {
            for stats in &known.revisions {
                samples.histogram(&[app, name, &revision(stats)], &stats.latency);
            }
        }
        self.each(&families::IN_FLIGHT, |it| it.stats.in_flight);
        self.each(&families::QUEUED, |it| it.stats.queued);
        self.each(&families::RETRIES, |it| it.stats.retries);
        self.each(&families::RETRIES_DENIED, |it| it.stats.retries_denied);
        self.each(&families::EJECTIONS, |it| it.stats.ejections);
    }

    fn pods(&mut self) {
        let mut samples = self.out.family(&families::PODS);
        for (ServiceKey { app, name }, known) in self.services {
            for (phase, count) in PHASES.iter().zip(known.pods.phases) {
                samples.add(&[app, name, phase], count);
            }
        }
        self.each(&families::READY, |it| it.pods.ready);
        self.each(&families::RESTARTS, |it| it.pods.restarts);
        let mut samples = self.out.family(&families::KILLS);
        for (ServiceKey { app, name }, known) in self.services {
            for verdict in Fault::ENDS.map(Fault::word) {
                let count = known.pods.kills.get(verdict).copied().unwrap_or_default();
                samples.add(&[app, name, &verdict], count);
            }
        }
    }

    fn usage(&mut self) {
        self.each(&families::CPU, |it| it.pods.usage.cpu.as_secs_f64());
        self.each(&families::THROTTLED, |it| {
            it.pods.usage.throttled.as_secs_f64()
        });
        let mut samples = self.out.family(&families::REQUEST_CPU);
        for (ServiceKey { app, name }, known) in self.services {
            let buckets = known.request_cpu.buckets(&LATENCY_BOUNDS);
            samples.histogram(&[app, name], &buckets);
        }
        self.each(&families::MEMORY, |it| it.pods.usage.memory_bytes);
        self.each(&families::MEMORY_PEAK, |it| it.pods.usage.memory_peak_bytes);
        self.each(&families::INSTANCES, |it| it.pods.usage.instances);
        self.each(&families::LINES_DROPPED, |it| {
            it.pods.usage.log_lines_dropped
        });
    }

    fn rolled(&mut self) {
        let known = |it: &&OfService| !it.rollouts.durations.cumulative.is_empty();
        let seen = || self.services.iter().filter(|(_, it)| known(it));
        let mut samples = self.out.family(&families::ROLLOUTS);
        for (ServiceKey { app, name }, known) in seen() {
            for (outcome, count) in Outcome::ALL.iter().zip(known.rollouts.outcomes) {
                samples.add(&[app, name, &outcome.as_str()], count);
            }
        }
        let mut samples = self.out.family(&families::ROLLOUT_DURATION);
        for (ServiceKey { app, name }, known) in seen() {
            samples.histogram(&[app, name], &known.rollouts.durations);
        }
    }
}

fn revision(stats: &RevisionStats) -> String {
    stats.revision.map_or_else(String::new, |it| it.to_string())
}

fn scaled(out: &mut Exposition, decided: &Decided) {
    let mut samples = out.family(&families::WANTED);
    for (ServiceKey { app, name }, decision) in decided.iter() {
        samples.add(&[app, name], decision.replicas);
    }
}

fn timings(out: &mut Exposition, timings: &Timings) {
    let instantiation = timings.instantiation.buckets();
    out.family(&families::INSTANTIATION)
        .histogram(&[], &instantiation);
    let mut samples = out.family(&families::COLD_START);
    samples.histogram(&[&"cache"], &timings.cached.buckets());
    samples.histogram(&[&"compiled"], &timings.compiled.buckets());
}

#[cfg(test)]
mod tests;
