//! What is counted on this node, for Prometheus.
//!
//! Nothing is counted here: each request for the metrics reads what the gateway, the registry, the
//! runtime and the controllers have. Every label comes from a spec or from this program, so
//! that no client can make the text longer. A service that is gone is in it no more.

mod exposition;
mod families;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use sampan_core::{
    fault::Fault, histogram::Distribution, name::ServiceKey, plan::rollout::Outcome,
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
struct Known {
    stats: ServiceStats,
    revisions: Vec<RevisionStats>,
    pods: ServiceTotals,
    request_cpu: Distribution,
    rollouts: RolloutTotals,
}

/// The metrics of a node that has been up since `started`.
pub(super) fn text(
    node: &Node,
    rollouts: &Rollouts,
    decided: &Decided,
    started: SystemTime,
) -> String {
    let gateway = node.edge.gateway();
    let mut out = Exposition::default();
    let services = services(node, rollouts);
    requests(&mut out, &services);
    let mut single = |family, value: u64| out.family(family).add(&[], value);
    single(&families::UNROUTED, gateway.unrouted());
    single(&families::REFUSED, gateway.refused_connections());
    pods(&mut out, &services);
    scaled(&mut out, decided);
    usage(&mut out, &services);
    timings(&mut out, node.runtime.timings());
    rolled(&mut out, &services);
    let version = env!("CARGO_PKG_VERSION");
    out.family(&families::BUILD).add(&[&version], 1);
    let started = started.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = started.unwrap_or_default().as_secs_f64();
    out.family(&families::START).add(&[], seconds);
    out.finish()
}

/// All services that requests can reach or that still have pods.
fn services(node: &Node, rollouts: &Rollouts) -> BTreeMap<ServiceKey, Known> {
    let gateway = node.edge.gateway();
    let (mut pods, mut rollouts) = (node.registry.totals(), rollouts.totals());
    let alive = |totals: &ServiceTotals| totals.phases.iter().any(|count| *count > 0);
    let with_pods = pods.iter().filter(|(_, totals)| alive(totals));
    let mut keys: BTreeSet<_> = with_pods.map(|(key, _)| key.clone()).collect();
    keys.extend(node.edge.services());
    let known = |key: ServiceKey| {
        let known = Known {
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

type Services = BTreeMap<ServiceKey, Known>;

/// A number of each service.
fn each(
    out: &mut Exposition,
    family: &'static Family,
    services: &Services,
    value: impl Fn(&Known) -> u64,
) {
    let mut samples = out.family(family);
    for (ServiceKey { app, name }, known) in services {
        samples.add(&[app, name], value(known));
    }
}

/// A number of each revision.
fn each_revision(
    out: &mut Exposition,
    family: &'static Family,
    services: &Services,
    value: impl Fn(&RevisionStats) -> u64,
) {
    let mut samples = out.family(family);
    for (ServiceKey { app, name }, known) in services {
        for stats in &known.revisions {
            samples.add(&[app, name, &revision(stats)], value(stats));
        }
    }
}

fn revision(stats: &RevisionStats) -> String {
    stats.revision.map_or_else(String::new, |it| it.to_string())
}

fn requests(out: &mut Exposition, services: &Services) {
    let mut samples = out.family(&families::REQUESTS);
    for (ServiceKey { app, name }, known) in services {
        for stats in &known.revisions {
            for (class, count) in CODE_CLASSES.iter().zip(stats.classes) {
                samples.add(&[app, name, &revision(stats), class], count);
            }
        }
    }
    each_revision(out, &families::ERRORS, services, |it| {
        it.classes[4] + it.broken
    });
    each_revision(out, &families::CANCELED, services, |it| it.canceled);
    each_revision(out, &families::DROPPED, services, |it| it.dropped);
    let mut samples = out.family(&families::DURATION);
    for (ServiceKey { app, name }, known) in services {
        for stats in &known.revisions {
            samples.histogram(&[app, name, &revision(stats)], &stats.latency);
        }
    }
    each(out, &families::IN_FLIGHT, services, |it| it.stats.in_flight);
    each(out, &families::QUEUED, services, |it| {
        u64::from(it.stats.queued)
    });
    each(out, &families::RETRIES, services, |it| it.stats.retries);
    each(out, &families::RETRIES_DENIED, services, |it| {
        it.stats.retries_denied
    });
    each(out, &families::EJECTIONS, services, |it| it.stats.ejections);
}

fn pods(out: &mut Exposition, services: &Services) {
    let mut samples = out.family(&families::PODS);
    for (ServiceKey { app, name }, known) in services {
        for (phase, count) in PHASES.iter().zip(known.pods.phases) {
            samples.add(&[app, name, phase], count);
        }
    }
    each(out, &families::READY, services, |it| it.pods.ready);
    each(out, &families::RESTARTS, services, |it| it.pods.restarts);
    let mut samples = out.family(&families::KILLS);
    for (ServiceKey { app, name }, known) in services {
        for verdict in Fault::ENDS.map(Fault::word) {
            let count = known.pods.kills.get(verdict).copied().unwrap_or_default();
            samples.add(&[app, name, &verdict], count);
        }
    }
}

fn scaled(out: &mut Exposition, decided: &Decided) {
    let mut samples = out.family(&families::WANTED);
    for (ServiceKey { app, name }, decision) in decided.iter() {
        samples.add(&[app, name], decision.replicas);
    }
}

fn usage(out: &mut Exposition, services: &Services) {
    let mut samples = out.family(&families::CPU);
    for (ServiceKey { app, name }, known) in services {
        samples.add(&[app, name], known.pods.usage.cpu.as_secs_f64());
    }
    let mut samples = out.family(&families::THROTTLED);
    for (ServiceKey { app, name }, known) in services {
        samples.add(&[app, name], known.pods.usage.throttled.as_secs_f64());
    }
    let mut samples = out.family(&families::REQUEST_CPU);
    for (ServiceKey { app, name }, known) in services {
        let buckets = known.request_cpu.buckets(&LATENCY_BOUNDS);
        samples.histogram(&[app, name], &buckets);
    }
    each(out, &families::MEMORY, services, |it| {
        it.pods.usage.memory_bytes
    });
    each(out, &families::MEMORY_PEAK, services, |it| {
        it.pods.usage.memory_peak_bytes
    });
    each(out, &families::INSTANCES, services, |it| {
        it.pods.usage.instances
    });
    each(out, &families::LINES_DROPPED, services, |it| {
        it.pods.usage.log_lines_dropped
    });
}

fn timings(out: &mut Exposition, timings: &Timings) {
    let instantiation = timings.instantiation.buckets();
    out.family(&families::INSTANTIATION)
        .histogram(&[], &instantiation);
    let mut samples = out.family(&families::COLD_START);
    samples.histogram(&[&"cache"], &timings.cached.buckets());
    samples.histogram(&[&"compiled"], &timings.compiled.buckets());
}

fn rolled(out: &mut Exposition, services: &Services) {
    let known = |it: &&Known| !it.rollouts.durations.cumulative.is_empty();
    let seen = || services.iter().filter(|(_, it)| known(it));
    let mut samples = out.family(&families::ROLLOUTS);
    for (ServiceKey { app, name }, known) in seen() {
        for (outcome, count) in Outcome::ALL.iter().zip(known.rollouts.outcomes) {
            samples.add(&[app, name, &outcome.as_str()], count);
        }
    }
    let mut samples = out.family(&families::ROLLOUT_DURATION);
    for (ServiceKey { app, name }, known) in seen() {
        samples.histogram(&[app, name], &known.rollouts.durations);
    }
}

#[cfg(test)]
mod tests;
