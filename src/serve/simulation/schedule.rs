//! A job with a schedule under the whole control loop: over a change of clocks, and over an hour in
//! which the node is down.

use std::cell::Cell;

use sampan_core::{
    object::{Overlap, Schedule},
    plan::job,
    record::{Asked, Job, JobPhase, JobSpec, JobStatus},
    time::Utc,
};
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;

thread_local! {
    /// What the clock on the wall of this test said at this moment. It goes with the paused clock.
    static WALL: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

fn wall_ms() -> u64 {
    let (then_ms, then) = WALL.get().expect("it is set");
    then_ms + u64::try_from(then.elapsed().as_millis()).expect("short")
}

fn set_wall(ms: u64) {
    WALL.set(Some((ms, Instant::now())));
}

fn nightly(expression: &str) -> Job {
    let template = template("good");
    Job {
        key: ServiceKey::parse("shop/nightly").expect("a key"),
        generation: 1,
        spec: JobSpec {
            component: template.component,
            args: Vec::new(),
            retries: 0,
            schedule: Some(Schedule {
                expression: expression.to_owned(),
                timezone: "Europe/Berlin".to_owned(),
                overlap: Overlap::Skip,
            }),
            timeout: None,
            history: 100,
            depends_on: BTreeMap::new(),
            grants: template.grants,
            limits: template.limits,
        },
        status: JobStatus::default(),
        deleting: false,
        asked: Asked::default(),
    }
}

/// One run of a node, in which each attempt of a job ends well at once.
fn node_of_jobs(store: &Arc<Faulty>) -> JoinSet<()> {
    let (_, loads) = watch::channel(Arc::default());
    let (_, mut controllers) = node(store, &Arc::default(), &loads);
    controllers.node.clock = controllers.node.clock.with_wall(wall_ms);
    controllers.store = store.memory.clone();
    let clock = controllers.node.clock;
    let (followed, run) = (controllers.store.clone(), controllers.store.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mirror = mirror(&followed).await;
        controllers.run(mirror.follow(&Kind::ALL)).await;
    });
    tasks.spawn(async move { end_attempts(&run, clock).await });
    tasks
}

async fn end_attempts(store: &Arc<dyn Store>, clock: Clock) {
    let mirror = mirror(store).await;
    let mut follower = mirror.follow(&[Kind::Job]);
    loop {
        let jobs: Vec<_> = {
            let mirror = follower.mirror();
            let jobs = mirror.jobs.values();
            jobs.map(|it| (it.modified, Job::clone(&it.value)))
                .collect()
        };
        for (modified, mut job) in jobs {
            if job.status.phase != JobPhase::Running || job.status.boot != clock.boot() {
                continue;
            }
            job.status = job::after(&job, Ok(()), clock.moment());
            let key = Key::Job(job.key.clone()).to_string();
            let end = Transaction::new().compare(key.as_str(), modified);
            let end = end.put(key, text(&job));
            let _ = store.commit(end).await.expect("memory does not fail");
        }
        if follower.next().await.is_none() {
            return;
        }
    }
}

/// When the job ran, as UTC to the minute.
async fn runs(store: &Memory) -> Vec<String> {
    let key = Key::Job(nightly("").key).to_string();
    let entry = store.get(&key).await.expect("memory does not fail");
    let job: Job = serde_json::from_slice(&entry.expect("it is there").value).expect("a job");
    let minute = |ms| Utc(Duration::from_millis(ms)).to_string()[..16].to_owned();
    let ended = job.status.runs.ended.iter();
    ended.map(|run| minute(run.started_ms)).collect()
}

async fn begin_with(expression: &str, wall_ms: u64) -> Arc<Faulty> {
    let store = Faulty::new(0, false);
    let job = nightly(expression);
    let put = Transaction::new().put(Key::Job(job.key.clone()).to_string(), text(&job));
    let _ = store
        .memory
        .commit(put)
        .await
        .expect("memory does not fail");
    set_wall(wall_ms);
    store
}

const HOUR: Duration = Duration::from_secs(3600);
/// 2026-03-28T12:00:00Z and 2026-10-24T12:00:00Z: the days before clocks in Berlin are changed.
const SPRING_MS: u64 = 1_774_699_200_000;
const AUTUMN_MS: u64 = 1_792_843_200_000;

#[tokio::test(start_paused = true)]
async fn each_due_time_comes_about_once_when_clocks_are_changed() {
    for (from_ms, expected) in [
        (SPRING_MS, ["2026-03-29T01:00", "2026-03-30T00:30"]),
        (AUTUMN_MS, ["2026-10-25T00:30", "2026-10-26T01:30"]),
    ] {
        let store = begin_with("30 2 * * *", from_ms).await;
        let _node = node_of_jobs(&store);
        tokio::time::sleep(HOUR * 47).await;
        assert_eq!(runs(&store.memory).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_missed_runs_comes_to_one() {
    let store = begin_with("*/10 * * * *", SPRING_MS).await;
    let node = node_of_jobs(&store);
    tokio::time::sleep(Duration::from_secs(15 * 60)).await;
    drop(node);
    set_wall(wall_ms() + 3_600_000);
    let _node = node_of_jobs(&store);
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    let expected = ["2026-03-28T12:10", "2026-03-28T13:15", "2026-03-28T13:20"];
    assert_eq!(runs(&store.memory).await, expected);
}
