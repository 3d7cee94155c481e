//! Rollouts under load: how long they take, and what they cost the clients that ask meanwhile.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sampan_core::{name::Name, object::Isolation, record::Kind};

use super::{
    BenchError, Component, HOST, app,
    load::{Load, Outcome, Pace},
    machine,
    recorder::{Part, Place},
    report::{Better, Scale, Unit},
    rig::{Rig, on_node},
};

/// Time between two looks at the memory of this process.
const LOOK: Duration = Duration::from_millis(5);

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// What runs first, and what takes its place. Without the second one it is the first with
    /// another digest.
    pub(crate) first: Component,
    pub(crate) second: Option<Component>,
    pub(crate) isolation: Option<Isolation>,
    /// Pods, one after the other.
    pub(crate) replicas: Vec<u32>,
    pub(crate) connections: u32,
    /// Requests in a second.
    pub(crate) rate: f64,
    pub(crate) rollouts: u32,
    /// How long load is on before the first rollout, and after the last.
    pub(crate) steady: Duration,
}

/// Where the figures go.
struct Places {
    time: Place,
    p99: Place,
    memory: Place,
    requests: Place,
}

impl Places {
    fn new(part: &Part) -> Self {
        let group = |id, title, unit, better| {
            part.along(part.group(id, title, unit, better), "pods", Scale::Steps)
        };
        Self {
            time: group(
                "time",
                "From apply to the last new pod",
                Unit::Ms,
                Better::Lower,
            ),
            p99: group(
                "p99",
                "Latency that 99 of 100 requests keep to",
                Unit::Ms,
                Better::Lower,
            ),
            memory: group(
                "memory",
                "Memory beyond what the node had before, at its peak",
                Unit::Bytes,
                Better::Lower,
            ),
            requests: group("requests", "Requests", Unit::Count, Better::Neither),
        }
    }
}

/// Measures rollouts back and forth. Tells whether each request was answered well.
pub(crate) async fn measure(wanted: &Wanted, part: &Part) -> Result<bool, BenchError> {
    let Wanted { first, second, .. } = wanted;
    let second = second.clone().unwrap_or_else(|| first.variant("2"));
    part.method(&format!(
        "A node in this process with its state in memory runs an app of one service. {} rollouts \
         between two components whose code is in the cache, there and back, while a load of {} \
         requests a second, over {} kept connections of loopback, asks for `GET /`. The time is from \
         `apply` to the moment at which all pods are of the new revision, and it has answered. \
         Latencies count from when a request is due. Memory is what this process holds, looked at \
         each {} ms.",
        wanted.rollouts,
        wanted.rate,
        wanted.connections,
        LOOK.as_millis()
    ));
    part.component(first);
    part.component(&second);
    let places = Places::new(part);
    let mut is_good = true;
    for (at, replicas) in wanted.replicas.iter().enumerate() {
        let source = app(*replicas, wanted.isolation);
        let name = source.app.name.clone();
        let components = BTreeMap::from([(name.clone(), first.clone())]);
        let progress = |done: f64| {
            let done = (at as f64 + done) / wanted.replicas.len() as f64;
            part.progress(done, &format!("rollout, pods: {replicas}"));
        };
        progress(0.0);
        let x = Some(f64::from(*replicas));
        let told = |rollout: Rollout| {
            progress(f64::from(rollout.number) / f64::from(wanted.rollouts));
            let took = rollout.took.as_secs_f64() * 1e3;
            part.sample(places.time, "rollout", x, took);
            part.sample(places.memory, "rollout", x, rollout.peak_bytes as f64);
        };
        let rolled = on_node(source, &components, async |rig| {
            roll(rig, &name, &second, wanted, told).await
        });
        let outcome = rolled.await?;
        latencies(part, &places, x, &outcome);
        part.sample(places.requests, "sent", x, outcome.sent() as f64);
        part.sample(places.requests, "failed", x, outcome.failed() as f64);
        for reason in &outcome.reasons {
            part.note(format!("failed at {replicas} pods: {reason}"));
        }
        is_good &= outcome.failed() == 0;
    }
    Ok(is_good)
}

/// Phase 0 is before the first rollout, each odd one is a rollout, each even one what comes after.
fn latencies(part: &Part, places: &Places, x: Option<f64>, outcome: &Outcome) {
    for (phase, answers) in outcome.phases.iter().enumerate() {
        let name = match phase {
            0 => "before",
            odd if odd % 2 == 1 => "during",
            _ => "after",
        };
        if answers.latencies.is_empty() {
            continue;
        }
        let p99 = answers.latencies.value_at_quantile(0.99) as f64 / 1e6;
        part.sample(places.p99, name, x, p99);
        part.requests(places.p99, name, x, &answers.latencies);
    }
}

/// One that is over.
struct Rollout {
    /// The first is 1.
    number: u32,
    took: Duration,
    /// Memory beyond that before, at its peak.
    peak_bytes: u64,
}

async fn roll(
    rig: &mut Rig,
    name: &Name,
    second: &Component,
    wanted: &Wanted,
    told: impl Fn(Rollout),
) -> Result<Outcome, BenchError> {
    let digests = [rig.digests[name].clone(), rig.take(name, second).await?];
    if digests[0] == digests[1] {
        let same = "both components are the same: there is nothing to roll out";
        return Err(BenchError::Failed(same.to_owned()));
    }
    let target = rig.target(HOST, "/");
    rig.answers_come_from(name, &target).await?;
    let pace = Pace::Constant(wanted.rate);
    let load = Load::start(target.clone(), wanted.connections, pace)?;
    tokio::time::sleep(wanted.steady).await;
    let mut follower = rig.context.objects.follow(&[Kind::Service]);
    let settle = wanted.steady / wanted.rollouts.max(1);
    for number in 1..=wanted.rollouts {
        let rollout = number as usize - 1;
        let peak = Peak::watch();
        load.enter(2 * rollout + 1);
        let start = Instant::now();
        rig.digests
            .insert(name.clone(), digests[1 - rollout % 2].clone());
        rig.apply().await?;
        rig.completed(&mut follower).await?;
        let took = start.elapsed();
        rig.answers_come_from(name, &target).await?;
        load.enter(2 * rollout + 2);
        told(Rollout {
            number,
            took,
            peak_bytes: peak.end().await,
        });
        tokio::time::sleep(settle).await;
    }
    load.end().await
}

/// How much more memory this process holds than when this was made, at its peak.
struct Peak {
    before: u64,
    most: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    watching: tokio::task::JoinHandle<()>,
}

impl Peak {
    fn watch() -> Self {
        let before = machine::resident_bytes();
        let most = Arc::new(AtomicU64::new(before));
        let is_over = Arc::<AtomicBool>::default();
        let (shared, over) = (Arc::clone(&most), Arc::clone(&is_over));
        let watching = tokio::spawn(async move {
            while !over.load(Relaxed) {
                shared.fetch_max(machine::resident_bytes(), Relaxed);
                tokio::time::sleep(LOOK).await;
            }
        });
        Self {
            before,
            most,
            is_over,
            watching,
        }
    }

    async fn end(self) -> u64 {
        self.most.fetch_max(machine::resident_bytes(), Relaxed);
        self.is_over.store(true, Relaxed);
        // It does not panic.
        let _ = self.watching.await;
        self.most.load(Relaxed).saturating_sub(self.before)
    }
}
