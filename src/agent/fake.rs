//! Pods without a guest, for tests: they answer as they are told to, and remember what was done.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Empty};
use parking_lot::Mutex;
use sampan_core::{
    fault::Fault,
    histogram::Distribution,
    name::{PodName, ServiceKey},
    object::{Check, Isolation, Probe, Restart, RestartPolicy, ServiceKind},
    plan::{
        pod::PodSpec,
        probe::{Outcome, ProbeKind},
    },
    quantity::ByteSize,
};
use sampan_gateway::{Body, UpstreamError};
use sampan_runtime::{
    Usage,
    pod::{PodWatch, Termination},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    census::{Census, Counter},
    handle::{Maker, PodHandle},
    rotation::Rotation,
    upstream::PodUpstream,
    worker::{Assignment, Worker},
};
use crate::events::{Change, Journal};

/// What happens to the pods of one maker, and what has happened.
#[derive(Default)]
pub(crate) struct Stage {
    /// Why no instance can be made, if none can.
    pub(crate) unmakeable: Mutex<Option<String>>,
    /// How long an instance lives; for ever if not given.
    pub(crate) lifetime: Mutex<Option<Duration>>,
    /// What probes say; without an entry they succeed.
    pub(crate) answers: Mutex<BTreeMap<ProbeKind, Outcome>>,
    /// What each instance says that it has used.
    pub(crate) usage: Mutex<Usage>,
    /// What each instance says that its requests have cost.
    pub(crate) request_cpu: Mutex<Distribution>,
    /// When instances were made.
    pub(crate) made: Mutex<Vec<Instant>>,
    /// When probes were asked.
    pub(crate) asked: Mutex<Vec<(ProbeKind, Instant)>>,
    /// Instances that were ended.
    pub(crate) ended: AtomicU32,
    /// How often one was told that it is to stop.
    pub(crate) pre_stops: AtomicU32,
    /// Requests answered.
    pub(crate) requests: AtomicU64,
    /// Looks at each request before it is answered.
    pub(crate) on_request: Mutex<Option<Box<dyn Fn() + Send>>>,
    /// Who is told of the instance that was made last.
    pub(crate) latest: Mutex<Option<Arc<dyn PodWatch>>>,
}

impl Stage {
    /// What the runtime tells of the instance that was made last.
    pub(crate) fn watch(&self) -> Arc<dyn PodWatch> {
        self.latest.lock().clone().expect("one has been made")
    }

    pub(crate) fn answer(&self, kind: ProbeKind, outcome: Outcome) {
        self.answers.lock().insert(kind, outcome);
    }
}

/// An instance on a [`Stage`].
pub(crate) struct FakePod(pub(crate) Arc<Stage>);

impl PodHandle for FakePod {
    async fn call(
        self: Arc<Self>,
        _: http::Request<Body>,
        _: Arc<str>,
    ) -> Result<http::Response<Body>, UpstreamError> {
        self.0.requests.fetch_add(1, SeqCst);
        if let Some(look) = &*self.0.on_request.lock() {
            look();
        }
        let nothing = Empty::new().map_err(|never| match never {});
        Ok(http::Response::new(nothing.boxed_unsync()))
    }

    async fn probe(&self, kind: ProbeKind, _: &Probe) -> Outcome {
        self.0.asked.lock().push((kind, Instant::now()));
        let answer = self.0.answers.lock().get(&kind).cloned();
        answer.unwrap_or(Outcome::Success)
    }

    fn usage(&self) -> Usage {
        *self.0.usage.lock()
    }

    fn request_cpu(&self) -> Distribution {
        self.0.request_cpu.lock().clone()
    }

    async fn pre_stop(self: Arc<Self>, _: Duration) -> Result<(), String> {
        self.0.pre_stops.fetch_add(1, SeqCst);
        Ok(())
    }

    fn killed(&self, reason: String) -> Arc<Termination> {
        termination(&reason)
    }

    fn end(&self) {
        self.0.ended.fetch_add(1, SeqCst);
    }
}

/// Makes instances on a [`Stage`].
pub(crate) struct FakeMaker(pub(crate) Arc<Stage>);

impl Maker for FakeMaker {
    type Handle = FakePod;

    async fn make(&self, watch: Arc<dyn PodWatch>) -> Result<FakePod, String> {
        let stage = &self.0;
        stage.made.lock().push(Instant::now());
        if let Some(reason) = stage.unmakeable.lock().clone() {
            return Err(reason);
        }
        *stage.latest.lock() = Some(Arc::clone(&watch));
        match *stage.lifetime.lock() {
            Some(Duration::ZERO) => watch.terminated(&termination("it trapped")),
            Some(lifetime) => drop(tokio::spawn(async move {
                tokio::time::sleep(lifetime).await;
                watch.terminated(&termination("it trapped"));
            })),
            None => {}
        }
        Ok(FakePod(Arc::clone(stage)))
    }
}

