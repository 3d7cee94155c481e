//! Runs the attempts of jobs that the store says should run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sampan_core::{
    event::Reason,
    name::{Name, PodName, ServiceKey},
    plan::{
        job,
        stop::{Deletions, Turn},
    },
    provoke,
    quantity::format_duration,
    record::{Job, JobPhase, Key},
};
use sampan_runtime::{
    Stdio,
    command::{self, CommandSpec, Exit, program_name},
    threads::DataThreads,
};
use sampan_store::{Outcome, Store, StoreError, Transaction};
use tokio::{
    sync::{oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};

use super::{
    handle::one_line,
    loader::RuntimeLoader,
    rest::{JobRuns, sleep_until},
};
use crate::{
    clock::LocalNode,
    events::{Change, Subject},
    mirror::{Follower, Mirror, text},
};

/// The runner of jobs.
pub(crate) struct Jobs {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) node: LocalNode,
    pub(crate) loader: Arc<RuntimeLoader>,
    /// The threads that guests run on.
    pub(crate) threads: Arc<DataThreads>,
    /// What the agent is told of them.
    pub(crate) runs: Arc<JobRuns>,
    /// Whether the others see that this node runs, where there are several: while they do not, its
    /// attempts may be given to another node, and so are not under way here.
    pub(crate) seen: Option<watch::Receiver<bool>>,
}

/// How long to wait before a store that failed is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// How long after the others see this node again its attempts begin: by then it knows which have been
/// given to another node.
const SETTLE: Duration = Duration::from_secs(1);

/// An attempt: (generation, run number, attempt number).
type Attempt = (u64, u64, u32);

/// The attempt that the status of a job is about.
fn attempt_of(job: &Job) -> Attempt {
    (job.generation, run_of(job), job.status.attempts)
}

/// The number of the run under way. Where an earlier version began it, it has none: that version had
/// a run for each generation.
fn run_of(job: &Job) -> u64 {
    let present = job.status.runs.present;
    present.map_or(job.generation, |begun| begun.number)
}

/// An attempt that was begun.
struct Begun {
    /// `None` once it was ended before its end.
    attempt: Option<Attempt>,
    task: AbortHandle,
    /// Closed when nothing of it is left.
    gone: oneshot::Receiver<()>,
}

/// The attempts of a node.
struct Attempts {
    jobs: Arc<Jobs>,
    running: BTreeMap<ServiceKey, Begun>,
    tasks: JoinSet<()>,
    /// Since when jobs are being deleted.
    deletions: Deletions,
    /// When jobs that are being deleted wait no more for what depends on them.
    due: BTreeMap<ServiceKey, Instant>,
}

impl Jobs {
    /// Runs attempts until the store is closed. Dropping this ends them.
    pub(crate) async fn run(self, mut follower: Follower) {
        let mut changes = self.runs.changes();
        let mut seen = self.seen.clone();
        let mut attempts = Attempts {
            jobs: Arc::new(self),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            deletions: Deletions::default(),
            due: BTreeMap::new(),
        };
        let mut keys = follower.keys();
        loop {
            attempts.look_at(&follower, keys);
            // Their results are in the store.
            while attempts.tasks.try_join_next().is_some() {}
            keys = BTreeSet::new();
            tokio::select! {
                changed = follower.next() => match changed {
                    Some(changed) => keys = changed,
                    None => return,
                },
                () = changes.next() => attempts.end_told(),
                () = changed(&mut seen) => attempts.seen_or_not(&follower),
                () = sleep_until(attempts.due.values().min().copied()) => {
                    let now = Instant::now();
                    let due = attempts.due.extract_if(.., |_, at| *at <= now);
                    keys = due.map(|(job, _)| Key::Job(job)).collect();
                }
            }
        }
    }
}

impl Attempts {
    /// Looks at the jobs that changes of these keys may concern.
    fn look_at(&mut self, follower: &Follower, keys: BTreeSet<Key>) {
        let mut jobs = BTreeSet::new();
        let mirror = follower.mirror();
        for key in keys {
            match key {
                Key::Job(job) => {
                    jobs.extend(going(&mirror, &job.app));
                    jobs.insert(job);
                }
                // They may be what a job waits for that is being deleted.
                Key::Service(service) => jobs.extend(going(&mirror, &service.app)),
                Key::Pod(pod) if !mirror.pods.contains_key(&pod) => {
                    jobs.extend(going(&mirror, &pod.service().app));
                }
                Key::Pod(_) | Key::App(_) | Key::Revision(..) | Key::Secret(..) => {}
            }
        }
        drop(mirror);
        for job in jobs {
            self.see(follower, &job);
        }
    }

    /// Ends the attempts that were told to, because the node stops.
    fn end_told(&mut self) {
        let runs = Arc::clone(&self.jobs.runs);
        for (job, begun) in self.running.extract_if(.., |job, _| runs.is_told(job)) {
            // What it depends on stops as soon as it is gone, and is told after it.
            let message = "stopped, because the node stops";
            if begun.attempt.is_some() {
                self.jobs.tell_ended(&job, message);
            }
            begun.task.abort();
        }
    }

