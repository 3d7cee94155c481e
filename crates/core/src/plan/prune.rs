//! Pruning: what nobody needs any more.

use std::collections::BTreeSet;

use crate::record::{App, Job, JobPhase, Key, Pod, Service};

/// Which of the `revisions` of `service` to delete. Those are kept that are wanted, could be gone
/// back to or have pods, and the newest `history` of the others. Of a service that is being
/// deleted and has no pods left, all go.
pub fn revisions(service: &Service, revisions: &[u64], pods: &[Pod]) -> Vec<u64> {
    let (spec, status) = (&service.spec, &service.status);
    let own = pods.iter().filter(|pod| pod.service == service.key);
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
/// `services`, `jobs` and `pods` are all that the store holds of it. A job that runs is removed
/// once whoever runs it has written that it does not.
pub fn finished(app: &App, services: &[Service], jobs: &[Job], pods: &[Pod]) -> Vec<Key> {
    let gone_service = |service: &&Service| {
        service.spec.deleting && !pods.iter().any(|pod| pod.service == service.key)
    };
    let gone_job = |job: &&Job| job.deleting && job.status.phase != JobPhase::Running;
    let services_gone = services.iter().filter(gone_service);
    let jobs_gone = jobs.iter().filter(gone_job);
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
