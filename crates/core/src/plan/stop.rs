//! Stop order: a service or job stops after all that depend on it.
//!
//! What depends on another, by `depends_on` or because it may call it, ends its requests while the
//! other still answers. So workloads stop from the outside in, and those that do not depend on one
//! another at once. All of it has one deadline, however long the chain is: what has not stopped by
//! then is stopped without more time to drain.
//!
//! Nothing is waited for that is not there: a workload that never started, has failed, has ended or
//! has no pods holds nothing up. One that is in between is looked through: what depends on it
//! still holds up what it depends on, because a request may have it started.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    deadlock::{self, Wait},
    name::{Name, ServiceKey},
    object::ServiceKind,
    record::{Job, JobPhase, Pod, Service},
    time::Timestamp,
};

/// A service or job, and what it needs while it runs.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its name.
    pub key: &'a ServiceKey,
    /// What it waits for at its start.
    pub depends_on: Vec<&'a Name>,
    /// The services that it may call.
    pub calls: Vec<&'a Name>,
}

impl<'a> Member<'a> {
    /// A service.
    pub fn service(service: &'a Service) -> Self {
        Self {
            key: &service.key,
            depends_on: service.spec.depends_on.keys().collect(),
            calls: service.spec.calls.iter().collect(),
        }
    }

    /// A job.
    pub fn job(job: &'a Job) -> Self {
        Self {
            key: &job.key,
            depends_on: job.spec.depends_on.keys().collect(),
            calls: job.spec.grants.services.iter().collect(),
        }
    }
}

/// Which workloads stop before which.
///
/// Services may call one another in a circle, in which none can wait for the next: those on a circle
/// stop at once, after all from which a way leads to any of them, and before all to which one leads. But
/// a dependency counts on a circle too. `validate` refuses circles of dependencies alone; those on one
/// that is stored all the same wait for none of it.
#[derive(Clone, Debug, Default)]
pub struct StopOrder {
    /// The circle that each workload is on. One that is on none is one of its own.
    circle_of: BTreeMap<ServiceKey, usize>,
    circles: Vec<Circle>,
    /// For each workload those of its circle that depend on it.
    within: BTreeMap<ServiceKey, BTreeSet<ServiceKey>>,
}

#[derive(Clone, Debug, Default)]
struct Circle {
    members: Vec<ServiceKey>,
    /// The circles of which a workload depends on one of this, or may call it.
    before: BTreeSet<usize>,
}

impl StopOrder {
    /// The order of these workloads, of one app or several. A name that is none of them holds
    /// nothing up.
    pub fn new<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Self {
        let members: Vec<Member<'_>> = members.into_iter().collect();
        let waits = steps(&members, |member| &member.depends_on);
        let calls = steps(&members, |member| &member.calls);
        let both = waits.iter().zip(&calls);
        let both: Vec<Vec<usize>> = both.map(|(a, b)| [&a[..], b].concat()).collect();
        let (circle_of, knot_of) = (circles(&both), circles(&waits));
        let key = |at: usize| members[at].key.clone();
        let mut order = Self {
            circle_of: (0..members.len())
                .map(|at| (key(at), circle_of[at]))
                .collect(),
            // There are no more circles than workloads.
            circles: vec![Circle::default(); members.len()],
            within: BTreeMap::new(),
        };
        for (from, targets) in both.iter().enumerate() {
            order.circles[circle_of[from]].members.push(key(from));
            for &to in targets
                .iter()
                .filter(|&&to| circle_of[to] != circle_of[from])
            {
                order.circles[circle_of[to]].before.insert(circle_of[from]);
            }
        }
        for (from, targets) in waits.iter().enumerate() {
            let inner = |to: &&usize| circle_of[**to] == circle_of[from];
            let counts = |to: &&usize| knot_of[**to] != knot_of[from];
            for &to in targets.iter().filter(inner).filter(counts) {
                order.within.entry(key(to)).or_default().insert(key(from));
            }
        }
        order
    }

