//! How many pods each metric asks for.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::object::Autoscale;

/// What is at most this far from its target, as a share of it, is on target: Kubernetes'
/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// From this share of `limits.cpu` on, a pod uses what it is given and not what it would need.
const SATURATED: f64 = 0.95;

/// What was measured since the last sample, about a second ago.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The service's pods, without those that drain.
    pub pods: Vec<PodSample>,
    /// Mean number of requests in flight: those at these pods and those that wait for one.
    pub in_flight: Option<f64>,
    /// Requests that arrived, per second.
    pub arrived: Option<f64>,
    /// Requests that pods have answered, per second: not those that were refused.
    pub served: Option<f64>,
    /// Requests that wait for a pod now.
    pub waiting: u32,
    /// For how long there has been no request. Zero while one is in flight.
    pub idle: Duration,
    /// Pods are being replaced. That needs one that shows whether the new revision works.
    pub rollout: bool,
    /// Not all nodes have said what they measured: there may be more pods and requests.
    pub is_partial: bool,
}

/// What was measured of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodSample {
    /// Whether it was ready all the time since the last sample. What it used to start is then not
    /// in `cpu`.
    pub ready: bool,
    /// CPU that its guests used, as a share of `limits.cpu`; `None` if that is not known.
    pub cpu: Option<f64>,
}

/// What the number of pods follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// CPU as a share of `limits.cpu`.
    Cpu,
    /// Requests in flight.
    Concurrency,
    /// Requests per second.
    Rps,
}

/// How many pods a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// Which metric.
    pub metric: Metric,
    /// What was seen of each pod, in the unit of the target.
    pub seen: f64,
    /// What each pod should have.
    pub target: f64,
    /// So many pods.
    pub pods: u32,
    /// The load in pods that have just what they should.
    load: f64,
}

/// What all metrics of a service ask for: `None` for one that could not be measured.
pub(super) struct Needs(Vec<Option<Need>>);

/// Asks each metric that the service has a target for.
pub(super) fn needs(spec: &Autoscale, current: u32, sample: &Sample) -> Needs {
    let cpu = spec
        .cpu
        .map(|target| cpu(f64::from(target.0) / 100.0, current, sample));
    let concurrency = spec
        .concurrency
        .map(|target| total(Metric::Concurrency, target, current, sample.in_flight));
    let rps = spec
        .rps
        .map(|target| total(Metric::Rps, target, current, sample.arrived));
    Needs([cpu, concurrency, rps].into_iter().flatten().collect())
}

impl Needs {
    /// The one that asks for most; of equal ones the one that is furthest above its target.
    pub(super) fn largest(&self) -> Option<Need> {
        let measured = self.0.iter().flatten().copied();
        measured.max_by(|a, b| {
            (a.pods, a.load)
                .partial_cmp(&(b.pods, b.load))
                .unwrap_or(std::cmp::Ordering::Equal)
        })
    }

    /// Whether all of them could be measured.
    pub(super) fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }

    /// The load in pods that have just what they should.
    pub(super) fn load(&self) -> f64 {
        let loads = self.0.iter().flatten().map(|need| need.load);
        loads.fold(0.0, f64::max)
    }
}

/// A metric of the service as a whole, like one of `type: Object` with an `AverageValue` in
/// Kubernetes. *130 requests per second at 2 pods with a target of 50: 65 is 1.3 of it, and
/// 130 / 50 = 2.6, so 3 pods.*
fn total(metric: Metric, target: f64, current: u32, total: Option<f64>) -> Option<Need> {
    let total = total.filter(|it| is_sound(*it))?;
    let load = total / target;
    let pods_now = f64::from(current.max(1));
    let pods = match is_on_target(load, current) {
        true => current,
        false => pods(load),
    };
    Some(Need {
        metric,
        seen: total / pods_now,
        target,
        pods,
        load,
    })
}

