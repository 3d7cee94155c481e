//! What refers to services and jobs by their names, and in which order they wait for one another.

use std::collections::BTreeMap;

use super::{
    checker::Checker,
    names::{MAX_LISTED, Sort},
};
use crate::{
    name::Name,
    object::Condition,
    spec::{
        MAX_PROBLEMS,
        problem::{Place, ProblemKind, Report},
        raw::{self, At, Dependencies},
    },
};

impl Checker<'_, '_> {
    /// What the workload `name` waits for.
    pub(super) fn depends_on(
        &mut self,
        name: &Name,
        on: bool,
        raw: &Dependencies,
    ) -> BTreeMap<Name, Condition> {
        let mut checked = BTreeMap::new();
        for (target, condition) in &raw.0 {
            if target.value == *name {
                let message = format!("{} waits for itself", target.shown());
                self.conflict(&target.place, message, "remove it from `depends_on`");
                continue;
            }
            let Some(sort) = self.lookup(target, on, None) else {
                continue;
            };
            let place = condition.as_ref().map_or(&target.place, |it| &it.place);
            let condition = match condition {
                Some(condition) => {
                    self.condition(target, sort, condition);
                    condition.value
                }
                None => match sort {
                    Sort::Service => Condition::Ready,
                    Sort::Job => Condition::Completed,
                },
            };
            if condition == Condition::Completed && self.names.is_scheduled(&target.value) {
                let name = target.shown();
                let message = format!("{name} runs by its schedule, and is never `completed`");
                let hint = "write `started` for it in a table, or remove it";
                self.conflict(place, message, hint);
            }
            checked.insert(target.value.clone(), condition);
        }
        checked
    }

    /// A service is never completed, a job never ready.
    fn condition(&mut self, target: &At<Name>, sort: Sort, condition: &At<Condition>) {
        let (what, wrong, right) = match (sort, condition.value) {
            (Sort::Service, Condition::Completed) => ("service", "completed", "ready"),
            (Sort::Job, Condition::Ready) => ("job", "ready", "completed"),
            (Sort::Service, Condition::Started | Condition::Ready)
            | (Sort::Job, Condition::Started | Condition::Completed) => return,
        };
        let message = format!("{} is a {what}, which is never `{wrong}`", target.shown());
        self.conflict(
            &condition.place,
            message,
            format!("write `{right}` or `started`"),
        );
    }

    /// The services `allow.services` names.
    pub(super) fn callable(&mut self, on: bool, services: &[At<Name>]) -> Vec<Name> {
        let mut callable = Vec::new();
        for service in services {
            match self.lookup(service, on, Some(Sort::Service)) {
                Some(Sort::Service) => callable.push(service.value.clone()),
                Some(Sort::Job) => {
                    let message = format!("{} is a job", service.shown());
                    let hint = "remove it: only services can be called";
                    self.conflict(&service.place, message, hint);
                }
                None => {}
            }
        }
        callable
    }

    /// Whether `target` is a service or a job; a report when it is not there, or left out while
    /// the workload that names it is `on`.
    fn lookup(&mut self, target: &At<Name>, on: bool, wanted: Option<Sort>) -> Option<Sort> {
        let Some(entry) = self.names.entries.get(&target.value) else {
            if self.decoder.report.is_full() {
                self.decoder.report.omit();
                return None;
            }
            let wanted_words = match wanted {
                Some(Sort::Service) => "service",
                Some(Sort::Job) => "job",
                None => "service or job",
            };
            let message = format!("no {wanted_words} is named {}", target.shown());
            let hint = self.names.advice(target.value.as_str(), wanted);
            self.decoder
                .problem(&target.place, ProblemKind::UnknownName, message, hint);
            return None;
        };
        if on && !entry.on {
            let profiles: Vec<&str> = entry.profiles.iter().map(Name::as_str).collect();
            let first = profiles.first().copied().unwrap_or_default();
            let message = format!(
                "{} is left out, since none of its profiles is on: {}",
                target.shown(),
                raw::decode::listed(&profiles)
            );
            let hint = format!("turn one on with `--profile {first}`, or do not name it here");
            self.decoder
                .problem(&target.place, ProblemKind::UnknownName, message, hint);
            return None;
        }
        Some(entry.sort)
    }

    /// Reports every circle of dependencies, also among workloads that are left out.
    pub(super) fn cycles(&mut self, spec: &raw::App) {
        let services = spec
            .service
            .0
            .iter()
            .map(|(name, s)| (&name.value, &s.depends_on));
        let jobs = spec
            .job
            .0
            .iter()
            .map(|(name, j)| (&name.value, &j.depends_on));
        let mut graph: Graph<'_> = BTreeMap::new();
        for (name, Dependencies(targets)) in services.chain(jobs) {
            let edges = targets.iter().map(|(target, _)| target);
            graph
                .entry(name)
                .or_default()
                .extend(edges.filter(|edge| edge.value != *name));
        }
        // Further ones are counted, not described.
        for (path, place) in circles(&graph, MAX_PROBLEMS, &mut self.decoder.report) {
            let shown: Vec<&str> = path.iter().map(|name| name.as_str()).collect();
            let shown = match shown.as_slice() {
                [head @ .., last] if head.len() > MAX_LISTED => {
                    format!("{} -> … -> {last}", head[..MAX_LISTED].join(" -> "))
                }
                all => all.join(" -> "),
            };
            let message = format!("a circle of dependencies: `{shown}`");
            let hint = "remove one of them: each waits for the next, so none would start";
            self.decoder
                .problem(&place, ProblemKind::Cycle, message, hint);
        }
    }
}

/// For each workload, the names it waits for.
type Graph<'s> = BTreeMap<&'s Name, Vec<&'s At<Name>>>;

/// Circles of the graph, each as the names along it, the first again at the end, and the place
/// of its first step. Every circle shares a step with one of them. Those beyond `limit` are omitted
/// in the report: a circle may be as long as the spec, and there may be as many.
fn circles<'s>(
    graph: &Graph<'s>,
    limit: usize,
    report: &mut Report,
) -> Vec<(Vec<&'s Name>, Place)> {
    let mut circles = Vec::new();
    // For each name that was met, where on the way it is; `None` when it is left behind.
    let mut met: BTreeMap<&Name, Option<usize>> = BTreeMap::new();
    for start in graph.keys() {
        // The way from `start`: each name with how many of its steps were taken. No recursion,
        // since a chain may be as long as the spec.
        let mut way: Vec<(&'s Name, usize)> = Vec::new();
        if !met.contains_key(start) {
            met.insert(start, Some(0));
            way.push((start, 0));
        }
        while let Some((name, taken)) = way.last_mut() {
            let Some(step) = graph.get(name).and_then(|steps| steps.get(*taken)) else {
                met.insert(name, None);
                way.pop();
                continue;
            };
            *taken += 1;
            match met.get(&step.value).copied() {
                None if graph.contains_key(&step.value) => {
                    met.insert(&step.value, Some(way.len()));
                    way.push((&step.value, 0));
                }
                Some(Some(_)) if circles.len() >= limit => report.omit(),
                Some(Some(from)) => {
                    let circle = &way[from..];
                    let mut path: Vec<&Name> = circle.iter().map(|(name, _)| *name).collect();
                    path.push(&step.value);
                    let (first, taken) = circle[0];
                    circles.push((path, graph[first][taken - 1].place.clone()));
                }
                None | Some(None) => {}
            }
        }
    }
    circles
}
