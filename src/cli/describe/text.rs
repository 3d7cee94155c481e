//! One thing in lines for people.

use std::time::Duration;

use sampan_core::{
    object::ServiceKind,
    view::{self, Verdict},
};

use crate::cli::{
    get::table::{Column, EVENT, POD, REVISION, RUN, cores, cpu, labels, table, yes},
    output::{one_line, size, time},
};

/// Lines of a name and a value.
#[derive(Default)]
struct Text(String);

impl Text {
    fn field(&mut self, name: &str, value: &str) {
        self.0.push_str(&format!("{name:12}{}\n", one_line(value)));
    }

    fn part(&mut self, name: &str, lines: &str) {
        if !lines.is_empty() {
            self.0.push_str(&format!("\n{name}\n"));
            for line in lines.lines() {
                self.0.push_str(&format!("  {}\n", line.trim_end()));
            }
        }
    }

    /// What the host says of guests.
    fn said(&mut self, lines: &[view::LogLine]) {
        let lines = lines.iter().filter(|line| !line.pod.is_empty());
        let lines = lines.map(|it| format!("{}  {}  {}\n", it.time, it.pod, one_line(&it.text)));
        self.part("what Sampan says of its guests", &lines.collect::<String>());
    }

    fn table<T>(&mut self, name: &str, head: bool, columns: &[Column<T>], objects: &[T]) {
        if !objects.is_empty() {
            self.part(name, &table(head, columns, objects));
        }
    }
}

pub(super) fn app(
    app: &view::App,
    services: &[view::Service],
    jobs: &[view::Job],
    events: &[view::Event],
) -> String {
    let mut text = Text::default();
    text.field("app", &app.name);
    if app.deleting {
        text.field("state", "it is being deleted");
    }
    text.field("directory", &app.base);
    text.field("applied", &app.applied);
    let verdict = |verdict| match verdict {
        Verdict::Going(text) | Verdict::Done(text) | Verdict::Failed(text) => text,
    };
    let services = services.iter().map(|service| {
        let told = verdict(view::rollout_verdict(service, None));
        format!("{}: {}\n", service.name, one_line(&told))
    });
    text.part("services", &services.collect::<String>());
    let jobs = jobs.iter().map(|job| {
        format!(
            "{}: {}\n",
            job.name,
            one_line(&verdict(view::job_verdict(job)))
        )
    });
    text.part("jobs", &jobs.collect::<String>());
    text.table("events", false, EVENT, events);
    text.0
}

pub(super) fn service(
    service: &view::Service,
    revisions: &[view::Revision],
    pods: &[view::Pod],
    said: &[view::LogLine],
    events: &[view::Event],
) -> String {
    let mut text = Text::default();
    text.field("service", &service.name);
    text.field("app", &service.app);
    text.field("kind", &service.kind);
    let (word, told) = match view::rollout_verdict(service, None) {
        Verdict::Going(text) => ("waits", text),
        Verdict::Done(text) => ("rollout", text),
        Verdict::Failed(text) => ("failed", text),
    };
    text.field("phase", &format!("{:?}", service.phase));
    text.field(word, &told);
    if let Some(refused) = &service.refused {
        text.field("refused", &format!("{}: {}", refused.time, refused.reason));
    }
    let previous = service.previous.map(|it| format!(", before it {it}"));
    let good = service.last_good.map(|it| format!(", last good {it}"));
    text.field(
        "revision",
        &format!(
            "{}{}{}",
            service.revision,
            previous.unwrap_or_default(),
            good.unwrap_or_default()
        ),
    );
    text.field(
        "pods",
        &format!(
            "{} wanted, {} there, {} ready, {} available, {} of the revision",
            service.replicas, service.pods, service.ready, service.available, service.updated
        ),
    );
    if let Some(bounds) = service.autoscale {
        text.field("autoscale", &format!("{} to {}", bounds.min, bounds.max));
    }
    text.field("paused", &yes(service.paused));
    if !service.routes.is_empty() {
        let unused = match service.kind == ServiceKind::Command.to_string() {
            true => " (not in use: a command answers no requests)",
            false => "",
        };
        text.field("routes", &(service.routes.join(", ") + unused));
    }
    let conditions = service.conditions.iter().map(|it| {
        let (kind, holds, since) = (&it.kind, yes(it.holds), &it.since);
        format!(
            "{kind}: {holds}, {}, since {since}: {}\n",
            it.reason,
            one_line(&it.message)
        )
    });
    text.part("conditions", &conditions.collect::<String>());
    let scalings = service.scalings.iter();
    let scalings = scalings.map(|it| format!("{}  {}\n", it.time, one_line(&it.message)));
    text.part("scaled", &scalings.collect::<String>());
    text.table("revisions", true, REVISION, revisions);
    text.table("pods", true, POD, pods);
    text.said(said);
    text.table("events", false, EVENT, events);
    text.0
}

