//! What was seen of each service since pods of its revision run, for advice on its limits.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use sampan_core::{
    name::ServiceKey,
    plan::advise::{self, RequestCpu},
};

use super::sketch::Sketch;
use crate::load::{Measured, PERIOD, PodLoad, ServiceLoad};

/// A pod that used less CPU than this and had no requests had nothing to do, in cores.
const IDLE_CORES: f64 = 0.001;

/// What was seen of each service. It has one entry for each that there is, and each is about one
/// revision: it begins anew when no pod of that is ready any more, but one of another.
#[derive(Default)]
pub(crate) struct Seen(Mutex<State>);

#[derive(Default)]
struct State {
    /// The measurement that was noted last.
    number: u64,
    services: BTreeMap<ServiceKey, Entry>,
}

#[derive(Default)]
struct Entry {
    revision: u64,
    /// Measurements in which a pod of the revision was ready.
    measurements: u32,
    /// What pods that worked used in one second. Its count is that of the samples.
    cpu: Sketch,
    /// The sum of the shares of time in which they were held back.
    throttled: f64,
    /// The most that one instance held.
    instance_bytes: u64,
}

impl Seen {
    /// Takes note of a measurement. One that was noted before changes nothing.
    pub(crate) fn note(&self, measured: &Measured) {
        let mut state = self.0.lock();
        if measured.number <= state.number {
            return;
        }
        state.number = measured.number;
        state
            .services
            .retain(|key, _| measured.services.contains_key(key));
        for (key, load) in &measured.services {
            state.services.entry(key.clone()).or_default().note(load);
        }
    }

    /// What was seen of all services. What single requests of each used is known elsewhere.
    pub(crate) fn all(
        &self,
        request_cpu: impl Fn(&ServiceKey) -> Option<RequestCpu>,
    ) -> BTreeMap<ServiceKey, advise::Seen> {
        let state = self.0.lock();
        let seen = |(key, entry): (&ServiceKey, &Entry)| {
            let mut seen = entry.seen();
            seen.request_cpu = request_cpu(key);
            (key.clone(), seen)
        };
        state.services.iter().map(seen).collect()
    }
}

impl Entry {
    fn note(&mut self, load: &ServiceLoad) {
        let ready = || load.pods.iter().filter(|pod| pod.was_ready && !pod.drains);
        let is_there = ready().any(|pod| pod.pod.revision() == self.revision);
        let newest = ready().map(|pod| pod.pod.revision()).max();
        if let Some(revision) = newest.filter(|_| !is_there) {
            *self = Self {
                revision,
                ..Self::default()
            };
        }
        let revision = self.revision;
        let mut pods = ready()
            .filter(|pod| pod.pod.revision() == revision)
            .peekable();
        let is_watched = u32::from(pods.peek().is_some());
        self.measurements = self.measurements.saturating_add(is_watched);
        pods.for_each(|pod| self.sample(pod));
    }

    fn sample(&mut self, pod: &PodLoad) {
        self.instance_bytes = self.instance_bytes.max(pod.instance_peak_bytes);
        let Some(cores) = pod.cpu else {
            return;
        };
        if cores >= IDLE_CORES || pod.requests > 0.0 || pod.in_flight > 0.0 {
            let used = Duration::try_from_secs_f64(cores).unwrap_or_default();
            self.cpu.record(used);
            self.throttled += pod.throttled;
        }
    }

