//! What the other nodes say that they measured, at the node that leads.
//!
//! | state | written | read |
//! |---|---|---|
//! | the last report of each node, and when it came | by requests of other nodes, one entry each | once a second, whole |
//!
//! Only nodes of the roster are let in, and one that runs no more is forgotten at the next merge, so
//! there are never more reports than nodes.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use sampan_core::{
    load::{Loads, Merged, Report, Silent, merge},
    name::Name,
    record::{Boot, cluster::NodeSession},
};
use tokio::time::Instant;

/// After this time without a report a node is silent: it may have more than it reported last. Nodes
/// report once a second.
pub(crate) const SILENT_AFTER: Duration = Duration::from_secs(3);

/// The last report of each node.
#[derive(Default)]
pub(crate) struct Reports(Mutex<BTreeMap<Name, Heard>>);

/// A report, and when it came.
struct Heard {
    at: Instant,
    boot: Boot,
    loads: Loads,
}

impl Reports {
    /// Takes what a node says that it measured, in the place of what it said before.
    pub(crate) fn take(&self, node: Name, report: Report) {
        let heard = Heard {
            at: Instant::now(),
            boot: report.boot,
            loads: report.services.into_iter().collect(),
        };
        self.0.lock().insert(node, heard);
    }

    /// What `own` has measured together with what the other nodes that run have reported, and which
    /// of those are silent.
    pub(crate) fn merged(
        &self,
        own: (&Name, Loads),
        sessions: &BTreeMap<Name, NodeSession>,
    ) -> Merged {
        let (now, (own, loads)) = (Instant::now(), own);
        let mut reports = self.0.lock();
        // What an earlier run of a node has reported says nothing of the present one.
        reports.retain(|node, heard| sessions.get(node).is_some_and(|it| it.boot == heard.boot));
        let (mut parts, mut silent) = (vec![loads], BTreeMap::new());
        for node in sessions.keys().filter(|node| *node != own) {
            let quiet = match reports.get(node) {
                Some(heard) if now - heard.at < SILENT_AFTER => {
                    parts.push(heard.loads.clone());
                    continue;
                }
                Some(heard) => {
                    let busy = heard.loads.iter().filter(|(_, load)| load.has_requests());
                    Silent::Had(busy.map(|(service, _)| service.clone()).collect())
                }
                None => Silent::Unheard,
            };
            silent.insert(node.clone(), quiet);
        }
        drop(reports);
        Merged {
            services: merge(parts),
            silent,
        }
    }
}

#[cfg(test)]
mod tests;