    /// What holds `who` up: the first, in the order of names, of all that are there and stop before it.
    pub fn awaited(
        &self,
        who: &ServiceKey,
        is_there: &dyn Fn(&ServiceKey) -> bool,
    ) -> Option<&ServiceKey> {
        let own = |of: &ServiceKey| self.within.get(of).into_iter().flatten();
        let inner = reached(own(who), own);
        let circle = self.circle_of.get(who).map(|&at| &self.circles[at]);
        let before = |circle: &'_ Circle| circle.before.clone().into_iter();
        let outer = reached(circle.into_iter().flat_map(before), |at| {
            before(&self.circles[at])
        });
        let outer = outer.into_iter().flat_map(|at| &self.circles[at].members);
        inner
            .into_iter()
            .chain(outer)
            .filter(|it| is_there(it))
            .min()
    }

    /// Whether the record of `who` is still needed to know what waits for what: something stops before
    /// it, or is on a circle with it, and is there.
    pub fn is_needed(&self, who: &ServiceKey, is_there: &dyn Fn(&ServiceKey) -> bool) -> bool {
        let circle = self.circle_of.get(who).map(|&at| &self.circles[at]);
        let mut members = circle.into_iter().flat_map(|circle| &circle.members);
        members.any(is_there) || self.awaited(who, is_there).is_some()
    }
}

/// For each member the places of those of these names that are members.
fn steps<'a>(
    members: &'a [Member<'a>],
    names: impl Fn(&'a Member<'a>) -> &'a Vec<&'a Name>,
) -> Vec<Vec<usize>> {
    let places: BTreeMap<&ServiceKey, usize> = members.iter().map(|it| it.key).zip(0..).collect();
    let steps = |member: &'a Member<'a>| {
        let keys = names(member)
            .iter()
            .map(|name| ServiceKey::new(&member.key.app, name));
        keys.filter_map(|key| places.get(&key).copied()).collect()
    };
    members.iter().map(steps).collect()
}

/// For each node the number of the circle that it is on, its own if it is on none.
fn circles(steps: &[Vec<usize>]) -> Vec<usize> {
    let waits = steps.iter().map(|to| Wait::on(to.iter().copied()));
    let waits: Vec<_> = waits.collect();
    let mut circle_of = vec![0; steps.len()];
    for (number, circle) in deadlock::groups(&waits).iter().enumerate() {
        circle.iter().for_each(|&at| circle_of[at] = number);
    }
    circle_of
}

/// All that can be reached from these.
fn reached<T: Ord + Copy, I: Iterator<Item = T>>(
    from: impl Iterator<Item = T>,
    steps: impl Fn(T) -> I,
) -> BTreeSet<T> {
    let mut next: Vec<T> = from.collect();
    let mut met = BTreeSet::new();
    while let Some(at) = next.pop() {
        if met.insert(at) {
            next.extend(steps(at));
        }
    }
    met
}

/// Several workloads that are to stop, within one deadline.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Which of them stop before which.
    pub order: StopOrder,
    /// When they were told to.
    pub begun: Timestamp,
    /// How long all of that may take.
    pub limit: Duration,
}

/// Whether it is a workload's turn to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It stops now.
    Now {
        /// How long it may drain at most, whatever its spec says.
        drain: Duration,
    },
    /// It goes on for now.
    After {
        /// What is still there and depends on it.
        dependent: ServiceKey,
        /// When it stops at the latest. Always after `now`.
        until: Timestamp,
    },
}

impl Stop {
    /// When nothing is waited for any more.
    pub fn deadline(&self) -> Timestamp {
        self.begun + self.limit
    }

    /// Whether `who` stops now. `is_there` says of a workload whether anything of it runs, or drains.
    pub fn turn(
        &self,
        who: &ServiceKey,
        is_there: &dyn Fn(&ServiceKey) -> bool,
        now: Timestamp,
    ) -> Turn {
        let until = self.deadline();
        match self.order.awaited(who, is_there) {
            Some(dependent) if until > now => Turn::After {
                dependent: dependent.clone(),
                until,
            },
            Some(_) | None => Turn::Now {
                drain: whole(until - now),
            },
        }
    }
}

