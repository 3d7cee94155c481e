//! The pods of a service as a plan sees them: those that exist, changed by what it decides.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, ObservedPod};
use crate::{
    name::{PodName, ServiceKey},
    record::{Moment, PodPhase, Service},
    time::Timestamp,
};

/// How near a pod is to taking requests for good, the worst first: in this order pods go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// It gets no requests.
    NotReady,
    /// It gets requests, but has not for `min_ready`.
    Ready,
    /// It has been ready for `min_ready`.
    Available,
}

/// What is said of a pod that is not started again.
const ENDED: &str = "has ended";

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member {
    /// Its revision.
    pub(super) revision: u64,
    /// Its slot.
    pub(super) slot: u32,
    /// It should go, or is going.
    pub(super) stopping: bool,
    /// Whether it may still get requests: its node has not said otherwise.
    pub(super) is_served: bool,
    /// How near it is to taking requests for good.
    pub(super) grade: Grade,
    /// When it has been ready for `min_ready`, if it is ready.
    pub(super) available_at: Option<Timestamp>,
    /// How it is, as the end of a sentence.
    pub(super) state: &'static str,
    /// The reason, if there is one to tell.
    pub(super) reason: Option<String>,
    /// Why it should run on another node, if it should.
    pub(super) leaving: Option<String>,
}

impl Member {
    fn new(observed: &ObservedPod<'_>, service: &Service, moment: Moment) -> Self {
        let pod = observed.pod;
        let min_ready = service.spec.rollout.min_ready;
        let available_at = observed.ready_since.map(|since| since + min_ready);
        let grade = match available_at {
            Some(at) if at <= moment.now => Grade::Available,
            Some(_) => Grade::Ready,
            None => Grade::NotReady,
        };
        let state = match observed.phase() {
            PodPhase::Pending => "is pending",
            PodPhase::Starting => "is starting",
            PodPhase::Ready { .. } => "has not been ready for long enough",
            PodPhase::Unready => "is not ready",
            PodPhase::BackOff => "is in BackOff",
            PodPhase::CrashLoopBackOff => "is in CrashLoopBackOff",
            PodPhase::Draining => "is draining",
            PodPhase::Ended => ENDED,
        };
        Self {
            revision: pod.revision,
            slot: pod.slot,
            stopping: pod.stop.is_some(),
            is_served: matches!(observed.phase(), PodPhase::Ready { .. }),
            grade,
            available_at,
            state,
            reason: observed.status.and_then(|it| it.reason.clone()),
            leaving: observed.leaving.map(str::to_owned),
        }
    }

    /// Whether it runs this revision where it may stay.
    pub(super) fn is_settled(&self, revision: u64) -> bool {
        self.revision == revision && self.leaving.is_none()
    }

    /// Whether it will not serve as things are: something has failed.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.grade == Grade::NotReady && (self.reason.is_some() || self.state == ENDED)
    }

    fn created(revision: u64, slot: u32) -> Self {
        Self {
            revision,
            slot,
            stopping: false,
            is_served: false,
            grade: Grade::NotReady,
            available_at: None,
            state: "is pending",
            reason: None,
            leaving: None,
        }
    }
}

/// All pods of a service, in the order of revision and slot, and what has been decided.
#[derive(Clone, Debug)]
pub(super) struct PodSet {
    key: ServiceKey,
    members: Vec<Member>,
    actions: Vec<Action>,
}

