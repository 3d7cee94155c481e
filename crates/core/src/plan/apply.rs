//! What to write when a spec is applied, and what that changes.

mod awaited;
mod diff;
mod present;
mod rollout;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    digest::is_digest,
    name::{Name, ServiceKey},
    object::{self, Autoscale, ServiceKind},
    record::{
        App, Asked, Component, Job, JobSpec, JobStatus, Revision, Service, ServiceSpec,
        ServiceStatus, Template,
    },
    view,
};

pub use present::Present;
pub use rollout::{Retarget, VerbError, again, pause, restart, resume, run, scale, undo};

/// What there should be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The checked spec.
    pub app: &'a object::App,
    /// The absolute directory that its relative paths start from.
    pub base: &'a Path,
    /// SHA-256 of the component of each service and job, as 64 lower-case hex digits.
    pub digests: &'a BTreeMap<Name, String>,
    /// What brings the change about, in a few words.
    pub cause: &'a str,
    /// When: milliseconds since the beginning of 1970.
    pub wall_ms: u64,
}

/// What to write, all of it or nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The app, if anything is to be written at all.
    pub app: Option<App>,
    /// Services that are new or other than before.
    pub services: Vec<Service>,
    /// New revisions.
    pub revisions: Vec<(ServiceKey, Revision)>,
    /// Jobs that are new or other than before.
    pub jobs: Vec<Job>,
    /// The templates that services have not run so far: they are to be admitted first.
    pub admit: Vec<(ServiceKey, Template)>,
    /// The same for people.
    pub plan: view::Plan,
}

impl Applied {
    /// Notes the kind of a service's component, which its admission has found.
    pub fn is_of_kind(&mut self, service: &ServiceKey, kind: ServiceKind) {
        let same = |key: &ServiceKey| key == service;
        for (_, revision) in self.revisions.iter_mut().filter(|(key, _)| same(key)) {
            revision.template.kind = kind;
        }
        for service in self.services.iter_mut().filter(|it| same(&it.key)) {
            service.spec.kind = kind;
        }
    }
}

/// Why a spec cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The request names no component for this template.
    #[error("no digest of the component of `{0}`")]
    NoDigest(Name),
    /// It is no SHA-256.
    #[error("the digest `{digest}` of `{name}` is not 64 lower-case hex digits")]
    NotADigest {
        /// Of which service or job.
        name: Name,
        /// What was given.
        digest: String,
    },
    /// The spec demands another one.
    #[error("the component of `{name}` has the digest `{digest}`, and the spec demands `{pinned}`")]
    Pinned {
        /// The service or job.
        name: Name,
        /// What it is.
        digest: String,
        /// What it should be.
        pinned: String,
    },
    /// Digests of what is not in the spec.
    #[error("a component is given for `{0}`, which is not in the spec")]
    Unknown(Name),
}

/// What to write so that what there is becomes what there should be.
pub fn apply(present: &Present, wanted: &Wanted<'_>) -> Result<Applied, ApplyError> {
    if let Some(name) = wanted.digests.keys().find(|name| {
        !wanted.app.services.contains_key(*name) && !wanted.app.jobs.contains_key(*name)
    }) {
        return Err(ApplyError::Unknown(name.clone()));
    }
    let mut draft = Draft {
        present,
        wanted,
        applied: Applied {
            app: None,
            services: Vec::new(),
            revisions: Vec::new(),
            jobs: Vec::new(),
            admit: Vec::new(),
            plan: view::Plan {
                app: wanted.app.name.to_string(),
                changed: false,
                changes: Vec::new(),
            },
        },
    };
    for service in wanted.app.services.values() {
        draft.service(service)?;
    }
    for (name, service) in &present.services {
        if !wanted.app.services.contains_key(name) {
            draft.drop_service(service);
        }
    }
    for job in wanted.app.jobs.values() {
        draft.job(job)?;
    }
    for (name, job) in &present.jobs {
        if !wanted.app.jobs.contains_key(name) {
            draft.drop_job(job);
        }
    }
    draft.revive();
    draft.app();
    Ok(draft.applied)
}

