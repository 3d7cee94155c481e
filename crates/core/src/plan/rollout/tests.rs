//! The planner of rollouts: a small world to try it in, its laws, and Kubernetes' examples.

mod laws;
mod random;
mod scaling;
mod scenarios;
mod stories;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::*;
use crate::{
    name::{Name, ServiceKey},
    object::{OnFailure, Rollout, Strategy},
    quantity::Amount,
    record::{Boot, Boots, Moment, Phase, Pod, PodPhase, PodStatus, Service, ServiceSpec},
};

const MIN_READY: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(60);
const BOOT: Boot = Boot(7);

/// A service, its pods and a clock.
#[derive(Clone, Debug)]
struct World {
    service: Service,
    pods: Vec<Pod>,
    /// Since when pods have been ready.
    ready: BTreeMap<PodName, Timestamp>,
    /// The pods that should run on other nodes.
    leaving: BTreeSet<PodName>,
    gate: Gate,
    moment: Moment,
    /// The words of all announcements, and of what was done to the service itself.
    told: Vec<String>,
}

impl World {
    /// A service whose first revision has not been rolled out yet. An hour has passed.
    fn new(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let rollout = Rollout {
            strategy: Strategy::Rolling,
            max_surge: Amount::Count(surge),
            max_unavailable: Amount::Count(unavailable),
            min_ready: MIN_READY,
            progress_deadline: DEADLINE,
            on_failure: OnFailure::Rollback,
            history: 10,
            drain: Duration::from_secs(30),
        };
        let spec = ServiceSpec {
            revision: 1,
            kind: crate::object::ServiceKind::Http,
            previous: None,
            latest: 1,
            replicas,
            paused: false,
            deleting: false,
            rollout,
            routes: Vec::new(),
            depends_on: BTreeMap::new(),
            calls: Default::default(),
            queue: 16,
            queue_timeout: Duration::from_secs(1),
            body_bytes: 1024,
            debug_headers: false,
            autoscale: None,
            placement: Default::default(),
        };
        Self {
            service: Service {
                key: ServiceKey::parse("shop/web").expect("a key"),
                generation: 1,
                spec,
                status: ServiceStatus::default(),
            },
            pods: Vec::new(),
            ready: BTreeMap::new(),
            leaving: BTreeSet::new(),
            gate: Gate::Open,
            moment: Moment {
                boot: BOOT,
                now: Timestamp::after(Duration::from_secs(3600)),
                wall_ms: 1_000_000,
            },
            told: Vec::new(),
        }
    }

    /// One whose first revision is complete.
    fn running(replicas: u32, surge: u32, unavailable: u32) -> Self {
        let mut world = Self::new(replicas, surge, unavailable);
        world.settle(|_| Fate::Good);
        assert_eq!(world.service.status.phase, Phase::Complete);
        world.told.clear();
        world
    }

    fn plan(&self) -> Plan {
        let boots = self.boots();
        let observed = self.pods.iter().map(|pod| ObservedPod {
            pod,
            status: pod.observed(&boots),
            ready_since: self.ready_since(pod),
            leaving: self
                .leaving
                .contains(&pod.name())
                .then_some("its node a is drained"),
        });
        let pods: Vec<_> = observed.collect();
        plan(&self.service, &pods, &self.gate, self.moment)
    }

    /// The one node and its run.
    fn boots(&self) -> Boots {
        [(node(), self.moment.boot)].into_iter().collect()
    }

    /// Since when a pod has been ready, if it is.
    fn ready_since(&self, pod: &Pod) -> Option<Timestamp> {
        let ready = matches!(pod.phase(&self.boots()), PodPhase::Ready { .. });
        self.ready.get(&pod.name()).copied().filter(|_| ready)
    }

    /// A pod is ready since then.
    fn be_ready(&mut self, at: usize, since: Timestamp) {
        let pod = &mut self.pods[at];
        pod.node = Some(node());
        set(pod, PodPhase::Ready { nth: 1 });
        self.ready.insert(pod.name(), since);
    }

    /// Plans, and does what was planned.
    fn step(&mut self) -> Plan {
        let plan = self.plan();
        self.apply(&plan);
        plan
    }

    fn apply(&mut self, plan: &Plan) {
        for action in &plan.actions {
            match action {
                Action::Create { pod, reason } => {
                    assert!(!reason.is_empty());
                    let taken = self.pods.iter().any(|it| it.name() == *pod);
                    assert!(!taken, "{pod} is there already");
                    self.leaving.remove(pod);
                    let pod = super::tests::pod(pod.service(), pod.revision(), pod.slot());
                    self.pods.push(pod);
                }
                Action::Stop { pod, reason } => {
                    let found = self.pods.iter_mut().find(|it| it.name() == *pod);
                    let found = found.unwrap_or_else(|| panic!("{pod} is not there"));
                    assert_eq!(found.stop, None, "{pod} is stopped twice");
                    found.stop = Some(reason.clone());
                }
                Action::RollBack { from, to, .. } => {
                    assert_eq!(self.service.spec.revision, *from);
                    self.service.spec.revision = *to;
                    self.service.spec.previous = Some(*from);
                    self.told.push("RollBack".to_owned());
                }
                Action::Pause { .. } => {
                    self.service.spec.paused = true;
                    self.told.push("Pause".to_owned());
                }
                Action::Announce { reason, message } => {
                    assert!(!message.is_empty());
                    self.told.push(reason.to_string());
                }
            }
        }
        self.service.status = plan.status.clone();
    }

    fn pass(&mut self, time: Duration) {
        self.moment.now = self.moment.now + time;
        self.moment.wall_ms += u64::try_from(time.as_millis()).expect("a short time");
    }

