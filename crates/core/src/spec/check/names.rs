//! Names of services and jobs, and what refers to them.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use crate::{
    name::Name,
    object::Condition,
    spec::{
        MAX_PROBLEMS,
        problem::{Draft, Place, ProblemKind, Report, nearest, quoted},
        raw::{self, At, Dependencies, decode::Decoder},
    },
};

/// How many names a hint lists.
const MAX_LISTED: usize = 8;
/// Names that are compared with names that are not there, in all of a spec. Further ones that are
/// not there get no guess.
const MAX_COMPARED: usize = 20_000;

/// Whether a name is that of a service or of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Service,
    Job,
}

/// Every service and job of the spec, whether its profiles are on or not.
#[derive(Default)]
pub(super) struct Names {
    entries: BTreeMap<Name, Entry>,
    /// Names that have been compared with one that is not there.
    compared: usize,
}

struct Entry {
    sort: Sort,
    place: Place,
    profiles: Vec<Name>,
    on: bool,
}

impl Names {
    /// Adds a name. If it is taken, gives back the place of the first.
    pub(super) fn add(
        &mut self,
        name: &At<Name>,
        sort: Sort,
        profiles: &[At<Name>],
        active: &BTreeSet<&str>,
    ) -> Option<Place> {
        let profiles = super::values(profiles);
        let named = |profile: &Name| active.contains(profile.as_str());
        let on = profiles.is_empty() || profiles.iter().any(named);
        if let Some(entry) = self.entries.get(&name.value) {
            return Some(entry.place.clone());
        }
        let entry = Entry {
            sort,
            place: name.place.clone(),
            profiles,
            on,
        };
        self.entries.insert(name.value.clone(), entry);
        None
    }

    /// Whether a service or job is part of the app with the profiles that are on.
    pub(super) fn is_on(&self, name: &Name) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.on)
    }

    /// Whether the name is there and of this sort.
    pub(super) fn is(&self, name: &Name, sort: Sort) -> bool {
        self.entries
            .get(name)
            .is_some_and(|entry| entry.sort == sort)
    }

    /// What to do about a name that is not there.
    fn advice(&mut self, name: &str, sort: Option<Sort>) -> String {
        let known = self
            .entries
            .iter()
            .filter(|(_, entry)| sort.is_none_or(|s| s == entry.sort));
        let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
        let compared = self.compared + known.len();
        if compared <= MAX_COMPARED
            && let Some(near) = nearest(name, known.iter().copied())
        {
            self.compared = compared;
            return format!("did you mean `{near}`?");
        }
        self.compared = compared.min(MAX_COMPARED);
        let listed = raw::decode::listed(&known[..known.len().min(MAX_LISTED)]);
        match known.len() {
            0 => "there is none in this file".to_owned(),
            1..=MAX_LISTED => format!("the names here are {listed}"),
            _ => format!("the names here are {listed} and others"),
        }
    }
}

/// A service and a job must not share a name: both are reached and shown by it.
pub(super) fn report_same_name(job: &At<Name>, service: &Place, decoder: &mut Decoder<'_>) {
    let message = format!(
        "{} is the name of a service and of a job",
        quoted(job.value.as_str())
    );
    let hint = "give one of the two another name";
    let draft = Draft::new(&job.place, ProblemKind::Conflict, message, hint);
    decoder.report.add(draft.also(&service.span, "the service"));
}

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