/// The end of an instance.
pub(crate) fn termination(reason: &str) -> Arc<Termination> {
    Arc::new(Termination {
        pod: PodName::new(&service(), 1, 0),
        verdict: Fault::Trapped,
        exit_code: None,
        reason: reason.to_owned(),
        at: SystemTime::UNIX_EPOCH,
        evidence: None,
    })
}

/// The end of a command.
pub(crate) fn exit(code: i32) -> Arc<Termination> {
    Arc::new(Termination {
        verdict: Fault::Exited,
        exit_code: Some(code),
        ..(*termination(&format!("the command ended with exit code {code}"))).clone()
    })
}

/// A place among pods without a gateway.
#[derive(Default)]
pub(crate) struct FakeRotation {
    /// How often it was told of a new instance.
    pub(crate) renewed: AtomicU32,
    pub(crate) ready: AtomicBool,
    pub(crate) left: AtomicBool,
    /// Before when it says that it cannot be ready.
    pub(crate) rests_until: Mutex<Option<Instant>>,
    pub(crate) in_flight: AtomicU32,
    pub(crate) idle: Arc<Notify>,
}

impl Rotation for FakeRotation {
    fn set_ready(&self, ready: bool) {
        self.ready.store(ready, SeqCst);
    }

    fn renew(&self) {
        self.renewed.fetch_add(1, SeqCst);
    }

    fn rest_until(&self, until: Option<Instant>) {
        *self.rests_until.lock() = until;
    }

    fn leave(&self) {
        self.ready.store(false, SeqCst);
        self.left.store(true, SeqCst);
    }

    fn in_flight(&self) -> u32 {
        self.in_flight.load(SeqCst)
    }

    fn idle(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let idle = Arc::clone(&self.idle);
        let waits = self.in_flight() > 0;
        Box::pin(async move {
            if waits {
                idle.notified().await;
            }
        })
    }
}

pub(crate) fn service() -> ServiceKey {
    ServiceKey::parse("shop/web").expect("a key")
}

/// A spec without probes.
pub(crate) fn spec() -> PodSpec {
    PodSpec {
        kind: ServiceKind::Http,
        startup: None,
        readiness: None,
        liveness: None,
        restart: Restart {
            policy: RestartPolicy::Always,
            initial: Duration::from_millis(200),
            max: Duration::from_secs(2),
            reset_after: Duration::from_secs(60),
        },
        isolation: Isolation::Pod,
        drain: Duration::from_secs(30),
        cpu: None,
        memory: ByteSize(64 << 20),
    }
}

/// A probe every `period`.
pub(crate) fn probe(period: Duration, failures: u32) -> Option<Arc<Probe>> {
    Some(Arc::new(Probe {
        check: Check::Export,
        period,
        timeout: Duration::from_secs(1),
        failures,
        successes: 1,
        delay: Duration::ZERO,
    }))
}

/// A pod at work on a stage.
pub(crate) struct Rig {
    pub(crate) stage: Arc<Stage>,
    pub(crate) upstream: Arc<PodUpstream<FakePod>>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) census: watch::Receiver<Census>,
    pub(crate) worker: Worker,
}

impl Rig {
    pub(crate) fn start(stage: Stage, spec: PodSpec, rotation: Arc<dyn Rotation>) -> Self {
        let upstream = Arc::new(PodUpstream::empty());
        Self::behind(stage, spec, rotation, upstream)
    }

    /// The pod that gets the requests of this upstream.
    pub(crate) fn behind(
        stage: Stage,
        spec: PodSpec,
        rotation: Arc<dyn Rotation>,
        upstream: Arc<PodUpstream<FakePod>>,
    ) -> Self {
        let (stage, journal) = (Arc::new(stage), Arc::<Journal>::default());
        let (census, counted) = watch::channel(Census::default());
        let counter = Mutex::new(Counter::new(census));
        let worker = Worker::start(Assignment {
            pod: PodName::new(&service(), 1, 0),
            spec: Arc::new(spec),
            maker: Arc::new(FakeMaker(Arc::clone(&stage))),
            upstream: Arc::clone(&upstream),
            rotation,
            journal: Arc::clone(&journal),
            registry: Arc::default(),
            restarts: 0,
            report: Arc::new(move |state| counter.lock().see(state)),
        });
        Self {
            stage,
            upstream,
            journal,
            census: counted,
            worker,
        }
    }

    /// What has been told of the pod.
    pub(crate) fn told(&self) -> Vec<String> {
        let events = self.journal.after(0).events;
        let notices = events.iter().map(|event| match &event.change {
            Change::Pod { notice, .. } => notice.text.clone(),
            other => other.message(),
        });
        notices.collect()
    }

    /// Waits until this has been told.
    pub(crate) async fn until_told(&self, text: &str) {
        let mut seen = 0;
        loop {
            let wait = self.journal.follow(seen);
            let events = tokio::time::timeout(Duration::from_secs(600), wait).await;
            let Ok(events) = events else {
                panic!("`{text}` was not told: {:#?}", self.told())
            };
            for event in events.events {
                seen = event.seq;
                if event.change.message().contains(text) {
                    return;
                }
            }
        }
    }
}
