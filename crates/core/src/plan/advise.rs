//! Which limits would fit a service, from what was seen of its pods.
//!
//! The rules follow the recommender of Kubernetes' [VerticalPodAutoscaler]: CPU from a high
//! percentile, memory from the peak, and 15 % on top. What differs is said where it does. Nothing
//! is suggested from less than [`MIN_SAMPLES`] samples: seconds in which a pod was ready and had
//! something to do. Seconds without work do not count, other than in Kubernetes: a limit holds when
//! a pod works, and a service that is called now and then would be advised to have none.
//!
//! 1. **Memory** is the most that one instance held, plus 15 %, in steps of an eighth of a power
//!    of two, at least 1 MiB. *41.2 MiB: × 1.15 = 47.4, in steps of 4 MiB 48 MiB.* In Kubernetes it
//!    is a percentile of the peaks of each day; here a limit ends an instance at once, so it is the
//!    highest of all.
//! 2. **CPU** is what a pod used in 95 of 100 samples, as the autoscaler's target of the limit, or
//!    plus 15 % without one; rounded up to 10m, from one core on to 100m. *312m with a target of
//!    70 %: 312 / 0.7 = 445.7, 450m. Without: × 1.15 = 358.8, 360m.* In Kubernetes the target is
//!    the 90th percentile, of a request; a limit holds back what is above it.
//! 3. **CPU of a request** is three times what 999 of 1000 requests used, or the most that one
//!    used plus 15 %, whichever is more; rounded up to 5 ms, from 100 ms on to 10 ms, from one
//!    second on to 100 ms, and at least 10 ms, two ticks of the clock that ends guests. *12.4 ms,
//!    and at the most 31 ms: 37.2 and 35.7, so 40 ms.* From [`MIN_REQUESTS`] requests on.
//!    Kubernetes has nothing like it.
//!
//! [VerticalPodAutoscaler]: https://github.com/kubernetes/autoscaler/tree/master/vertical-pod-autoscaler

mod show;

use std::time::Duration;

use crate::{
    object::Autoscale,
    quantity::{ByteSize, Cpu},
    record::Template,
};

/// Fewer samples say nothing: a minute of one pod at work.
pub const MIN_SAMPLES: u64 = 60;
/// Fewer requests have no 999 of 1000.
pub const MIN_REQUESTS: u64 = 1000;
/// What is put on top: `--recommendation-margin-fraction` in Kubernetes.
const MARGIN: f64 = 1.15;
/// A request may use so many times what 999 of 1000 use.
const REQUEST_FACTOR: f64 = 3.0;
/// The shortest time in which a guest is surely looked at.
const LEAST_REQUEST_CPU: Duration = Duration::from_millis(10);
/// The largest memory of an instance of 32 bits.
const MOST_MEMORY: u64 = 4 << 30;
/// The most cores that a spec may name.
const MOST_MILLIS: u32 = 1024 * 1000;
/// Held back for more of the time than this, a pod would have used more.
const HELD_BACK: f64 = 0.01;

/// What was seen of the pods of one revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// Which revision.
    pub revision: u64,
    /// For how long.
    pub watched: Duration,
    /// Samples of pods that were ready and had something to do, one a pod and second.
    pub samples: u64,
    /// In 95 of 100 of them a pod used no more than this, in cores.
    pub cpu_p95: f64,
    /// The most that a pod used in one, in cores.
    pub cpu_max: f64,
    /// Share of the time in which these pods were held back.
    pub throttled: f64,
    /// The most bytes that one instance held.
    pub instance_bytes: u64,
    /// CPU of single requests, if that was measured.
    pub request_cpu: Option<RequestCpu>,
}

impl Seen {
    /// What was seen at several nodes together of `revision`, or where nothing was, of the newest one
    /// of which something was. What limits are taken from is that of the node where it is highest:
    /// limits that fit there fit everywhere.
    #[must_use]
    pub fn together(nodes: Vec<Self>, revision: u64) -> Self {
        let newest = nodes.iter().map(|it| it.revision).max();
        let is_there = nodes.iter().any(|it| it.revision == revision);
        let wanted = if is_there { Some(revision) } else { newest };
        let same = nodes.into_iter().filter(|it| Some(it.revision) == wanted);
        same.reduce(Self::and).unwrap_or_default()
    }

    fn and(self, other: Self) -> Self {
        let samples = self.samples + other.samples;
        let share = |it: &Self| it.throttled * it.samples as f64;
        let throttled = (share(&self) + share(&other)) / samples.max(1) as f64;
        Self {
            revision: self.revision,
            watched: self.watched.max(other.watched),
            samples,
            cpu_p95: self.cpu_p95.max(other.cpu_p95),
            cpu_max: self.cpu_max.max(other.cpu_max),
            throttled,
            instance_bytes: self.instance_bytes.max(other.instance_bytes),
            request_cpu: match (self.request_cpu, other.request_cpu) {
                (Some(one), Some(other)) => Some(RequestCpu {
                    requests: one.requests + other.requests,
                    p999: one.p999.max(other.p999),
                    max: one.max.max(other.max),
                }),
                (one, other) => one.or(other),
            },
        }
    }
}

