//! Condition × failure point × stop order: what `web` waits for at its start, what has become of
//! that when everything stops, whether `web` has started by then, and what stops before what.

use super::*;
use crate::{
    plan::gate::{self, Gate},
    record::Counts,
};

/// What becomes of what `web` depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// A service without a pod yet.
    NotCreated,
    /// A service whose component is missing: its pods are there, and are never prepared.
    ComponentMissing,
    /// A service whose pods fail at each start, or whose startup probe never passes.
    FailsAtStart,
    /// A service that serves.
    Ready,
    /// A service that crashes after `web` has started.
    CrashesAfterReady,
    /// A service whose pods are all gone after `web` has started.
    PodsGone,
    /// A service that is wanted with no pods.
    NoReplicas,
    /// A service that sleeps until it is called.
    Asleep,
    /// A job that waits itself.
    JobPending,
    /// A job that runs.
    JobRuns,
    /// A job that failed and is tried again.
    JobFailsOnce,
    /// A job that took longer than its timeout and is tried again.
    JobTimesOutOnce,
    /// A job that has failed for good.
    JobFails,
    /// A job that has taken longer than its timeout for good.
    JobTimesOut,
    /// A job whose component is missing.
    JobComponentMissing,
    /// A job that failed before it began, because what it depends on has failed.
    JobNeverBegins,
    /// A job that has completed.
    JobCompletes,
    /// A job that has completed, let `web` start, and runs once more.
    JobRunsAgain,
    /// A job that had failed for good when its spec was changed: it waits again.
    JobChanged,
    /// It is in the spec no more, and nothing is left of it.
    Removed,
}

use Point::*;

impl Point {
    fn is_job(self) -> bool {
        matches!(
            self,
            JobPending
                | JobRuns
                | JobFailsOnce
                | JobTimesOutOnce
                | JobFails
                | JobTimesOut
                | JobComponentMissing
                | JobNeverBegins
                | JobCompletes
                | JobRunsAgain
                | JobChanged
        )
    }

    /// The app at this point, without `web`.
    fn world(self, condition: &str) -> World {
        let it = match self.is_job() {
            true => "[job.it]\ncomponent = 'it.wasm'\n",
            false => "[service.it]\ncomponent = 'it.wasm'\n",
        };
        let more = match self {
            NoReplicas => "replicas = 0\n",
            Asleep => "replicas = 0\nautoscale = { min = 0, max = 5, concurrency = 1 }\n",
            _ => "",
        };
        let mut world = World::of(&format!(
            "{it}{more}[service.web]\ncomponent = 'web.wasm'\n\
             depends_on = {{ it = '{condition}' }}\n"
        ));
        match self.is_job() {
            true => self.job(&mut world),
            false => self.service(&mut world),
        }
        world
    }

    fn service(self, world: &mut World) {
        let (pods, ready) = match self {
            ComponentMissing | FailsAtStart | CrashesAfterReady => (1, 0),
            Ready => (1, 1),
            _ => (0, 0),
        };
        (0..pods).for_each(|_| world.run("it"));
        let service = world.services.get_mut(&key("it")).expect("a service");
        service.status.counts = Counts {
            alive: pods,
            ready,
            ..Counts::default()
        };
        if self == Removed {
            world.services.remove(&key("it"));
        }
    }

    fn job(self, world: &mut World) {
        let failed = |reason: &str| JobPhase::Failed {
            reason: reason.to_owned(),
        };
        let again = |reason: &str| JobPhase::BackOff {
            until: at(60_000),
            reason: reason.to_owned(),
        };
        let late = "it took longer than its timeout of 1s";
        let (attempts, phase) = match self {
            JobRuns | JobRunsAgain => (1, JobPhase::Running),
            JobFailsOnce => (1, again("exit code 1")),
            JobTimesOutOnce => (1, again(late)),
            JobFails => (3, failed("exit code 1")),
            JobTimesOut => (1, failed(late)),
            JobComponentMissing => (1, failed("its component is gone")),
            JobNeverBegins => (0, failed("because job `other` has failed")),
            JobCompletes => (1, JobPhase::Completed),
            JobChanged => (3, failed("exit code 1")),
            _ => (0, JobPhase::Pending),
        };
        let job = world.jobs.get_mut(&key("it")).expect("a job");
        job.status.observed_generation = job.generation;
        job.generation += u64::from(self == JobChanged);
        (job.status.attempts, job.status.phase) = (attempts, phase);
    }
}

