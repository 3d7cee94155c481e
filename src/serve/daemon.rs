//! A node that keeps apps as a store says: everything that works on it, and how it starts and ends.

use std::sync::Arc;

use sampan_core::name::Name;
use sampan_runtime::{Neighbours, pod::Termination};
use sampan_store::{Store, StoreError};
use tokio::{
    sync::Notify,
    task::{JoinHandle, JoinSet},
};

use super::{Node, chronicle, neighbours::GatewayNeighbours, places::GatewayPlaces};
use crate::{
    agent::{
        node::Agent,
        workshop::{Components, RuntimeWorkshop},
    },
    clock::Clock,
    controllers::Controllers,
    events::{Change, Journal, Subject},
};

/// A daemon at work.
pub(crate) struct Daemon {
    pub(crate) node: Node,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) clock: Clock,
    pub(crate) workshop: Arc<RuntimeWorkshop>,
    /// Told when pods are to rest.
    rest: Arc<Notify>,
    agent: JoinHandle<Result<(), StoreError>>,
    /// Everything that must not end before the daemon does.
    tasks: JoinSet<(&'static str, Result<(), StoreError>)>,
}

impl Daemon {
    /// Starts everything that works on the store, which has pods running at once.
    pub(crate) async fn start(
        node: Node,
        store: Arc<dyn Store>,
        components: Arc<dyn Components>,
        journal: Arc<Journal>,
    ) -> Result<Self, StoreError> {
        journal.restore(chronicle::read(&store).await?);
        let clock = Clock::start();
        let workshop = Arc::new(RuntimeWorkshop::new(
            Arc::clone(&node.runtime),
            components,
            neighbours(&node),
            node.coredumps.clone(),
            Arc::clone(&journal),
        ));
        hear_deadlocks(&node, &journal);
        let rest = Arc::new(Notify::new());
        let agent = Agent {
            store: Arc::clone(&store),
            clock,
            workshop: Arc::clone(&workshop),
            places: Arc::new(GatewayPlaces(Arc::clone(&node.edge))),
            journal: Arc::clone(&journal),
            board: Arc::clone(&node.board),
        };
        let mut tasks = JoinSet::new();
        let (edge, followed) = (Arc::clone(&node.edge), Arc::clone(&store));
        tasks.spawn(async move { ("the edge", edge.follow(&followed).await) });
        let controllers = Controllers {
            store: Arc::clone(&store),
            journal: Arc::clone(&journal),
            clock,
        };
        tasks.spawn(async move { ("the controllers", controllers.run().await) });
        let writing = chronicle::write(Arc::clone(&store), Arc::clone(&journal), journal.last());
        tasks.spawn(async move {
            writing.await;
            ("the chronicle", Ok(()))
        });
        Ok(Self {
            agent: tokio::spawn(agent.run(Arc::clone(&rest))),
            node,
            store,
            journal,
            clock,
            workshop,
            rest,
            tasks,
        })
    }

    /// Resolves when something has ended that must not, with what it was and why.
    pub(crate) async fn failed(&mut self) -> String {
        let why = |end: Result<(), StoreError>| match end {
            Ok(()) => "the store is closed".to_owned(),
            Err(error) => error.to_string(),
        };
        tokio::select! {
            Some(ended) = self.tasks.join_next() => match ended {
                Ok((what, end)) => format!("{what} ended: {}", why(end)),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            ended = &mut self.agent => match ended {
                Ok(end) => format!("the agent ended: {}", why(end)),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }

    /// Lets all pods end their requests and stops them. What is wanted of them stays in the store.
    pub(crate) async fn rest(mut self) {
        self.rest.notify_one();
        // One that was aborted has no pods left.
        let _ = (&mut self.agent).await;
    }
}

fn neighbours(node: &Node) -> Arc<dyn Fn(&Name) -> Arc<dyn Neighbours> + Send + Sync> {
    let edge = Arc::clone(&node.edge);
    Arc::new(move |app| {
        Arc::new(GatewayNeighbours {
            edge: Arc::clone(&edge),
            app: app.clone(),
        })
    })
}

/// Records every deadlock from now on.
pub(super) fn hear_deadlocks(node: &Node, journal: &Arc<Journal>) {
    let (journal, board) = (Arc::clone(journal), Arc::clone(&node.board));
    node.runtime.on_deadlock(move |deadlock| {
        let pod = deadlock.members[deadlock.victim].pod.clone();
        if deadlock.failed_call {
            board.record(&Termination::of_deadlock(deadlock));
        }
        let subject = Subject::Service(pod.service().clone());
        let report = deadlock.to_string();
        journal.record(subject, Change::Deadlock { pod, report });
    });
}
