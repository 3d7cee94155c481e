//! What is advised, as a table, and what holds of all advice.

use proptest::prelude::*;

use super::*;
use crate::{quantity::Percent, record::Component, spec};

const MIB: u64 = 1 << 20;

fn load(text: &str) -> Result<crate::object::App, spec::Problems> {
    spec::load(&spec::Input {
        path: "sampan.toml",
        text,
        environment: &|_| None,
        read_file: &|_| Err("there are no files".to_owned()),
        profiles: &[],
    })
}

fn template() -> Template {
    let app = load("app = 'shop'\n[service.web]\ncomponent = 'web.wasm'\n").expect("a good spec");
    let component = Component {
        digest: String::new(),
        path: String::new(),
    };
    Template::new(&app.services["web"], component)
}

fn autoscale(target: u32) -> Autoscale {
    Autoscale {
        min: 1,
        max: 10,
        cpu: Some(Percent(target)),
        concurrency: None,
        rps: None,
        stabilization: Duration::ZERO,
        idle: Duration::ZERO,
    }
}

fn seen(samples: u64) -> Seen {
    Seen {
        samples,
        ..Seen::default()
    }
}

fn held(instance_bytes: u64) -> Seen {
    Seen {
        instance_bytes,
        ..seen(MIN_SAMPLES)
    }
}

/// `VALUE: WHY`.
fn told<T: ToString>(suggestion: &Suggestion<T>) -> String {
    let value = suggestion.value.as_ref().map(T::to_string);
    format!("{}: {}", value.as_deref().unwrap_or("none"), suggestion.why)
}

#[test]
fn memory_is_that_of_one_instance() {
    let tenths = |number: u64| number * MIB / 10;
    for (seen, text) in [
        (
            held(tenths(412)),
            "48MiB: an instance held up to 41.2 MiB, plus 15%",
        ),
        (
            held(tenths(11)),
            "2MiB: an instance held up to 1.1 MiB, plus 15%",
        ),
        (
            held(8 * MIB),
            "10MiB: an instance held up to 8.0 MiB, plus 15%",
        ),
        (
            held(128 * MIB),
            "160MiB: an instance held up to 128.0 MiB, nearly all it may, plus 15%",
        ),
        (held(0), "none: no memory was seen"),
        (
            held(6000 * MIB),
            "4GiB: an instance held up to 6000.0 MiB, nearly all it may, plus 15%",
        ),
        (
            seen(59),
            "none: not enough seen: 59 of 60 seconds with work",
        ),
    ] {
        let advice = advise(&template(), None, &seen);
        assert_eq!(told(&advice.memory), text);
    }
}

#[test]
fn cpu_leaves_what_the_autoscaler_aims_at() {
    let used = |cpu_p95, throttled| Seen {
        cpu_p95,
        throttled,
        ..seen(MIN_SAMPLES)
    };
    let template = template();
    for (target, seen, text) in [
        (
            Some(70),
            used(0.312, 0.0),
            "450m: a pod used 312m in 95 of 100 seconds, as 70% of it",
        ),
        (
            None,
            used(0.312, 0.0),
            "360m: a pod used 312m in 95 of 100 seconds, plus 15%",
        ),
        (
            None,
            used(0.0, 0.0),
            "10m: a pod used 0m in 95 of 100 seconds, plus 15%",
        ),
        (
            None,
            used(2.0, 0.12),
            "2300m: a pod used 2000m in 95 of 100 seconds, plus 15%; held back 12% of the time, \
             so it may need more",
        ),
        (
            Some(50),
            used(1.0, 0.005),
            "2: a pod used 1000m in 95 of 100 seconds, as 50% of it",
        ),
        (
            None,
            seen(0),
            "none: not enough seen: 0 of 60 seconds with work",
        ),
    ] {
        let autoscale = target.map(autoscale);
        let advice = advise(&template, autoscale.as_ref(), &seen);
        assert_eq!(told(&advice.cpu), text);
    }
}

