//! Runs by schedule and by hand: when they begin, what becomes of those that overlap, and what is kept
//! of them, on a clock that stands until it is moved.

use super::*;
use crate::{
    object::{Overlap, Schedule},
    plan::apply,
    record::Why,
};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// A time as RFC 3339, in milliseconds since the beginning of 1970.
fn wall(text: &str) -> u64 {
    let at: jiff::Timestamp = text.parse().expect(text);
    u64::try_from(at.as_millisecond()).expect("after 1970")
}

fn utc(ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).expect("small"));
    at.expect("a time").strftime("%m-%dT%H:%M:%SZ").to_string()
}

/// A node with one job, whose attempts take as long as they are let.
struct World {
    job: Job,
    /// Since the node began.
    now_ms: u64,
    wall_ms: u64,
    boot: u64,
    /// What was told, without the times.
    told: Vec<String>,
    /// When the planner wants to be asked again.
    wake_at: Option<Timestamp>,
}

impl World {
    fn new(expression: &str, zone: &str, overlap: Overlap, from: &str) -> Self {
        let mut job = a_job(0);
        job.spec.schedule = Some(Schedule {
            expression: expression.to_owned(),
            timezone: zone.to_owned(),
            overlap,
        });
        let mut world = Self {
            job,
            now_ms: 0,
            wall_ms: wall(from),
            boot: 1,
            told: Vec::new(),
            wake_at: None,
        };
        world.look();
        world
    }

    fn moment(&self) -> Moment {
        Moment {
            boot: Boot(self.boot),
            now: at(self.now_ms),
            wall_ms: self.wall_ms,
        }
    }

    fn look(&mut self) {
        let moment = self.moment();
        let plan = step(&mut self.job, &Gate::Open, moment);
        let told = plan.announce.iter();
        self.told
            .extend(told.map(|(reason, text)| format!("{reason}: {text}")));
        self.wake_at = plan.wake_at;
    }

    /// Lets time pass, and looks whenever the planner wants to.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(wake) = self.wake_at {
            let wake_ms = u64::try_from(wake.since_zero().as_millis()).expect("small");
            if wake_ms > end {
                break;
            }
            assert!(wake_ms > self.now_ms, "it is not asked for ever");
            self.wall_ms += wake_ms - self.now_ms;
            self.now_ms = wake_ms;
            self.look();
        }
        self.wall_ms += end - self.now_ms;
        self.now_ms = end;
    }

    /// The same, where each attempt ends well as soon as it has begun.
    fn pass_quickly(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            let wake = self.wake_at.map_or(end, |wake| {
                u64::try_from(wake.since_zero().as_millis()).expect("small")
            });
            self.pass(wake.min(end) - self.now_ms);
            self.finish(Ok(()));
        }
    }

    /// Ends the attempt that is under way, if there is one.
    fn finish(&mut self, result: Result<(), String>) {
        self.job.status = after(&self.job, result, self.moment());
        self.look();
    }

    /// The node is down for so long, and starts again.
    fn stop(&mut self, ms: u64) {
        self.wall_ms += ms;
        (self.now_ms, self.boot) = (0, self.boot + 1);
        self.look();
    }

    fn phase(&self) -> &JobPhase {
        &self.job.status.phase
    }

    /// The runs that have ended: number, why, when and how.
    fn runs(&self) -> Vec<String> {
        let runs = self.job.status.runs.ended.iter();
        runs.map(|run| {
            let outcome = run.failure.as_deref().unwrap_or("well");
            let (why, started) = (run.why.as_str(), utc(run.started_ms));
            format!("{} {why} {started} {outcome}", run.number)
        })
        .collect()
    }
}

