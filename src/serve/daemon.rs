//! A node that keeps apps as a store says: everything that works on it, and how it starts and ends.

use std::{sync::Arc, time::Duration};

use sampan_core::record::{Kind, cluster::ClusterKey};
use sampan_store::Revision;
use tokio::{
    sync::{Notify, watch},
    task::{AbortHandle, JoinHandle, JoinSet},
    time::timeout,
};

use super::{
    across,
    context::NodeContext,
    endpoints::{GatewayCallers, GatewayEndpoints},
    keeping, release, reporting,
    sampler::Sampler,
    sweep, waking,
};
use crate::{
    agent::{jobs::Jobs, node::Agent},
    clock::LocalNode,
    cluster::Roster,
    controllers::{
        Controllers,
        autoscale::{Autoscaling, Callers},
        placing::NodesOf,
    },
    panics::joined,
};

/// The key that says which node leads, and the revision that says that it is this one.
type Lead = (String, Revision);
/// Tasks, which say what they were.
type Tasks = JoinSet<&'static str>;

/// A daemon at work.
pub(crate) struct Daemon {
    /// Told when pods are to rest.
    rest: Arc<Notify>,
    agent: JoinHandle<()>,
    /// Everything that must not end before the daemon does.
    tasks: Tasks,
    /// What ends in good order, in this order: what the controllers have done is told, then what was
    /// told is kept, and what guests have printed.
    finish: [Finish; 3],
}

/// A task that can be told to finish what it has begun.
struct Finish {
    finish: Arc<Notify>,
    task: AbortHandle,
}

/// The longest that one of them may take.
const FINISH: Duration = Duration::from_secs(2);

impl Daemon {
    /// Starts everything that works on the store, on the threads of the control side. Pods and
    /// jobs run on those of the caller.
    pub(crate) fn start(context: &NodeContext) -> Self {
        let node = match &context.member {
            Some(member) => member.local.clone(),
            None => LocalNode::start(),
        };
        let rest = Arc::new(Notify::new());
        let store = || Arc::clone(&context.store);
        let journal = || Arc::clone(&context.journal);
        let agent = Agent {
            store: store(),
            node: node.clone(),
            loader: Arc::clone(&context.loader),
            endpoints: Arc::new(GatewayEndpoints(Arc::clone(&context.node.edge))),
            journal: journal(),
            registry: Arc::clone(&context.node.registry),
            threads: Arc::clone(&context.node.threads),
            jobs: Arc::default(),
        };
        let _control = context.node.control.handle().enter();
        let mut tasks = JoinSet::new();
        let sampler = Sampler::new(context);
        tasks.spawn(ended("the sampler", sampler.run()));
        let reporting = reporting::run(context.clone());
        tasks.spawn(ended("what adds up loads", reporting));
        follow_edge(context, &mut tasks);
        let controllers = Planning::begin(context, &node, &mut tasks);
        let jobs = Jobs {
            store: store(),
            node: node.clone(),
            loader: Arc::clone(&context.loader),
            threads: Arc::clone(&context.node.threads),
            runs: Arc::clone(&agent.jobs),
            seen: context.member.as_ref().map(|member| member.seen()),
        };
        let wanted = context
            .objects
            .follow(&[Kind::Job, Kind::Service, Kind::Pod]);
        tasks.spawn(ended("the runner of jobs", jobs.run(wanted)));
        let history = keep_events(context, &mut tasks);
        let lines = keep_lines(context, &mut tasks);
        let apps = context.objects.follow(&[Kind::App]);
        let (keyvalue, runtime) = (&context.keyvalue, &context.node.runtime);
        let releasing = release::run(apps, Arc::clone(keyvalue), Arc::clone(runtime));
        tasks.spawn(ended("what lets go of apps", releasing));
        let current = Arc::clone(&context.current);
        let sweeping = sweep::run(current, Arc::clone(&context.artifacts));
        tasks.spawn(ended("the sweeper", sweeping));
        if let Some(member) = &context.member {
            let objects = context.objects.follow(&[Kind::Revision, Kind::Job]);
            let elsewhere = member.elsewhere(&context.artifacts);
            let keeping = keeping::run(store(), objects, elsewhere);
            tasks.spawn(ended("what fetches components", keeping));
            let gateway = GatewayCallers(context.node.edge.gateway().clone());
            let leading = waking::OfCluster::new(member);
            let telling = async move { waking::run(&gateway, leading).await };
            tasks.spawn(ended("what wakes services", telling));
        }
        let pods = context.objects.follow(&[Kind::Pod, Kind::Service]);
        Self {
            agent: tokio::spawn(agent.run(pods, Arc::clone(&rest))),
            rest,
            tasks,
            finish: [controllers, history, lines],
        }
    }

    /// Resolves when something has ended that must not, with what it was and why: each goes on until
    /// the store is closed.
    pub(crate) async fn failed(&mut self) -> String {
        let what = tokio::select! {
            Some(ended) = self.tasks.join_next() => joined(ended).await,
            ended = &mut self.agent => {
                joined(ended).await;
                "the agent"
            }
        };
        format!("{what} ended: the store is closed")
    }

    /// Lets all pods end their requests and stops them, and jobs with them, in the order of their
    /// dependencies. What is wanted of them stays in the store.
    pub(crate) async fn rest(mut self) {
        self.rest.notify_one();
        // One that was aborted has no pods left.
        let _ = (&mut self.agent).await;
        for Finish { finish, task } in &self.finish {
            finish.notify_one();
            let ended =
                async { while !task.is_finished() && self.tasks.join_next().await.is_some() {} };
            // A disk that takes longer loses events and no more.
            let _ = timeout(FINISH, ended).await;
        }
    }
}