#[test]
fn a_request_may_use_more_than_any_has_used() {
    let micros = Duration::from_micros;
    for (requests, p999, max, text) in [
        (
            1000,
            12_400,
            31_000,
            "40ms: three times what 999 of 1000 requests used, 12.4 ms",
        ),
        (
            9000,
            1_000,
            400_000,
            "460ms: the most that a request used, 400.0 ms, plus 15%",
        ),
        (
            1000,
            300,
            900,
            "10ms: three times what 999 of 1000 requests used, 0.9 ms",
        ),
        (
            1000,
            900_000,
            900_000,
            "2700ms: three times what 999 of 1000 requests used, 900.0 ms",
        ),
        (999, 1, 1, "none: not enough seen: 999 of 1000 requests"),
    ] {
        let (p999, max) = (micros(p999), micros(max));
        let seen = RequestCpu {
            requests,
            p999,
            max,
        };
        let suggestion = request_cpu(Some(&seen));
        let shown = Suggestion {
            value: suggestion.value.map(|it| format!("{}ms", it.as_millis())),
            why: suggestion.why,
        };
        match p999 == micros(300) {
            // The least is the least, whatever it follows from.
            true => assert!(told(&shown).starts_with("10ms: ")),
            false => assert_eq!(told(&shown), text),
        }
    }
    let none = request_cpu(None);
    assert_eq!(none.why, "the CPU of single requests was not measured");
    assert_eq!(none.value, None);
}

proptest! {
    #[test]
    fn what_was_seen_fits_and_a_spec_may_say_it(
        bytes in 1u64..(4 << 30),
        cpu_p95 in 0.0f64..900.0,
        target in proptest::option::of(1u32..150),
        p999 in 0u64..5_000_000,
        more in 0u64..50_000_000,
    ) {
        let (p999, max) = (Duration::from_micros(p999), Duration::from_micros(p999 + more));
        let seen = Seen {
            cpu_p95,
            request_cpu: Some(RequestCpu { requests: MIN_REQUESTS, p999, max }),
            ..held(bytes)
        };
        let autoscale = target.map(autoscale);
        let advice = advise(&template(), autoscale.as_ref(), &seen);
        let memory = advice.memory.value.expect("enough was seen");
        let cpu = advice.cpu.value.expect("enough was seen");
        let request = advice.request_cpu.value.expect("enough was seen");
        prop_assert!(memory.0 >= bytes && memory.0 as f64 <= bytes as f64 * 1.3 + 2e6);
        if target.is_none() {
            prop_assert!(f64::from(cpu.millis) >= cpu_p95 * 1e3 || cpu.millis == MOST_MILLIS);
        }
        prop_assert!(request >= max && request >= LEAST_REQUEST_CPU);
        let request = crate::quantity::format_duration(request);
        let text = format!(
            "app = 'shop'\n[service.web]\ncomponent = 'web.wasm'\n[service.web.limits]\n\
             memory = '{memory}'\nrequest_cpu = '{request}'\n"
        );
        let refused = load(&text).err().map(|problems| problems.to_string());
        prop_assert_eq!(refused, None, "{}", text);
        prop_assert!((1..=MOST_MILLIS).contains(&cpu.millis));
        prop_assert_eq!(Cpu::parse(&cpu.to_string()), Ok(cpu));
    }

    #[test]
    fn who_needs_more_is_not_advised_to_take_less(a in 0.0f64..64.0, b in 0.0f64..64.0) {
        let advised = |used: f64| {
            let bytes = (used * 1e8) as u64 + 1;
            let seen = Seen { cpu_p95: used, ..held(bytes) };
            let advice = advise(&template(), None, &seen);
            (advice.memory.value, advice.cpu.value)
        };
        let (less, more) = (a.min(b), a.max(b));
        prop_assert!(advised(less).0 <= advised(more).0);
        prop_assert!(advised(less).1 <= advised(more).1);
    }
}

#[test]
fn what_several_nodes_have_seen_is_put_together() {
    let at = |revision, samples, cpu, throttled| Seen {
        revision,
        watched: Duration::from_secs(samples),
        samples,
        cpu_p95: cpu,
        cpu_max: 2.0 * cpu,
        throttled,
        instance_bytes: samples * MIB,
        request_cpu: Some(RequestCpu {
            requests: samples,
            p999: Duration::from_millis(samples),
            max: Duration::from_millis(2 * samples),
        }),
    };
    let nodes = || {
        vec![
            at(3, 30, 0.5, 0.0),
            at(2, 1000, 3.0, 1.0),
            at(3, 90, 0.25, 0.4),
        ]
    };
    let both = Seen::together(nodes(), 3);
    assert_eq!(
        both,
        Seen {
            samples: 120,
            cpu_p95: 0.5,
            cpu_max: 1.0,
            throttled: 0.3,
            request_cpu: Some(RequestCpu {
                requests: 120,
                ..at(3, 90, 0.0, 0.0).request_cpu.expect("there")
            }),
            ..at(3, 90, 0.0, 0.0)
        }
    );
    // Of a revision that has no pods yet nothing was seen: then the newest of which something was.
    assert_eq!(Seen::together(nodes(), 4), both);
    assert_eq!(Seen::together(nodes(), 2), at(2, 1000, 3.0, 1.0));
    assert_eq!(Seen::together(Vec::new(), 2), Seen::default());
}
