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
    load::{Load, Outcome, Pace, histogram},
    machine,
    recorder::{Part, Place},
    report::{Better, Scale, Unit},
    rig::{Rig, on_node},
};
use crate::mirror::Follower;

/// Time between two looks at the memory of this process.
const LOOK: Duration = Duration::from_millis(5);

/// Nodes of each number of pods, one after the other in turns with the other numbers: each figure is
/// of the whole time.
const ROUNDS: u32 = 10;
/// How long load is on before anything is told of it.
const WARM_UP: Duration = Duration::from_millis(100);

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
    p50: Place,
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
            p50: group("p50", "Median latency", Unit::Ms, Better::Lower),
            p99: group(
                "p99",
                "Latency that 99 of 100 requests keep to",
                Unit::Ms,
                Better::Lower,
            ),
            memory: group(
                "memory",
                "Memory at its peak, beyond what the node had before the first rollout",
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
    let rounds = ROUNDS.min(wanted.rollouts);
    part.method(&format!(
        "A node in this process with its state in memory runs an app of one service. {} rollouts \
         between two components whose code is in the cache, there and back, while a load of {} \
         requests a second, over {} kept connections of loopback, asks for `GET /`. They are spread \
         over {rounds} nodes, in turns with the other numbers of pods; each makes two rollouts before, \
         which are not measured. The time is from `apply` to the moment at \
         which all pods are of the new revision, and it has answered. Latencies count from when a \
         request is due; each sample is of all rollouts of a node, of all the time after one, or of \
         as long before the first. Memory is what this process holds, the load's \
         own too, looked at each {} ms.",
        wanted.rollouts,
        wanted.rate,
        wanted.connections,
        LOOK.as_millis()
    ));
    part.component(first);
    part.component(&second);
    let places = Places::new(part);
    let new = |replicas: &u32| Run {
        wanted,
        part,
        places: &places,
        replicas: *replicas,
        rollouts: 0,
        sent: 0,
        failed: 0,
    };
    let mut runs: Vec<Run<'_>> = wanted.replicas.iter().map(new).collect();
    let all = f64::from(rounds) * runs.len() as f64;
    for round in 0..rounds {
        for (at, run) in runs.iter_mut().enumerate() {
            let before = f64::from(round) * wanted.replicas.len() as f64 + at as f64;
            let progress = |done: f64, pods: u32| {
                part.progress((before + done) / all, &format!("rollout, pods: {pods}"));
            };
            progress(0.0, run.replicas);
            // Of so many rollouts as there are, each round has its part.
            let upto = |round: u32| wanted.rollouts * round / rounds;
            run.rollouts = (upto(round + 1) - upto(round)) as usize;
            let source = app(run.replicas, wanted.isolation);
            let name = source.app.name.clone();
            let components = BTreeMap::from([(name.clone(), first.clone())]);
            let rolled = on_node(source, &components, async |rig| {
                run.roll(rig, &name, &second, progress).await
            });
            rolled.await?;
        }
    }
    for run in &runs {
        let (place, x) = (places.requests, run.x());
        part.sample(place, "sent", x, run.sent as f64);
        part.sample(place, "failed", x, run.failed as f64);
    }
    Ok(runs.iter().all(|run| run.failed == 0))
}

/// Rollouts of so many pods.
struct Run<'a> {
    wanted: &'a Wanted,
    part: &'a Part,
    places: &'a Places,
    replicas: u32,
    /// Of this round.
    rollouts: usize,
    /// Requests that were told of so far, and those of them that failed.
    sent: u64,
    failed: u64,
}

