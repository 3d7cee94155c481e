//! Requests in a second, and the latency of a load that is far from the most, beside a bare server.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sampan_core::name::Name;

use super::{
    BenchError, Component, app_of,
    bare::Bare,
    load::{Answers, Load, Pace, Target},
    machine,
    recorder::{Part, Place},
    report::{Better, Scale, Unit},
    rig::{Rig, on_node},
};

/// How long a load goes on before it is measured, in parts of a round: at least, and for each
/// connection.
const WARM_UP: (f64, f64) = (0.25, 0.005);
/// Rounds of a constant rate for each round of the most: tails need many to be known.
const ROUNDS_OF_LATENCY: u32 = 4;
/// Rounds of calls at a constant rate for each round of the most.
const ROUNDS_OF_CALLS: u32 = 3;
/// The most calls that are due in a second where their latency is told.
const CALLS_A_SECOND: f64 = 500.0;
/// Connections of the load at a constant rate, and of calls.
const CONNECTIONS: u32 = 32;
/// The largest part of what it can answer that the slowest subject is asked for at a constant rate.
const EASY: f64 = 0.5;

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// Instead of those that are built in.
    pub(crate) component: Option<Component>,
    pub(crate) connections: Vec<u32>,
    pub(crate) rounds: u32,
    /// The length of a round.
    pub(crate) round: Duration,
    /// Requests in a second where latencies are told.
    pub(crate) rate: f64,
}

/// A server under load, and what it is called.
struct Subject {
    name: String,
    target: Target,
}

/// Measures all of it, in interleaved rounds. Tells whether each request was answered well.
pub(crate) async fn measure(wanted: &Wanted, part: &Part) -> Result<bool, BenchError> {
    part.method(&format!(
        "Everything is in this process: the servers under load on the threads of a node, the load on a \
         thread of its own, over kept connections of loopback. Each subject in turn is asked for \
         `GET /` in {} rounds of {} ms after a warm-up of a quarter of that, or more with more than 50 \
         connections. Requests in a second: each connection asks again as soon as it has an answer. CPU is what this process used in a \
         round without the thread that asks, the kernel included, for each request. Latency: \
         requests are due at a constant rate of {} a second, and it counts from then; over {} \
         connections, in {ROUNDS_OF_LATENCY} times as many rounds, because tails vary. Services have two pods. Calls: a service whose guest asks another service by \
         its name, in memory, beside the same guest that asks a bare server over loopback.",
        wanted.rounds,
        wanted.round.as_millis(),
        wanted.rate,
        CONNECTIONS
    ));
    let bare = Bare::start().await?;
    let (source, services) = match &wanted.component {
        Some(component) => yours(component),
        None => built_in(&bare),
    };
    for (_, component) in &services {
        part.component(component);
    }
    let named = services.iter().map(|(service, _)| service.clone());
    let components = named.zip(services.iter().map(|(_, it)| it.clone()));
    let components: BTreeMap<Name, Component> = components.collect();
    let source = app_of(&source)?;
    let with_calls = wanted.component.is_none();
    on_node(source, &components, async |rig| {
        let run = Run {
            wanted,
            part,
            failed: 0.into(),
        };
        let subjects = subjects(rig, &bare, &services);
        // In turn, so that each figure is of the whole time.
        for round in 0..wanted.rounds {
            let slowest = run.throughput(&subjects, round).await?;
            run.latency(&subjects, round, slowest).await?;
            if with_calls {
                run.calls(rig, &bare, round).await?;
            }
        }
        Ok(run.failed.get() == 0)
    })
    .await
}

type Services = Vec<(Name, Component)>;

/// Names of services with their components, and the spec of an app with them.
fn built_in(bare: &Bare) -> (String, Services) {
    let mut spec = "app = \"bench\"\n".to_owned();
    let mut services = Services::new();
    for (version, component) in [("p2", Component::own()), ("p3", Component::own_p3())] {
        for isolation in ["request", "pod"] {
            let name = format!("{version}-{isolation}");
            spec += &service(&name, isolation);
            services.push((self::name(&name), component.clone()));
        }
    }
    spec += &service("caller", "pod");
    spec += &format!(
        "[service.caller.allow]\nservices = [\"p2-pod\"]\noutbound = [\"http://{}\"]\n",
        bare.address
    );
    services.push((name("caller"), Component::caller()));
    (spec, services)
}