pub(super) fn job(job: &view::Job, events: &[view::Event]) -> String {
    let mut text = Text::default();
    text.field("job", &job.name);
    text.field("app", &job.app);
    text.field("phase", &format!("{:?}", job.phase));
    if let Some(reason) = &job.reason {
        text.field("reason", reason);
    }
    let (attempts, retries) = (job.attempts, job.retries);
    text.field("attempts", &format!("{attempts}, at most {retries} again"));
    if let Some(timeout) = &job.timeout {
        text.field("timeout", &format!("{timeout} for each attempt"));
    }
    if let Some(it) = &job.schedule {
        let (expression, zone, overlap) = (&it.expression, &it.timezone, &it.overlap);
        text.field("schedule", &format!("{expression} in {zone}"));
        text.field("overlap", overlap);
        text.field("next", job.next.as_deref().unwrap_or("never"));
    }
    if let Some(run) = &job.run {
        let (number, why, started) = (run.number, &run.why, &run.started);
        text.field("run", &format!("{number} {why}, since {started}"));
    }
    text.field(
        "component",
        &format!("{} sha256:{}", job.component, job.digest),
    );
    text.table("runs", true, RUN, &job.runs);
    text.table("events", false, EVENT, events);
    text.0
}

pub(super) fn node(node: &view::Node) -> String {
    let mut text = Text::default();
    text.field("node", &node.name);
    text.field("status", &node.status);
    if let Some(reason) = &node.reason {
        text.field("reason", reason);
    }
    text.field("leads", &yes(node.leads));
    text.field("version", &node.version);
    text.field("started", &node.started);
    if let Some(address) = &node.address {
        text.field("for nodes", address);
    }
    if let Some(http) = &node.http {
        text.field("http", http);
    }
    text.field("pods", &node.pods.to_string());
    if let Some(room) = &node.room {
        text.field(
            "room",
            &format!("{} of {} pods placed", room.placed, room.pods),
        );
        let (reserved, all) = (size(room.reserved_bytes), size(room.memory_bytes));
        text.field("memory", &format!("{reserved} of {all} reserved"));
        let (reserved, all) = (cores(room.reserved_millis), cores(room.cpu_millis));
        text.field("cpu", &format!("{reserved} of {all} reserved"));
    }
    if !node.labels.is_empty() {
        text.field("labels", &labels(node).join(", "));
    }
    text.0
}

pub(super) fn pod(pod: &view::Pod, said: &[view::LogLine]) -> String {
    let mut text = Text::default();
    text.field("pod", &pod.name);
    text.field("service", &pod.service);
    if !pod.app.is_empty() {
        text.field("app", &pod.app);
    }
    let ready = if pod.ready { ", ready" } else { ", not ready" };
    text.field("phase", &format!("{}{ready}", pod.phase));
    if let Some(reason) = &pod.reason {
        text.field("reason", reason);
    }
    if let Some(millis) = pod.next_try_ms {
        let next = Duration::from_millis(millis);
        text.field("next try", &format!("in {}", time(next)));
    }
    text.field("restarts", &pod.restarts.to_string());
    if pod.starved_probes > 0 {
        let starved = format!("{} probes, which count for nothing", pod.starved_probes);
        text.field("starved", &starved);
    }
    let usage = &pod.usage;
    text.field("guest CPU", &time(cpu(usage)));
    if usage.throttled_ms > 0.0 {
        let throttled = Duration::try_from_secs_f64(usage.throttled_ms / 1e3);
        let throttled = time(throttled.unwrap_or_default());
        text.field("throttled", &format!("{throttled} by `limits.cpu`"));
    }
    let (now, peak) = (size(usage.memory_bytes), size(usage.memory_peak_bytes));
    text.field("memory", &format!("{now} now, {peak} at the most"));
    let (made, failed) = (usage.instances, usage.failures);
    text.field("instances", &format!("{made} made, {failed} ended badly"));
    text.said(said);
    let mut text = text.0;
    for end in pod.terminations.iter().rev() {
        text.push_str(&format!("\n{}  ", end.time));
        for line in end.explanation.lines() {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_says_why_its_rollout_waits() {
        let found = view::Service {
            app: "shop".to_owned(),
            name: "web".to_owned(),
            generation: 4,
            observed_generation: 4,
            kind: "http".to_owned(),
            phase: view::Phase::Progressing,
            reason: None,
            revision: 2,
            previous: Some(1),
            last_good: Some(1),
            replicas: 3,
            autoscale: None,
            pods: 4,
            updated: 1,
            ready: 3,
            available: 3,
            updated_available: 0,
            paused: false,
            deleting: false,
            routes: vec!["shop.localhost/".to_owned()],
            conditions: vec![view::Condition {
                kind: "Available".to_owned(),
                holds: true,
                reason: "MinimumReplicasAvailable".to_owned(),
                message: "3 of 3 pods are available".to_owned(),
                since: "2026-01-01T00:00:00.000Z".to_owned(),
            }],
            refused: None,
            scalings: Vec::new(),
        };
        insta::assert_snapshot!(service(&found, &[], &[], &[], &[]), @r"
        service     web
        app         shop
        kind        http
        phase       Progressing
        waits       1 of 3 pods are new
        revision    2, before it 1, last good 1
        pods        3 wanted, 4 there, 3 ready, 3 available, 1 of the revision
        paused      no
        routes      shop.localhost/

        conditions
          Available: yes, MinimumReplicasAvailable, since 2026-01-01T00:00:00.000Z: 3 of 3 pods are available
        ");
    }
}
