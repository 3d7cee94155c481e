//! `sampan bench`, with the smallest counts.

use serde_json::Value;

use crate::rig::{done, err, guest, out};

fn json(arguments: &[&str]) -> Value {
    let output = done(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    serde_json::from_str(&out(&output)).expect("JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

#[test]
fn a_cold_start_has_its_steps() {
    let p3 = guest("hello-p3");
    let counts = ["--runs", "3", "--compile-runs", "2", "--json"];
    for (component, isolation) in [
        (&[][..], "request"),
        (&[], "pod"),
        (&[p3.as_str()], "pod"),
        (&[p3.as_str()], "request"),
    ] {
        let which = ["--isolation", isolation];
        let arguments = [&["bench", "cold-start"], component, &which, &counts].concat();
        let report = json(&arguments);
        assert_eq!(
            keys(&report),
            [
                "component",
                "component_bytes",
                "digest",
                "isolation",
                "steps"
            ]
        );
        assert_eq!(report["isolation"], isolation);
        let steps = report["steps"].as_array().expect("steps");
        let names: Vec<_> = steps.iter().map(|it| &it["step"]).collect();
        assert_eq!(
            names,
            ["fetch", "compile", "load", "instantiate", "first_byte"]
        );
        for step in steps {
            let wanted = if step["step"] == "compile" { 2 } else { 3 };
            assert_eq!(step["runs"], wanted, "{step}");
            let parts = ["p50_ms", "p90_ms", "p99_ms", "max_ms"];
            let times = parts.map(|part| step[part].as_f64().expect("a number"));
            assert!(times[0] > 0.0 && times.is_sorted(), "{step}");
        }
        let took = |step: usize| steps[step]["p50_ms"].as_f64();
        assert!(
            took(1) > took(2),
            "code is compiled only where that is measured"
        );
    }
}

#[test]
fn no_request_fails_in_a_rollout() {
    let (hello, p3) = (guest("hello"), guest("hello-p3"));
    let counts = ["--replicas", "2", "--rollouts", "3", "--connections", "4"];
    for components in [&[][..], &[hello.as_str(), p3.as_str()]] {
        let more = ["--steady", "50ms", "--json"];
        let report = json(&[&["bench", "rollout"], components, &counts, &more].concat());
        assert_eq!(
            keys(&report),
            [
                "connections",
                "digests",
                "latency",
                "replicas",
                "requests",
                "rollouts"
            ]
        );
        let requests = &report["requests"];
        assert_eq!(keys(requests), ["failed", "failures", "sent"]);
        assert_eq!(requests["failed"], 0, "{requests}");
        assert_eq!(
            keys(&report["rollouts"]),
            ["count", "each_s", "max_s", "median_s"]
        );
        assert_eq!(report["rollouts"]["count"], 3);
        let latency = report["latency"].as_array().expect("three phases");
        let phases: Vec<_> = latency.iter().map(|it| &it["phase"]).collect();
        assert_eq!(phases, ["before", "during", "after"]);
        let answers: u64 = latency.iter().filter_map(|it| it["answers"].as_u64()).sum();
        assert_eq!(Some(answers), requests["sent"].as_u64());
    }
}

#[test]
fn what_cannot_be_measured_is_said() {
    let hello = guest("hello");
    let same = done(&["bench", "rollout", &hello, &hello]);
    assert_eq!(same.status.code(), Some(1));
    assert!(err(&same).contains("nothing to roll out"), "{}", err(&same));
    let command = done(&["bench", "cold-start", &guest("command")]);
    assert_eq!(command.status.code(), Some(1));
    assert!(
        err(&command).contains("cannot be started"),
        "{}",
        err(&command)
    );
}
