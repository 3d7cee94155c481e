//! Limits, probes, restarts, rollouts and autoscaling: values that must fit together.

use super::checker::Checker;
use crate::{
    object::{
        Autoscale, Check, Isolation, Limits, Placement, Probe, Renewal, Restart, Rollout, Spread,
        Strategy,
    },
    spec::{
        problem::{Draft, Place, ProblemKind},
        raw::{self, Time},
    },
};

/// The limits of a workload; each value has been checked by itself, and they do not interact.
pub(super) fn placement(raw: &raw::Placement) -> Placement {
    let labels = raw.nodes.0.iter();
    let spread = &raw.spread.value;
    Placement {
        nodes: labels
            .map(|(label, value)| (label.value.to_string(), value.value.to_string()))
            .collect(),
        spread: match spread.as_str() {
            "node" => Spread::Node,
            label => Spread::Label(label.to_owned()),
        },
        memory: raw.memory.as_ref().map(|memory| memory.value.0),
    }
}

pub(super) fn limits(raw: &raw::Limits) -> Limits {
    Limits {
        memory: raw.memory.value.0,
        cpu: raw.cpu.as_ref().map(|cpu| cpu.value.0),
        request_timeout: raw.request_timeout.value.0,
        request_cpu: raw.request_cpu.value.0,
        fuel: raw.fuel.as_ref().map(|fuel| fuel.value.0),
        queue: raw.queue.value.0,
        queue_timeout: raw.queue_timeout.value.0,
        body: raw.body.value.0,
    }
}

/// The place of the first of two values if it was given, else that of the second.
fn given<'a, A, B>(first: &'a raw::At<A>, second: &'a raw::At<B>) -> &'a Place {
    match first.is_given() {
        true => &first.place,
        false => &second.place,
    }
}

impl Checker<'_, '_> {
    /// A probe. With `once` one success must be enough, as for startup and liveness in
    /// Kubernetes.
    pub(super) fn probe(&mut self, raw: Option<&raw::Probe>, once: bool) -> Option<Probe> {
        let raw = raw?;
        let asks = raw.export.as_ref().is_some_and(|export| export.value.0);
        // A value that was refused is taken for a choice that was made.
        let refused = raw.has("export") && raw.export.is_none();
        let check = match (raw.has("http"), asks || refused) {
            (true, true) => {
                let hint = "keep `http = \"…\"` to ask by request, or `export = true` to call the \
                            guest's `sampan:pod/health`";
                self.conflict(&raw.place, "a probe has both `http` and `export`", hint);
                None
            }
            (false, false) => {
                let hint = "add `http = \"/healthz\"`, or `export = true`";
                let message = "a probe has neither `http` nor `export`";
                self.decoder
                    .problem(&raw.place, ProblemKind::MissingKey, message, hint);
                None
            }
            (true, false) => raw
                .http
                .as_ref()
                .map(|path| Check::Http(path.value.0.clone())),
            (false, true) => Some(Check::Export),
        };
        let successes = raw.successes.value.0;
        if once && successes != 1 {
            let message = format!(
                "{} successes are asked of a probe that takes 1",
                raw.successes.shown()
            );
            let hint = "remove it: only readiness may take more than one success";
            self.conflict(&raw.successes.place, message, hint);
        }
        Some(Probe {
            check: check?,
            period: raw.period.value.0,
            timeout: raw.timeout.value.0,
            failures: raw.failures.value.0,
            successes,
            delay: raw.delay.value.0,
        })
    }

    /// When instances are renewed, which only those are that stay.
    pub(super) fn renewal(&mut self, raw: &raw::Service) -> Renewal {
        let (requests, age) = (&raw.max_requests, &raw.max_age);
        let is_fresh = |isolation: &raw::At<Isolation>| isolation.value == Isolation::Request;
        if raw.isolation.as_ref().is_some_and(is_fresh) {
            let places = [
                requests.as_ref().map(|it| ("max_requests", &it.place)),
                age.as_ref().map(|it| ("max_age", &it.place)),
            ];
            for (key, place) in places.into_iter().flatten() {
                let message = format!("`{key}` renews an instance, and no instance is kept");
                let hint = "remove it: with `isolation = \"request\"` every request has an \
                            instance of its own";
                self.conflict(place, message, hint);
            }
        }
        Renewal {
            max_requests: requests.as_ref().map(|it| it.value.0),
            max_age: age.as_ref().map(|it| it.value.0),
        }
    }

    pub(super) fn restart(&mut self, raw: &raw::Restart) -> Restart {
        self.in_order(&raw.initial, &raw.max, "`initial` is longer than `max`");
        Restart {
            policy: raw.policy.value,
            initial: raw.initial.value.0,
            max: raw.max.value.0,
            reset_after: raw.reset_after.value.0,
        }
    }

