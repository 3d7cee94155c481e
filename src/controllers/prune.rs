//! Removes what nobody needs any more.

use sampan_core::{
    name::{Name, ServiceKey},
    plan::prune,
    record::{App, Job, Key, Pod, Service},
};
use sampan_store::{Revision, Transaction};

use super::Plan;
use crate::mirror::{Mirror, Stored};

/// Revisions removed in one transaction.
const REVISIONS_AT_ONCE: usize = 100;

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
        gone.truncate(REVISIONS_AT_ONCE);
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
    plan.transactions = finished(app, mirror, &services);
    plan
}

/// Services, jobs and the app itself that are being deleted and have nothing left.
fn finished(app: &Name, mirror: &Mirror, services: &[&Stored<Service>]) -> Vec<Transaction> {
    let mut transactions = Vec::new();
    for stored in services {
        let key = &stored.value.key;
        let pods = mirror.pods_of(key).count();
        if prune::is_finished_service(&stored.value, pods) {
            transactions.push(delete(&Key::Service(key.clone()), stored.modified));
        }
    }
    let jobs: Vec<&Stored<Job>> = mirror
        .jobs
        .values()
        .filter(|it| it.value.key.app == *app)
        .collect();
    for stored in &jobs {
        if prune::is_finished_job(&stored.value) {
            let key: ServiceKey = stored.value.key.clone();
            transactions.push(delete(&Key::Job(key), stored.modified));
        }
    }
    if let Some(stored) = mirror.apps.get(app) {
        let record: &App = &stored.value;
        if prune::is_finished_app(record, services.len() + jobs.len()) {
            transactions.push(delete(&Key::App(app.clone()), stored.modified));
        }
    }
    transactions
}

fn compare(key: &Key, modified: Revision) -> Transaction {
    Transaction::new().compare(key.to_string(), modified)
}

fn delete(key: &Key, modified: Revision) -> Transaction {
    compare(key, modified).delete(key.to_string())
}
