//! Since when pods have been ready, on the clock of the planner.
//!
//! A pod's node says how often the pod has become ready (`PodPhase::Ready`), and its clock means
//! nothing elsewhere. The planner counts from when it first saw that number: `min_ready` begins
//! again with another planner, and never ends early.

use std::collections::BTreeMap;

use crate::{
    name::ServiceKey,
    record::{Boot, Boots, Pod, PodPhase, PodStatus},
    time::Timestamp,
};

/// A pod, as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ObservedPod<'a> {
    /// Its record.
    pub pod: &'a Pod,
    /// How it is, as [`Pod::observed`] says.
    pub status: Option<&'a PodStatus>,
    /// Since when it has been ready without a break, if it is ready.
    pub ready_since: Option<Timestamp>,
    /// Why it should run on another node, as the end of a sentence, if it should: it counts as a pod
    /// of an older revision then.
    pub leaving: Option<&'a str>,
}

impl ObservedPod<'_> {
    /// Where it is in its life.
    pub fn phase(&self) -> PodPhase {
        self.status.map_or(PodPhase::Pending, |it| it.phase)
    }
}

/// A time of a pod in which it is ready without a break.
type Spell = (Created, Boot, u32);
/// Which of the pods that have had its name it is: the revision of the store that created it.
type Created = u64;
/// By revision and slot, with when each was first seen.
type Spells = BTreeMap<(u64, u32), (Spell, Timestamp)>;

/// Since when the pods of all services have been ready, as far as it was seen.
#[derive(Debug, Default)]
pub struct Readiness(BTreeMap<ServiceKey, Spells>);

impl Readiness {
    /// Sees the pods of a service, each with the revision of the store that created it.
    pub fn observe<'a>(
        &mut self,
        service: &ServiceKey,
        pods: impl IntoIterator<Item = (&'a Pod, u64)>,
        boots: &Boots,
        now: Timestamp,
    ) -> Vec<ObservedPod<'a>> {
        let before = self.0.remove(service).unwrap_or_default();
        let mut spells = Spells::new();
        let observe = |(pod, created): (&'a Pod, u64)| {
            let status = pod.observed(boots);
            let mut ready_since = None;
            if let Some(&PodStatus {
                boot,
                phase: PodPhase::Ready { nth },
                ..
            }) = status
            {
                let (key, spell) = ((pod.revision, pod.slot), (created, boot, nth));
                let same = before.get(&key).filter(|(seen, _)| *seen == spell);
                let since = same.map_or(now, |(_, since)| *since);
                spells.insert(key, (spell, since));
                ready_since = Some(since);
            }
            ObservedPod {
                pod,
                status,
                ready_since,
                leaving: None,
            }
        };
        let observed = pods.into_iter().map(observe).collect();
        if !spells.is_empty() {
            self.0.insert(service.clone(), spells);
        }
        observed
    }

    /// Forgets a service that has gone.
    pub fn forget(&mut self, service: &ServiceKey) {
        self.0.remove(service);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::name::Name;

    const BOOT: Boot = Boot(3);

    fn pod(phase: PodPhase) -> Pod {
        let service = ServiceKey::parse("shop/web").expect("a key");
        Pod {
            node: Some(node()),
            status: PodStatus {
                boot: BOOT,
                phase,
                ..PodStatus::default()
            },
            ..Pod::new(&service, 1, 0)
        }
    }

    fn node() -> Name {
        Name::parse("a").expect("a name")
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::after(Duration::from_secs(seconds))
    }

    /// Since when a pod counts as ready that is seen like this, second by second.
    fn seen(looks: &[(PodPhase, u64, u64)]) -> Vec<Option<u64>> {
        let mut readiness = Readiness::default();
        let looks = looks.iter().zip(10..);
        let since = looks.map(|(&(phase, created, boot), second)| {
            let mut pod = pod(phase);
            pod.status.boot = Boot(boot);
            let boots = [(node(), Boot(boot))].into_iter().collect();
            let service = pod.service.clone();
            let observed = readiness.observe(&service, [(&pod, created)], &boots, at(second));
            observed[0].ready_since.map(|at| at.since_zero().as_secs())
        });
        since.collect()
    }

    #[test]
    fn a_pod_is_ready_since_its_present_number_was_seen() {
        let ready = |nth| PodPhase::Ready { nth };
        let looks = [
            (PodPhase::Starting, 1, 3),
            (ready(1), 1, 3),
            (ready(1), 1, 3),
            // It was not ready for a moment that was not seen.
            (ready(2), 1, 3),
            (PodPhase::Unready, 1, 3),
            (ready(3), 1, 3),
            (ready(3), 1, 3),
            // Another pod of the same name, and another run of its node.
            (ready(3), 2, 3),
            (ready(3), 2, 4),
            (ready(3), 2, 4),
        ];
        let since = [None, Some(11), Some(11), Some(13), None, Some(15), Some(15)];
        let since = [&since[..], &[Some(17), Some(18), Some(18)]].concat();
        assert_eq!(seen(&looks), since);
    }

    #[test]
    fn what_another_run_or_no_run_of_its_node_has_observed_does_not_hold() {
        let mut readiness = Readiness::default();
        let pod = pod(PodPhase::Ready { nth: 1 });
        for boots in [Boots::default(), [(node(), Boot(4))].into_iter().collect()] {
            let observed = readiness.observe(&pod.service, [(&pod, 1)], &boots, at(1));
            assert_eq!(observed[0].phase(), PodPhase::Pending);
            assert_eq!(observed[0].ready_since, None);
        }
        assert!(readiness.0.is_empty());
    }
}