impl Run<'_> {
    fn x(&self) -> Option<f64> {
        Some(f64::from(self.replicas))
    }

    /// The first phase is a warm-up. Then there are as many before the first rollout as there are
    /// rollouts, and then by turns one during a rollout and one after it.
    fn phase_name(&self, phase: usize) -> Option<&'static str> {
        let phase = phase.checked_sub(1)?;
        Some(match phase.checked_sub(self.rollouts) {
            None => "before",
            Some(later) if later % 2 == 0 => "during",
            Some(_) => "after",
        })
    }

    async fn roll(
        &mut self,
        rig: &mut Rig,
        name: &Name,
        second: &Component,
        progress: impl Fn(f64, u32),
    ) -> Result<(), BenchError> {
        let digests = [rig.digests[name].clone(), rig.take(name, second).await?];
        if digests[0] == digests[1] {
            let same = "both components are the same: there is nothing to roll out";
            return Err(BenchError::Failed(same.to_owned()));
        }
        let target = rig.target(HOST, "/");
        let mut follower = rig.context.objects.follow(&[Kind::Service]);
        rig.answers_come_from(name, &target).await?;
        for digest in [&digests[1], &digests[0]] {
            once(rig, name, digest, &mut follower).await?;
            rig.answers_come_from(name, &target).await?;
        }
        let rollouts = self.rollouts;
        let slice = self.wanted.steady / self.wanted.rollouts.max(1);
        let pace = Pace::Constant(self.wanted.rate);
        let load = Load::start(target.clone(), self.wanted.connections, pace)?;
        tokio::time::sleep(WARM_UP).await;
        for phase in 1..=rollouts {
            load.enter(phase);
            tokio::time::sleep(slice).await;
        }
        let base = machine::resident_bytes();
        for rollout in 0..rollouts {
            let during = 1 + rollouts + 2 * rollout;
            let peak = Peak::watch(base);
            load.enter(during);
            let start = Instant::now();
            once(rig, name, &digests[1 - rollout % 2], &mut follower).await?;
            let took = start.elapsed();
            rig.answers_come_from(name, &target).await?;
            load.enter(during + 1);
            let places = self.places;
            let took = took.as_secs_f64() * 1e3;
            self.part.sample(places.time, "rollout", self.x(), took);
            let peak = peak.end().await as f64;
            self.part.sample(places.memory, "rollout", self.x(), peak);
            tokio::time::sleep(slice).await;
            progress((rollout + 1) as f64 / rollouts as f64, self.replicas);
        }
        self.tell(&load.end().await?);
        Ok(())
    }

    /// What the answers of a node's load were: of all the time before the first rollout, of all
    /// rollouts, and of all the time after one.
    fn tell(&mut self, outcome: &Outcome) {
        self.sent += outcome.sent();
        self.failed += outcome.failed();
        for reason in &outcome.reasons {
            let pods = self.replicas;
            self.part.note(format!("failed at {pods} pods: {reason}"));
        }
        let mut times = BTreeMap::new();
        for (phase, answers) in &outcome.phases {
            let Some(time) = self.phase_name(*phase) else {
                continue;
            };
            let all = times.entry(time).or_insert_with(histogram);
            let added = all.add(&answers.latencies);
            added.expect("histograms of one kind");
        }
        let Places { p50, p99, .. } = *self.places;
        for (time, latencies) in times.iter().filter(|(_, it)| !it.is_empty()) {
            for (place, part) in [(p50, 0.5), (p99, 0.99)] {
                let sample = latencies.value_at_quantile(part) as f64 / 1e6;
                self.part.sample(place, time, self.x(), sample);
                self.part.requests(place, time, self.x(), latencies);
            }
        }
    }
}

/// One rollout, to its end.
async fn once(
    rig: &mut Rig,
    name: &Name,
    digest: &str,
    follower: &mut Follower,
) -> Result<(), BenchError> {
    rig.digests.insert(name.clone(), digest.to_owned());
    rig.apply().await?;
    rig.completed(follower).await
}

/// How much more memory this process holds than it did, at its peak.
struct Peak {
    before: u64,
    most: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    watching: tokio::task::JoinHandle<()>,
}

impl Peak {
    fn watch(before: u64) -> Self {
        let most = Arc::new(AtomicU64::new(machine::resident_bytes()));
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
