//! What services and pods are doing, and which limits would fit them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Bounds;

/// What services and their pods have been doing since the measurement before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Top {
    /// Counts the measurements. Zero before the first one.
    pub number: u64,
    /// Milliseconds from one measurement to the next.
    pub period_ms: u64,
    /// The services, in the order of their apps and names.
    pub services: Vec<ServiceTop>,
    /// Their pods, those that drain too, in the same order.
    pub pods: Vec<PodTop>,
}

/// What a service has been doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceTop {
    /// The app it belongs to.
    pub app: String,
    /// Its name in the app.
    pub service: String,
    /// Pods, with those that drain.
    pub pods: u32,
    /// Pods that get requests.
    pub ready: u32,
    /// How many pods it is set to.
    pub replicas: u32,
    /// How many it should be set to, if an autoscaler has decided that.
    pub wanted: Option<u32>,
    /// Between which bounds the number of pods moves, if it does.
    pub autoscale: Option<Bounds>,
    /// Why the autoscaler wants so many.
    pub why: Option<String>,
    /// CPU of all its guests, in cores, if it could be measured.
    pub cpu_cores: Option<f64>,
    /// CPU of its ready pods as a share of their limits together: 1 is all that they may use. Not
    /// there without `limits.cpu`.
    pub cpu_of_limit: Option<f64>,
    /// Share of the time in which a pod was held back because it had used up its CPU, from 0 to 1:
    /// the mean of the ready ones.
    pub throttled: f64,
    /// Bytes of memory that all its instances hold.
    pub memory_bytes: u64,
    /// Requests that arrived, per second.
    pub rps: f64,
    /// Mean number of requests in flight, those that waited too.
    pub in_flight: f64,
    /// Mean number of requests that waited for a pod.
    pub queued: f64,
    /// Milliseconds in which half of the answers of the last ten seconds were there, if there were
    /// any.
    pub p50_ms: Option<f64>,
    /// Milliseconds in which 99 of 100 of them were there.
    pub p99_ms: Option<f64>,
    /// For how many milliseconds there has been no request.
    pub idle_ms: u64,
}

/// What a pod has been doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PodTop {
    /// The app it belongs to.
    pub app: String,
    /// The service it belongs to.
    pub service: String,
    /// Its name, as in `web-1-0`.
    pub pod: String,
    /// Where it is in its life, as in the view of pods.
    pub phase: String,
    /// Whether it gets requests.
    pub ready: bool,
    /// CPU of its guests, in cores, if it could be measured.
    pub cpu_cores: Option<f64>,
    /// The same as a share of `limits.cpu`, if there is one: 1 is all that it may use.
    pub cpu_of_limit: Option<f64>,
    /// Share of the time in which it was held back because it had used up its CPU, from 0 to 1.
    pub throttled: f64,
    /// Bytes of memory that its instances hold.
    pub memory_bytes: u64,
    /// Bytes that each of its instances may hold.
    pub memory_limit_bytes: u64,
    /// Requests it was given, per second.
    pub rps: f64,
    /// Mean number of requests it had in flight.
    pub in_flight: f64,
}

/// Limits that would fit a service, from what was seen of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Advice {
    /// The app it belongs to.
    pub app: String,
    /// Its name in the app.
    pub service: String,
    /// The revision that was watched, and whose limits are the present ones.
    pub revision: u64,
    /// What was seen.
    pub seen: Seen,
    /// For `limits.memory`, which is that of one instance.
    pub memory: Suggestion,
    /// For `limits.cpu`, which is that of one pod.
    pub cpu: Suggestion,
    /// For `limits.request_cpu`.
    pub request_cpu: Suggestion,
}

/// What was seen of the pods of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// For how many milliseconds pods of the revision were watched.
    pub watched_ms: u64,
    /// Samples of pods that worked: one a pod and second.
    pub samples: u64,
    /// In 95 of 100 of them a pod used no more CPU than this, in cores.
    pub cpu_p95_cores: f64,
    /// The most that a pod used in one, in cores.
    pub cpu_max_cores: f64,
    /// Share of the time in which pods that worked were held back, from 0 to 1.
    pub throttled: f64,
    /// The most bytes that one instance held.
    pub memory_instance_bytes: u64,
    /// Requests whose CPU was measured.
    pub requests: u64,
    /// 999 of 1000 requests used no more CPU than this, in milliseconds.
    pub request_cpu_p999_ms: Option<f64>,
    /// The most that one used, in milliseconds.
    pub request_cpu_max_ms: Option<f64>,
}

/// A limit as it is, and as it could be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suggestion {
    /// As it is, in the words of the spec; without it there is no limit.
    pub current: Option<String>,
    /// As it could be, in the words of the spec; without it there is nothing to go by.
    pub suggested: Option<String>,
    /// From what that follows, or what is missing.
    pub why: String,
}

impl Top {
    /// Adds what another node has measured of the same services.
    pub fn add(&mut self, other: Self) {
        self.pods.extend(other.pods);
        for theirs in other.services {
            let same = |ours: &&mut ServiceTop| {
                (&ours.app, &ours.service) == (&theirs.app, &theirs.service)
            };
            match self.services.iter_mut().find(same) {
                Some(ours) => ours.add(theirs),
                None => self.services.push(theirs),
            }
        }
    }
}

impl ServiceTop {
    fn add(&mut self, other: Self) {
        let ready = f64::from(self.ready) + f64::from(other.ready);
        let mean = |ours: f64, theirs: f64| match ready > 0.0 {
            true => (ours * f64::from(self.ready) + theirs * f64::from(other.ready)) / ready,
            false => 0.0,
        };
        let either = |ours: Option<f64>, theirs: Option<f64>, both: fn(f64, f64) -> f64| match (
            ours, theirs,
        ) {
            (Some(ours), Some(theirs)) => Some(both(ours, theirs)),
            (one, other) => one.or(other),
        };
        self.throttled = mean(self.throttled, other.throttled);
        self.cpu_of_limit = match (self.cpu_of_limit, other.cpu_of_limit) {
            (Some(ours), Some(theirs)) => Some(mean(ours, theirs)),
            (one, other) => one.or(other),
        };
        self.pods += other.pods;
        self.ready += other.ready;
        self.wanted = self.wanted.or(other.wanted);
        self.why = self.why.take().or(other.why);
        self.cpu_cores = either(self.cpu_cores, other.cpu_cores, |a, b| a + b);
        self.memory_bytes += other.memory_bytes;
        self.rps += other.rps;
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        // Of two medians there is no median: the slower node's is shown.
        self.p50_ms = either(self.p50_ms, other.p50_ms, f64::max);
        self.p99_ms = either(self.p99_ms, other.p99_ms, f64::max);
        self.idle_ms = self.idle_ms.min(other.idle_ms);
    }
}