/// Whether a dependency lets a new `web` start: it opens, it waits, it never opens.
fn gate_of(world: &World) -> char {
    let web = &world.services[&key("web")];
    let found = gate::gate(
        &web.spec.depends_on,
        &|name| world.services.get(&ServiceKey::new(&web.key.app, name)),
        &|name| world.jobs.get(&ServiceKey::new(&web.key.app, name)),
    );
    match found {
        Gate::Open => 'o',
        Gate::Waiting(_) => 'w',
        Gate::Never(_) => 'n',
    }
}

/// Whether `web` runs when everything stops.
const RUNS: bool = true;
const WAITS: bool = false;

/// The condition, the failure point, the gate for a new `web`, whether `web` has started by then,
/// and in which order what is there stops.
const ROWS: [(&str, Point, char, bool, &str); 41] = [
    ("started", NotCreated, 'w', WAITS, ""),
    ("ready", NotCreated, 'w', WAITS, ""),
    ("started", ComponentMissing, 'o', RUNS, "web it"),
    ("ready", ComponentMissing, 'w', WAITS, "it"),
    ("started", FailsAtStart, 'o', RUNS, "web it"),
    ("ready", FailsAtStart, 'w', WAITS, "it"),
    ("started", Ready, 'o', RUNS, "web it"),
    ("ready", Ready, 'o', RUNS, "web it"),
    // What has started stays up when what it depends on goes down.
    ("started", CrashesAfterReady, 'o', RUNS, "web it"),
    ("ready", CrashesAfterReady, 'w', RUNS, "web it"),
    ("started", PodsGone, 'w', RUNS, "web"),
    ("ready", PodsGone, 'w', RUNS, "web"),
    ("started", NoReplicas, 'o', RUNS, "web"),
    ("ready", NoReplicas, 'w', WAITS, ""),
    ("started", Asleep, 'o', RUNS, "web"),
    ("ready", Asleep, 'o', RUNS, "web"),
    ("ready", Removed, 'o', RUNS, "web"),
    ("started", Removed, 'o', RUNS, "web"),
    ("started", JobPending, 'w', WAITS, ""),
    ("completed", JobPending, 'w', WAITS, ""),
    ("started", JobRuns, 'o', RUNS, "web it"),
    ("completed", JobRuns, 'w', WAITS, "it"),
    // Between two attempts there is nothing to stop.
    ("started", JobFailsOnce, 'o', RUNS, "web"),
    ("completed", JobFailsOnce, 'w', WAITS, ""),
    ("started", JobTimesOutOnce, 'o', RUNS, "web"),
    ("completed", JobTimesOutOnce, 'w', WAITS, ""),
    ("started", JobFails, 'o', RUNS, "web"),
    ("completed", JobFails, 'n', WAITS, ""),
    ("started", JobTimesOut, 'o', RUNS, "web"),
    ("completed", JobTimesOut, 'n', WAITS, ""),
    ("started", JobComponentMissing, 'o', RUNS, "web"),
    ("completed", JobComponentMissing, 'n', WAITS, ""),
    ("started", JobNeverBegins, 'n', WAITS, ""),
    ("completed", JobNeverBegins, 'n', WAITS, ""),
    ("started", JobCompletes, 'o', RUNS, "web"),
    ("completed", JobCompletes, 'o', RUNS, "web"),
    ("started", JobRunsAgain, 'o', RUNS, "web it"),
    ("completed", JobRunsAgain, 'w', RUNS, "web it"),
    ("started", JobChanged, 'w', RUNS, "web"),
    ("completed", JobChanged, 'w', WAITS, ""),
    // It had completed, let `web` start, failed when it ran once more, and was changed then.
    ("completed", JobChanged, 'w', RUNS, "web"),
];

#[test]
fn every_condition_at_every_failure_point_stops_in_order() {
    for (condition, point, gate, runs, expected) in ROWS {
        let mut world = point.world(condition);
        let what = format!("{condition} {point:?}");
        assert_eq!(gate_of(&world), gate, "{what}");
        assert!(runs || gate != 'o', "{what}: an open gate holds nothing");
        if runs {
            world.run("web");
        }
        // Each has a request in flight, so that two that stop at once are seen to.
        for name in ["web", "it"] {
            world.busy.insert(key(name), Duration::from_secs(1));
        }
        assert_eq!(
            order(&world.clone().stopped()),
            expected,
            "{what}: the node stops"
        );
        assert_eq!(
            order(&world.deleted()),
            expected,
            "{what}: the app is deleted"
        );
    }
}
