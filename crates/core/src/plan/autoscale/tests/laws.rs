//! What holds of every decision.

use proptest::prelude::*;

use super::*;

prop_compose! {
    fn any_spec()(
        min in 0u32..5,
        more in 0u32..30,
        cpu in proptest::option::of(1u32..150),
        concurrency in proptest::option::of(0.5f64..50.0),
        rps in proptest::option::of(0.5f64..500.0),
        stabilization in 0u64..400,
    ) -> Autoscale {
        Autoscale {
            min,
            max: (min + more).max(1),
            cpu: cpu.map(Percent),
            concurrency,
            rps,
            stabilization: Duration::from_secs(stabilization),
            idle: Duration::from_secs(60),
        }
    }
}

fn any_measurement() -> impl Strategy<Value = Option<f64>> {
    prop_oneof![
        8 => (0.0f64..2000.0).prop_map(Some),
        1 => Just(None),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(f64::MAX)]
            .prop_map(Some),
    ]
}

prop_compose! {
    fn any_sample()(
        pods in proptest::collection::vec(
            (any::<bool>(), proptest::option::of(0.0f64..3.0)),
            0..12,
        ),
        in_flight in any_measurement(),
        arrived in any_measurement(),
        served in any_measurement(),
        waiting in 0u32..3,
        idle in 0u64..120,
        is_partial in proptest::bool::weighted(0.2),
    ) -> Sample {
        Sample {
            pods: pods.into_iter().map(|(ready, cpu)| PodSample { ready, cpu }).collect(),
            in_flight,
            arrived,
            served,
            waiting,
            idle: Duration::from_secs(idle),
            rollout: false,
            is_partial,
        }
    }
}

/// More of everything.
fn more(sample: &Sample, factor: f64) -> Sample {
    let times = |value: Option<f64>| value.map(|it| (it * factor).min(f64::MAX));
    let mut more = sample.clone();
    more.in_flight = times(sample.in_flight);
    more.arrived = times(sample.arrived);
    more.pods
        .iter_mut()
        .for_each(|pod| pod.cpu = times(pod.cpu));
    more
}

proptest! {
    /// Never outside the bounds, whatever was measured and whatever happened before.
    #[test]
    fn the_bounds_hold(
        spec in any_spec(),
        start in 0u32..50,
        samples in proptest::collection::vec((any_sample(), 0u64..20), 1..30),
    ) {
        let mut service = Service::new(spec, start);
        for (sample, pause) in samples {
            let decision = service.step(&sample);
            let range = service.spec.min..=service.spec.max;
            prop_assert!(range.contains(&decision.replicas), "{decision:?}");
            prop_assert_eq!(decision.current == decision.replicas, decision.is_steady());
            service.now += pause;
        }
    }

    /// While a node may have more than was measured no pod is taken away, whatever else is known.
    #[test]
    fn what_is_partial_takes_nothing_away(
        spec in any_spec(),
        start in 0u32..20,
        past in proptest::collection::vec(any_sample(), 0..10),
        sample in any_sample(),
    ) {
        let mut service = Service::new(spec, start);
        for sample in &past {
            let _ = service.step(sample);
        }
        let before = service.replicas.min(service.spec.max);
        let decision = service.step(&Sample { is_partial: true, ..sample });
        prop_assert!(decision.replicas >= before, "{decision:?}");
    }

    /// A higher load never leads to fewer pods, given the same past.
    #[test]
    fn more_load_is_not_fewer_pods(
        spec in any_spec(),
        start in 0u32..20,
        past in proptest::collection::vec(any_sample(), 0..10),
        sample in any_sample(),
        factor in 1.0f64..5.0,
    ) {
        let mut service = Service::new(spec, start);
        for sample in &past {
            let _ = service.step(sample);
        }
        let decided = |sample| {
            let now = at(service.now);
            decide(&service.spec, service.replicas, &service.history, sample, now).0
        };
        let (less, more) = (decided(&sample), decided(&more(&sample, factor)));
        prop_assert!(more.replicas >= less.replicas, "{less:?}\n{more:?}");
    }

    /// What a pod uses before it is ready changes nothing.
    #[test]
    fn starting_pods_use_what_they_like(
        spec in any_spec(),
        start in 1u32..20,
        sample in any_sample(),
        burst in 0.0f64..1000.0,
    ) {
        let mut bursting = sample.clone();
        for pod in bursting.pods.iter_mut().filter(|pod| !pod.ready) {
            pod.cpu = Some(burst);
        }
        let decided = |sample| decide(&spec, start, &History::default(), sample, at(0));
        prop_assert_eq!(decided(&bursting), decided(&sample));
    }

    /// A constant load leads to a number of pods, and then nothing changes any more. That number
    /// is the one that the formula calls for, within the tolerance.
    #[test]
    fn a_constant_load_settles(
        percent in 10u32..=95,
        load in 0.0f64..15.0,
        start in 1u32..30,
        stabilization in 0u64..30,
        by in prop_oneof![Just(Metric::Cpu), Just(Metric::Concurrency)],
    ) {
        let target = f64::from(percent) / 100.0;
        let mut spec = match by {
            Metric::Cpu => by_cpu(percent, 1, 200),
            Metric::Concurrency | Metric::Rps => by_concurrency(target, 1, 200),
        };
        spec.stabilization = Duration::from_secs(stabilization);
        let mut service = Service::new(spec, start);
        let mut changed = 0;
        for _ in 0..200 {
            if !service.busy(load).is_steady() {
                changed = service.now;
            }
        }
        // Growth doubles at least every 15 s, and the window is shorter than 30 s.
        prop_assert!(changed < 120, "still changing in second {changed}");
        let exact = (load / target).max(1.0);
        let pods = f64::from(service.replicas);
        prop_assert!(pods >= exact / 1.1 - 1e-6, "{pods} pods for {exact}");
        prop_assert!(pods <= (exact / 0.9 + 1e-6).max(exact.ceil() + 1e-6), "{pods} pods for {exact}");
    }
}