    /// Lets pods live for a while: what should stop is gone, the others meet their fate.
    fn live(&mut self, fate: impl Fn(&Pod) -> Fate) {
        let now = self.moment.now;
        self.pods.retain(|pod| pod.stop.is_none());
        for at in 0..self.pods.len() {
            match fate(&self.pods[at]) {
                Fate::Good => {
                    let since = self.ready_since(&self.pods[at]).unwrap_or(now);
                    self.be_ready(at, since);
                }
                Fate::Bad => {
                    set(&mut self.pods[at], PodPhase::BackOff);
                    self.pods[at].status.reason = Some("it trapped".to_owned());
                }
                Fate::Stuck => set(&mut self.pods[at], PodPhase::Unready),
            }
        }
    }

    /// Plans and lives until nothing is left to do, and says how many rounds that took.
    fn settle(&mut self, fate: impl Fn(&Pod) -> Fate) -> usize {
        const ROUNDS: usize = 500;
        for round in 0..ROUNDS {
            let before = self.clone();
            let plan = self.step();
            let again = self.plan();
            assert_eq!(again.actions, [], "after {plan:#?} in {before:#?}");
            assert_eq!(again.status, plan.status, "after {plan:#?} in {before:#?}");
            self.live(&fate);
            let next = self.plan();
            if next.actions.is_empty() {
                match next.wake_at {
                    None if next.status == self.service.status => return round,
                    None => {}
                    Some(at) => {
                        let wait = at - self.moment.now;
                        self.pass(wait);
                    }
                }
            }
        }
        panic!("no end: {self:#?}");
    }

    /// The user wants this revision.
    fn want(&mut self, revision: u64) {
        let spec = &mut self.service.spec;
        spec.previous = Some(spec.revision);
        spec.revision = revision;
        spec.latest = spec.latest.max(revision);
        self.service.generation += 1;
    }

    fn scale(&mut self, replicas: u32) {
        self.service.spec.replicas = replicas;
        self.service.generation += 1;
    }

    fn pause(&mut self, paused: bool) {
        self.service.spec.paused = paused;
        self.service.generation += 1;
    }

    /// How many pods of `revision` are to stay.
    fn active(&self, revision: u64) -> u32 {
        let active = self.pods.iter().filter(|pod| pod.stop.is_none());
        let of = active.filter(|pod| pod.revision == revision);
        u32::try_from(of.count()).expect("few pods")
    }

    /// All pods in these slots should run on other nodes.
    fn leave(&mut self, slots: impl Fn(u32) -> bool) {
        let leaving = self.pods.iter().filter(|pod| slots(pod.slot));
        self.leaving = leaving.map(Pod::name).collect();
    }

    /// Whether a pod that is to stay should run on another node.
    fn is_leaving(&self) -> bool {
        let mut active = self.pods.iter().filter(|pod| pod.stop.is_none());
        active.any(|pod| self.leaving.contains(&pod.name()))
    }

    /// Adds so many pods of `revision` that are like this.
    fn add(&mut self, revision: u64, number: u32, kind: Kind) {
        let slot = |pods: &[Pod]| {
            let taken = |slot| {
                pods.iter()
                    .any(|pod| pod.revision == revision && pod.slot == slot)
            };
            (0..).find(|&slot| !taken(slot)).expect("a free slot")
        };
        for _ in 0..number {
            self.pods
                .push(pod(&self.service.key, revision, slot(&self.pods)));
            let (at, now) = (self.pods.len() - 1, self.moment.now);
            match kind {
                Kind::Available => self.be_ready(at, Timestamp::ZERO),
                Kind::Ready => self.be_ready(at, now),
                Kind::NotReady => set(&mut self.pods[at], PodPhase::Starting),
                Kind::Ended => set(&mut self.pods[at], PodPhase::Ended),
                Kind::Stopping => {
                    set(&mut self.pods[at], PodPhase::Draining);
                    self.pods[at].stop = Some("it should".to_owned());
                }
            }
        }
    }

    /// Whether the last announcements were these.
    #[track_caller]
    fn assert_told(&mut self, words: &[&str]) {
        assert_eq!(self.told, words);
        self.told.clear();
    }
}

fn node() -> Name {
    Name::parse("a").expect("a name")
}

/// A pod of the one node.
fn pod(service: &ServiceKey, revision: u64, slot: u32) -> Pod {
    Pod {
        node: Some(node()),
        ..Pod::new(service, revision, slot)
    }
}

fn set(pod: &mut Pod, phase: PodPhase) {
    pod.status = PodStatus {
        boot: BOOT,
        phase,
        ..PodStatus::default()
    };
}

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It becomes ready and stays so.
    Good,
    /// It fails over and over.
    Bad,
    /// It is never ready.
    Stuck,
}

/// How a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Available,
    Ready,
    NotReady,
    Ended,
    Stopping,
}

/// What a plan does: creations and stops by revision.
fn moves(plan: &Plan) -> BTreeMap<u64, (u32, u32)> {
    let mut moves: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    for action in &plan.actions {
        match action {
            Action::Create { pod, .. } => moves.entry(pod.revision()).or_default().0 += 1,
            Action::Stop { pod, .. } => moves.entry(pod.revision()).or_default().1 += 1,
            Action::RollBack { .. } | Action::Pause { .. } | Action::Announce { .. } => {}
        }
    }
    moves
}

/// The names of the pods that a plan stops.
fn stopped(plan: &Plan) -> Vec<&str> {
    let stopped = plan.actions.iter().filter_map(|action| match action {
        Action::Stop { pod, .. } => Some(pod.as_str()),
        Action::Create { .. }
        | Action::RollBack { .. }
        | Action::Pause { .. }
        | Action::Announce { .. } => None,
    });
    stopped.collect()
}
