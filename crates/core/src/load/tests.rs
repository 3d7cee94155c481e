//! Laws of merging, and what silent nodes hold.

use proptest::prelude::*;

use super::*;

fn key(name: &str) -> ServiceKey {
    ServiceKey::parse(&format!("shop/{name}")).expect("a key")
}

fn node(name: &str) -> Name {
    Name::parse(name).expect("a name")
}

/// Numbers of which sums are exact, so that the order of additions does not show.
fn exact() -> impl Strategy<Value = f64> {
    (0u32..1 << 20).prop_map(|quarters| f64::from(quarters) / 4.0)
}

prop_compose! {
    fn any_load()(
        pods in proptest::collection::vec((any::<bool>(), proptest::option::of(exact())), 0..4),
        (in_flight, arrived, served) in (
            proptest::option::of(exact()),
            proptest::option::of(exact()),
            proptest::option::of(exact()),
        ),
        draining in exact(),
        waiting in 0u32..1000,
        idle in 0u64..100_000,
        is_partial in any::<bool>(),
    ) -> Load {
        let pods = pods.into_iter().map(|(ready, cpu)| PodSample { ready, cpu }).collect();
        Load {
            in_flight, draining, arrived, served, waiting, is_partial, pods,
            idle: Duration::from_millis(idle),
        }
    }
}

fn any_loads() -> impl Strategy<Value = Loads> {
    let services = prop_oneof![Just("web"), Just("api"), Just("db")].prop_map(key);
    proptest::collection::btree_map(services, any_load(), 0..3)
}

/// The same with pods in the order that merging gives them.
fn in_order(mut loads: Loads) -> Loads {
    for load in loads.values_mut() {
        let taken = std::mem::take(load);
        let nothing = Load {
            in_flight: taken.in_flight.map(|_| 0.0),
            idle: Duration::MAX,
            ..Load::default()
        };
        *load = taken.and(nothing);
    }
    loads
}

/// What all nodes together have of a number of a service.
fn total(nodes: &[Loads], of: &ServiceKey, number: impl Fn(&Load) -> Option<f64>) -> Option<f64> {
    let parts = nodes.iter().filter_map(|loads| number(loads.get(of)?));
    parts.fold(None, |sum, part| Some(sum.unwrap_or(0.0) + part))
}