/// What to write so that an app goes, with everything that belongs to it.
pub fn delete(present: &Present, app: &App) -> Applied {
    let nothing = object::App {
        name: app.name.clone(),
        services: BTreeMap::new(),
        jobs: BTreeMap::new(),
        volumes: BTreeMap::new(),
        builds: BTreeMap::new(),
        secrets: BTreeMap::new(),
    };
    let wanted = Wanted {
        app: &nothing,
        base: &app.base,
        digests: &BTreeMap::new(),
        cause: "",
        wall_ms: app.applied_ms,
    };
    // An app that has nothing needs no digest.
    let mut applied = apply(present, &wanted).expect("there is no component");
    let written = !applied.services.is_empty() || !applied.jobs.is_empty();
    applied.plan.changed = !app.deleting || written;
    applied.app = applied.plan.changed.then(|| App {
        generation: app.generation + u64::from(!app.deleting),
        deleting: true,
        ..app.clone()
    });
    applied
}

struct Draft<'a> {
    present: &'a Present,
    wanted: &'a Wanted<'a>,
    applied: Applied,
}

impl Draft<'_> {
    fn key(&self, name: &Name) -> ServiceKey {
        ServiceKey::new(&self.wanted.app.name, name)
    }

    /// Notes what becomes of something that the spec has.
    fn push(&mut self, change: view::Change) {
        self.applied.plan.changed |= change.verb != view::Verb::Unchanged;
        self.applied.plan.changes.push(change);
    }

    fn component(&self, name: &Name, source: &object::Source) -> Result<Component, ApplyError> {
        let digest = self.wanted.digests.get(name).cloned();
        let digest = digest.ok_or_else(|| ApplyError::NoDigest(name.clone()))?;
        if !is_digest(&digest) {
            let name = name.clone();
            return Err(ApplyError::NotADigest { name, digest });
        }
        match &source.digest {
            Some(pinned) if *pinned != digest => Err(ApplyError::Pinned {
                name: name.clone(),
                digest,
                pinned: pinned.clone(),
            }),
            Some(_) | None => Ok(Component {
                digest,
                path: source.path.display().to_string(),
            }),
        }
    }

    /// The grants with absolute directories.
    fn absolute(&self, grants: &mut object::Grants) {
        // A grant that is new asks here whether it names a path of the host.
        let object::Grants {
            files,
            env: _,
            secret_env: _,
            config: _,
            services: _,
            outbound: _,
            keyvalue: _,
        } = grants;
        for host in files.iter_mut().filter_map(object::Mount::host_mut) {
            *host = normal(&self.wanted.base.join(&*host));
        }
    }

    fn service(&mut self, wanted: &object::Service) -> Result<(), ApplyError> {
        let component = self.component(&wanted.name, &wanted.component)?;
        let mut template = Template::new(wanted, component);
        self.absolute(&mut template.grants);
        let old = self.present.services.get(&wanted.name);
        let old_template = old.and_then(|old| self.present.template(old));
        template.restarted = old_template.map_or(0, |it| it.restarted);
        let hash = template.hash();
        let number = self.number(old, &wanted.name, &hash);
        let latest = self.latest(old, &wanted.name);
        let kept = self.present.revisions.get(&(wanted.name.clone(), number));
        template.kind = kept.map_or(template.kind, |kept| kept.template.kind);
        let mut spec = spec(wanted, old, number, latest);
        spec.kind = template.kind;
        let service = Service {
            key: self.key(&wanted.name),
            generation: old.map_or(1, |old| old.generation + u64::from(old.spec != spec)),
            status: ServiceStatus {
                refused: None,
                ..old.map_or_else(ServiceStatus::default, |old| old.status.clone())
            },
            spec,
        };
        let change = diff::service(old.zip(old_template), (&service, &template));
        self.push(change);
        if old == Some(&service) {
            return Ok(());
        }
        let retargeted = old.is_none_or(|old| old.spec.revision != number);
        // One that comes back may have lost what its pods were made from.
        if retargeted || old.is_some_and(|old| old.spec.deleting) {
            let admitted = (service.key.clone(), template.clone());
            self.applied.admit.push(admitted);
        }
        if number > latest {
            let revision = Revision {
                number,
                hash,
                template,
                created_ms: self.wanted.wall_ms,
                cause: self.wanted.cause.to_owned(),
            };
            let revision = (service.key.clone(), revision);
            self.applied.revisions.push(revision);
        }
        self.applied.services.push(service);
        Ok(())
    }

    /// The number of the revision with this hash: the present one if it fits, else the latest that
    /// does, else a new one.
    fn number(&self, old: Option<&Service>, name: &Name, hash: &str) -> u64 {
        let present = old.map(|old| old.spec.revision);
        let fits = |number: &u64| {
            let found = self.present.revisions.get(&(name.clone(), *number));
            found.is_some_and(|revision| revision.hash == hash)
        };
        if let Some(present) = present.filter(fits) {
            return present;
        }
        let kept = self.kept(name).rev().find(fits);
        kept.unwrap_or_else(|| self.latest(old, name) + 1)
    }

    /// The numbers of the revisions of a service that are kept.
    fn kept(&self, name: &Name) -> impl DoubleEndedIterator<Item = u64> {
        let range = (name.clone(), 0)..=(name.clone(), u64::MAX);
        let kept = self.present.revisions.range(range);
        kept.map(|((_, number), _)| *number)
    }

    /// The highest number that was given to a revision. Those of an earlier service of this name
    /// count too while they are kept.
    fn latest(&self, old: Option<&Service>, name: &Name) -> u64 {
        let given = old.map_or(0, |old| old.spec.latest);
        given.max(self.kept(name).next_back().unwrap_or(0))
    }

    fn drop_service(&mut self, old: &Service) {
        let mut gone = old.clone();
        if !old.spec.deleting {
            gone.spec.deleting = true;
            gone.generation += 1;
            self.applied.services.push(gone.clone());
            self.applied.plan.changed = true;
        }
        self.applied
            .plan
            .changes
            .push(diff::deleted_service(old, &gone));
    }

    fn job(&mut self, wanted: &object::Job) -> Result<(), ApplyError> {
        let component = self.component(&wanted.name, &wanted.component)?;
        let mut spec = JobSpec {
            component,
            args: wanted.args.clone(),
            retries: wanted.retries,
            schedule: wanted.schedule.clone(),
            timeout: wanted.timeout,
            history: wanted.history,
            depends_on: wanted.depends_on.clone(),
            grants: wanted.grants.clone(),
            limits: wanted.limits.clone(),
        };
        self.absolute(&mut spec.grants);
        let old = self.present.jobs.get(&wanted.name);
        // What its file is called does not count: it would do the same again.
        let same = old.is_some_and(|old| {
            let mut named = spec.clone();
            named.component.path.clone_from(&old.spec.component.path);
            old.spec == named && !old.deleting
        });
        let job = match old {
            Some(old) if same => old.clone(),
            Some(_) | None => Job {
                key: self.key(&wanted.name),
                generation: old.map_or(1, |old| old.generation + 1),
                spec,
                status: old.map_or_else(JobStatus::default, |old| old.status.clone()),
                deleting: false,
                asked: old.map_or_else(Asked::default, |old| old.asked),
            },
        };
        self.push(diff::job(old, &job));
        if !same {
            self.applied.jobs.push(job);
        }
        Ok(())
    }

    /// Begins anew what could not start because of what is changed here.
    fn revive(&mut self) {
        let plan = &mut self.applied.plan;
        for job in awaited::mark(self.wanted.app, self.present, plan) {
            let Ok(mut job) = again(job) else { continue };
            job.asked.restart = 0;
            let name = job.key.name.as_str();
            let changes = plan.changes.iter_mut();
            for change in changes.filter(|it| it.kind == "job" && it.name == name) {
                change.generation = job.generation;
            }
            self.applied.jobs.push(job);
        }
    }

    fn drop_job(&mut self, old: &Job) {
        let mut gone = old.clone();
        if !old.deleting {
            gone.deleting = true;
            gone.generation += 1;
            self.applied.jobs.push(gone.clone());
            self.applied.plan.changed = true;
        }
        self.applied
            .plan
            .changes
            .push(diff::deleted_job(old, &gone));
    }

    /// The app, which every apply that changes anything writes: of two at once the later one then
    /// finds out, and looks again.
    fn app(&mut self) {
        let old = self.present.app.as_ref();
        let services: BTreeSet<_> = self.wanted.app.services.keys().cloned().collect();
        let jobs: BTreeSet<_> = self.wanted.app.jobs.keys().cloned().collect();
        let same = old.is_some_and(|old| {
            !old.deleting
                && old.services == services
                && old.jobs == jobs
                && old.volumes == self.wanted.app.volumes
                && old.base == self.wanted.base
        });
        let applied = &mut self.applied;
        applied.plan.changed |= !same;
        if same && applied.services.is_empty() && applied.jobs.is_empty() {
            return;
        }
        applied.app = Some(App {
            name: self.wanted.app.name.clone(),
            generation: old.map_or(1, |old| old.generation + u64::from(!same)),
            base: self.wanted.base.to_owned(),
            services,
            jobs,
            volumes: self.wanted.app.volumes.clone(),
            deleting: false,
            applied_ms: self.wanted.wall_ms,
        });
    }
}

