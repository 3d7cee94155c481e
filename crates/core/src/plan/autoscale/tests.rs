//! Tables and laws.

use super::*;
use crate::quantity::Percent;

mod kubernetes;
mod laws;

/// A spec without a target.
fn spec(min: u32, max: u32) -> Autoscale {
    Autoscale {
        min,
        max,
        cpu: None,
        concurrency: None,
        rps: None,
        stabilization: Duration::from_secs(300),
        idle: Duration::from_secs(60),
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::after(Duration::from_secs(seconds))
}

fn ready(cpu: f64) -> PodSample {
    PodSample {
        ready: true,
        cpu: Some(cpu),
    }
}

/// A service that is decided for once a second, and gets what is decided.
struct Service {
    spec: Autoscale,
    replicas: u32,
    history: History,
    now: u64,
}

impl Service {
    fn new(spec: Autoscale, replicas: u32) -> Self {
        Self {
            spec,
            replicas,
            history: History::default(),
            now: 0,
        }
    }

    fn step(&mut self, sample: &Sample) -> Decision {
        let now = at(self.now);
        self.now += 1;
        let (decision, history) = decide(&self.spec, self.replicas, &self.history, sample, now);
        self.history = history;
        if !decision.is_steady() {
            self.history.scaled(self.replicas, decision.replicas, now);
            self.replicas = decision.replicas;
        }
        decision
    }

    /// A second in which the pods use this much CPU together, in pods that use all of theirs.
    fn busy(&mut self, cpu: f64) -> Decision {
        let each = cpu / f64::from(self.replicas.max(1));
        let pods = vec![ready(each.min(1.0)); self.replicas as usize];
        self.step(&Sample {
            pods,
            in_flight: Some(cpu),
            ..Sample::default()
        })
    }

    fn in_flight(&mut self, requests: f64) -> Decision {
        let pods = vec![ready(0.0); self.replicas as usize];
        self.step(&Sample {
            pods,
            in_flight: Some(requests),
            ..Sample::default()
        })
    }
}

fn by_concurrency(target: f64, min: u32, max: u32) -> Autoscale {
    Autoscale {
        concurrency: Some(target),
        ..spec(min, max)
    }
}

fn by_cpu(percent: u32, min: u32, max: u32) -> Autoscale {
    Autoscale {
        cpu: Some(Percent(percent)),
        ..spec(min, max)
    }
}

/// The example of step 3: a rise is not hidden by the first pods that it brought.
#[test]
fn a_steep_rise_is_followed_at_once() {
    let mut service = Service::new(by_concurrency(10.0, 1, 100), 1);
    for _ in 0..6 {
        assert_eq!(service.in_flight(2.0).replicas, 1);
    }
    // The load came in the last half of this second.
    let first = service.in_flight(31.0);
    assert_eq!((first.replicas, first.panic), (4, false));
    assert_eq!(first.to_string(), "1 → 4: concurrency 31.0 of 10");
    let second = service.in_flight(120.0);
    assert_eq!((second.replicas, second.panic), (12, true));
    // Of what is there 12 pods are enough, and yet none goes while the rise counts.
    let third = service.in_flight(0.0);
    assert_eq!((third.replicas, third.held), (12, Some(Held::Panic)));
    assert_eq!(
        third.to_string(),
        "concurrency 0.0 of 10, in panic; none goes in panic"
    );
    let told = service.in_flight(2.0).to_string();
    assert_eq!(told, "concurrency 0.2 of 10; 12 were needed within 5m");
}

#[test]
fn panic_ends_and_the_window_holds() {
    let mut spec = by_concurrency(1.0, 1, 50);
    spec.stabilization = Duration::from_secs(20);
    let mut service = Service::new(spec, 1);
    let _ = service.in_flight(0.5);
    assert!(service.in_flight(40.0).panic);
    assert_eq!(service.replicas, 40);
    let mut panicked = 0;
    while service.replicas == 40 {
        let decision = service.in_flight(0.5);
        panicked += u32::from(decision.panic);
        assert!(service.now < 60, "{decision}");
    }
    // The window of 20 s began in second 1, and panic is over when the load is.
    assert_eq!((service.now - 1, service.replicas), (21, 1));
    assert_eq!(panicked, 1);
}

/// What a capped pod uses says nothing about how much more it would need.
#[test]
fn work_that_piles_up_counts_as_cpu() {
    let mut service = Service::new(by_cpu(70, 1, 20), 1);
    let _ = service.busy(0.3);
    let mut sample = Sample {
        pods: vec![ready(0.99)],
        arrived: Some(25.0),
        served: Some(5.0),
        ..Sample::default()
    };
    let decision = service.step(&sample);
    assert_eq!(decision.to_string(), "1 → 8: cpu 495% of 70%, in panic");
    // Nothing has ended yet: how much it takes is not known.
    let mut service = Service::new(by_cpu(70, 1, 20), 1);
    sample.served = Some(0.0);
    assert_eq!(service.step(&sample).replicas, 2);
    // A pod that is not at its limit needs what it uses, however long its requests take.
    sample.served = Some(5.0);
    sample.pods = vec![ready(0.6)];
    let mut service = Service::new(by_cpu(70, 1, 20), 1);
    assert_eq!(service.step(&sample).replicas, 1);
}

/// A sample of five pods that have had no request for so long.
fn idle(seconds: u64) -> Sample {
    Sample {
        pods: vec![ready(0.0); 5],
        in_flight: Some(0.0),
        idle: Duration::from_secs(seconds),
        ..Sample::default()
    }
}

#[test]
fn a_service_falls_asleep_and_wakes() {
    let mut service = Service::new(by_concurrency(10.0, 0, 20), 5);
    assert_eq!(service.step(&idle(0)).replicas, 5);
    service.now = 100;
    // Five were needed a minute ago, which holds them as long as a request could come.
    assert_eq!(service.step(&idle(59)).replicas, 5);
    let mut rollout = idle(60);
    rollout.rollout = true;
    assert_eq!(service.step(&rollout).replicas, 5);
    let decision = service.step(&idle(60));
    assert_eq!(decision.to_string(), "5 → 0: no request for 1m");
    let over = Sample {
        in_flight: Some(0.3),
        ..Sample::default()
    };
    let asleep = service.step(&over);
    assert_eq!((asleep.replicas, asleep.cause), (0, Cause::Asleep));
    let waits = Sample {
        waiting: 1,
        ..Sample::default()
    };
    assert_eq!(service.step(&waits).to_string(), "0 → 1: a request waits");
    // It stays up for as long, even if the request did not: there is none since a long time.
    let woke = service.now;
    while service.replicas == 1 {
        let _ = service.step(&idle(1000));
    }
    assert_eq!(service.now - woke, 61);
}

/// A node that does not say what it measures may have requests: pods come, and none goes.
#[test]
fn pods_stay_while_a_node_is_silent() {
    let silent = |sample: Sample| Sample {
        is_partial: true,
        ..sample
    };
    let mut service = Service::new(by_concurrency(10.0, 0, 20), 5);
    service.now = 100;
    let decision = service.step(&silent(idle(600)));
    assert_eq!(
        decision.to_string(),
        "concurrency 0.0 of 10; a node has not said what it measures"
    );
    let busy = Sample {
        in_flight: Some(80.0),
        ..idle(0)
    };
    assert_eq!(service.step(&silent(busy)).replicas, 8);
    service.now = 1000;
    assert_eq!(service.step(&silent(idle(600))).replicas, 8);
    // It reports again.
    assert_eq!(service.step(&idle(600)).replicas, 0);
}

#[test]
fn a_smallest_number_keeps_it_awake() {
    let mut service = Service::new(by_concurrency(10.0, 1, 20), 1);
    for _ in 0..100 {
        assert_eq!(service.step(&idle(600)).replicas, 1);
    }
}

#[test]
fn nothing_measured_changes_nothing() {
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let mut both = by_cpu(50, 0, 20);
        both.concurrency = Some(1.0);
        both.rps = Some(1.0);
        let mut service = Service::new(both, 7);
        let sample = Sample {
            pods: vec![ready(bad); 7],
            in_flight: Some(bad),
            arrived: Some(bad),
            served: Some(bad),
            waiting: 0,
            idle: Duration::ZERO,
            rollout: false,
            is_partial: false,
        };
        let decision = service.step(&sample);
        assert_eq!((decision.replicas, &decision.cause), (7, &Cause::Unknown));
        assert_eq!(
            decision.to_string(),
            "nothing was measured; not everything was measured"
        );
    }
}

#[test]
fn numbers_out_of_bounds_come_back() {
    for (current, wanted) in [(0, 2), (1, 2), (5, 5), (50, 9)] {
        let mut service = Service::new(by_cpu(50, 2, 9), current);
        assert_eq!(service.step(&Sample::default()).replicas, wanted);
    }
}

/// Pods that have just come are not measured, and the others are less busy already: without a
/// window that would be a need for fewer.
#[test]
fn no_window_is_no_reason_to_swing() {
    let mut spec = by_cpu(70, 1, 20);
    spec.stabilization = Duration::ZERO;
    let mut service = Service::new(spec, 2);
    let mut old = 2;
    for second in 0..60 {
        let each = (1.6 / f64::from(service.replicas)).min(1.0);
        let pods = (0..service.replicas).map(|pod| PodSample {
            ready: pod < old,
            cpu: (pod < old).then_some(each),
        });
        let pods = pods.collect();
        old = service.replicas;
        let decision = service.step(&Sample {
            pods,
            ..Sample::default()
        });
        assert!(second < 1 || decision.is_steady(), "{second}: {decision}");
    }
    assert_eq!(service.replicas, 3);
}
