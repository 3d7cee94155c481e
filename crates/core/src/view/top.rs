//! What services and pods are doing, and which limits would fit them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Bounds;

/// What services and their pods have been doing since the measurement before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Top {
    /// Counts the measurements. Zero before the first one.
    pub number: u64,
    /// Milliseconds from one measurement to the next.
    pub period_ms: u64,
    /// The services, in the order of their apps and names.
    pub services: Vec<ServiceTop>,
    /// Their pods, those that drain too, in the same order.
    pub pods: Vec<PodTop>,
    /// The nodes of the cluster, if this is one of a cluster, in the order of their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeTop>,
}

/// What all services and pods at a node have been doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeTop {
    /// Its name.
    pub node: String,
    /// Why it has not answered, if it has not: then nothing of it is in this document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<String>,
    /// Pods that it runs, with those that drain.
    pub pods: u32,
    /// Those of them that get requests.
    pub ready: u32,
    /// CPU of its guests, in cores, if it could be measured.
    pub cpu_cores: Option<f64>,
    /// Bytes of memory that its instances hold.
    pub memory_bytes: u64,
    /// Requests that came in at it, per second.
    pub rps: f64,
    /// Mean number of requests in flight that came in at it, those that waited too.
    pub in_flight: f64,
    /// Mean number of those that waited for a pod.
    pub queued: f64,
}

/// What a service has been doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceTop {
    /// The app it belongs to.
    pub app: String,
    /// Its name in the app.
    pub service: String,
    /// Pods, with those that drain.
    pub pods: u32,
    /// Pods that get requests.
    pub ready: u32,
    /// How many pods it is set to.
    pub replicas: u32,
    /// How many it should be set to, if an autoscaler has decided that.
    pub wanted: Option<u32>,
    /// Between which bounds the number of pods moves, if it does.
    pub autoscale: Option<Bounds>,
    /// Why the autoscaler wants so many.
    pub why: Option<String>,
    /// CPU of all its guests, in cores, if it could be measured.
    pub cpu_cores: Option<f64>,
    /// CPU of its ready pods as a share of their limits together: 1 is all that they may use. Not
    /// there without `limits.cpu`.
    pub cpu_of_limit: Option<f64>,
    /// Share of the time in which a pod was held back because it had used up its CPU, from 0 to 1:
    /// the mean of the ready ones.
    pub throttled: f64,
    /// Bytes of memory that all its instances hold.
    pub memory_bytes: u64,
    /// Requests that arrived, per second.
    pub rps: f64,
    /// Mean number of requests in flight, those that waited too. In a cluster each counts at the node
    /// where it came in.
    pub in_flight: f64,
    /// Mean number of requests that waited for a pod.
    pub queued: f64,
    /// Milliseconds in which half of the answers of the last ten seconds were there, if there were
    /// any. In a cluster it is that of the slowest node, of those where requests came in.
    pub p50_ms: Option<f64>,
    /// Milliseconds in which 99 of 100 of them were there; in a cluster likewise.
    pub p99_ms: Option<f64>,
    /// For how many milliseconds there has been no request.
    pub idle_ms: u64,
}

/// What a pod has been doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PodTop {
    /// The app it belongs to.
    pub app: String,
    /// The service it belongs to.
    pub service: String,
    /// Its name, as in `web-1-0`.
    pub pod: String,
    /// The node of the cluster that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where it is in its life, as in the view of pods.
    pub phase: String,
    /// Whether it gets requests.
    pub ready: bool,
    /// CPU of its guests, in cores, if it could be measured.
    pub cpu_cores: Option<f64>,
    /// The same as a share of `limits.cpu`, if there is one: 1 is all that it may use.
    pub cpu_of_limit: Option<f64>,
    /// Share of the time in which it was held back because it had used up its CPU, from 0 to 1.
    pub throttled: f64,
    /// Bytes of memory that its instances hold.
    pub memory_bytes: u64,
    /// Bytes that each of its instances may hold.
    pub memory_limit_bytes: u64,
    /// Requests it was given, per second.
    pub rps: f64,
    /// Mean number of requests it had in flight.
    pub in_flight: f64,
}