#[test]
fn it_runs_when_it_is_due() {
    let mut world = World::new("*/5 * * * *", "UTC", Overlap::Skip, "2026-03-01T10:02:00Z");
    assert_eq!(
        (world.phase(), &world.told),
        (&JobPhase::Scheduled, &vec![])
    );
    assert_eq!(world.wake_at, Some(at(3 * MINUTE)));
    world.pass(3 * MINUTE - 1);
    assert_eq!(world.phase(), &JobPhase::Scheduled);
    world.pass(1);
    assert_eq!(world.phase(), &JobPhase::Running);
    world.pass(1_500);
    world.finish(Ok(()));
    assert_eq!(world.phase(), &JobPhase::Scheduled);
    world.pass(10 * MINUTE);
    world.finish(Err("exit code 3".to_owned()));
    assert_eq!(
        world.phase(),
        &JobPhase::Scheduled,
        "it runs again when it is due"
    );
    assert_eq!(
        world.runs(),
        [
            "1 by schedule 03-01T10:05:00Z well",
            "2 by schedule 03-01T10:10:00Z exit code 3"
        ]
    );
    let first = &world.job.status.runs.ended[0];
    assert_eq!(first.ended_ms - first.started_ms, 1_500);
    assert_eq!(
        world.told,
        [
            "JobStarted: run 1 by schedule, attempt 1",
            "JobStarted: run 2 by schedule, attempt 1",
            "JobSkipped: the run by schedule is left out: run 2 is under way",
        ]
    );
}

#[test]
fn of_an_hour_in_which_the_node_is_down_one_run_is_left() {
    let mut world = World::new("*/5 * * * *", "UTC", Overlap::Skip, "2026-03-01T10:01:00Z");
    world.stop(HOUR);
    assert_eq!(world.phase(), &JobPhase::Running);
    world.finish(Ok(()));
    world.pass_quickly(9 * MINUTE);
    assert_eq!(
        world.runs(),
        [
            "1 by schedule 03-01T11:01:00Z well",
            "2 by schedule 03-01T11:05:00Z well",
            "3 by schedule 03-01T11:10:00Z well",
        ]
    );
    // One in which it was not due leaves none.
    let mut world = World::new("0 12 * * *", "UTC", Overlap::Skip, "2026-03-01T10:01:00Z");
    world.stop(HOUR);
    assert_eq!(
        (world.phase(), world.runs()),
        (&JobPhase::Scheduled, vec![])
    );
}

/// What the node's end has cut short goes on, and is not the run that was due meanwhile.
#[test]
fn a_run_that_the_nodes_end_cut_short_is_tried_again() {
    let mut world = World::new("*/5 * * * *", "UTC", Overlap::Skip, "2026-03-01T10:04:00Z");
    world.pass(MINUTE);
    world.stop(HOUR);
    assert_eq!(world.phase(), &JobPhase::Running);
    world.finish(Ok(()));
    assert_eq!(world.runs(), ["1 by schedule 03-01T10:05:00Z well"]);
}

#[test]
fn clocks_in_berlin_go_forward() {
    let from = "2026-03-28T00:00:00Z";
    let mut world = World::new("30 2 * * *", "Europe/Berlin", Overlap::Skip, from);
    world.pass_quickly(72 * HOUR);
    assert_eq!(
        world.runs(),
        [
            "1 by schedule 03-28T01:30:00Z well",
            // 2:30 is left out: 3:00 is the first instant after it.
            "2 by schedule 03-29T01:00:00Z well",
            "3 by schedule 03-30T00:30:00Z well",
        ]
    );
}

#[test]
fn clocks_in_berlin_go_back() {
    let from = "2026-10-24T12:00:00Z";
    let mut world = World::new("*/30 2 * * *", "Europe/Berlin", Overlap::Skip, from);
    world.pass_quickly(40 * HOUR);
    assert_eq!(
        world.runs(),
        [
            "1 by schedule 10-25T00:00:00Z well",
            "2 by schedule 10-25T00:30:00Z well",
            "3 by schedule 10-26T01:00:00Z well",
            "4 by schedule 10-26T01:30:00Z well",
        ]
    );
}

/// The node is down while clocks are changed.
#[test]
fn a_change_of_clocks_that_is_missed() {
    for (from, due) in [
        ("2026-03-29T00:30:00Z", "03-29T03:30:00Z"),
        ("2026-10-25T00:10:00Z", "10-25T03:10:00Z"),
    ] {
        let mut world = World::new("30 2 * * *", "Europe/Berlin", Overlap::Skip, from);
        world.stop(3 * HOUR);
        world.finish(Ok(()));
        world.pass_quickly(12 * HOUR);
        assert_eq!(world.runs(), [format!("1 by schedule {due} well")]);
    }
}

