//! Rollouts under load: how long they take, and what they cost those who ask meanwhile.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use sampan_core::{
    name::ServiceKey,
    object::Isolation,
    record::{Kind, RolloutState},
    spec::SpecText,
};
use serde::Serialize;

use super::{
    BenchError, Component, Workbench, app,
    load::{self, Answers, Load},
};
use crate::{
    api::{Api, Checked},
    events::Subject,
    mirror::{Follower, Mirror},
    secrets::Sealed,
    serve::{AppSource, app::Listening, context::NodeContext, control, daemon::Daemon},
};

/// The longest that one rollout may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to measure.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// What runs first, and what takes its place. Without the second one it is the first with
    /// another digest.
    pub(crate) first: Component,
    pub(crate) second: Option<Component>,
    pub(crate) isolation: Option<Isolation>,
    pub(crate) replicas: u32,
    pub(crate) connections: u32,
    pub(crate) rollouts: u32,
    /// How long load is on before the first rollout, and after the last.
    pub(crate) steady: Duration,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) replicas: u32,
    pub(crate) connections: u32,
    /// Of the two components.
    pub(crate) digests: [String; 2],
    pub(crate) rollouts: Times,
    pub(crate) requests: Requests,
    pub(crate) latency: [Latency; load::PHASES],
}

/// From apply to the last pod, in seconds.
#[derive(Debug, Serialize)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) median_s: f64,
    pub(crate) max_s: f64,
    pub(crate) each_s: Vec<f64>,
}

/// What became of the requests.
#[derive(Debug, Serialize)]
pub(crate) struct Requests {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// Why, of the first that failed.
    pub(crate) failures: Vec<String>,
}

/// How long answers took in one part of the measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) phase: &'static str,
    pub(crate) answers: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// Two versions of an app on a node of their own.
struct Bench {
    context: NodeContext,
    api: Api,
    source: AppSource,
    digests: [String; 2],
    key: ServiceKey,
}

/// Measures rollouts back and forth. `progress` is told how many are done.
pub(crate) async fn measure(wanted: Wanted, progress: impl Fn(u32)) -> Result<Report, BenchError> {
    let source = app(wanted.replicas, wanted.isolation);
    let workbench = Workbench::new(&source)?;
    let bench = Bench::new(&workbench, source, &wanted).await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listening = Listening::start(&bench.context.node, None, address).await?;
    // Applied first: who comes before the service is known is told that there is none.
    let start = Instant::now();
    bench.apply(0).await?;
    let mut daemon = Daemon::start(&bench.context);
    let measured = tokio::select! {
        measured = bench.roll(&wanted, listening.address, start, progress) => measured,
        reason = daemon.failed() => Err(BenchError::Failed(reason)),
    };
    listening.drain().await;
    daemon.rest().await;
    let (times, answers) = measured?;
    Ok(report(&wanted, bench.digests, times, answers))
}

impl Bench {
    async fn new(
        workbench: &Workbench,
        source: AppSource,
        wanted: &Wanted,
    ) -> Result<Self, BenchError> {
        let context = NodeContext::foreground(workbench.node.clone()).await?;
        let second = wanted.second.clone();
        let second = second.unwrap_or_else(|| wanted.first.variant("2"));
        let mut services = source.app.services.values();
        let service = services.next().expect("the app has a service");
        let key = ServiceKey::new(&source.app.name, &service.name);
        let mut digests = [String::new(), String::new()];
        for (component, digest) in [&wanted.first, &second].into_iter().zip(&mut digests) {
            let (subject, bytes) = (Subject::Service(key.clone()), component.bytes.clone());
            let (path, limits) = (service.component.path.clone(), &service.limits);
            let taking = context
                .loader
                .take(&subject, bytes, path, None, (limits, false));
            let loaded = taking.await.map_err(|source| BenchError::Load {
                name: component.name.clone(),
                source,
            })?;
            *digest = loaded.inspection.digest.to_hex();
        }
        if digests[0] == digests[1] {
            let same = "both components are the same: there is nothing to roll out";
            return Err(BenchError::Failed(same.to_owned()));
        }
        Ok(Self {
            api: control::api(&context, None),
            context,
            source,
            digests,
            key,
        })
    }

    /// Wants one of the two versions.
    async fn apply(&self, version: usize) -> Result<(), BenchError> {
        let name = self.key.name.clone();
        let checked = Checked {
            app: self.source.app.clone(),
            sealed: Sealed::new(),
            base: "/".into(),
            digests: BTreeMap::from([(name, self.digests[version].clone())]),
            cause: "bench".to_owned(),
            spec: SpecText::default(),
        };
        let applied = self.api.apply(&checked).await;
        applied.map_err(BenchError::Failed)?;
        Ok(self.context.objects.catch_up().await?)
    }