/// Limits that would fit a service, from what was seen of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Advice {
    /// The app it belongs to.
    pub app: String,
    /// Its name in the app.
    pub service: String,
    /// The revision that was watched, and whose limits are the present ones.
    pub revision: u64,
    /// What was seen.
    pub seen: Seen,
    /// For `limits.memory`, which is that of one instance.
    pub memory: Suggestion,
    /// For `limits.cpu`, which is that of one pod.
    pub cpu: Suggestion,
    /// For `limits.request_cpu`.
    pub request_cpu: Suggestion,
}

/// What was seen of the pods of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// For how many milliseconds pods of the revision were watched.
    pub watched_ms: u64,
    /// Samples of pods that worked: one a pod and second.
    pub samples: u64,
    /// In 95 of 100 of them a pod used no more CPU than this, in cores.
    pub cpu_p95_cores: f64,
    /// The most that a pod used in one, in cores.
    pub cpu_max_cores: f64,
    /// Share of the time in which pods that worked were held back, from 0 to 1.
    pub throttled: f64,
    /// The most bytes that one instance held.
    pub memory_instance_bytes: u64,
    /// Requests whose CPU was measured.
    pub requests: u64,
    /// 999 of 1000 requests used no more CPU than this, in milliseconds.
    pub request_cpu_p999_ms: Option<f64>,
    /// The most that one used, in milliseconds.
    pub request_cpu_max_ms: Option<f64>,
}

/// A limit as it is, and as it could be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suggestion {
    /// As it is, in the words of the spec; without it there is no limit.
    pub current: Option<String>,
    /// As it could be, in the words of the spec; without it there is nothing to go by.
    pub suggested: Option<String>,
    /// From what that follows, or what is missing.
    pub why: String,
}

impl Top {
    /// The same as what this node of a cluster has measured.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        let cpu = |pods: &[PodTop]| {
            let used: Vec<f64> = pods.iter().filter_map(|pod| pod.cpu_cores).collect();
            (!used.is_empty()).then(|| used.iter().sum())
        };
        let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
        self.nodes = vec![NodeTop {
            node: node.to_owned(),
            unanswered: None,
            pods: count(self.pods.len()),
            ready: count(self.pods.iter().filter(|pod| pod.ready).count()),
            cpu_cores: cpu(&self.pods),
            memory_bytes: self.pods.iter().map(|pod| pod.memory_bytes).sum(),
            rps: self.services.iter().map(|it| it.rps).sum(),
            in_flight: self.services.iter().map(|it| it.in_flight).sum(),
            queued: self.services.iter().map(|it| it.queued).sum(),
        }];
        for pod in &mut self.pods {
            pod.node = Some(node.to_owned());
        }
        self
    }

    /// Notes that a node has not answered, and why.
    pub fn without(&mut self, node: &str, why: &str) {
        self.nodes.push(NodeTop {
            node: node.to_owned(),
            unanswered: Some(why.to_owned()),
            ..NodeTop::default()
        });
        self.nodes.sort_by(|a, b| a.node.cmp(&b.node));
    }

    /// Adds what another node has measured of the same services.
    pub fn add(&mut self, other: Self) {
        self.pods.extend(other.pods);
        self.pods.sort_by_cached_key(PodTop::place);
        self.nodes.extend(other.nodes);
        self.nodes.sort_by(|a, b| a.node.cmp(&b.node));
        for theirs in other.services {
            let same = |ours: &&mut ServiceTop| {
                (&ours.app, &ours.service) == (&theirs.app, &theirs.service)
            };
            match self.services.iter_mut().find(same) {
                Some(ours) => ours.add(theirs),
                None => self.services.push(theirs),
            }
        }
    }
}

