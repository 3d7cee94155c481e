//! Advice as the API shows it.

use std::time::Duration;

use super::{RequestCpu, Seen, advise};
use crate::{
    name::ServiceKey,
    quantity::format_duration,
    record::{Revision, Service},
    view,
};

impl view::Advice {
    /// What is advised for a service of which a revision was seen like this.
    pub fn of(service: &Service, revision: &Revision, seen: &Seen) -> Self {
        let (template, ServiceKey { app, name }) = (&revision.template, &service.key);
        let advice = advise(template, service.spec.autoscale.as_ref(), seen);
        let limits = &template.limits;
        Self {
            app: app.to_string(),
            service: name.to_string(),
            revision: revision.number,
            memory: view::Suggestion {
                current: Some(limits.memory.to_string()),
                suggested: advice.memory.value.map(|it| it.to_string()),
                why: advice.memory.why,
            },
            cpu: view::Suggestion {
                current: limits.cpu.map(|it| it.to_string()),
                suggested: advice.cpu.value.map(|it| it.to_string()),
                why: advice.cpu.why,
            },
            request_cpu: view::Suggestion {
                current: Some(format_duration(limits.request_cpu)),
                suggested: advice.request_cpu.value.map(format_duration),
                why: advice.request_cpu.why,
            },
            seen: view::Seen::of(seen),
        }
    }
}

impl Seen {
    /// What another node says that it has seen, if it has seen anything.
    pub fn said(advice: &view::Advice) -> Option<Self> {
        let seen = &advice.seen;
        let time = |millis: Option<f64>| Duration::try_from_secs_f64(millis? / 1e3).ok();
        let request_cpu = || {
            Some(RequestCpu {
                requests: seen.requests,
                p999: time(seen.request_cpu_p999_ms)?,
                max: time(seen.request_cpu_max_ms)?,
            })
        };
        (seen.watched_ms > 0).then(|| Self {
            revision: advice.revision,
            watched: Duration::from_millis(seen.watched_ms),
            samples: seen.samples,
            cpu_p95: seen.cpu_p95_cores,
            cpu_max: seen.cpu_max_cores,
            throttled: seen.throttled,
            instance_bytes: seen.memory_instance_bytes,
            request_cpu: request_cpu(),
        })
    }
}

impl view::Seen {
    fn of(seen: &Seen) -> Self {
        let requests = seen.request_cpu.as_ref();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            watched_ms: u64::try_from(seen.watched.as_millis()).unwrap_or(u64::MAX),
            samples: seen.samples,
            cpu_p95_cores: seen.cpu_p95,
            cpu_max_cores: seen.cpu_max,
            throttled: seen.throttled,
            memory_instance_bytes: seen.instance_bytes,
            requests: requests.map_or(0, |it| it.requests),
            request_cpu_p999_ms: requests.map(|it| millis(it.p999)),
            request_cpu_max_ms: requests.map(|it| millis(it.max)),
        }
    }
}
