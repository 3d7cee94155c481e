//! What the services of this node have been doing in the last second.
//!
//! `serve` measures it, once a second; the API shows it. The autoscaler decides by it and by what the
//! other nodes have measured.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sampan_core::{
    load::{Load, Merged},
    name::{PodName, ServiceKey},
    plan::autoscale::{Decision, PodSample},
    quantity::{ByteSize, Cpu},
};
use tokio::sync::watch;

/// Time between two measurements.
pub(crate) const PERIOD: Duration = Duration::from_secs(1);

/// The last measurement of every service, and a wait for the next.
pub(crate) type Loads = watch::Receiver<Arc<Measured>>;

/// The last measurements of all nodes together, and a wait for the next.
pub(crate) type MergedLoads = watch::Receiver<Arc<Merged>>;

/// What was decided last for every service with an autoscaler.
pub(crate) type Decided = Arc<BTreeMap<ServiceKey, Decision>>;

/// The same, and a wait for the next decisions.
pub(crate) type Decisions = watch::Receiver<Decided>;

/// One measurement of the whole node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Counts the measurements.
    pub(crate) number: u64,
    pub(crate) services: BTreeMap<ServiceKey, ServiceLoad>,
}

/// What a service has been doing since the last measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceLoad {
    /// All pods that there are, those that drain too, in the order of their names.
    pub(crate) pods: Vec<PodLoad>,
    /// Mean number of requests that waited for a pod.
    pub(crate) queued: f64,
    /// Requests that wait for a pod now.
    pub(crate) waiting: u32,
    /// Mean number of requests in flight that came in at this node: those that waited too, and those
    /// at pods that drain. Like the rates below, nothing at the first measurement.
    pub(crate) in_flight: Option<f64>,
    /// Requests that arrived, per second.
    pub(crate) arrived: Option<f64>,
    /// Requests that pods have answered, per second.
    pub(crate) served: Option<f64>,
    /// For how long there has been no request.
    pub(crate) idle: Duration,
    /// Latencies of the last ten seconds, if there were any: half of the answers took no longer.
    pub(crate) p50: Option<Duration>,
    /// 99 of 100 answers took no longer.
    pub(crate) p99: Option<Duration>,
}

/// What a pod has been doing since the last measurement.
#[derive(Clone, Debug)]
pub(crate) struct PodLoad {
    pub(crate) pod: PodName,
    /// Where it is in its life, in one word.
    pub(crate) phase: &'static str,
    /// Whether it gets requests.
    pub(crate) ready: bool,
    /// Whether it was ready all the time.
    pub(crate) was_ready: bool,
    /// Whether it only ends what it has.
    pub(crate) drains: bool,
    /// CPU its guests used since it was ready, in cores; `None` at its first measurement.
    pub(crate) cpu: Option<f64>,
    /// The share of the time in which it was held back, because it had used up its CPU.
    pub(crate) throttled: f64,
    pub(crate) cpu_limit: Option<Cpu>,
    pub(crate) memory_bytes: u64,
    /// The most bytes that one of its instances held, since it was made.
    pub(crate) instance_peak_bytes: u64,
    /// The limit of each of its instances.
    pub(crate) memory_limit: ByteSize,
    /// Requests it was given, per second.
    pub(crate) requests: f64,
    /// Requests that it has ended, per second.
    pub(crate) served: f64,
    /// Mean number of requests it had in flight.
    pub(crate) in_flight: f64,
}

impl ServiceLoad {
    /// What the autoscaler is given.
    pub(crate) fn load(&self) -> Load {
        let (leaving, staying): (Vec<_>, Vec<_>) = self.pods.iter().partition(|pod| pod.drains);
        Load {
            pods: staying.into_iter().map(PodLoad::sample).collect(),
            in_flight: self.in_flight,
            draining: leaving.iter().map(|pod| pod.in_flight).sum(),
            arrived: self.arrived,
            served: self.served,
            waiting: self.waiting,
            idle: self.idle,
            is_partial: false,
        }
    }
}

impl PodLoad {
    fn sample(&self) -> PodSample {
        let share = |cores: f64| {
            let limit = self.cpu_limit.map_or(1.0, |it| f64::from(it.millis) / 1e3);
            cores / limit
        };
        PodSample {
            ready: self.was_ready,
            cpu: self.cpu.map(share),
        }
    }
}
