//! Does what the planner of jobs says.

use sampan_core::{
    name::{Name, ServiceKey},
    plan::{gate, job},
    record::Key,
};
use sampan_store::Transaction;

use super::reconciled::{Plan, Told};
use crate::{
    clock::Clock,
    events::{Change, Subject},
    mirror::{Mirror, text},
};

pub(super) fn reconcile(key: &ServiceKey, mirror: &Mirror, clock: &Clock) -> Plan {
    let Some(stored) = mirror.jobs.get(key) else {
        return Plan::default();
    };
    let record = &*stored.value;
    let on = |name: &Name| ServiceKey::new(&key.app, name);
    let gate = gate::gate(
        &record.spec.depends_on,
        &|name| mirror.services.get(&on(name)).map(|it| &*it.value),
        &|name| mirror.jobs.get(&on(name)).map(|it| &*it.value),
    );
    let planned = job::plan(record, &gate, clock.moment());
    let mut plan = Plan {
        wake_at: planned.wake_at.and_then(|at| clock.instant(at)),
        ..Plan::default()
    };
    if planned.status == record.status {
        return plan;
    }
    let mut next = record.clone();
    next.status = planned.status;
    let name = Key::Job(key.clone()).to_string();
    plan.transaction = Transaction::new()
        .compare(name.as_str(), stored.modified)
        .put(name, text(&next));
    if let Some((reason, message)) = planned.announce {
        plan.told.push(Told {
            subject: Subject::Job(key.clone()),
            change: Change::Announced { reason, message },
        });
    }
    plan
}
