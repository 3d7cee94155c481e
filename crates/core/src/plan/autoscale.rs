//! How many pods a service should have, from what was measured in the last second.
//!
//! The rules are those of Kubernetes' [HorizontalPodAutoscaler] with its default behaviour, and
//! Knative's [panic mode]; what differs is said where it does. Once a second, for pods that do not
//! drain:
//!
//! 1. **Need.** Each metric asks for `ceil(total / target)` pods, unless what it sees is within
//!    10 % of the target. *Three pods at 90 %, 100 % and 110 % of their CPU limit, target 70 %:
//!    300 / 70 = 4.3, so 5 pods. At 75 % each the ratio is 1.07: 3 pods stay.* See `need`.
//! 2. **The largest need wins.** *CPU asks for 5 pods, concurrency for 7: 7.* A metric that could
//!    not be measured asks for nothing, and then no pod is taken away; nor is one while a node does
//!    not say what it measures that may have pods or requests of the service.
//! 3. **Panic.** When the load of the last 2 s was at least twice what the fewest ready pods of the
//!    last 6 s are for, there is no limit on how fast pods come, and none goes. *One pod of
//!    concurrency 10 had 2 requests in flight, and in the last two seconds 31 and 60: the mean is
//!    45.5, which is more than 2 × 10: 6 pods at once.* Knative takes the load of 6 s and the pods
//!    that are ready now, so that the first step of a rise hides the rest of it.
//! 4. **Scaling down waits.** Not below the highest need of the last `stabilization`, or 3 s. *8
//!    pods were needed two minutes ago and 3 are now, with a window of 300 s: 8 pods for three
//!    minutes more.* A history that begins, as after a restart of the node, begins with what there
//!    is.
//! 5. **Scaling up is limited** to what 15 s ago was there, plus as many again or 4, whichever is
//!    more. *2 pods since a minute, 9 needed: 2 + 4 = 6 now. A second later 6 - 4 = 2 were there at
//!    the beginning of the 15 s: still 6.* Scaling down has no limit: in Kubernetes it is 100 % in
//!    15 s.
//! 6. **Bounds.** Never outside `min` and `max`, and not below one pod by this rule.
//! 7. **Zero.** With `min = 0`, a service that has been up for `idle` without any request has no
//!    pods, whatever was needed before, unless a rollout is under way; one at zero for which a
//!    request waits has one. *The last answer ended 60 s ago, 5 pods, `idle = "60s"`: 0 pods.*
//!
//! [HorizontalPodAutoscaler]: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
//! [panic mode]: https://knative.dev/docs/serving/autoscaling/kpa-specific/

mod history;
mod need;

use std::{fmt, time::Duration};

pub use history::History;
use history::{RATE_PERIOD, RATE_PODS};
pub use need::{Metric, Need, PodSample, Sample};

use crate::{
    object::Autoscale,
    quantity::format_duration,
    record::{MAX_SCALINGS, Scaling, Service},
    time::Timestamp,
};

/// How many pods there should be, and why.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Decision {
    /// How many there are.
    pub current: u32,
    /// How many there should be now.
    pub replicas: u32,
    /// What asks for pods.
    pub cause: Cause,
    /// Why there are not as many as are asked for, if there are not.
    pub held: Option<Held>,
    /// Whether the load is so much more than the pods are for that none goes, and no limit holds.
    pub panic: bool,
}

/// What asks for pods.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// A metric.
    Need(Need),
    /// Nothing could be measured.
    Unknown,
    /// No request for so long.
    Idle(Duration),
    /// A request waits, and there is no pod.
    Waiting,
    /// There are no pods, and no request waits for one.
    Asleep,
}

/// Why there are not as many pods as are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// So many were needed within `stabilization`.
    Stabilization {
        /// How many.
        needed: u32,
        /// The window.
        window: Duration,
    },
    /// Pods come only so fast.
    Rate,
    /// `max`, or `min`.
    Bound(u32),
    /// Not all metrics could be measured.
    Missing,
    /// A node that may have pods or requests of the service does not say what it measures.
    Unheard,
    /// The load is far above what there is.
    Panic,
}

/// Needs are kept for at least this time: pods that have just come are not measured for a second,
/// and the others, which share the load with them already, ask for fewer.
const MIN_STABILIZATION: Duration = Duration::from_secs(3);
/// Decides for a service of `current` pods. What comes back as history is to be given to the next
/// decision; [`History::scaled`] is to be told when this one has been carried out.
///
/// `now` must not go back from one decision to the next; a sample in the same instant is taken as
/// one more.
pub fn decide(
    spec: &Autoscale,
    current: u32,
    history: &History,
    sample: &Sample,
    now: Timestamp,
) -> (Decision, History) {
    let mut history = history.clone();
    history.begin(current, now);
    let window = spec.stabilization.max(MIN_STABILIZATION);
    let idle = sample.idle.min(history.awake(now));
    if let Some(decision) = sleep(spec, current, sample, idle) {
        history.needed(decision.replicas, window, now);
        return (decision, history);
    }
    let needs = need::needs(spec, current, sample);
    let load = needs.load();
    let panic = history.load(load, ready(sample), now);
    let largest = needs.largest();
    let is_whole = needs.is_complete() && !sample.is_partial;
    let wanted = match &largest {
        Some(need) if !is_whole => need.pods.max(current),
        Some(need) => need.pods,
        None => current,
    };
    // Pods that are not ready yet dampen no panic.
    let urgent = match panic && load > f64::from(current) && !need::is_on_target(load, current) {
        true => wanted.max(need::pods(load)),
        false => wanted,
    };
    history.needed(urgent, window, now);
    let (replicas, held) = limited(spec, current, urgent, panic, &history, now);
    let missing = !is_whole && largest.as_ref().is_none_or(|it| it.pods < wanted);
    let missing = missing.then_some(match sample.is_partial {
        true => Held::Unheard,
        false => Held::Missing,
    });
    let decision = Decision {
        current,
        replicas,
        cause: largest.map_or(Cause::Unknown, Cause::Need),
        held: held.or(missing),
        panic,
    };
    (decision, history)
}

