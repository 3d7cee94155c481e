//! Pruning: records that nothing refers to any more.

use std::{borrow::Borrow, collections::BTreeSet};

use super::stop::Contents;
use crate::{
    name::{PodName, ServiceKey},
    record::{App, Job, Key, Pod, Service},
};

/// Which of the `revisions` of `service` to delete. Those are kept that are wanted, could be gone
/// back to or have pods, and the newest `history` of the others. Of a service that is being
/// deleted and has no pods left, all go.
pub fn revisions(service: &Service, revisions: &[u64], pods: &[impl Borrow<Pod>]) -> Vec<u64> {
    let (spec, status) = (&service.spec, &service.status);
    let own = pods.iter().map(Borrow::borrow);
    let own = own.filter(|pod: &&Pod| pod.service == service.key);
    let mut needed: BTreeSet<u64> = own.map(|pod| pod.revision).collect();
    let gone = spec.deleting && needed.is_empty();
    if !gone {
        needed.extend([spec.revision, status.target]);
        needed.extend(spec.previous);
        needed.extend(status.last_good);
    }
    let others: BTreeSet<u64> = revisions.iter().copied().collect();
    let others: Vec<_> = others.difference(&needed).copied().collect();
    let history = match gone {
        true => 0,
        false => spec.rollout.history as usize,
    };
    let old = others.len().saturating_sub(history);
    others[..old].to_vec()
}

/// What can be removed of an app of which something is being deleted: services that have no pods
/// left, jobs that do not run, and the app itself once nothing of it is left.
///
/// What depends on another and is still there keeps the other's record: by that it is known that
/// what the other depends on has to wait too.
///
/// `services`, `jobs` and `pods` are all that the store holds of it. A job that runs is removed
/// once the node that runs it has written that it does not.
pub fn finished(
    app: &App,
    services: &[impl Borrow<Service>],
    jobs: &[impl Borrow<Job>],
    pods: &[impl Borrow<Pod>],
) -> Vec<Key> {
    let contents = Contents {
        services: services.iter().map(Borrow::borrow).collect(),
        jobs: jobs.iter().map(Borrow::borrow).collect(),
        pods: pods.iter().map(Borrow::borrow).collect(),
    };
    let (order, there) = (contents.order(), contents.there());
    let is_there = |key: &ServiceKey| there.contains(key);
    let is_idle = |key: &ServiceKey| !is_there(key) && !order.is_needed(key, &is_there);
    let gone_service = |service: &&Service| service.spec.deleting && is_idle(&service.key);
    let gone_job = |job: &&Job| job.deleting && is_idle(&job.key);
    let services_gone = services.iter().map(Borrow::borrow).filter(gone_service);
    let jobs_gone = jobs.iter().map(Borrow::borrow).filter(gone_job);
    let mut keys: Vec<_> = services_gone
        .map(|it| Key::Service(it.key.clone()))
        .collect();
    keys.extend(jobs_gone.map(|it| Key::Job(it.key.clone())));
    keys.sort();
    keys.dedup();
    let nothing_left = keys.len() == services.len() + jobs.len();
    if app.deleting && nothing_left && pods.is_empty() {
        keys.push(Key::App(app.name.clone()));
    }
    keys
}

/// The service as it is to be when its app is being deleted and it is not so far. The app alone is
/// the intent: what belongs to it follows, one after the other, however much that is.
pub fn doomed_service(app: &App, service: &Service) -> Option<Service> {
    (app.deleting && !service.spec.deleting).then(|| {
        let mut doomed = service.clone();
        doomed.spec.deleting = true;
        doomed.generation += 1;
        doomed
    })
}

/// The same of a job.
pub fn doomed_job(app: &App, job: &Job) -> Option<Job> {
    (app.deleting && !job.deleting).then(|| Job {
        deleting: true,
        generation: job.generation + 1,
        ..job.clone()
    })
}

/// What an app that is being deleted has and no service of it: what a change has left that was not
/// made as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Pods to stop.
    pub stop: Vec<PodName>,
    /// Revisions to delete.
    pub revisions: Vec<(ServiceKey, u64)>,
}

/// The orphans of an app. `services`, `pods` and `revisions` are all that the store holds of it.
pub fn orphans<'a>(
    app: &App,
    services: &[impl Borrow<Service>],
    pods: &[impl Borrow<Pod>],
    revisions: impl Iterator<Item = &'a (ServiceKey, u64)>,
) -> Orphans {
    if !app.deleting {
        return Orphans::default();
    }
    let services = services.iter().map(Borrow::borrow);
    let known: BTreeSet<_> = services.map(|service: &Service| &service.key).collect();
    let pods = pods.iter().map(Borrow::borrow);
    let pods = pods.filter(|pod: &&Pod| !known.contains(&pod.service));
    Orphans {
        stop: pods
            .filter(|pod| pod.stop.is_none())
            .map(Pod::name)
            .collect(),
        revisions: revisions
            .filter(|(service, _)| !known.contains(service))
            .cloned()
            .collect(),
    }
}

/// Which artifacts to delete: those that nothing refers to, and that have been there for `grace_ms`
/// at least. One that was just uploaded is referred to only a moment later.
pub fn artifacts<'a>(
    referenced: impl Iterator<Item = &'a str>,
    present: &[(String, u64)],
    grace_ms: u64,
) -> Vec<String> {
    let referenced: BTreeSet<_> = referenced.collect();
    let old = present
        .iter()
        .filter(|(digest, age_ms)| *age_ms >= grace_ms && !referenced.contains(digest.as_str()));
    old.map(|(digest, _)| digest.clone()).collect()
}

#[cfg(test)]
mod tests;
