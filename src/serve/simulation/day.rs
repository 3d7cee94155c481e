//! A day with its night: what the autoscaler makes of a load that rises and falls, with noise.

use sampan_core::{
    load::Merged,
    object::Autoscale,
    quantity::{ByteSize, Cpu, Percent},
    record::PodPhase,
};

use super::*;
use crate::load::{PodLoad, ServiceLoad};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// CPU that each pod should use, as a share of what it may.
const TARGET: f64 = 0.7;
const MIN: u32 = 2;
const MAX: u32 = 60;

/// An autoscaler by CPU.
pub(super) fn bounds(min: u32, max: u32) -> Autoscale {
    Autoscale {
        min,
        max,
        cpu: Some(Percent((TARGET * 100.0) as u32)),
        concurrency: None,
        rps: None,
        stabilization: Duration::from_secs(300),
        idle: Duration::from_secs(60),
    }
}

fn ready(pods: &[Pod]) -> Vec<&Pod> {
    let is_ready =
        |pod: &&Pod| pod.stop.is_none() && matches!(pod.status.phase, PodPhase::Ready { .. });
    pods.iter().filter(is_ready).collect()
}

/// What would be measured of a load that keeps so many pods busy all the time: none can do more
/// than that.
pub(super) fn measured(pods: &[Pod], load: f64) -> Arc<Merged> {
    let ready = ready(pods);
    let done = load.min(ready.len() as f64);
    let pod = |pod: &&Pod| PodLoad {
        pod: pod.name(),
        phase: "Running",
        ready: true,
        was_ready: true,
        drains: false,
        cpu: Some(done / ready.len() as f64),
        throttled: 0.0,
        cpu_limit: Some(Cpu { millis: 1000 }),
        memory_bytes: 0,
        instance_peak_bytes: 0,
        memory_limit: ByteSize(1),
        requests: 0.0,
        served: 0.0,
        in_flight: 0.0,
    };
    let service = ServiceLoad {
        pods: ready.iter().map(pod).collect(),
        in_flight: Some(load),
        arrived: Some(load * 100.0),
        served: Some(done * 100.0),
        ..ServiceLoad::default()
    };
    Arc::new(Merged::of_one(BTreeMap::from([(web(), service.load())])))
}

/// A load of 2 pods at night and of 20 at noon, with a drift of minutes, noise of seconds, and now
/// and then half a minute of a fifth more.
struct Noisy {
    chance: fastrand::Rng,
    drift: f64,
    burst: u32,
}

impl Noisy {
    /// About normally distributed, with a deviation of 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.chance.f64()).sum::<f64>() - 6.0
    }

    fn at(&mut self, second: u64) -> f64 {
        let turn = second as f64 / DAY as f64 * std::f64::consts::TAU;
        let smooth = 11.0 - 9.0 * turn.cos();
        // It forgets in five minutes, and deviates by 4 %.
        let kept: f64 = 1.0 - 1.0 / 300.0;
        self.drift = self.drift * kept + 0.04 * (1.0 - kept * kept).sqrt() * self.normal();
        self.burst = match self.burst {
            0 if self.chance.u32(0..3600) == 0 => 30,
            left => left.saturating_sub(1),
        };
        let burst = if self.burst > 0 { 0.2 } else { 0.0 };
        (smooth * (1.0 + self.drift + burst + 0.03 * self.normal())).max(0.0)
    }
}

/// What a day came to.
#[derive(Debug, Default)]
struct Day {
    /// Pods at every second, added up.
    pods: f64,
    /// The fewest that keep to the target, added up in the same way.
    ideal: f64,
    /// Load in pods that are busy all the time, and what there was no pod for.
    load: f64,
    over: f64,
    changes: u32,
    /// When pods were added less than `stabilization` after others had gone: the load has risen by
    /// more than the tolerance in that time, or the autoscaler swings.
    reversals: Vec<u64>,
}

impl Day {
    fn told(&self) -> String {
        format!(
            "{:.2} times the ideal, {:.3}% over capacity, {} changes, {} reversals",
            self.pods / self.ideal,
            self.over / self.load * 100.0,
            self.changes,
            self.reversals.len()
        )
    }
}

async fn live(seed: u64) -> Day {
    let chance = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let store = Arc::new(Faulty {
        memory: Arc::default(),
        chance,
        faults: AtomicBool::new(false),
        fuse: Mutex::default(),
        burnt: Notify::new(),
        broken: Mutex::default(),
    });
    begin(&store.memory, MIN).await;
    let window = bounds(MIN, MAX).stabilization.as_secs();
    autoscale(&store.memory, bounds(MIN, MAX)).await;
    let (sender, loads) = watch::channel(Arc::default());
    let _node = start(&store, &Arc::default(), &loads);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut noisy = Noisy {
        chance: fastrand::Rng::with_seed(seed),
        drift: 0.0,
        burst: 0,
    };
    let mut day = Day::default();
    let (mut before, mut last) = (MIN, (0_i64, 0));
    for second in 0..DAY {
        let load = noisy.at(second);
        let there = pods(&store.memory).await;
        let ready = ready(&there).len() as f64;
        day.load += load;
        day.over += (load - ready).max(0.0);
        day.pods += there.len() as f64;
        day.ideal += (load / TARGET).ceil().clamp(MIN.into(), MAX.into());
        sender.send_replace(measured(&there, load));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = service(&store.memory).await.spec.replicas;
        let change = i64::from(now) - i64::from(before);
        if change != 0 {
            let is_reversed = change.signum() == -last.0 && second - last.1 < window;
            day.changes += 1;
            if is_reversed && change > 0 {
                day.reversals.push(second);
            }
            last = (change.signum(), second);
            before = now;
        }
    }
    day
}

/// Twenty-four hours: at most a quarter more pods than it takes, next to no work that there is no
/// pod for, and no swinging: pods that go and are missed at once, twice within an hour.
#[test]
fn a_day_is_followed_without_waste_or_want() {
    for seed in 0..setting("SAMPAN_DAYS").unwrap_or(1) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let day = runtime.block_on(live(seed));
        assert!(day.pods / day.ideal <= 1.25, "seed {seed}: {day:?}");
        assert!(day.over / day.load < 0.001, "seed {seed}: {day:?}");
        let swings = day.reversals.windows(2).any(|two| two[1] - two[0] < HOUR);
        assert!(!swings, "seed {seed}: {day:?}");
        if seed == 0 {
            insta::assert_snapshot!(day.told(), @"1.08 times the ideal, 0.000% over capacity, 55 changes, 0 reversals");
        }
    }
}