#[test]
fn a_clock_that_is_set_back_runs_nothing_twice() {
    let mut world = World::new("0 * * * *", "UTC", Overlap::Skip, "2026-03-01T09:59:00Z");
    world.pass_quickly(2 * MINUTE);
    assert_eq!(world.runs().len(), 1);
    world.wall_ms -= 30 * MINUTE;
    world.look();
    world.pass_quickly(89 * MINUTE);
    assert_eq!(
        world.runs(),
        [
            "1 by schedule 03-01T10:00:00Z well",
            "2 by schedule 03-01T11:00:00Z well"
        ]
    );
    // One that was wrong by years does not stop the job for years.
    world.wall_ms -= 400 * 24 * HOUR;
    world.look();
    world.pass_quickly(2 * HOUR);
    assert_eq!(world.runs().len(), 4);
    // One that is set forward misses what it leaves out, once.
    world.wall_ms += 5 * HOUR;
    world.look();
    world.finish(Ok(()));
    assert_eq!(world.runs().len(), 5);
}

#[test]
fn a_run_that_is_due_while_another_is_under_way() {
    let from = "2026-03-01T10:04:00Z";
    let mut world = World::new("*/5 * * * *", "UTC", Overlap::Queue, from);
    world.pass(12 * MINUTE);
    assert_eq!(world.phase(), &JobPhase::Running);
    world.finish(Ok(()));
    assert_eq!(world.phase(), &JobPhase::Running, "the one that has waited");
    world.finish(Ok(()));
    assert_eq!(world.phase(), &JobPhase::Scheduled, "only one has waited");
    assert_eq!(
        world.runs(),
        [
            "1 by schedule 03-01T10:05:00Z well",
            "2 by schedule 03-01T10:16:00Z well"
        ]
    );
    assert_eq!(
        world.told,
        [
            "JobStarted: run 1 by schedule, attempt 1",
            "JobQueued: the run by schedule begins when run 1 has ended",
            "JobSkipped: the run by schedule is left out: run 1 is under way, and another one waits \
             for its end",
            "JobStarted: run 2 by schedule, attempt 1",
        ]
    );
    let mut world = World::new("*/5 * * * *", "UTC", Overlap::Replace, from);
    world.pass(6 * MINUTE);
    assert_eq!(world.job.status.runs.present.map(|it| it.number), Some(2));
    world.finish(Ok(()));
    assert_eq!(
        world.runs(),
        [
            "1 by schedule 03-01T10:05:00Z run 2 took its place",
            "2 by schedule 03-01T10:10:00Z well"
        ]
    );
    assert_eq!(
        world.told[1],
        "JobStarted: run 2 by schedule in place of run 1, attempt 1"
    );
}

/// A run waits between its attempts, too.
#[test]
fn a_run_that_is_tried_again_is_under_way() {
    let mut world = World::new("* * * * *", "UTC", Overlap::Skip, "2026-03-01T10:00:59.9Z");
    world.job.spec.retries = 1;
    world.pass(100);
    world.pass(59_900);
    world.finish(Err("exit code 1".to_owned()));
    assert!(matches!(world.phase(), JobPhase::BackOff { .. }));
    world.pass(150);
    assert!(matches!(world.phase(), JobPhase::BackOff { .. }));
    world.pass(50);
    assert_eq!(world.phase(), &JobPhase::Running);
    world.finish(Ok(()));
    let run = &world.job.status.runs.ended[0];
    assert_eq!((run.attempts, &run.failure), (2, &None));
    assert_eq!(world.job.status.runs.count, 1, "{:?}", world.told);
}

#[test]
fn by_hand() {
    let mut world = World::new("0 12 * * *", "UTC", Overlap::Skip, "2026-03-01T10:00:00Z");
    world.job = apply::run(&world.job).expect("possible");
    let twice = apply::run(&world.job).expect_err("one is asked for already");
    assert!(
        twice
            .to_string()
            .contains("a run of `migrate` is under way")
    );
    world.look();
    assert_eq!(world.phase(), &JobPhase::Running);
    assert!(apply::run(&world.job).is_err());
    world.finish(Ok(()));
    assert_eq!(world.runs(), ["1 by hand 03-01T10:00:00Z well"]);
    // It is due at noon all the same.
    world.pass_quickly(3 * HOUR);
    assert_eq!(world.runs()[1], "2 by schedule 03-01T12:00:00Z well");
    // A restart ends what runs.
    world.job = apply::run(&world.job).expect("possible");
    world.look();
    world.job = apply::again(&world.job).expect("possible");
    world.look();
    assert_eq!(world.phase(), &JobPhase::Running);
    world.finish(Ok(()));
    assert_eq!(
        world.runs()[2..],
        [
            "3 by hand 03-01T13:00:00Z the job was changed or restarted meanwhile",
            "4 by restart 03-01T13:00:00Z well"
        ]
    );
    // Where runs may wait, or take another's place, so may one by hand.
    let mut world = World::new("0 12 * * *", "UTC", Overlap::Queue, "2026-03-01T10:00:00Z");
    for _ in 0..2 {
        world.job = apply::run(&world.job).expect("possible");
        world.look();
    }
    world.finish(Ok(()));
    world.finish(Ok(()));
    assert_eq!(world.runs().len(), 2);
}

