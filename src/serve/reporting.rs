//! Brings what the nodes have measured together at the one that plans for all: a node that does not
//! lead tells the one that does, once a second, and that one adds everything up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use sampan_core::{
    load::{Loads, Merged, Report},
    name::Name,
};
use tokio::time::timeout;

use super::{context::NodeContext, member::Member, told::LOADS};
use crate::{
    controllers::autoscale::is_autoscaled,
    load::{Measured, PERIOD},
    mirror::Mirror,
};

/// Time that the node that leads has to take a report: less than that between two of them.
const REPORT_TIME: Duration = Duration::from_millis(900);
const _: () = assert!(REPORT_TIME.as_millis() < PERIOD.as_millis());

/// Reports, or adds up, after each measurement until this is dropped.
pub(super) async fn run(context: NodeContext) {
    let mut loads = context.loads.subscribe();
    let objects = context.objects.follow(&[]).reader();
    let mut failing = Failing::default();
    while loads.changed().await.is_ok() {
        let own = of_autoscaled(&loads.borrow_and_update().clone(), &objects.mirror());
        let merged = match &context.member {
            None => Merged::of_one(own),
            Some(member) if member.leads() => member.members().with(|roster| {
                let name = &member.local.name;
                member.reports.merged((name, own), &roster.sessions)
            }),
            Some(member) => {
                // Another node knows by now.
                context.merged.send_if_modified(|merged| {
                    let nothing = Arc::new(Merged::default());
                    let before = std::mem::replace(merged, nothing);
                    *before != **merged
                });
                failing.note(report(member, own).await);
                continue;
            }
        };
        context.merged.send_replace(Arc::new(merged));
    }
}

/// What the services with an autoscaler have been doing here: of others nothing is decided.
fn of_autoscaled(measured: &Measured, mirror: &Mirror) -> Loads {
    let services = measured.services.iter();
    let decided = services.filter(|(key, _)| {
        let service = mirror.services.get(*key);
        service.is_some_and(|stored| is_autoscaled(&stored.value))
    });
    decided
        .map(|(key, load)| (key.clone(), load.load()))
        .collect()
}

/// Tells the node that leads, if any does.
async fn report(member: &Member, own: Loads) -> Result<(), (Name, String)> {
    let Some(leader) = member.peers.leader() else {
        return Ok(());
    };
    let report = Report {
        boot: member.local.clock.boot(),
        services: own.into_iter().collect(),
    };
    let told = async {
        let text = serde_json::to_vec(&report).map_err(|error| error.to_string())?;
        member.peers.tell(&leader, LOADS, Bytes::from(text)).await
    };
    let told = timeout(REPORT_TIME, told).await;
    let late = || Err(format!("no answer in {} ms", REPORT_TIME.as_millis()));
    told.unwrap_or_else(|_| late())
        .map_err(|reason| (leader.node, reason))
}

/// Says once that reports are not taken, and once that they are again.
#[derive(Default)]
struct Failing(bool);

impl Failing {
    fn note(&mut self, report: Result<(), (Name, String)>) {
        let before = std::mem::replace(&mut self.0, report.is_err());
        match report {
            Err((leader, reason)) if !before => tracing::warn!(
                %leader,
                reason,
                "the node that leads does not take what this node measures: it takes no pod away of \
                 what may be here"
            ),
            Ok(()) if before => tracing::info!("the node that leads takes reports again"),
            Ok(()) | Err(_) => {}
        }
    }
}