    pub(super) fn rollout(&mut self, raw: &raw::Rollout) -> Rollout {
        let (surge, unavailable) = (&raw.max_surge, &raw.max_unavailable);
        match raw.strategy.value {
            Strategy::Rolling => {
                let both_zero = surge.value.0.is_zero() && unavailable.value.0.is_zero();
                if both_zero && surge.is_sound() && unavailable.is_sound() {
                    // The default of `max_surge` is not zero, so it was given.
                    let message = "`max_surge` and `max_unavailable` are both 0";
                    let hint = "let one of them be more: otherwise no pod can be replaced";
                    self.conflict(&surge.place, message, hint);
                }
            }
            Strategy::Recreate => {
                for amount in [surge, unavailable] {
                    if raw.strategy.is_given() && amount.is_given() {
                        let message = "the strategy `recreate` stops all pods at once";
                        let hint = "remove it, or write `strategy = \"rolling\"`";
                        self.conflict(&amount.place, message, hint);
                    }
                }
            }
        }
        let (ready, deadline) = (&raw.min_ready, &raw.progress_deadline);
        if ready.is_sound() && deadline.is_sound() && ready.value.0 >= deadline.value.0 {
            // As for `progressDeadlineSeconds` in Kubernetes.
            let place = given(ready, deadline);
            let message = format!(
                "`min_ready` of {} leaves no time within `progress_deadline` of {}",
                ready.shown(),
                deadline.shown()
            );
            self.conflict(
                place,
                message,
                "make `progress_deadline` longer than `min_ready`",
            );
        }
        Rollout {
            strategy: raw.strategy.value,
            max_surge: surge.value.0,
            max_unavailable: unavailable.value.0,
            min_ready: ready.value.0,
            progress_deadline: deadline.value.0,
            on_failure: raw.on_failure.value,
            history: raw.history.value.0,
            drain: raw.drain.value.0,
        }
    }

    /// Reports a duration that is longer than the one that bounds it.
    fn in_order<const A: u64, const B: u64>(
        &mut self,
        less: &raw::At<Time<A>>,
        more: &raw::At<Time<B>>,
        what: &str,
    ) {
        if less.is_sound() && more.is_sound() && less.value.0 > more.value.0 {
            let place = given(less, more);
            let message = format!("{what}: {} and {}", less.shown(), more.shown());
            self.conflict(place, message, "make the first no longer than the second");
        }
    }

    pub(super) fn autoscale(
        &mut self,
        raw: &raw::Autoscale,
        service: &raw::Service,
    ) -> Option<Autoscale> {
        if !["cpu", "concurrency", "rps"]
            .iter()
            .any(|metric| raw.has(metric))
        {
            let hint = "add one or more of `cpu = \"70%\"`, `concurrency = 40` and `rps = 100`";
            let message = "an autoscaler has no target";
            self.decoder
                .problem(&raw.place, ProblemKind::MissingKey, message, hint);
        }
        if let Some(cpu) = raw.cpu.as_ref().filter(|_| !service.limits.has("cpu")) {
            let message = "`cpu` is a share of `limits.cpu`, which is not given";
            let hint = "add `limits.cpu = \"500m\"`, or use another target";
            self.conflict(&cpu.place, message, hint);
        }
        let (min, queue) = (&raw.min, &service.limits.queue);
        if min.is_sound() && min.value.0 == 0 && queue.is_sound() && queue.value.0 == 0 {
            // The default of `queue` is not zero, so it was given.
            let message = "`queue` is 0, and with `autoscale.min = 0` a request waits there";
            let hint = "let some wait, or keep a pod with `autoscale.min = 1`";
            self.conflict(&queue.place, message, hint);
        }
        let max = raw.max.as_ref()?;
        if raw.min.is_sound() && raw.min.value.0 > max.value.0 {
            let message = format!(
                "`min` of {} is more than `max` of {}",
                raw.min.shown(),
                max.shown()
            );
            let place = given(&raw.min, max);
            self.conflict(place, message, "make `min` no more than `max`");
        } else if raw.min.is_sound() && service.replicas.is_given() {
            let range = raw.min.value.0..=max.value.0;
            if !range.contains(&service.replicas.value.0) {
                let message = format!(
                    "`replicas` of {} is not from {} to {}, as the autoscaler will have it",
                    service.replicas.shown(),
                    raw.min.shown(),
                    max.shown()
                );
                let hint = "remove it: the autoscaler sets the number of replicas";
                let place = &service.replicas.place;
                let draft = Draft::new(place, ProblemKind::Conflict, message, hint);
                self.decoder
                    .report
                    .add(draft.also(&max.place.span, "the most it will have"));
            }
        }
        Some(Autoscale {
            min: raw.min.value.0,
            max: max.value.0,
            cpu: raw.cpu.as_ref().map(|cpu| cpu.value.0),
            concurrency: raw.concurrency.as_ref().map(|target| target.value.0),
            rps: raw.rps.as_ref().map(|target| target.value.0),
            stabilization: raw.stabilization.value.0,
            idle: raw.idle.value.0,
        })
    }
}
