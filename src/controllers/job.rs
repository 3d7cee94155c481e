//! Does what the planner of jobs says.

use sampan_core::{
    name::{Name, ServiceKey},
    plan::{
        gate::{self, Gate},
        job::{self, JobPlan, Runner},
    },
    record::{Job, JobPhase, Key},
};
use sampan_store::Transaction;

use super::{
    placing::{Placing, keep},
    reconciled::{Plan, Told},
};
use crate::{
    clock::LocalNode,
    events::{Change, Subject},
    mirror::{Mirror, text},
};

pub(super) fn reconcile(
    key: &ServiceKey,
    mirror: &Mirror,
    node: &LocalNode,
    placing: Option<&mut Placing>,
) -> Plan {
    let Some(stored) = mirror.jobs.get(key) else {
        if let Some(placing) = placing {
            placing.forget_job(key);
        }
        return Plan::default();
    };
    let record = &*stored.value;
    let moment = node.clock.moment();
    let gate = gate(record, mirror);
    let (planned, transaction) = match placing {
        None => {
            let runner = Runner::alone(record, moment);
            (
                job::plan(record, &gate, &runner, moment),
                Transaction::new(),
            )
        }
        Some(placing) => match placed(record, &gate, node, placing) {
            Some(planned) => planned,
            // It is looked at again when there is room.
            None => return Plan::default(),
        },
    };
    let mut plan = Plan {
        wake_at: planned.wake_at.and_then(|at| node.clock.instant(at)),
        ..Plan::default()
    };
    if planned.status == record.status {
        return plan;
    }
    let mut next = record.clone();
    next.status = planned.status;
    let name = Key::Job(key.clone()).to_string();
    plan.transaction = transaction
        .compare(name.as_str(), stored.modified)
        .put(name, text(&next));
    plan.placed = vec![Placing::attempt(key)];
    if let Some((reason, message)) = planned.announce {
        plan.told.push(Told {
            subject: Subject::Job(key.clone()),
            change: Change::Announced { reason, message },
        });
    }
    plan
}

/// Whether what the job depends on is as far as it must be.
fn gate(record: &Job, mirror: &Mirror) -> Gate {
    let on = |name: &Name| ServiceKey::new(&record.key.app, name);
    gate::gate(
        &record.spec.depends_on,
        &|name| mirror.services.get(&on(name)).map(|it| &*it.value),
        &|name| mirror.jobs.get(&on(name)).map(|it| &*it.value),
    )
}

/// Plans for a job of which any node may run the attempt, and says in the store where its volumes are
/// from then on. `None` while no node has room for an attempt that is due.
fn placed(
    record: &Job,
    gate: &Gate,
    node: &LocalNode,
    placing: &mut Placing,
) -> Option<(JobPlan, Transaction)> {
    let (boots, moment) = (node.boots(), node.clock.moment());
    let status = &record.status;
    let present = status.node.clone();
    let present = present.filter(|node| boots.of(node) == Some(status.boot));
    let goes_on = present.is_some();
    if record.deleting && status.phase == JobPhase::Running && !goes_on {
        // The node that would end it is lost.
        let mut status = status.clone();
        let reason = "it is being deleted, and its node is lost".to_owned();
        status.phase = JobPhase::Failed { reason };
        let planned = JobPlan {
            status,
            announce: None,
            wake_at: None,
        };
        return Some((planned, Transaction::new()));
    }
    let runner = match status.phase == JobPhase::Running && goes_on {
        // An attempt in the place of this one is on the same node, which waits for the end of this one.
        true => Runner {
            node: present,
            boot: status.boot,
            goes_on,
        },
        false => Runner {
            node: None,
            boot: moment.boot,
            goes_on,
        },
    };
    let planned = job::plan(record, gate, &runner, moment);
    let begins = planned.status.phase == JobPhase::Running && planned.status.node.is_none();
    if !begins {
        return Some((planned, Transaction::new()));
    }
    let (found, volumes) = placing.place_job(record);
    match found {
        Ok(name) => {
            // It has a session, or it would have got nothing.
            let boot = boots.of(&name)?;
            let runner = Runner {
                node: Some(name),
                boot,
                goes_on,
            };
            let planned = job::plan(record, gate, &runner, moment);
            let transaction = keep(Transaction::new(), &record.key.app, &volumes);
            Some((planned, transaction))
        }
        Err(why) => {
            let waiting = Gate::Waiting(format!("for a node: {why}"));
            let planned = job::plan(record, &waiting, &runner, moment);
            let waits = planned.status.phase == JobPhase::Pending;
            waits.then(|| (planned, Transaction::new()))
        }
    }
}
