//! What services have been doing in the last second, as the autoscaler needs it: each node measures
//! its part, and the node that plans for all adds the parts up.
//!
//! A request is counted where it came in, whichever node has the pod that answers it; what a pod uses
//! and answers is counted where the pod is. So parts add up, and nothing is counted twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    name::{Name, ServiceKey},
    plan::autoscale::{PodSample, Sample},
    record::Boot,
};

/// What a service has been doing, at one node or at several. What a later version says beside this is
/// passed over: while nodes are replaced by later ones, each takes the reports of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// Its pods, without those that drain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodSample>,
    /// Mean number of requests in flight that came in here: those that wait, and those at pods on any
    /// node, draining ones too. `None` if it could not be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<f64>,
    /// Mean number of requests in flight at pods here that drain.
    #[serde(skip_serializing_if = "is_zero")]
    pub draining: f64,
    /// Requests that came in here, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arrived: Option<f64>,
    /// Requests that pods here have answered, per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<f64>,
    /// Requests that wait here for a pod now.
    #[serde(skip_serializing_if = "is_none_waiting")]
    pub waiting: u32,
    /// For how long no request has come in here.
    pub idle: Duration,
    /// Not all of it could be measured: there may be more.
    #[serde(skip_serializing_if = "is_whole")]
    pub is_partial: bool,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

fn is_none_waiting(number: &u32) -> bool {
    *number == 0
}

fn is_whole(is_partial: &bool) -> bool {
    !is_partial
}

/// What services have been doing.
pub type Loads = BTreeMap<ServiceKey, Load>;

/// What a node says that its part was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The run of the node in which it was measured.
    pub boot: Boot,
    /// Each service with what it did there.
    pub services: Vec<(ServiceKey, Load)>,
}

/// What services have been doing at all nodes that say so, and which do not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    /// Each service that any of them has measured.
    pub services: Loads,
    /// The nodes that run and do not say what they measure.
    pub silent: BTreeMap<Name, Silent>,
}

/// What is known of a node that runs and does not say what it measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silent {
    /// It has not reported in its present run: it may have requests for any service.
    Unheard,
    /// When it reported last, these services had requests there.
    Had(BTreeSet<ServiceKey>),
}

/// What all these nodes together have measured. The order in which they come makes no difference, nor
/// does it whether some of them were merged before.
pub fn merge(nodes: impl IntoIterator<Item = Loads>) -> Loads {
    let mut nodes = nodes.into_iter();
    let mut merged = nodes.next().unwrap_or_default();
    for (service, load) in nodes.flatten() {
        match merged.remove(&service) {
            Some(before) => merged.insert(service, before.and(load)),
            None => merged.insert(service, load),
        };
    }
    merged
}

impl Load {
    /// This and what another node has measured of the same service.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let mut pods = self.pods;
        pods.extend(other.pods);
        pods.sort_by(|one, other| {
            let cpu = |pod: &PodSample| pod.cpu.unwrap_or(-1.0);
            let ready = one.ready.cmp(&other.ready);
            ready.then(cpu(one).total_cmp(&cpu(other)))
        });
        // What one node could not measure is missing in the sum, and is not nothing.
        let is_mixed = self.in_flight.is_some() != other.in_flight.is_some();
        Self {
            pods,
            in_flight: sum(self.in_flight, other.in_flight),
            draining: self.draining + other.draining,
            arrived: sum(self.arrived, other.arrived),
            served: sum(self.served, other.served),
            waiting: self.waiting.saturating_add(other.waiting),
            idle: self.idle.min(other.idle),
            is_partial: self.is_partial || other.is_partial || is_mixed,
        }
    }

    /// Whether there was a request in the last second.
    pub fn has_requests(&self) -> bool {
        let some = |it: Option<f64>| it.is_some_and(|it| it > 0.0);
        self.waiting > 0 || some(self.in_flight) || some(self.arrived) || self.draining > 0.0
    }

    /// What the autoscaler is given. Whether pods are being replaced is for the store to say.
    pub fn sample(&self) -> Sample {
        Sample {
            pods: self.pods.clone(),
            in_flight: self.in_flight.map(|it| (it - self.draining).max(0.0)),
            arrived: self.arrived,
            served: self.served,
            waiting: self.waiting,
            idle: self.idle,
            rollout: false,
            is_partial: self.is_partial,
        }
    }
}

fn sum(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one + other),
        (one, other) => one.or(other),
    }
}

impl Merged {
    /// What a single node has measured.
    pub fn of_one(services: Loads) -> Self {
        Self {
            services,
            silent: BTreeMap::new(),
        }
    }

    /// What a service has been doing, if that was measured anywhere. Of `pods`, which are all of the
    /// service with the node of each and whether it is ready, those on silent nodes count as pods
    /// whose CPU is not known. What may have more pods or requests than were measured is partial.
    pub fn load<'a>(
        &self,
        service: &ServiceKey,
        pods: impl Iterator<Item = (&'a Name, bool)>,
    ) -> Option<Load> {
        let mut load = self.services.get(service)?.clone();
        if self.silent.is_empty() {
            return Some(load);
        }
        let unseen = pods.filter(|(node, _)| self.silent.contains_key(*node));
        let unseen = unseen.map(|(_, ready)| PodSample { ready, cpu: None });
        let measured = load.pods.len();
        load.pods.extend(unseen);
        let has_more = |silent: &Silent| match silent {
            Silent::Unheard => true,
            Silent::Had(services) => services.contains(service),
        };
        load.is_partial |= load.pods.len() > measured || self.silent.values().any(has_more);
        Some(load)
    }
}

#[cfg(test)]
mod tests;
