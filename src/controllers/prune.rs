//! Removes what nobody needs any more.

use sampan_core::{
    name::Name,
    plan::prune,
    record::{Job, Key, Pod, Service},
};
use sampan_store::{Revision, Transaction};

use super::Plan;
use crate::mirror::{Mirror, Stored};

/// Objects removed in one transaction.
const KEYS_AT_ONCE: usize = 100;

pub(super) fn reconcile(app: &Name, mirror: &Mirror) -> Plan {
    let mut plan = Plan::default();
    let services: Vec<_> = mirror
        .services
        .values()
        .filter(|it| it.value.key.app == *app)
        .collect();
    for stored in &services {
        let service = &stored.value;
        let pods: Vec<Pod> = mirror
            .pods_of(&service.key)
            .map(|it| it.value.clone())
            .collect();
        let revisions: Vec<u64> = mirror.revisions_of(&service.key).collect();
        let mut gone = prune::revisions(service, &revisions, &pods);
        gone.truncate(KEYS_AT_ONCE);
        if gone.is_empty() {
            continue;
        }
        let mut transaction = compare(&Key::Service(service.key.clone()), stored.modified);
        for number in gone {
            let key = Key::Revision(service.key.clone(), number);
            transaction = transaction.delete(key.to_string());
        }
        plan.transactions.push(transaction);
    }
    if !plan.transactions.is_empty() {
        // What can go only after them is looked at when they have gone.
        return plan;
    }
    plan.transactions.extend(finished(app, mirror, &services));
    plan
}

/// Services, jobs and the app itself that are being deleted and have nothing left.
fn finished(app: &Name, mirror: &Mirror, services: &[&Stored<Service>]) -> Option<Transaction> {
    let stored = mirror.apps.get(app)?;
    let services: Vec<Service> = services.iter().map(|it| it.value.clone()).collect();
    let jobs = mirror.jobs.values().map(|it| &it.value);
    let jobs: Vec<Job> = jobs.filter(|it| it.key.app == *app).cloned().collect();
    let pods = services.iter().flat_map(|it| mirror.pods_of(&it.key));
    let pods: Vec<Pod> = pods.map(|it| it.value.clone()).collect();
    let mut gone = prune::finished(&stored.value, &services, &jobs, &pods);
    // The app is the last of them, and goes with the last of the others.
    gone.truncate(KEYS_AT_ONCE);
    let modified = |key: &Key| match key {
        Key::App(_) => Some(stored.modified),
        Key::Service(name) => mirror.services.get(name).map(|it| it.modified),
        Key::Job(name) => mirror.jobs.get(name).map(|it| it.modified),
        Key::Revision(..) | Key::Pod(_) | Key::Event(_) => None,
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
    (!gone.is_empty()).then_some(transaction)
}

fn compare(key: &Key, modified: Revision) -> Transaction {
    Transaction::new().compare(key.to_string(), modified)
}