/// What plans on this node: always where it is alone, and while it leads where it is one of several.
struct Planning {
    context: NodeContext,
    node: LocalNode,
    /// Told when nodes have come, gone or changed.
    nodes_changed: Arc<Notify>,
    finish: Arc<Notify>,
}

impl Planning {
    fn begin(context: &NodeContext, node: &LocalNode, tasks: &mut Tasks) -> Finish {
        let finish = Arc::<Notify>::default();
        let planning = Self {
            context: context.clone(),
            node: node.clone(),
            nodes_changed: Arc::default(),
            finish: Arc::clone(&finish),
        };
        let task = tasks.spawn(ended("the controllers", planning.run()));
        Finish { finish, task }
    }

    fn controllers(&self, lead: Option<Lead>) -> impl Future<Output = ()> + use<> {
        let context = &self.context;
        let nodes = lead.as_ref().and_then(|_| self.nodes());
        let controllers = Controllers {
            store: Arc::clone(&context.store),
            journal: Arc::clone(&context.journal),
            node: self.node.clone(),
            lead,
            autoscaling: autoscaling(context),
            rollouts: Arc::clone(&context.rollouts),
            looked: context.looked.clone(),
            nodes,
            nodes_changed: Arc::clone(&self.nodes_changed),
            finish: Arc::clone(&self.finish),
        };
        controllers.run(context.objects.follow(&Kind::ALL))
    }

    /// The nodes on which pods may run.
    fn nodes(&self) -> Option<NodesOf> {
        let member = Arc::clone(self.context.member.as_ref()?);
        Some(Arc::new(move || member.members().with(Roster::for_placing)))
    }

    /// Tells the controllers when other nodes run than before. Ends with the store.
    async fn watch_nodes(&self, mut members: watch::Receiver<Roster>) {
        let mut before = Roster::default();
        while members.changed().await.is_ok() {
            let mut now = members.borrow_and_update().clone();
            // Which node leads changes nothing for pods.
            (now.leader, now.term) = (None, None);
            if std::mem::replace(&mut before, now.clone()) != now {
                self.nodes_changed.notify_one();
            }
        }
    }

    async fn run(self) {
        let Some(member) = &self.context.member else {
            return self.controllers(None).await;
        };
        let mut standing = member.standing();
        let mut members = member.members().changes();
        loop {
            let term = standing.borrow_and_update().term;
            if let Some(revision) = term {
                let lead = Some((ClusterKey::Leader.to_string(), revision));
                tracing::info!("this node leads");
                tokio::select! {
                    () = self.controllers(lead) => return,
                    () = self.watch_nodes(member.members().changes()) => return,
                    _ = standing.wait_for(|it| it.term != term) => {
                        tracing::warn!("this node does not lead any more");
                        self.context.decisions.send_replace(Arc::default());
                    }
                }
                // It may lead again by now.
                continue;
            }
            if members.borrow_and_update().leader.is_some() {
                // What the store says of how things are is of the node that leads.
                self.context.looked.send_replace(true);
            }
            tokio::select! {
                changed = standing.changed() => if changed.is_err() { return },
                changed = members.changed() => if changed.is_err() { return },
                () = self.finish.notified() => return,
            }
        }
    }
}

/// Has the gateway follow the services of the store, and what other nodes have of them.
fn follow_edge(context: &NodeContext, tasks: &mut Tasks) {
    let edge = Arc::clone(&context.node.edge);
    let (services, own) = match &context.member {
        Some(member) => {
            let services = context.objects.follow(&[Kind::Service, Kind::Pod]);
            (services, Some(member.local.name.clone()))
        }
        None => (context.objects.follow(&[Kind::Service]), None),
    };
    tasks.spawn(async move {
        edge.follow(services, own).await;
        "the edge"
    });
    if let Some(member) = &context.member {
        let hearing = across::hear(context.clone(), Arc::clone(member));
        tasks.spawn(ended("what hears of other nodes", hearing));
    }
}

/// Keeps events from now on.
fn keep_events(context: &NodeContext, tasks: &mut Tasks) -> Finish {
    let finish = Arc::<Notify>::default();
    let writing = Arc::clone(&context.history).write(Arc::clone(&finish));
    let task = tasks.spawn(ended("the history of events", writing));
    Finish { finish, task }
}

/// Keeps what guests print from now on.
fn keep_lines(context: &NodeContext, tasks: &mut Tasks) -> Finish {
    let finish = Arc::<Notify>::default();
    let keeping = Arc::clone(&context.lines).keep(Arc::clone(&finish));
    let task = tasks.spawn(ended("the keeper of lines", keeping));
    Finish { finish, task }
}

/// A task that says what it was.
async fn ended(what: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    what
}

fn autoscaling(context: &NodeContext) -> Autoscaling {
    let gateway = context.node.edge.gateway().clone();
    let callers: Arc<dyn Callers> = match &context.member {
        Some(member) => Arc::new(waking::ClusterCallers {
            gateway,
            member: Arc::clone(member),
        }),
        None => Arc::new(GatewayCallers(gateway)),
    };
    Autoscaling {
        loads: context.merged.subscribe(),
        callers,
        decisions: context.decisions.clone(),
    }
}