/// CPU, as a `Resource` metric of Kubernetes with an `averageUtilization`.
///
/// Pods that are ready and measured count with what they use. If that asks for more pods, those
/// that are not ready count with nothing: they are on their way to help. Those that are ready but
/// not measured count with nothing if more pods are asked for, and with the target if fewer are.
/// If the answer is then the other way round, or on target, nothing changes.
///
/// *Target 50 %. Two pods at 90 % and one that starts: (90 + 90 + 0) / 3 = 60 %, which is 1.2 of
/// the target: ceil(1.2 × 3) = 4 pods. Without the one that starts it would have been
/// ceil(1.8 × 2) = 4 of 2.*
///
/// What pods *use* is at most what they are given, and Kubernetes has no word for that. When they
/// use all of it there is no tolerance, and if requests arrive faster than they are answered, what
/// they would need counts instead: *one pod at 100 %, 25 requests per second arrived and 5 were
/// answered: 500 %.*
fn cpu(target: f64, current: u32, sample: &Sample) -> Option<Need> {
    let (ready, unready): (Vec<PodSample>, Vec<PodSample>) =
        sample.pods.iter().partition(|pod| pod.ready);
    let measured: Vec<f64> = ready
        .iter()
        .filter_map(|pod| pod.cpu)
        .filter(|it| is_sound(*it))
        .collect();
    if measured.is_empty() {
        return None;
    }
    let missing = ready.len() - measured.len();
    let count = measured.len() as f64;
    let used = measured.iter().sum::<f64>();
    let total = used * backlog(used / count, sample);
    let ratio = total / count / target;
    let need = |pods| Need {
        metric: Metric::Cpu,
        seen: total / count,
        target,
        pods,
        load: total / target,
    };
    let helped = ratio > 1.0 && !unready.is_empty();
    if !helped && missing == 0 {
        // What would be needed is at least this: there is nothing to tolerate.
        let is_capped = ratio > 1.0 && used / count >= SATURATED;
        return Some(need(match is_tolerable(ratio) && !is_capped {
            true => current,
            false => pods(ratio * count),
        }));
    }
    // Those that use nothing change nothing but the number of pods.
    let (assumed, others) = match ratio > 1.0 {
        true => (0.0, missing + unready.len()),
        false => (target * missing as f64, missing),
    };
    let all = count + others as f64;
    let cautious = (total + assumed) / all / target;
    let pods = pods(cautious * all);
    let reversed = (cautious > 1.0) != (ratio > 1.0);
    let backwards = match ratio > 1.0 {
        true => pods < current,
        false => pods > current,
    };
    Some(need(
        match reversed || backwards || is_tolerable(cautious) {
            true => current,
            false => pods,
        },
    ))
}

/// By how much the work that arrived exceeds the work that was done.
fn backlog(mean: f64, sample: &Sample) -> f64 {
    let ratio = match (sample.arrived, sample.served) {
        (Some(arrived), Some(served)) if mean >= SATURATED => arrived / served,
        (_, _) => 1.0,
    };
    match ratio.is_finite() {
        true => ratio.max(1.0),
        // Nothing has ended: what it takes is not known.
        false => 1.0,
    }
}

/// The pods that a load needs. What is a whole number but for the way computers count is one.
pub(super) fn pods(load: f64) -> u32 {
    // The conversion saturates.
    (load - 1e-9).ceil() as u32
}

/// Whether so many pods are enough for a load in pods, and not too many.
pub(super) fn is_on_target(load: f64, pods: u32) -> bool {
    is_tolerable(load / f64::from(pods.max(1)))
}

fn is_tolerable(ratio: f64) -> bool {
    // A tenth is not a number that computers have.
    (ratio - 1.0).abs() <= TOLERANCE + 1e-9
}

fn is_sound(measured: f64) -> bool {
    measured.is_finite() && measured >= 0.0
}

/// `cpu 168% of 70%`, `concurrency 61.3 of 40`: what was seen of each pod, and what it should be.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seen, target) = (self.seen, self.target);
        match self.metric {
            Metric::Cpu => write!(f, "cpu {:.0}% of {:.0}%", seen * 100.0, target * 100.0),
            Metric::Concurrency => write!(f, "concurrency {} of {target}", short(seen)),
            Metric::Rps => write!(f, "rps {} of {target}", short(seen)),
        }
    }
}

/// A measurement with as many digits as say something.
fn short(number: f64) -> String {
    match number < 100.0 {
        true => format!("{number:.1}"),
        false => format!("{number:.0}"),
    }
}