impl PodSet {
    /// Those of `pods` that belong to `service`, each once.
    pub(super) fn new(service: &Service, pods: &[ObservedPod<'_>], moment: Moment) -> Self {
        let own = pods.iter().filter(|it| it.pod.service == service.key);
        let mut members: Vec<_> = own.map(|pod| Member::new(pod, service, moment)).collect();
        members.sort();
        members.dedup_by_key(|member| (member.revision, member.slot));
        Self {
            key: service.key.clone(),
            members,
            actions: Vec::new(),
        }
    }

    /// How many there are, with those that drain.
    pub(super) fn alive(&self) -> u32 {
        count(self.members.iter())
    }

    /// How many count towards the surge: all, but where there are pods of `target` only, and so
    /// nothing is replaced, those that drain do not.
    pub(super) fn counted(&self, target: u64) -> u32 {
        match self.alive_beside(target) {
            0 => count(self.active()),
            1.. => self.alive(),
        }
    }

    /// How many there are of revisions other than `target`, with those that drain. One that leaves
    /// its node is among them.
    pub(super) fn alive_beside(&self, target: u64) -> u32 {
        count(self.members.iter().filter(|it| !it.is_settled(target)))
    }

    /// Those that are to stay.
    pub(super) fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| !member.stopping)
    }

    /// Those of `revision` that are to stay, on their nodes too.
    pub(super) fn active_of(&self, revision: u64) -> impl Iterator<Item = &Member> {
        self.active().filter(move |it| it.is_settled(revision))
    }

    /// Whether pods that are to stay leave their nodes.
    pub(super) fn is_leaving(&self) -> bool {
        self.active().any(|it| it.leaving.is_some())
    }

    /// Whether there are pods of other revisions than `target` that are to stay, or that have been
    /// told to go and may still get requests.
    pub(super) fn has_others(&self, target: u64) -> bool {
        let mut others = self.members.iter().filter(|it| !it.is_settled(target));
        others.any(|it| !it.stopping || it.is_served)
    }

    /// Whether all that there are run this revision, wherever they may stay.
    pub(super) fn is_all_of(&self, revision: u64) -> bool {
        self.members.iter().all(|it| it.revision == revision)
    }

    /// How many are available.
    pub(super) fn available(&self) -> u32 {
        count(self.active().filter(|it| it.grade == Grade::Available))
    }

    /// How many of `revision` are available.
    pub(super) fn available_of(&self, revision: u64) -> u32 {
        let of = self.active_of(revision);
        count(of.filter(|it| it.grade == Grade::Available))
    }

    /// How many of each revision are to stay, on their nodes too.
    pub(super) fn sizes(&self) -> BTreeMap<u64, u32> {
        let mut sizes = BTreeMap::new();
        for member in self.active().filter(|it| it.leaving.is_none()) {
            *sizes.entry(member.revision).or_default() += 1;
        }
        sizes
    }

    /// Where those are that are to stay and that `wanted` picks, in the order of `key`.
    pub(super) fn ranked<K: Ord>(
        &self,
        wanted: impl Fn(&Member) -> bool,
        key: impl Fn(&Member) -> K,
    ) -> Vec<usize> {
        let mut ranked: Vec<_> = (0..self.members.len())
            .filter(|&at| !self.members[at].stopping && wanted(&self.members[at]))
            .collect();
        ranked.sort_by_key(|&at| key(&self.members[at]));
        ranked
    }

    /// The one that is there.
    pub(super) fn member(&self, at: usize) -> &Member {
        &self.members[at]
    }

    /// Decides that the one that is there should go.
    pub(super) fn stop(&mut self, at: usize, reason: &str) {
        let member = &mut self.members[at];
        member.stopping = true;
        let pod = PodName::new(&self.key, member.revision, member.slot);
        self.actions.push(Action::Stop {
            pod,
            reason: reason.to_owned(),
        });
    }

    /// Decides that so many of `revision` should be made, each in the lowest slot that is free.
    pub(super) fn create(&mut self, revision: u64, number: u32, reason: &str) {
        let of = self.members.iter().filter(|it| it.revision == revision);
        let taken: BTreeSet<_> = of.map(|member| member.slot).collect();
        let free = (0..=u32::MAX).filter(|slot| !taken.contains(slot));
        for (_, slot) in (0..number).zip(free) {
            self.members.push(Member::created(revision, slot));
            self.actions.push(Action::Create {
                pod: PodName::new(&self.key, revision, slot),
                reason: reason.to_owned(),
            });
        }
        self.members.sort();
    }

    /// How one of them is, and why, as a sentence.
    pub(super) fn describe(&self, member: &Member) -> String {
        let name = PodName::new(&self.key, member.revision, member.slot);
        let mut text = format!("{name} {}", member.state);
        if let Some(reason) = &member.reason {
            text.push_str(&format!(": {reason}"));
        }
        text
    }

    /// What has been decided.
    pub(super) fn into_actions(self) -> Vec<Action> {
        self.actions
    }
}

/// How many there are.
pub(super) fn count<'a>(members: impl Iterator<Item = &'a Member>) -> u32 {
    u32::try_from(members.count()).unwrap_or(u32::MAX)
}
