//! Removes records that nothing refers to any more.

use sampan_core::{
    name::{Name, ServiceKey},
    plan::prune,
    record::{Job, Key, Pod, Service},
};
use sampan_store::{MAX_OPERATIONS, Transaction};

use super::reconciled::{Plan, stop};
use crate::mirror::{Mirror, Stored, text};

/// Why pods go that belong to no service.
const ORPHANED: &str = "its app is being deleted";

pub(super) fn reconcile(app: &Name, mirror: &Mirror) -> Plan {
    // What can go only after something else is looked at when that has gone.
    let steps = [revisions, orphans, finished];
    let mut planned = steps.iter().map(|step| step(app, mirror));
    Plan {
        transaction: planned
            .find(|transaction| !transaction.writes.is_empty())
            .unwrap_or_default(),
        ..Plan::default()
    }
}

/// What goes of the revisions of a service. With its app, or when it is deleted, others go as well:
/// [`reconcile`].
pub(super) fn history(service: &ServiceKey, mirror: &Mirror) -> Plan {
    let stored = mirror.services.get(service);
    let transaction = stored.map(|it| old_revisions(Transaction::new(), it, mirror));
    Plan {
        transaction: transaction.unwrap_or_default(),
        ..Plan::default()
    }
}

/// What follows of the app of a service or job being deleted, if that is so and was not noted at
/// it yet: a change that was too large for one transaction noted it at the app alone.
pub(super) fn follow(app: &Name, key: &Key, mirror: &Mirror) -> Option<Plan> {
    let stored = mirror.apps.get(app)?;
    let (modified, doomed) = match key {
        Key::Service(name) => {
            let service = mirror.services.get(name)?;
            let doomed = prune::doomed_service(&stored.value, &service.value)?;
            (service.modified, text(&doomed))
        }
        Key::Job(name) => {
            let job = mirror.jobs.get(name)?;
            let doomed = prune::doomed_job(&stored.value, &job.value)?;
            (job.modified, text(&doomed))
        }
        Key::App(_) | Key::Revision(..) | Key::Pod(_) | Key::Secret(..) => return None,
    };
    // The app may be wanted again.
    let transaction = Transaction::new()
        .compare(Key::App(app.clone()).to_string(), stored.modified)
        .compare(key.to_string(), modified)
        .put(key.to_string(), doomed);
    Some(Plan {
        transaction,
        ..Plan::default()
    })
}

/// Old revisions of services.
fn revisions(app: &Name, mirror: &Mirror) -> Transaction {
    let services = mirror.services_in(app);
    services.fold(Transaction::new(), |transaction, stored| {
        old_revisions(transaction, stored, mirror)
    })
}

/// A transaction that deletes old revisions of a service as well, as many as it has room for.
fn old_revisions(
    mut transaction: Transaction,
    stored: &Stored<Service>,
    mirror: &Mirror,
) -> Transaction {
    let service = &stored.value;
    let pods: Vec<&Pod> = mirror.pods_of(&service.key).map(|it| &*it.value).collect();
    let kept: Vec<u64> = mirror.revisions_of(&service.key).collect();
    let mut gone = prune::revisions(service, &kept, &pods);
    gone.truncate(MAX_OPERATIONS - transaction.writes.len());
    if gone.is_empty() {
        return transaction;
    }
    let key = Key::Service(service.key.clone()).to_string();
    transaction = transaction.compare(key, stored.modified);
    gone.into_iter().fold(transaction, |transaction, number| {
        let key = Key::Revision(service.key.clone(), number);
        transaction.delete(key.to_string())
    })
}

/// What an app that is being deleted has beside its services.
fn orphans(app: &Name, mirror: &Mirror) -> Transaction {
    let Some(stored) = mirror.apps.get(app).filter(|it| it.value.deleting) else {
        return Transaction::new();
    };
    let (services, pods) = (services(app, mirror), pods(app, mirror));
    let revisions = mirror.revisions_in(app);
    let orphans = prune::orphans(&stored.value, &services, &pods, revisions);
    let key = Key::App(app.clone()).to_string();
    let mut transaction = Transaction::new().compare(key, stored.modified);
    let orphaned = orphans.stop.iter().filter_map(|pod| mirror.pods.get(pod));
    for pod in orphaned.take(MAX_OPERATIONS / 2 - 1) {
        transaction = stop(transaction, pod, ORPHANED, None);
    }
    for (service, number) in orphans.revisions.into_iter().take(MAX_OPERATIONS / 2) {
        transaction = transaction.delete(Key::Revision(service, number).to_string());
    }
    transaction
}

/// Services, jobs and the app itself that are being deleted and have nothing left.
fn finished(app: &Name, mirror: &Mirror) -> Transaction {
    let Some(stored) = mirror.apps.get(app) else {
        return Transaction::new();
    };
    let jobs: Vec<&Job> = mirror.jobs_in(app).map(|it| &*it.value).collect();
    let (services, pods) = (services(app, mirror), pods(app, mirror));
    let mut gone = prune::finished(&stored.value, &services, &jobs, &pods);
    // The app is the last of them, and goes with the last of the others.
    gone.truncate(MAX_OPERATIONS);
    let modified = |key: &Key| match key {
        Key::App(_) => Some(stored.modified),
        Key::Service(name) => mirror.services.get(name).map(|it| it.modified),
        Key::Job(name) => mirror.jobs.get(name).map(|it| it.modified),
        Key::Revision(..) | Key::Pod(_) | Key::Secret(..) => None,
    };
    let gone: Vec<_> = gone
        .iter()
        .filter_map(|key| Some((key, modified(key)?)))
        .collect();
    let transaction = gone
        .iter()
        .fold(Transaction::new(), |transaction, (key, modified)| {
            let key = key.to_string();
            transaction.compare(key.as_str(), *modified).delete(key)
        });
    if !gone.iter().any(|(key, _)| matches!(key, Key::App(_))) {
        return transaction;
    }
    // With the app go its secrets. What is too much here is swept.
    let left = MAX_OPERATIONS - transaction.writes.len();
    let secrets = mirror.secrets_in(app).take(left);
    secrets.fold(transaction, |transaction, key| {
        transaction.delete(key.to_string())
    })
}

fn services<'a>(app: &'a Name, mirror: &'a Mirror) -> Vec<&'a Service> {
    mirror.services_in(app).map(|it| &*it.value).collect()
}

fn pods<'a>(app: &'a Name, mirror: &'a Mirror) -> Vec<&'a Pod> {
    mirror.pods_in(app).map(|it| &*it.value).collect()
}