impl PodTop {
    /// Where it stands among the pods of all services: in the order of apps, services, revisions and
    /// slots, as on a single node.
    fn place(&self) -> (String, String, u64, u64) {
        let mut numbers = self.pod.rsplitn(3, '-').map(|it| it.parse().unwrap_or(0));
        let (slot, revision) = (numbers.next(), numbers.next());
        let (app, service) = (self.app.clone(), self.service.clone());
        (app, service, revision.unwrap_or(0), slot.unwrap_or(0))
    }
}

impl ServiceTop {
    fn add(&mut self, other: Self) {
        let ready = f64::from(self.ready) + f64::from(other.ready);
        let mean = |ours: f64, theirs: f64| match ready > 0.0 {
            true => (ours * f64::from(self.ready) + theirs * f64::from(other.ready)) / ready,
            false => 0.0,
        };
        let either = |ours: Option<f64>, theirs: Option<f64>, both: fn(f64, f64) -> f64| match (
            ours, theirs,
        ) {
            (Some(ours), Some(theirs)) => Some(both(ours, theirs)),
            (one, other) => one.or(other),
        };
        self.throttled = mean(self.throttled, other.throttled);
        self.cpu_of_limit = match (self.cpu_of_limit, other.cpu_of_limit) {
            (Some(ours), Some(theirs)) => Some(mean(ours, theirs)),
            (one, other) => one.or(other),
        };
        self.pods += other.pods;
        self.ready += other.ready;
        self.wanted = self.wanted.or(other.wanted);
        self.why = self.why.take().or(other.why);
        self.cpu_cores = either(self.cpu_cores, other.cpu_cores, |a, b| a + b);
        self.memory_bytes += other.memory_bytes;
        self.rps += other.rps;
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        // Of two medians there is no median: the slower node's is shown.
        self.p50_ms = either(self.p50_ms, other.p50_ms, f64::max);
        self.p99_ms = either(self.p99_ms, other.p99_ms, f64::max);
        self.idle_ms = self.idle_ms.min(other.idle_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(rps: f64, in_flight: f64) -> ServiceTop {
        ServiceTop {
            app: "shop".to_owned(),
            service: "web".to_owned(),
            rps,
            in_flight,
            ..ServiceTop::default()
        }
    }

    fn pod(slot: u32, cpu: f64) -> PodTop {
        PodTop {
            app: "shop".to_owned(),
            service: "web".to_owned(),
            pod: format!("web-1-{slot}"),
            ready: true,
            cpu_cores: Some(cpu),
            memory_bytes: 7,
            ..PodTop::default()
        }
    }

    #[test]
    fn nodes_are_added_up_and_stay_apart() {
        let a = Top {
            services: vec![service(10.0, 2.0)],
            pods: vec![pod(10, 0.5), pod(11, 0.25)],
            ..Top::default()
        };
        let b = Top {
            services: vec![service(5.0, 1.0)],
            pods: vec![pod(2, 1.0)],
            ..Top::default()
        };
        let mut all = b.on("b");
        all.add(a.on("a"));
        all.without("0", "no answer in 1 s");
        assert_eq!(all.services, [service(15.0, 3.0)]);
        let pods: Vec<_> = all
            .pods
            .iter()
            .map(|it| (&*it.pod, it.node.as_deref()))
            .collect();
        assert_eq!(
            pods,
            [
                ("web-1-2", Some("b")),
                ("web-1-10", Some("a")),
                ("web-1-11", Some("a"))
            ]
        );
        let [silent, a, b] = &all.nodes[..] else {
            panic!("{:?}", all.nodes);
        };
        assert_eq!(
            (&*silent.node, silent.unanswered.as_deref(), silent.pods),
            ("0", Some("no answer in 1 s"), 0)
        );
        assert_eq!(
            (
                &*a.node,
                a.pods,
                a.ready,
                a.cpu_cores,
                a.memory_bytes,
                a.rps,
                a.in_flight
            ),
            ("a", 2, 2, Some(0.75), 14, 10.0, 2.0)
        );
        assert_eq!((&*b.node, b.rps, b.cpu_cores), ("b", 5.0, Some(1.0)));
    }
}