fn yours(component: &Component) -> (String, Services) {
    let mut spec = "app = \"bench\"\n".to_owned();
    let mut services = Services::new();
    for isolation in ["request", "pod"] {
        spec += &service(isolation, isolation);
        services.push((name(isolation), component.clone()));
    }
    (spec, services)
}

fn service(name: &str, isolation: &str) -> String {
    format!(
        "[service.{name}]\ncomponent = \"bench.wasm\"\nreplicas = 2\nisolation = \"{isolation}\"\n\
         route = [\"{name}.localhost/\"]\n"
    )
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("it is a name")
}

fn subjects(rig: &Rig, bare: &Bare, services: &Services) -> Vec<Subject> {
    let mut subjects = vec![Subject {
        name: "bare hyper".to_owned(),
        target: Target {
            address: bare.address,
            ..rig.target("bare.localhost", "/")
        },
    }];
    for (service, _) in services {
        let label = match service.as_str() {
            "caller" => continue,
            "p2-request" => "WASI 0.2, request",
            "p2-pod" => "WASI 0.2, pod",
            "p3-request" => "WASI 0.3, request",
            "p3-pod" => "WASI 0.3, pod",
            other => other,
        };
        subjects.push(Subject {
            name: label.to_owned(),
            target: rig.target(&format!("{service}.localhost"), "/"),
        });
    }
    subjects
}

/// One round of a subject.
struct Round {
    answers: Answers,
    per_second: f64,
    /// For each request, in milliseconds.
    cpu_ms: Option<f64>,
}

struct Run<'a> {
    wanted: &'a Wanted,
    part: &'a Part,
    failed: std::cell::Cell<u64>,
}