/// What the bounds, the windows and the rate leave of `wanted`.
fn limited(
    spec: &Autoscale,
    current: u32,
    wanted: u32,
    panic: bool,
    history: &History,
    now: Timestamp,
) -> (u32, Option<Held>) {
    let highest = history.highest_need().max(wanted);
    let (replicas, held) = if wanted >= current {
        let most = match panic {
            true => u32::MAX,
            false => history.rate_limit(current, now).max(current),
        };
        (wanted.min(most), (wanted > most).then_some(Held::Rate))
    } else if panic {
        (current, Some(Held::Panic))
    } else {
        let window = spec.stabilization.max(MIN_STABILIZATION);
        let needed = highest.min(current);
        let held = Held::Stabilization {
            needed: highest,
            window,
        };
        (needed, (needed > wanted).then_some(held))
    };
    let least = spec.min.max(1);
    let bounded = replicas.min(spec.max.max(least)).max(least);
    let bound = (bounded != replicas && replicas > 0).then_some(Held::Bound(bounded));
    (bounded, bound.or(held))
}

/// Scaling to zero and from there.
fn sleep(spec: &Autoscale, current: u32, sample: &Sample, idle: Duration) -> Option<Decision> {
    let decision = |replicas, cause| Decision {
        current,
        replicas,
        cause,
        held: None,
        panic: false,
    };
    let calls = sample.waiting > 0 || sample.in_flight.is_some_and(|it| it > 0.0);
    match (spec.min, current) {
        // What was in flight in the last second may be over.
        (0, 0) if sample.waiting > 0 => Some(decision(1, Cause::Waiting)),
        (0, 0) => Some(decision(0, Cause::Asleep)),
        (0, _) if idle >= spec.idle && !calls && !sample.rollout && !sample.is_partial => {
            Some(decision(0, Cause::Idle(idle)))
        }
        (_, _) => None,
    }
}

fn ready(sample: &Sample) -> u32 {
    let ready = sample.pods.iter().filter(|pod| pod.ready).count();
    u32::try_from(ready).unwrap_or(u32::MAX)
}

/// The service with as many pods as was decided, and a note of it. `None` if the decision is about
/// another number of pods than it has by now.
pub fn carry_out(service: &Service, decision: &Decision, wall_ms: u64) -> Option<Service> {
    let spec = &service.spec;
    let is_due = spec.replicas == decision.current && !decision.is_steady();
    if !is_due || spec.deleting || spec.autoscale.is_none() {
        return None;
    }
    let mut scaled = service.clone();
    scaled.spec.replicas = decision.replicas;
    scaled.generation += 1;
    let scalings = &mut scaled.status.scalings;
    if scalings.len() >= MAX_SCALINGS {
        scalings.drain(..=scalings.len() - MAX_SCALINGS);
    }
    scalings.push(Scaling {
        message: decision.to_string(),
        at_ms: wall_ms,
    });
    Some(scaled)
}

/// Whether a service has no pods because no request waits for one. It counts as ready: a request
/// to it is answered.
pub fn is_asleep(service: &Service) -> bool {
    let spec = &service.spec;
    spec.replicas == 0 && spec.autoscale.as_ref().is_some_and(|it| it.min == 0)
}

impl Decision {
    /// Whether there are to be as many as there are.
    pub fn is_steady(&self) -> bool {
        self.replicas == self.current
    }

    /// Why there should be so many: `cpu 168% of 70%`.
    pub fn why(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            write!(f, "{}", self.cause)?;
            if self.panic {
                f.write_str(", in panic")?;
            }
            match self.held {
                Some(held) => write!(f, "; {held}"),
                None => Ok(()),
            }
        })
    }
}

/// `2 → 5: cpu 168% of 70%`, or without the arrow if nothing changes.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_steady() {
            write!(f, "{} → {}: ", self.current, self.replicas)?;
        }
        self.why().fmt(f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Need(need) => need.fmt(f),
            Self::Unknown => f.write_str("nothing was measured"),
            Self::Idle(time) => {
                let whole = Duration::from_secs(time.as_secs());
                write!(f, "no request for {}", format_duration(whole))
            }
            Self::Waiting => f.write_str("a request waits"),
            Self::Asleep => f.write_str("no requests"),
        }
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stabilization { needed, window } => {
                let window = format_duration(*window);
                write!(f, "{needed} were needed within {window}")
            }
            Self::Rate => {
                let period = format_duration(RATE_PERIOD);
                write!(f, "at most as many again or {RATE_PODS} more in {period}")
            }
            Self::Bound(bound) => write!(f, "the bound is {bound}"),
            Self::Missing => f.write_str("not everything was measured"),
            Self::Unheard => f.write_str("a node has not said what it measures"),
            Self::Panic => f.write_str("none goes in panic"),
        }
    }
}

#[cfg(test)]
mod tests;