#[test]
fn a_job_without_a_schedule_is_run_by_hand() {
    let mut job = a_job(0);
    assert!(apply::run(&job).is_err(), "its first run is about to begin");
    let _ = step(&mut job, &Gate::Open, moment(1, 0));
    job.status = after(&job, Ok(()), moment(1, 5));
    let mut again = apply::run(&job).expect("possible");
    let plan = step(&mut again, &Gate::Open, moment(1, 10));
    assert_eq!(
        plan.announce,
        Some((Reason::JobStarted, "run 2 by hand, attempt 1".to_owned()))
    );
    again.status = after(&again, trap(), moment(1, 15));
    let reason = "it trapped".to_owned();
    assert_eq!(again.status.phase, JobPhase::Failed { reason });
    let whys: Vec<_> = again.status.runs.ended.iter().map(|run| run.why).collect();
    assert_eq!(whys, [Why::Applied, Why::Hand]);
}

/// What it depends on is waited for by each run.
#[test]
fn a_run_waits_for_its_gate() {
    let mut world = World::new("* * * * *", "UTC", Overlap::Skip, "2026-03-01T10:00:59Z");
    (world.now_ms, world.wall_ms) = (1_000, world.wall_ms + 1_000);
    let waiting = Gate::Waiting("for service `db` to be ready".to_owned());
    let moment = world.moment();
    let plan = step(&mut world.job, &waiting, moment);
    assert_eq!(words(&plan), ["JobWaiting"]);
    let never = Gate::Never("because job `seed` has failed: exit code 1".to_owned());
    let plan = step(&mut world.job, &never, moment);
    assert_eq!(words(&plan), ["JobFailed"]);
    assert_eq!(world.phase(), &JobPhase::Scheduled);
    assert_eq!(
        world.runs(),
        ["1 by schedule 03-01T10:01:00Z because job `seed` has failed: exit code 1"]
    );
    world.look();
    world.pass(MINUTE);
    assert_eq!(world.phase(), &JobPhase::Running);
}

#[test]
fn the_last_runs_are_kept() {
    let mut world = World::new("* * * * *", "UTC", Overlap::Skip, "2026-03-01T10:00:00Z");
    world.job.spec.history = 3;
    world.pass_quickly(HOUR);
    let kept: Vec<_> = world
        .job
        .status
        .runs
        .ended
        .iter()
        .map(|it| it.number)
        .collect();
    assert_eq!((kept, world.job.status.runs.count), (vec![58, 59, 60], 60));
}

/// A change of the spec counts due times from then on, and runs nothing by itself.
#[test]
fn another_schedule() {
    let mut world = World::new("0 * * * *", "UTC", Overlap::Skip, "2026-03-01T10:30:00Z");
    let schedule = world.job.spec.schedule.as_mut().expect("it has one");
    schedule.expression = "45 * * * *".to_owned();
    world.job.generation += 1;
    world.look();
    assert_eq!(
        (world.phase(), world.wake_at),
        (&JobPhase::Scheduled, Some(at(15 * MINUTE)))
    );
    // Without one it runs once, now.
    world.job.spec.schedule = None;
    world.job.generation += 1;
    world.look();
    world.finish(Ok(()));
    assert_eq!((world.phase(), world.wake_at), (&JobPhase::Completed, None));
    // What cannot be read is never due.
    let mut world = World::new("bad", "Mars/Olympus", Overlap::Skip, "2026-03-01T10:30:00Z");
    world.pass(HOUR);
    assert_eq!((world.phase(), world.wake_at), (&JobPhase::Scheduled, None));
    let deleted = Job {
        deleting: true,
        ..world.job.clone()
    };
    assert!(apply::run(&deleted).is_err());
}