impl Run<'_> {
    async fn round(
        &self,
        subject: &Subject,
        connections: u32,
        pace: Pace,
    ) -> Result<Round, BenchError> {
        let load = Load::start(subject.target.clone(), connections, pace)?;
        let warm_up = WARM_UP.0.max(WARM_UP.1 * f64::from(connections));
        tokio::time::sleep(self.wanted.round.mul_f64(warm_up)).await;
        let cpu = || Some(machine::cpu_ms() - load.cpu_ms()?);
        let (before, start) = (cpu(), Instant::now());
        load.enter(1);
        tokio::time::sleep(self.wanted.round).await;
        load.enter(2);
        let (after, elapsed) = (cpu(), start.elapsed());
        let mut outcome = load.end().await?;
        for reason in &outcome.reasons {
            self.part
                .note(format!("failed at {}: {reason}", subject.name));
        }
        self.failed.set(self.failed.get() + outcome.failed());
        let measured = outcome.phases.remove(&1);
        let Some(answers) = measured.filter(|it| !it.latencies.is_empty()) else {
            let silent = format!("{} has not answered within a round", subject.name);
            return Err(BenchError::Failed(silent));
        };
        let count = answers.latencies.len() as f64;
        let used = after.zip(before).map(|(after, before)| after - before);
        Ok(Round {
            per_second: count / elapsed.as_secs_f64(),
            cpu_ms: used.map(|used| used / count),
            answers,
        })
    }

    /// A part of a round is done.
    fn progress(&self, round: u32, done: f64, what: &str) {
        let done = (f64::from(round) + done) / f64::from(self.wanted.rounds);
        self.part.progress(done, what);
    }

    /// As fast as answers come. Tells how many the slowest subject answered in a second.
    async fn throughput(&self, subjects: &[Subject], number: u32) -> Result<f64, BenchError> {
        let group = |id, title, unit, better| {
            let place = self.part.group(id, title, unit, better);
            self.part.along(place, "connections", Scale::Steps)
        };
        let title = "Requests in a second";
        let rate = group("rate", title, Unit::PerSecond, Better::Higher);
        let cpu = group("cpu", "CPU for each request", Unit::Ms, Better::Lower);
        let mut slowest = f64::INFINITY;
        let all = self.wanted.connections.len() * subjects.len();
        let mut done = 0;
        for connections in &self.wanted.connections {
            for subject in subjects {
                let what = format!("{}, connections: {connections}", subject.name);
                self.progress(number, 0.4 * f64::from(done) / all as f64, &what);
                done += 1;
                let round = self.round(subject, *connections, Pace::Eager).await?;
                let x = Some(f64::from(*connections));
                let name = &subject.name;
                self.part.sample(rate, name, x, round.per_second);
                if let Some(cpu_ms) = round.cpu_ms {
                    self.part.sample(cpu, name, x, cpu_ms);
                }
                if *connections > 1 || self.wanted.connections.len() == 1 {
                    slowest = slowest.min(round.per_second);
                }
            }
        }
        Ok(slowest)
    }

    /// At a constant rate.
    async fn latency(
        &self,
        subjects: &[Subject],
        number: u32,
        slowest: f64,
    ) -> Result<(), BenchError> {
        let rate = self.wanted.rate;
        if rate > slowest * EASY {
            self.part.note(format!(
                "the load of {rate} requests a second is more than half of what the slowest subject can \
                 answer, so that latencies are those of a queue"
            ));
        }
        let [p50, p99] = self.latency_groups(&format!("at {rate} requests a second"));
        for time in 0..ROUNDS_OF_LATENCY {
            for subject in subjects {
                let done = f64::from(time) / f64::from(ROUNDS_OF_LATENCY);
                let what = format!("{}, at a constant rate", subject.name);
                self.progress(number, 0.4 + 0.4 * done, &what);
                let round = self.round(subject, CONNECTIONS, Pace::Constant(rate));
                self.told(&round.await?, &subject.name, [p50, p99]);
            }
        }
        Ok(())
    }

    fn latency_groups(&self, at: &str) -> [Place; 2] {
        let group = |id, what: &str| {
            let title = format!("{what}, {at}");
            self.part.group(id, &title, Unit::Ms, Better::Lower)
        };
        let p50 = group("p50", "Median latency");
        let p99 = group("p99", "Latency that 99 of 100 requests keep to");
        [p50, p99]
    }

    fn told(&self, round: &Round, name: &str, [p50, p99]: [Place; 2]) {
        let latencies = &round.answers.latencies;
        let at = |part| latencies.value_at_quantile(part) as f64 / 1e6;
        self.part.sample(p50, name, None, at(0.5));
        self.part.requests(p50, name, None, latencies);
        self.part.sample(p99, name, None, at(0.99));
    }

    /// A call from one service to another.
    async fn calls(&self, rig: &Rig, bare: &Bare, number: u32) -> Result<(), BenchError> {
        let call = |name: &str, url: String| Subject {
            name: name.to_owned(),
            target: rig.target("caller.localhost", &format!("/call?url={url}")),
        };
        let subjects = [
            Subject {
                name: "hello itself".to_owned(),
                target: rig.target("p2-pod.localhost", "/"),
            },
            call("service → hello, in memory", "http://p2-pod/".to_owned()),
            call(
                "service → bare hyper, loopback",
                format!("http://{}/", bare.address),
            ),
        ];
        let group = |id, title, unit, better| self.part.group(id, title, unit, better);
        let title = "A call between services: median latency, one at a time";
        let p50 = group("call_p50", title, Unit::Ms, Better::Lower);
        let title = "A call between services: requests in a second, 32 connections";
        let rate = group("call_rate", title, Unit::PerSecond, Better::Higher);
        for (at, subject) in subjects.iter().enumerate() {
            let done = 0.8 + 0.2 * at as f64 / subjects.len() as f64;
            self.progress(number, done, &subject.name);
            let name = &subject.name;
            for _ in 0..ROUNDS_OF_CALLS {
                // One that waits for its answer before the next is due: nothing is left out.
                let pace = Pace::Constant(self.wanted.rate.min(CALLS_A_SECOND));
                let alone = self.round(subject, 1, pace);
                let latencies = alone.await?.answers.latencies;
                let median = latencies.value_at_quantile(0.5) as f64 / 1e6;
                self.part.sample(p50, name, None, median);
                self.part.requests(p50, name, None, &latencies);
            }
            let round = self.round(subject, CONNECTIONS, Pace::Eager).await?;
            self.part.sample(rate, name, None, round.per_second);
        }
        Ok(())
    }
}