    fn seen(&self) -> advise::Seen {
        let samples = self.cpu.count();
        advise::Seen {
            revision: self.revision,
            watched: PERIOD.saturating_mul(self.measurements),
            samples,
            cpu_p95: self.cpu.quantile(0.95).as_secs_f64(),
            cpu_max: self.cpu.max().as_secs_f64(),
            throttled: self.throttled / samples.max(1) as f64,
            instance_bytes: self.instance_bytes,
            request_cpu: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use sampan_core::{name::PodName, quantity::ByteSize};

    use super::*;

    fn key() -> ServiceKey {
        ServiceKey::parse("shop/web").expect("a key")
    }

    fn pod(revision: u64, slot: u32, cpu: f64) -> PodLoad {
        PodLoad {
            pod: PodName::new(&key(), revision, slot),
            phase: "Running",
            ready: true,
            was_ready: true,
            drains: false,
            cpu: Some(cpu),
            throttled: 0.5,
            cpu_limit: None,
            memory_bytes: 1 << 20,
            instance_peak_bytes: 3 << 20,
            memory_limit: ByteSize(64 << 20),
            requests: 0.0,
            served: 0.0,
            in_flight: 0.0,
        }
    }

    struct Rig {
        seen: Seen,
        number: u64,
    }

    impl Rig {
        fn note(&mut self, pods: Vec<PodLoad>) {
            self.number += 1;
            let load = ServiceLoad {
                pods,
                ..ServiceLoad::default()
            };
            self.seen.note(&Measured {
                number: self.number,
                services: BTreeMap::from([(key(), load)]),
            });
        }

        fn of(&self) -> advise::Seen {
            self.seen.all(|_| None).remove(&key()).expect("seen")
        }
    }

    fn rig() -> Rig {
        Rig {
            seen: Seen::default(),
            number: 0,
        }
    }

    #[test]
    fn seconds_with_work_are_samples() {
        let mut rig = rig();
        for second in 1..=100 {
            let cores = f64::from(second) / 100.0;
            let idle = pod(1, 1, 0.000_5);
            let mut calls = pod(1, 2, 0.0);
            calls.in_flight = 0.1;
            let mut starts = pod(1, 3, 9.0);
            starts.was_ready = false;
            let mut drains = pod(1, 4, 9.0);
            drains.drains = true;
            let mut unknown = pod(1, 5, 0.0);
            (unknown.cpu, unknown.instance_peak_bytes) = (None, 5 << 20);
            rig.note(vec![pod(1, 0, cores), idle, calls, starts, drains, unknown]);
        }
        let seen = rig.of();
        assert_eq!(
            (seen.revision, seen.samples, seen.watched),
            (1, 200, Duration::from_secs(100))
        );
        // The upper half of the samples is the first pod's, the lower one that of the third.
        assert!((seen.cpu_p95 - 0.9).abs() < 0.01, "{}", seen.cpu_p95);
        assert_eq!(seen.cpu_max, 1.0);
        assert_eq!(seen.throttled, 0.5);
        assert_eq!(seen.instance_bytes, 5 << 20);
    }

    #[test]
    fn a_measurement_counts_once() {
        let mut rig = rig();
        rig.note(vec![pod(1, 0, 0.2)]);
        rig.number -= 1;
        rig.note(vec![pod(1, 0, 0.2)]);
        assert_eq!(rig.of().samples, 1);
    }

    #[test]
    fn another_revision_begins_when_it_has_taken_over() {
        let mut rig = rig();
        rig.note(vec![pod(3, 0, 0.9)]);
        rig.note(vec![pod(3, 0, 0.9), pod(4, 0, 0.1)]);
        assert_eq!((rig.of().revision, rig.of().samples), (3, 2));
        // At zero nothing is forgotten.
        rig.note(Vec::new());
        assert_eq!((rig.of().revision, rig.of().samples), (3, 2));
        rig.note(vec![pod(4, 0, 0.1)]);
        assert_eq!((rig.of().revision, rig.of().samples), (4, 1));
        assert!(rig.of().cpu_max < 0.11);
        // Back to the revision before: that is a beginning too.
        rig.note(vec![pod(3, 0, 0.3)]);
        assert_eq!((rig.of().revision, rig.of().samples), (3, 1));
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut rig = rig();
        rig.note(vec![pod(1, 0, 0.2)]);
        rig.seen.note(&Measured {
            number: 2,
            services: BTreeMap::new(),
        });
        assert!(rig.seen.all(|_| None).is_empty());
    }
}