    /// Ends all attempts when the others do not see this node any more, and begins those that are still
    /// its own some time after they do again.
    fn seen_or_not(&mut self, follower: &Follower) {
        if self.jobs.may_run() {
            let at = Instant::now() + SETTLE;
            let mirror = follower.mirror();
            let running = mirror.jobs.values().filter(|job| {
                let status = &job.value.status;
                status.phase == JobPhase::Running && status.boot == self.jobs.node.clock.boot()
            });
            let due = running.map(|job| (job.value.key.clone(), at));
            self.due.extend(due);
            return;
        }
        for (job, begun) in &mut self.running {
            if begun.attempt.take().is_some() {
                let message = "stopped: the other nodes do not see this one, and may run it";
                self.jobs.tell_ended(job, message);
                begun.task.abort();
            }
        }
    }

    /// Whether a job that is being deleted goes on for now: what depends on it is still there.
    fn is_held(&mut self, follower: &Follower, job: &Job) -> bool {
        let clock = &self.jobs.node.clock;
        let now = clock.now();
        let turn = {
            let mirror = follower.mirror();
            let contents = mirror.contents(&job.key.app);
            let deletion = self.deletions.of(&job.key, &contents, now);
            contents.turn(&job.key, deletion, now)
        };
        match turn {
            Turn::Now { .. } => false,
            Turn::After { until, .. } => {
                if let Some(at) = clock.instant(until) {
                    self.due.insert(job.key.clone(), at);
                }
                true
            }
        }
    }

    fn see(&mut self, follower: &Follower, name: &ServiceKey) {
        let stored = |mirror: &Mirror| mirror.jobs.get(name).map(|it| Arc::clone(&it.value));
        let job = stored(&follower.mirror());
        self.due.remove(name);
        let doomed = job.as_ref().filter(|job| job.deleting);
        match doomed.filter(|job| self.jobs.ends(job)) {
            Some(job) if self.is_held(follower, job) => return,
            Some(_) => {
                let (jobs, name) = (Arc::clone(&self.jobs), name.clone());
                self.tasks.spawn(async move { jobs.give_up(&name).await });
            }
            None if doomed.is_none() => self.deletions.forget(name),
            None => {}
        }
        let wanted = job.as_ref().filter(|job| {
            !job.deleting
                && self.jobs.may_run()
                && job.status.boot == self.jobs.node.clock.boot()
                && job.status.observed_generation == job.generation
                && job.status.phase == JobPhase::Running
        });
        let attempt = wanted.map(|job| attempt_of(job));
        let running = self.running.get(name).and_then(|begun| begun.attempt);
        if running == attempt && attempt.is_some() {
            return;
        }
        // It has ended, or another one takes its place, or its job was changed or deleted.
        let before = self.running.remove(name);
        if let Some(before) = &before {
            before.task.abort();
        }
        if let (Some(job), Some(attempt)) = (wanted, attempt) {
            self.begin(job, attempt, before);
        }
    }

    /// Begins an attempt, after the one `before` it, unless the node stops.
    fn begin(&mut self, job: &Arc<Job>, attempt: Attempt, before: Option<Begun>) {
        let (jobs, job) = (Arc::clone(&self.jobs), Arc::clone(job));
        let Some(attempting) = jobs.runs.begin(&job.key) else {
            return;
        };
        let (name, threads) = (job.key.clone(), Arc::clone(&jobs.threads));
        let (left, gone) = oneshot::channel();
        let run = async move {
            let _attempting = attempting;
            if let Some(before) = before {
                // Two never run at once. That nothing is sent is what is waited for.
                let _ = before.gone.await;
            }
            jobs.attempt(&job).await;
            drop(left);
        };
        let (_, run_number, attempt_number) = attempt;
        let (_, thread) = threads.deal(&name, run_number + u64::from(attempt_number));
        let task = self.tasks.spawn_on(run, thread);
        let begun = Begun {
            attempt: Some(attempt),
            task,
            gone,
        };
        self.running.insert(name, begun);
    }
}

/// The jobs of the app that are being deleted and run.
fn going(mirror: &Mirror, app: &Name) -> impl Iterator<Item = ServiceKey> {
    let jobs = mirror
        .going_in(app)
        .filter_map(|name| mirror.jobs.get(name));
    let going = jobs.filter(|job| job.value.status.phase == JobPhase::Running);
    going.map(|job| job.value.key.clone())
}

