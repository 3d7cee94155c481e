//! Names of services and jobs.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    name::Name,
    spec::{
        problem::{Draft, Place, ProblemKind, nearest, quoted},
        raw::{self, At, decode::Decoder},
    },
};

/// How many names a hint lists.
pub(super) const MAX_LISTED: usize = 8;
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
    pub(super) entries: BTreeMap<Name, Entry>,
    /// Names that have been compared with one that is not there.
    compared: usize,
}

pub(super) struct Entry {
    pub(super) sort: Sort,
    place: Place,
    pub(super) profiles: Vec<Name>,
    pub(super) on: bool,
    /// It is a job with a schedule.
    pub(super) is_scheduled: bool,
}

impl Names {
    pub(super) fn gather(spec: &raw::App, profiles: &[String], decoder: &mut Decoder<'_>) -> Self {
        let mut names = Self::default();
        let profiles = &profiles.iter().map(String::as_str).collect();
        for (name, service) in &spec.service.0 {
            names.add(name, Sort::Service, &service.profiles, profiles);
        }
        for (name, job) in &spec.job.0 {
            if let Some(service) = names.add(name, Sort::Job, &job.profiles, profiles) {
                report_same_name(name, &service, decoder);
            } else if let Some(entry) = names.entries.get_mut(&name.value) {
                entry.is_scheduled = job.has("schedule");
            }
        }
        names
    }

    /// Adds a name. If it is taken, gives back the place of the first.
    fn add(
        &mut self,
        name: &At<Name>,
        sort: Sort,
        profiles: &[At<Name>],
        active: &BTreeSet<&str>,
    ) -> Option<Place> {
        let profiles = values(profiles);
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
            is_scheduled: false,
        };
        self.entries.insert(name.value.clone(), entry);
        None
    }

    /// Whether a service or job is part of the app with the profiles that are on.
    pub(super) fn is_on(&self, name: &Name) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.on)
    }

    /// Whether the name is that of a job with a schedule.
    pub(super) fn is_scheduled(&self, name: &Name) -> bool {
        let entry = self.entries.get(name);
        entry.is_some_and(|entry| entry.is_scheduled)
    }

    /// Whether the name is there and of this sort.
    pub(super) fn is(&self, name: &Name, sort: Sort) -> bool {
        self.entries
            .get(name)
            .is_some_and(|entry| entry.sort == sort)
    }

    /// The one of these names that may have been meant by one that is not there.
    pub(super) fn near<'k>(&mut self, name: &str, known: &[&'k str]) -> Option<&'k str> {
        guess(&mut self.compared, name, known)
    }

    /// What to do about a name that is not there.
    pub(super) fn advice(&mut self, name: &str, sort: Option<Sort>) -> String {
        let known = self
            .entries
            .iter()
            .filter(|(_, entry)| sort.is_none_or(|s| s == entry.sort));
        let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
        if let Some(near) = guess(&mut self.compared, name, &known) {
            return format!("did you mean `{near}`?");
        }
        let listed = raw::decode::listed(&known[..known.len().min(MAX_LISTED)]);
        match known.len() {
            0 => "there is none in this file".to_owned(),
            1..=MAX_LISTED => format!("the names here are {listed}"),
            _ => format!("the names here are {listed} and others"),
        }
    }
}

/// The nearest name, unless so many have been `compared` that there are no more guesses.
fn guess<'k>(compared: &mut usize, name: &str, known: &[&'k str]) -> Option<&'k str> {
    let before = *compared;
    *compared = (before + known.len()).min(MAX_COMPARED);
    (before + known.len() <= MAX_COMPARED)
        .then(|| nearest(name, known.iter().copied()))
        .flatten()
}

/// A service and a job must not share a name: both are reached and shown by it.
fn report_same_name(job: &At<Name>, service: &Place, decoder: &mut Decoder<'_>) {
    let message = format!(
        "{} is the name of a service and of a job",
        quoted(job.value.as_str())
    );
    let hint = "give one of the two another name";
    let draft = Draft::new(&job.place, ProblemKind::Conflict, message, hint);
    decoder.report.add(draft.also(&service.span, "the service"));
}

/// The values of a list, without their places.
pub(super) fn values<T: Clone>(list: &[At<T>]) -> Vec<T> {
    list.iter().map(|at| at.value.clone()).collect()
}