/// The time in steps of 10 ms, rounded up: that it takes a moment to look takes nothing from a drain,
/// and what is told of it is short.
fn whole(left: Duration) -> Duration {
    const STEP_NANOS: u128 = 10_000_000;
    let nanos = left.as_nanos().div_ceil(STEP_NANOS) * STEP_NANOS;
    u64::try_from(nanos).map_or(left, Duration::from_nanos)
}

/// How long services that stop together may take in all: as long as the one with the longest `drain`.
pub fn limit<'a>(services: impl IntoIterator<Item = &'a Service>) -> Duration {
    let drains = services.into_iter().map(|it| it.spec.rollout.drain);
    drains.max().unwrap_or_default()
}

/// All that the store holds of an app.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// Its services.
    pub services: Vec<&'a Service>,
    /// Its jobs.
    pub jobs: Vec<&'a Job>,
    /// Their pods.
    pub pods: Vec<&'a Pod>,
}

impl Contents<'_> {
    fn going_services(&self) -> impl Iterator<Item = &Service> {
        let services = self.services.iter().copied();
        services.filter(|service| service.spec.deleting)
    }

    /// The order in which what is being deleted goes.
    pub fn order(&self) -> StopOrder {
        let services = self.going_services().map(Member::service);
        let jobs = self.jobs.iter().copied().filter(|job| job.deleting);
        StopOrder::new(services.chain(jobs.map(Member::job)))
    }

    /// The workloads of which anything runs, or drains.
    pub fn there(&self) -> BTreeSet<&ServiceKey> {
        let jobs = self.jobs.iter().copied();
        let jobs = jobs.filter(|job| job.status.phase == JobPhase::Running);
        let pods = self.pods.iter().map(|pod| &pod.service);
        pods.chain(jobs.map(|job| &job.key)).collect()
    }

    /// A service that stays and has pods of another revision than it shall have: they may call what
    /// the new one does not.
    fn rolling(&self) -> Option<&ServiceKey> {
        let is_old = |service: &Service| {
            let mut own = self.pods.iter().filter(|pod| pod.service == service.key);
            own.any(|pod| pod.revision != service.spec.revision)
        };
        let stays = self.services.iter().filter(|it| !it.spec.deleting);
        let mut rolling = stays.filter(|service| is_old(service));
        rolling.next().map(|service| &service.key)
    }

    /// Whether `who`, which is being deleted so, stops now: after what goes with it and
    /// depends on it, and, if the rest of its app stays, after the revisions that may still call it.
    pub fn turn(&self, who: &ServiceKey, deletion: Deletion, now: Timestamp) -> Turn {
        let stop = Stop {
            order: self.order(),
            begun: deletion.begun,
            limit: deletion.limit,
        };
        let there = self.there();
        let turn = stop.turn(who, &|it| there.contains(it), now);
        let is_called = self
            .going_services()
            .any(|it| it.key == *who && it.spec.kind != ServiceKind::Command);
        match (turn, self.rolling()) {
            (Turn::Now { drain }, Some(rolling)) if is_called && drain > Duration::ZERO => {
                Turn::After {
                    dependent: rolling.clone(),
                    until: stop.deadline(),
                }
            }
            (turn, _) => turn,
        }
    }
}

/// Since when something is being deleted, and how long that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it was asked for first.
    pub begun: Timestamp,
    /// As long as the longest `drain` of the app was then: that services go meanwhile shortens nothing.
    pub limit: Duration,
}

/// What is being deleted, in this run of the node.
#[derive(Clone, Debug, Default)]
pub struct Deletions(BTreeMap<ServiceKey, Deletion>);

impl Deletions {
    /// How `who` is being deleted: since it was asked for first, when its app had these `contents`.
    pub fn of(&mut self, who: &ServiceKey, contents: &Contents<'_>, now: Timestamp) -> Deletion {
        *self.0.entry(who.clone()).or_insert_with(|| Deletion {
            begun: now,
            limit: limit(contents.services.iter().copied()),
        })
    }

    /// It is gone, or stays after all.
    pub fn forget(&mut self, who: &ServiceKey) {
        self.0.remove(who);
    }
}

#[cfg(test)]
mod tests;