    /// Waits for the first version, then rolls out under load.
    async fn roll(
        &self,
        wanted: &Wanted,
        address: SocketAddr,
        start: Instant,
        progress: impl Fn(u32),
    ) -> Result<(Vec<Duration>, Answers), BenchError> {
        let mut follower = self.context.objects.follow(&[Kind::Service]);
        self.complete(&mut follower, start).await?;
        self.answers_come_from(&follower, address).await?;
        let load = Load::start(address, wanted.connections);
        tokio::time::sleep(wanted.steady).await;
        load.enter(1);
        let mut times = Vec::new();
        for rollout in 0..wanted.rollouts {
            let start = Instant::now();
            self.apply(1 - rollout as usize % 2).await?;
            self.complete(&mut follower, start).await?;
            times.push(start.elapsed());
            self.answers_come_from(&follower, address).await?;
            progress(rollout + 1);
        }
        load.enter(2);
        tokio::time::sleep(wanted.steady).await;
        Ok((times, load.end().await))
    }

    /// Waits until all pods are of the version that is wanted.
    async fn complete(&self, follower: &mut Follower, start: Instant) -> Result<(), BenchError> {
        loop {
            let service = |mirror: &Mirror| {
                let stored = mirror.services.get(&self.key)?;
                Some(Arc::clone(&stored.value))
            };
            let service = service(&follower.mirror());
            match service.as_ref().map(|service| service.rollout()) {
                Some(RolloutState::Complete) => return Ok(()),
                Some(RolloutState::RolledBack { reason } | RolloutState::Failed { reason }) => {
                    return Err(BenchError::Failed(format!("the rollout failed: {reason}")));
                }
                Some(
                    RolloutState::UnderWay | RolloutState::Waiting | RolloutState::Held { .. },
                )
                | None => {}
            }
            let left = PATIENCE.saturating_sub(start.elapsed());
            match tokio::time::timeout(left, follower.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(BenchError::Failed("the store is closed".to_owned())),
                Err(_) => {
                    let late = format!("the rollout took longer than {PATIENCE:?}");
                    return Err(BenchError::Failed(late));
                }
            }
        }
    }

    /// Asks until the revision that is wanted answers. The gateway hears of the last pods that go a
    /// moment after the store, and none of its answers may fail meanwhile.
    async fn answers_come_from(
        &self,
        follower: &Follower,
        address: SocketAddr,
    ) -> Result<(), BenchError> {
        let wanted = |mirror: &Mirror| Some(mirror.services.get(&self.key)?.value.spec.revision);
        let wanted = wanted(&follower.mirror());
        let mut sender = load::connect(address).await.map_err(BenchError::Failed)?;
        let begun = Instant::now();
        loop {
            let answer = load::exchange(&mut sender).await;
            let (status, revision) = answer.map_err(BenchError::Failed)?;
            if status.is_success() && revision == wanted {
                return Ok(());
            }
            if !status.is_success() || begun.elapsed() > PATIENCE {
                return Err(BenchError::Failed(format!(
                    "revision {revision:?} answers with {status}, and {wanted:?} is wanted"
                )));
            }
        }
    }
}

fn report(wanted: &Wanted, digests: [String; 2], times: Vec<Duration>, answers: Answers) -> Report {
    let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut sorted = times.clone();
    sorted.sort();
    let at = |index: usize| sorted.get(index).map_or(0.0, Duration::as_secs_f64);
    let mut names = ["before", "during", "after"].into_iter();
    let latency = answers.latencies.each_ref().map(|sketch| Latency {
        phase: names.next().unwrap_or_default(),
        answers: sketch.count(),
        p50_ms: millis(sketch.quantile(0.5)),
        p99_ms: millis(sketch.quantile(0.99)),
        max_ms: millis(sketch.max()),
    });
    Report {
        replicas: wanted.replicas,
        connections: wanted.connections,
        digests,
        rollouts: Times {
            count: times.len(),
            median_s: at(times.len() / 2),
            max_s: at(times.len().saturating_sub(1)),
            each_s: times.iter().map(Duration::as_secs_f64).collect(),
        },
        requests: Requests {
            sent: answers.sent,
            failed: answers.failed,
            failures: answers.reasons,
        },
        latency,
    }
}
