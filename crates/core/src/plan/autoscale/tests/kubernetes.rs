//! The same measurements, fed to the planner and to a table of what Kubernetes says of them.

use super::*;

const TABLE: &str = include_str!("kubernetes.txt");

/// What `cpu 50, min 2` says of `key`.
fn setting(settings: &str, key: &str) -> Option<u32> {
    let found = settings.split(", ").find_map(|it| it.strip_prefix(key));
    found.map(|number| number.trim().parse().expect("a number"))
}

fn pod(text: &str) -> PodSample {
    match text {
        "-" => PodSample {
            ready: false,
            // What it takes to start counts for nothing.
            cpu: Some(9.0),
        },
        "?" => PodSample {
            ready: true,
            cpu: None,
        },
        percent => ready(percent.parse::<f64>().expect("a percentage") / 100.0),
    }
}

#[test]
fn as_kubernetes_documents() {
    let (mut rows, mut traces) = (0, 0);
    let mut service: Option<Service> = None;
    for (number, line) in (1..).zip(TABLE.lines()) {
        if let Some(trace) = line.strip_prefix("trace ") {
            let settings = trace.rsplit_once(": ").expect("settings").1;
            let get = |key| setting(settings, key);
            let mut spec = spec(get("min").expect("min"), get("max").expect("max"));
            spec.cpu = get("cpu").map(Percent);
            spec.concurrency = get("concurrency").map(f64::from);
            let window = get("stabilization").expect("stabilization");
            spec.stabilization = Duration::from_secs(window.into());
            service = Some(Service::new(spec, get("start").expect("start")));
            traces += 1;
            continue;
        }
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let (Some(service), [second, pods, in_flight, replicas, why]) =
            (&mut service, &columns[..])
        else {
            assert!(line.is_empty() || line.starts_with('#'), "{line}");
            continue;
        };
        let Ok(second) = second.parse() else {
            continue;
        };
        let sample = Sample {
            pods: pods.split_whitespace().map(pod).collect(),
            in_flight: in_flight.parse().ok(),
            ..Sample::default()
        };
        assert_eq!(
            sample.pods.len(),
            service.replicas as usize,
            "line {number}"
        );
        service.now = second;
        let decision = service.step(&sample);
        assert_eq!(
            decision.replicas.to_string(),
            *replicas,
            "line {number}: {why}, not {decision}"
        );
        assert!(!decision.panic, "line {number}: Kubernetes has no panic");
        rows += 1;
    }
    assert!(rows >= 40 && traces >= 6, "{rows} rows of {traces} traces");
}
