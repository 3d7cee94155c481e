//! How soon it is known that a guest does not do what it should, and whether a good one is blamed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use http::Method;
use sampan_core::{event::Reason, name::Name};

use super::{
    BenchError, Component, app_of,
    load::{self, Load, Pace, Target},
    recorder::{Part, Place},
    report::{Better, Unit},
    rig::{Rig, on_node},
};
use crate::events::Change;

/// The longest that a verdict may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks at whether a service answers again.
const LOOK: Duration = Duration::from_millis(5);

const SPEC: &str = r#"
app = "bench"

[service.trap]
component = "bench.wasm"
isolation = "pod"
route = ["trap.localhost/"]
restart = { initial = "10ms", max = "10ms" }

[service.spin]
component = "bench.wasm"
isolation = "pod"
route = ["spin.localhost/"]
restart = { initial = "10ms", max = "10ms" }
limits = { request_cpu = "100ms" }

[service.live]
component = "bench.wasm"
isolation = "pod"
route = ["live.localhost/"]
restart = { initial = "10ms", max = "10ms" }
liveness = { http = "/healthz", period = "100ms", failures = 1 }

[service.self]
component = "bench.wasm"
route = ["self.localhost/"]
allow = { outbound = ["http://example.com"] }
limits = { request_timeout = "0s" }
"#;

/// Services in rings of two and of three: each calls the next, and has one place.
const RINGS: [&[&str]; 2] = [&["pair-a", "pair-b"], &["triple-a", "triple-b", "triple-c"]];

/// Guests that do what they should, and look as if they did not.
const MIXED: &str = r#"
[service.hello]
component = "bench.wasm"
route = ["hello.localhost/"]
liveness = { http = "/", period = "100ms" }

[service.burn]
component = "bench.wasm"
route = ["burn.localhost/"]

[service.wait]
component = "bench.wasm"
route = ["wait.localhost/"]
isolation = "request"

[service.front]
component = "bench.wasm"
isolation = "pod"
replicas = 2
route = ["front.localhost/"]
env = { NAME = "front", NEXT = "http://back/" }
allow = { services = ["back"] }

[service.back]
component = "bench.wasm"
isolation = "pod"
env = { NAME = "back" }
"#;

/// The mixed load: host, path, requests in a second, connections.
const LOADS: [(&str, &str, f64, u32); 4] = [
    ("hello.localhost", "/", 200.0, 8),
    ("burn.localhost", "/burn?ms=20", 10.0, 4),
    ("wait.localhost", "/timer?ms=700", 8.0, 16),
    ("front.localhost", "/?ms=20", 20.0, 8),
];

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// How often each fault is made.
    pub(crate) tries: u32,
    /// How long the mixed load goes on.
    pub(crate) mixed: Duration,
}

/// A fault, and how it is known that it was found.
struct Fault {
    name: &'static str,
    host: String,
    method: Method,
    path: &'static str,
    /// The reasons of the event that says so.
    verdict: &'static [Reason],
}

/// Measures each fault, then the mixed load.
pub(crate) async fn measure(wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    part.method(&format!(
        "A node in this process. Each fault is made {} times by a request, once its service answers, \
         and the time is from the request to the event that tells the verdict. A spinning guest may use \
         100 ms of CPU, which are in its time; a failed liveness is found by a probe each 100 ms, after \
         one failure. Deadlocks have no time limit. The mixed load is of {} s: hello with a probe \
         each 100 ms, guests that compute for 20 ms, wait for 700 ms, and call each other; every event \
         that blames one of them is a false verdict.",
        wanted.tries,
        wanted.mixed.as_secs_f64()
    ));
    let (source, components) = app();
    for component in [
        Component::hostile(),
        Component::deadlock_self(),
        Component::chain(),
        Component::flaky_ready(),
        Component::slow_but_live(),
    ] {
        part.component(&component);
    }
    on_node(app_of(&source)?, &components, async |rig| {
        let title = "From the request to the verdict";
        let place = part.group("verdict", title, Unit::Ms, Better::Lower);
        let faults = faults();
        for (number, fault) in faults.iter().enumerate() {
            for attempt in 0..wanted.tries {
                let done = f64::from(attempt) / f64::from(wanted.tries);
                let done = (number as f64 + done) / faults.len() as f64;
                part.progress(0.7 * done, fault.name);
                one(rig, fault, part, place).await?;
            }
        }
        part.progress(0.7, "a mixed load");
        mixed(rig, wanted, part).await
    })
    .await
}

fn app() -> (String, BTreeMap<Name, Component>) {
    let mut source = SPEC.to_owned() + MIXED;
    let mut components = BTreeMap::new();
    let mut is = |service: &str, component: Component| {
        let name = Name::parse(service).expect("it is a name");
        components.insert(name, component);
    };
    for service in ["trap", "spin", "burn"] {
        is(service, Component::hostile());
    }
    is("live", Component::flaky_ready());
    is("self", Component::deadlock_self());
    is("hello", Component::own());
    is("wait", Component::slow_but_live());
    is("front", Component::chain());
    is("back", Component::chain());
    for ring in RINGS {
        for (at, service) in ring.iter().enumerate() {
            let next = ring[(at + 1) % ring.len()];
            source += &format!(
                "[service.{service}]\ncomponent = \"bench.wasm\"\nisolation = \"pod\"\n\
                 route = [\"{service}.localhost/\"]\n\
                 env = {{ NAME = \"{service}\", NEXT = \"http://{next}/\" }}\n\
                 allow = {{ services = [\"{next}\"] }}\n\
                 limits = {{ request_timeout = \"0s\", queue_timeout = \"1h\" }}\n"
            );
            is(service, Component::chain());
        }
    }
    (source, components)
}