/// CPU of single requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCpu {
    /// How many requests.
    pub requests: u64,
    /// 999 of 1000 used no more.
    pub p999: Duration,
    /// The most that one used.
    pub max: Duration,
}

/// Limits that would fit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Advice {
    /// `limits.memory`
    pub memory: Suggestion<ByteSize>,
    /// `limits.cpu`
    pub cpu: Suggestion<Cpu>,
    /// `limits.request_cpu`
    pub request_cpu: Suggestion<Duration>,
}

/// A limit that would fit, if that can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion<T> {
    /// The limit.
    pub value: Option<T>,
    /// From what it follows, or what is missing.
    pub why: String,
}

impl<T> Suggestion<T> {
    fn of(value: T, why: String) -> Self {
        Self {
            value: Some(value),
            why,
        }
    }

    fn none(why: impl Into<String>) -> Self {
        Self {
            value: None,
            why: why.into(),
        }
    }
}

/// Which limits would fit pods of this template that were seen like this.
pub fn advise(template: &Template, autoscale: Option<&Autoscale>, seen: &Seen) -> Advice {
    let target = autoscale.and_then(|it| it.cpu);
    Advice {
        memory: memory(template, seen),
        cpu: cpu(target.map(|it| f64::from(it.0) / 100.0), seen),
        request_cpu: request_cpu(seen.request_cpu.as_ref()),
    }
}

fn too_few<T>(seen: &Seen) -> Option<Suggestion<T>> {
    let samples = seen.samples;
    let why = format!("not enough seen: {samples} of {MIN_SAMPLES} seconds with work");
    (samples < MIN_SAMPLES).then(|| Suggestion::none(why))
}

fn memory(template: &Template, seen: &Seen) -> Suggestion<ByteSize> {
    if let Some(missing) = too_few(seen) {
        return missing;
    }
    let (limit, bytes) = (template.limits.memory, seen.instance_bytes);
    if bytes == 0 {
        return Suggestion::none("no memory was seen");
    }
    let nearly = match bytes as f64 > limit.0 as f64 * 0.95 {
        true => ", nearly all it may",
        false => "",
    };
    let why = format!("an instance held up to {}{nearly}, plus 15%", mib(bytes));
    Suggestion::of(roomy(bytes), why)
}

/// So many bytes with the margin, in whole steps.
fn roomy(bytes: u64) -> ByteSize {
    let wanted = (bytes as f64 * MARGIN) as u64;
    let step = (1 << 20).max((1 << wanted.max(8).ilog2()) >> 3);
    ByteSize(wanted.div_ceil(step).saturating_mul(step).min(MOST_MEMORY))
}

fn cpu(target: Option<f64>, seen: &Seen) -> Suggestion<Cpu> {
    if let Some(missing) = too_few(seen) {
        return missing;
    }
    let used = seen.cpu_p95 * 1e3;
    let (wanted, by) = match target {
        Some(target) => (used / target, format!("as {:.0}% of it", target * 100.0)),
        None => (used * MARGIN, "plus 15%".to_owned()),
    };
    // The conversion saturates.
    let wanted = (wanted - 1e-6).ceil() as u32;
    let step = if wanted < 1000 { 10 } else { 100 };
    let millis = wanted.div_ceil(step).max(1).saturating_mul(step);
    let held = match seen.throttled > HELD_BACK {
        true => {
            let share = seen.throttled * 100.0;
            format!("; held back {share:.0}% of the time, so it may need more")
        }
        false => String::new(),
    };
    let why = format!("a pod used {used:.0}m in 95 of 100 seconds, {by}{held}");
    let millis = millis.min(MOST_MILLIS);
    Suggestion::of(Cpu { millis }, why)
}

fn request_cpu(seen: Option<&RequestCpu>) -> Suggestion<Duration> {
    let Some(seen) = seen else {
        return Suggestion::none("the CPU of single requests was not measured");
    };
    let requests = seen.requests;
    if requests < MIN_REQUESTS {
        let why = format!("not enough seen: {requests} of {MIN_REQUESTS} requests");
        return Suggestion::none(why);
    }
    let (usual, most) = (seen.p999.as_secs_f64() * 1e3, seen.max.as_secs_f64() * 1e3);
    let (threefold, margin) = (usual * REQUEST_FACTOR, most * MARGIN);
    let wanted = (threefold.max(margin) - 1e-6).ceil() as u64;
    let step = match wanted {
        0..100 => 5,
        100..1000 => 10,
        1000.. => 100,
    };
    let millis = wanted.div_ceil(step).saturating_mul(step);
    let value = Duration::from_millis(millis).max(LEAST_REQUEST_CPU);
    let why = match threefold >= margin {
        true => format!("three times what 999 of 1000 requests used, {usual:.1} ms"),
        false => format!("the most that a request used, {most:.1} ms, plus 15%"),
    };
    Suggestion::of(value, why)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests;