/// Resolves when it is another.
async fn changed(seen: &mut Option<watch::Receiver<bool>>) {
    let changed = match seen {
        Some(seen) => seen.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}

impl Jobs {
    /// Whether attempts may be under way here.
    fn may_run(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| *seen.borrow())
    }

    /// Whether a job that runs is ended here when it is deleted: where it runs. If its node is lost, the
    /// controllers write that it has ended.
    fn ends(&self, job: &Job) -> bool {
        let status = &job.status;
        let node = status.node.as_ref();
        status.phase == JobPhase::Running && node.is_none_or(|node| *node == self.node.name)
    }

    /// Tells of a job that was ended before its end.
    fn tell_ended(&self, job: &ServiceKey, message: &str) {
        let change = Change::Announced {
            reason: Reason::Stopped,
            message: message.to_owned(),
        };
        let subject = Subject::Job(job.clone());
        self.loader.journal.record(subject, change);
    }

    async fn attempt(&self, job: &Job) {
        let began = Instant::now();
        provoke::panic_in(provoke::Task::Job);
        let result = self.execute(job).await;
        let change = match &result {
            Ok(()) => Change::Completed {
                took: began.elapsed(),
            },
            Err(reason) => Change::JobFailed {
                reason: reason.clone(),
                again: job.status.attempts <= job.spec.retries,
            },
        };
        let subject = Subject::Job(job.key.clone());
        self.loader.journal.record(subject, change);
        // However long the store is full or slow: else the job would run for ever.
        loop {
            match self.write(job, result.clone()).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(job = %job.key, %error, "cannot write how the job ended");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Notes of a job that is to be deleted that it does not run.
    async fn give_up(&self, name: &ServiceKey) {
        let key = Key::Job(name.clone()).to_string();
        loop {
            let turn = self.store.turns().shared(name.app.as_str()).await;
            let Ok(Some(entry)) = self.store.get(&key).await else {
                return;
            };
            // It may be wanted again.
            let job = serde_json::from_slice::<Job>(&entry.value).ok();
            let runs = |job: &Job| job.deleting && job.status.phase == JobPhase::Running;
            let Some(mut job) = job.filter(runs) else {
                return;
            };
            let reason = "it is being deleted".to_owned();
            job.status.phase = JobPhase::Failed { reason };
            let transaction = Transaction::new()
                .compare(key.as_str(), entry.modified)
                .put(key.as_str(), text(&job));
            match self.store.commit(transaction).await {
                Ok(Outcome::Conflict(_)) => {}
                Ok(Outcome::Committed(_)) => {
                    return self.tell_ended(name, "stopped: it is being deleted");
                }
                Err(error) => {
                    drop(turn);
                    tracing::warn!(job = %name, %error, "cannot delete the job, trying again");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Writes how an attempt ended, if it still counts. Says whether that is done: not if the job was
    /// changed meanwhile.
    async fn write(&self, begun: &Job, result: Result<(), String>) -> Result<bool, StoreError> {
        let key = Key::Job(begun.key.clone()).to_string();
        let _turn = self.store.turns().shared(begun.key.app.as_str()).await;
        let Some(entry) = self.store.get(&key).await? else {
            return Ok(true);
        };
        // What is due meanwhile may be noted beside it.
        let same = |job: &Job| {
            attempt_of(job) == attempt_of(begun)
                && job.status.boot == begun.status.boot
                && job.status.phase == JobPhase::Running
        };
        let now = serde_json::from_slice::<Job>(&entry.value)
            .ok()
            .filter(same);
        let Some(mut job) = now else {
            // Another attempt counts by now.
            return Ok(true);
        };
        job.status = job::after(&job, result, self.node.clock.moment());
        let transaction = Transaction::new()
            .compare(key.as_str(), entry.modified)
            .put(key, text(&job));
        let outcome = self.store.commit(transaction).await?;
        Ok(matches!(outcome, Outcome::Committed(_)))
    }

    /// Runs the job to its end. The error is why it failed.
    async fn execute(&self, job: &Job) -> Result<(), String> {
        let subject = Subject::Job(job.key.clone());
        let spec = &job.spec;
        let loading = self
            .loader
            .load(&subject, &spec.component, &spec.limits, false);
        let loaded = loading.await?;
        let program = [program_name(spec.component.path.as_ref())].into_iter();
        let args: Vec<_> = program.chain(spec.args.iter().cloned()).collect();
        let secrets = self.loader.secrets(&job.key.app, &spec.grants).await?;
        let command = CommandSpec {
            name: PodName::new(&job.key, run_of(job), job.status.attempts.saturating_sub(1)),
            args: &args,
            grants: &spec.grants,
            limits: &spec.limits,
            // Directories of a stored job are absolute.
            base: std::path::Path::new("/"),
            stdio: Stdio::Logs,
            neighbours: Some((self.loader.neighbours)(&job.key.app)),
            keyvalue: Some((self.loader.keyvalue)(&job.key.app)),
            secrets: &secrets,
        };
        let running = command::run(&self.loader.runtime, &loaded, command);
        let ended = match spec.timeout {
            None => running.await,
            // What runs is ended where it is dropped.
            Some(limit) => match timeout(limit, running).await {
                Ok(ended) => ended,
                Err(_) => {
                    let limit = format_duration(limit);
                    return Err(format!("it took longer than its timeout of {limit}"));
                }
            },
        };
        match ended {
            Ok(ended) => match ended.exit {
                Exit::Code(0) => Ok(()),
                Exit::Code(code) => Err(format!("exit code {code}")),
                // The rest is the guest's backtrace.
                Exit::Failed(reason) => Err(reason.lines().next().unwrap_or_default().to_owned()),
            },
            Err(error) => Err(one_line(&error)),
        }
    }
}