fn faults() -> Vec<Fault> {
    let fault = |name, service: &str, path, verdict| Fault {
        name,
        host: format!("{service}.localhost"),
        method: Method::GET,
        path,
        verdict,
    };
    let deadlock = &[Reason::Deadlocked];
    vec![
        fault("trap", "trap", "/trap", &[Reason::Failed]),
        fault(
            "spin, 100 ms of CPU allowed",
            "spin",
            "/spin",
            &[Reason::Failed, Reason::Killing],
        ),
        fault("deadlock of one", "self", "/write-before-send", deadlock),
        fault("deadlock of two", RINGS[0][0], "/", deadlock),
        fault("deadlock of three", RINGS[1][0], "/", deadlock),
        Fault {
            method: Method::POST,
            ..fault(
                "failed liveness, a probe each 100 ms",
                "live",
                "/live/off",
                &[Reason::Unhealthy, Reason::Killing],
            )
        },
    ]
}

/// Makes a fault once its service answers, and waits for the verdict.
async fn one(rig: &Rig, fault: &Fault, part: &Part, place: Place) -> Result<(), BenchError> {
    let target = Target {
        method: fault.method.clone(),
        ..rig.target(&fault.host, fault.path)
    };
    let service = fault.host.trim_end_matches(".localhost");
    answers(rig, &fault.host).await?;
    let journal = &rig.context.journal;
    let mut last = journal.last();
    let mut sender = load::connect(rig.address)
        .await
        .map_err(BenchError::Failed)?;
    let start = SystemTime::now();
    let request = tokio::spawn(async move { load::exchange(&mut sender, &target).await });
    let verdict = async {
        loop {
            let came = journal.follow(last).await;
            for event in came.events {
                last = event.seq;
                let of_ring = fault.verdict == [Reason::Deadlocked];
                let of_service = of_ring || event.subject.name().as_str() == service;
                let told = fault
                    .verdict
                    .iter()
                    .any(|it| it.as_str() == event.change.reason());
                if told && of_service {
                    return event.at;
                }
            }
        }
    };
    let late = |_| BenchError::Failed(format!("{}: no verdict within {PATIENCE:?}", fault.name));
    let at = tokio::time::timeout(PATIENCE, verdict)
        .await
        .map_err(late)?;
    // The answer is an error, or none.
    let _ = tokio::time::timeout(PATIENCE, request).await;
    let took = at.duration_since(start).unwrap_or_default();
    part.sample(place, fault.name, None, took.as_secs_f64() * 1e3);
    Ok(())
}

/// Waits until a service answers. In a ring, that is with no call behind the first.
async fn answers(rig: &Rig, host: &str) -> Result<(), BenchError> {
    let target = rig.target(host, "/healthz?hops=0");
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(mut sender) = load::connect(rig.address).await
            && let Ok(answer) = load::exchange(&mut sender, &target).await
            // What has no such path answers too.
            && answer.status.as_u16() < 500
        {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    let silent = format!("{host} does not answer again within {PATIENCE:?}");
    Err(BenchError::Failed(silent))
}

/// Counts what blames a guest that does what it should.
async fn mixed(rig: &Rig, wanted: &Wanted, part: &Part) -> Result<(), BenchError> {
    let title = "False verdicts over a mixed load";
    let place = part.group("false", title, Unit::Count, Better::Lower);
    let mut last = rig.context.journal.last();
    let mut loads = Vec::new();
    for (host, path, rate, connections) in LOADS {
        let target = rig.target(host, path);
        loads.push(Load::start(target, connections, Pace::Constant(rate))?);
    }
    let mut blamed: BTreeMap<&str, u64> = BTreeMap::new();
    let end = tokio::time::Instant::now() + wanted.mixed;
    while let Ok(came) = tokio::time::timeout_at(end, rig.context.journal.follow(last)).await {
        for event in came.events {
            last = event.seq;
            let name = match &event.change {
                Change::Deadlock { .. } => "deadlock",
                Change::Pod { notice, .. } => match notice.reason {
                    Reason::Failed | Reason::Killing => "ended",
                    Reason::Unhealthy | Reason::Starved => "probe failed",
                    _ => continue,
                },
                _ => continue,
            };
            *blamed.entry(name).or_default() += 1;
            part.note(format!("blamed: {}", &*event));
        }
    }
    let (mut sent, mut failed) = (0, 0);
    for load in loads {
        let outcome = load.end().await?;
        sent += outcome.sent();
        failed += outcome.failed();
        for reason in &outcome.reasons {
            part.note(format!("failed in the mixed load: {reason}"));
        }
    }
    for name in ["deadlock", "ended", "probe failed"] {
        let count = blamed.get(name).copied().unwrap_or_default();
        part.sample(place, name, None, count as f64);
    }
    let title = "Requests of the mixed load";
    let place = part.group("mixed", title, Unit::Count, Better::Neither);
    part.sample(place, "sent", None, sent as f64);
    part.sample(place, "failed", None, failed as f64);
    Ok(())
}