/// What is wanted of a service. Its number of pods stays when an autoscaler has it, within bounds;
/// a pause stays, unless it is a failure of what is being replaced.
fn spec(wanted: &object::Service, old: Option<&Service>, number: u64, latest: u64) -> ServiceSpec {
    let before = old.map(|old| &old.spec);
    let retargeted = before.is_some_and(|before| before.revision != number);
    let held = old.is_some_and(rollout::is_held);
    ServiceSpec {
        revision: number,
        kind: ServiceKind::default(),
        previous: match before {
            Some(before) if retargeted => Some(before.revision),
            Some(before) => before.previous,
            None => None,
        },
        latest: latest.max(number),
        replicas: replicas(wanted, before, retargeted),
        paused: before.is_some_and(|before| before.paused) && !(retargeted && held),
        deleting: false,
        rollout: wanted.rollout.clone(),
        routes: wanted.routes.clone(),
        depends_on: wanted.depends_on.clone(),
        calls: wanted.grants.services.iter().cloned().collect(),
        queue: wanted.limits.queue,
        queue_timeout: wanted.limits.queue_timeout,
        body_bytes: wanted.limits.body.0,
        debug_headers: wanted.debug_headers,
        autoscale: wanted.autoscale.clone(),
        placement: wanted.placement.clone(),
    }
}

/// A new revision of a service at zero gets one pod, as with Knative's `initial-scale`: otherwise
/// the first request to need it would be the first to find out whether it works.
fn replicas(wanted: &object::Service, before: Option<&ServiceSpec>, retargeted: bool) -> u32 {
    match (&wanted.autoscale, before) {
        (Some(bounds), Some(before)) => clamp(before.replicas.max(retargeted.into()), bounds),
        (Some(bounds), None) => clamp(wanted.replicas, bounds),
        (None, _) => wanted.replicas,
    }
}

fn clamp(replicas: u32, bounds: &Autoscale) -> u32 {
    replicas.max(bounds.min).min(bounds.max.max(bounds.min))
}

/// The path without `.` in it.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}

#[cfg(test)]
mod tests;