proptest! {
    #[test]
    fn the_order_of_nodes_makes_no_difference(one in any_loads(), other in any_loads()) {
        let (there, back) = (merge([one.clone(), other.clone()]), merge([other, one]));
        prop_assert_eq!(in_order(there), in_order(back));
    }

    #[test]
    fn some_may_be_merged_before(a in any_loads(), b in any_loads(), c in any_loads()) {
        let left = merge([merge([a.clone(), b.clone()]), c.clone()]);
        let right = merge([a.clone(), merge([b.clone(), c.clone()])]);
        prop_assert_eq!(in_order(left.clone()), in_order(right));
        prop_assert_eq!(in_order(left), in_order(merge([a, b, c])));
    }

    #[test]
    fn nothing_is_lost_and_nothing_is_added(nodes in proptest::collection::vec(any_loads(), 0..5)) {
        let merged = merge(nodes.clone());
        let named: BTreeSet<_> = nodes.iter().flat_map(|loads| loads.keys()).collect();
        prop_assert_eq!(merged.keys().collect::<BTreeSet<_>>(), named);
        for (service, load) in &merged {
            let parts = || nodes.iter().filter_map(|loads| loads.get(service));
            prop_assert_eq!(load.in_flight, total(&nodes, service, |it| it.in_flight));
            prop_assert_eq!(load.arrived, total(&nodes, service, |it| it.arrived));
            prop_assert_eq!(load.served, total(&nodes, service, |it| it.served));
            prop_assert_eq!(Some(load.draining), total(&nodes, service, |it| Some(it.draining)));
            prop_assert_eq!(load.waiting, parts().map(|it| it.waiting).sum::<u32>());
            prop_assert_eq!(Some(load.idle), parts().map(|it| it.idle).min());
            let ready = |load: &Load| load.pods.iter().filter(|pod| pod.ready).count();
            prop_assert_eq!(ready(load), parts().map(ready).sum::<usize>());
            prop_assert_eq!(load.pods.len(), parts().map(|it| it.pods.len()).sum::<usize>());
            let cpu = |load: &Load| load.pods.iter().filter_map(|pod| pod.cpu).sum::<f64>();
            prop_assert_eq!(cpu(load), parts().map(cpu).sum::<f64>());
            prop_assert!(load.is_partial || parts().all(|it| !it.is_partial));
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written(loads in any_loads(), boot in any::<u64>()) {
        let report = Report { boot: Boot(boot), services: loads.into_iter().collect() };
        let text = serde_json::to_string(&report).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report);
    }
}

/// What ADR 0060 says of a report.
#[test]
fn a_report_is_small() {
    let quiet = Load {
        in_flight: Some(0.0),
        arrived: Some(0.0),
        served: Some(0.0),
        idle: Duration::from_micros(1_234_567_890),
        ..Load::default()
    };
    let services = (0..1000).map(|number| (key(&format!("web{number}")), quiet.clone()));
    let mut report = Report {
        boot: Boot(u64::MAX),
        services: services.collect(),
    };
    let bytes = |report: &Report| serde_json::to_vec(report).expect("JSON").len();
    let of_services = bytes(&report);
    assert!(of_services < 120_000, "{of_services}");
    let pod = PodSample {
        ready: true,
        cpu: Some(1.0 / 3.0),
    };
    report.services[0].1.pods = vec![pod; 1000];
    let of_pods = bytes(&report) - of_services;
    assert!(of_pods < 50_000, "{of_pods}");
}

#[test]
fn a_report_of_a_later_version_is_taken() {
    let text = r#"{ "boot": 1, "more": 0, "services": [[{ "app": "shop", "name": "web" }, { "more": 0 }]] }"#;
    let report: Report = serde_json::from_str(text).expect("a report");
    assert_eq!(report.services, [(key("web"), Load::default())]);
}

#[test]
fn what_one_node_could_not_measure_is_missing_in_the_sum() {
    let known = Load {
        in_flight: Some(3.0),
        ..Load::default()
    };
    let sum = known.clone().and(Load::default());
    assert_eq!((sum.in_flight, sum.is_partial), (Some(3.0), true));
    assert!(!known.clone().and(known).is_partial);
    // A service that no request can reach has nothing to be measured, at any node.
    assert!(!Load::default().and(Load::default()).is_partial);
}

/// A request at `a` that a draining pod at `b` works on is no load for the pods that stay.
#[test]
fn requests_at_pods_that_drain_elsewhere_are_taken_off_once_all_is_added_up() {
    let (a, b) = (
        Load {
            in_flight: Some(5.0),
            ..Load::default()
        },
        Load {
            in_flight: Some(0.0),
            draining: 4.0,
            ..Load::default()
        },
    );
    assert_eq!(a.and(b).sample().in_flight, Some(1.0));
}

#[test]
fn a_silent_node_makes_partial_what_may_be_there() {
    let load = Load {
        in_flight: Some(1.0),
        ..Load::default()
    };
    let services = ["web", "api", "db"].map(|name| (key(name), load.clone()));
    let had = Silent::Had(BTreeSet::from([key("api")]));
    let merged = Merged {
        services: Loads::from(services),
        silent: BTreeMap::from([(node("b"), had)]),
    };
    let (a, b) = (node("a"), node("b"));
    let of = |name: &str, pods: &[(&Name, bool)]| merged.load(&key(name), pods.iter().copied());
    // It has a pod there, whose CPU is not known.
    let web = of("web", &[(&a, true), (&b, true)]).expect("measured");
    let pod = PodSample {
        ready: true,
        cpu: None,
    };
    assert_eq!((web.is_partial, &web.pods[..]), (true, &[pod][..]));
    // It had requests there.
    assert!(of("api", &[(&a, true)]).expect("measured").is_partial);
    // It has neither.
    assert!(!of("db", &[(&a, true)]).expect("measured").is_partial);
    assert_eq!(of("none", &[]), None);

    let unheard = Merged {
        silent: BTreeMap::from([(node("b"), Silent::Unheard)]),
        ..merged.clone()
    };
    let db = unheard.load(&key("db"), std::iter::empty());
    assert!(db.expect("measured").is_partial);
}
