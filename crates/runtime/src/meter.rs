//! What a pod has used: guest CPU time, memory, instances.

mod allowance;

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use sampan_core::histogram::{Distribution, LogLinear};
use tokio::sync::Semaphore;

use crate::quota::CpuQuota;
use allowance::Allowance;
pub(crate) use allowance::{Excess, Over, Standing, Waited};

/// Polls at least this long are measured in CPU time, shorter ones on the wall clock.
const PRECISE_FROM: Duration = Duration::from_millis(1);

thread_local! {
    /// When the CPU clock of this thread was last read, and what it said in nanoseconds.
    static LAST_READING: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// What a pod has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of its guests, host functions they called included.
    pub cpu: Duration,
    /// Wall-clock time during which at least one of its instances was held back by `limits.cpu`.
    /// `throttled_usec` of `cpu.stat` in cgroup v2 is another sum: that of all processors.
    pub throttled: Duration,
    /// Bytes of linear memory and tables its live instances hold now.
    pub memory_bytes: u64,
    /// The most bytes its live instances held at once.
    pub memory_peak_bytes: u64,
    /// The most bytes that any one of its instances held: what `limits.memory` bounds.
    pub instance_peak_bytes: u64,
    /// Instances made since the pod's start.
    pub instances: u64,
    /// Instances that ended by a trap, a limit or a deadline.
    pub failures: u64,
    /// Of these, the ones that trapped or were killed: that says something about the component.
    pub killed: u64,
    /// Lines of its log that were dropped because there were too many.
    pub log_lines_dropped: u64,
}

/// The totals of one pod, added to by all its instances.
#[derive(Debug, Default)]
pub(crate) struct PodMeter {
    /// Its `limits.cpu`, if it has one.
    quota: Option<Arc<CpuQuota>>,
    cpu_nanos: AtomicU64,
    memory: AtomicU64,
    memory_peak: AtomicU64,
    instance_peak: AtomicU64,
    instances: AtomicU64,
    failures: AtomicU64,
    killed: AtomicU64,
    log_lines_dropped: AtomicU64,
    /// CPU time of each request.
    requests: LogLinear,
}

impl PodMeter {
    pub(crate) fn new(quota: Option<Arc<CpuQuota>>) -> Self {
        Self {
            quota,
            ..Self::default()
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let throttled = self.quota.as_ref().map(|quota| quota.throttled());
        Usage {
            cpu: Duration::from_nanos(self.cpu_nanos.load(Relaxed)),
            throttled: throttled.unwrap_or_default(),
            memory_bytes: self.memory.load(Relaxed),
            memory_peak_bytes: self.memory_peak.load(Relaxed),
            instance_peak_bytes: self.instance_peak.load(Relaxed),
            instances: self.instances.load(Relaxed),
            failures: self.failures.load(Relaxed),
            killed: self.killed.load(Relaxed),
            log_lines_dropped: self.log_lines_dropped.load(Relaxed),
        }
    }

    fn charge(&self, nanos: u64) {
        self.cpu_nanos.fetch_add(nanos, Relaxed);
        if let Some(quota) = &self.quota {
            quota.charge(nanos);
        }
    }

    pub(crate) fn count_instance(&self) {
        self.instances.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_failure(&self, killed: bool) {
        self.failures.fetch_add(1, Relaxed);
        if killed {
            self.killed.fetch_add(1, Relaxed);
        }
    }

    /// Notes what a request has cost that has ended.
    pub(crate) fn count_request(&self, cpu: Duration) {
        self.requests.record(cpu);
    }

    pub(crate) fn request_cpu(&self) -> Distribution {
        self.requests.distribution()
    }

    pub(crate) fn count_dropped_line(&self) {
        self.log_lines_dropped.fetch_add(1, Relaxed);
    }

    /// An instance takes so many bytes more, and `held` with them.
    pub(crate) fn grow_memory(&self, bytes: u64, held: u64) {
        self.instance_peak.fetch_max(held, Relaxed);
        let now = self.memory.fetch_add(bytes, Relaxed) + bytes;
        self.memory_peak.fetch_max(now, Relaxed);
    }

    pub(crate) fn shrink_memory(&self, bytes: u64) {
        self.memory.fetch_sub(bytes, Relaxed);
    }
}

/// The CPU time of one instance, and how much of it the work at hand may still use.
///
/// Only the task that drives the instance writes it, so relaxed loads and stores are enough. There
/// are two exceptions, and both are of one word that the driver takes with a swap:
///
/// - [`Self::wake`] may come from any thread. The thread that wakes the instance writes the time before it
///   wakes the task, which is what makes the driver look; a time that is seen one poll late makes a
///   wait look longer by that poll.
/// - [`Self::end_wait`] may come from the task that reads a body which the guest writes. It is seen
///   at the next epoch tick, or the one after.
///
/// Reading the CPU clock of a thread is a system call of a few hundred nanoseconds, too much for
/// each of the several polls of a short request. So a poll is measured on the wall clock until one
/// takes [`PRECISE_FROM`]; from then on, until a short one, the CPU clock counts, and time in which
/// the guest's thread was preempted does not. A poll that turns out to be long has taken no more
/// than its thread has since its clock was last read, and that is at most [`PRECISE_FROM`] before
/// the poll: so no more than that is counted wrongly, however long the thread was preempted.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    pod: Arc<PodMeter>,
    used_nanos: AtomicU64,
    allowance: Allowance,
    precise: AtomicBool,
    /// Start of the poll under way on the clock that `precise` names.
    poll_start_nanos: AtomicU64,
    /// The same on the wall clock.
    poll_begin_nanos: AtomicU64,
    /// End of the last poll on the wall clock.
    poll_end_nanos: AtomicU64,
    /// How much longer the polls were on the wall clock than the guest ran in them: its thread was
    /// preempted for so long.
    preempted_nanos: AtomicU64,
    /// Whether there was nothing to do for the guest when a poll ended, and it has not been woken
    /// and polled since.
    is_blocked: AtomicBool,
    /// Since when, on the wall clock.
    blocked_nanos: AtomicU64,
    /// When it was last woken on the wall clock; 0 if that was before the last poll.
    woken_nanos: AtomicU64,
    /// When it was last known what the guest had used, on the wall clock, and how much that was.
    seen_at_nanos: AtomicU64,
    seen_nanos: AtomicU64,
    late_nanos: AtomicU64,
    /// All wall-clock readings are relative to this.
    base: Instant,
}

impl CpuMeter {
    pub(crate) fn new(pod: Arc<PodMeter>) -> Self {
        Self {
            pod,
            used_nanos: AtomicU64::new(0),
            allowance: Allowance::default(),
            precise: AtomicBool::new(false),
            poll_start_nanos: AtomicU64::new(0),
            poll_begin_nanos: AtomicU64::new(0),
            poll_end_nanos: AtomicU64::new(0),
            preempted_nanos: AtomicU64::new(0),
            is_blocked: AtomicBool::new(false),
            blocked_nanos: AtomicU64::new(0),
            woken_nanos: AtomicU64::new(0),
            seen_at_nanos: AtomicU64::new(0),
            seen_nanos: AtomicU64::new(0),
            late_nanos: AtomicU64::new(0),
            base: Instant::now(),
        }
    }

    /// What its pod may use, if that is limited.
    pub(crate) fn quota(&self) -> Option<&Arc<CpuQuota>> {
        self.pod.quota.as_ref()
    }

    /// Gives the guest this much CPU time, from now on; zero means any.
    pub(crate) fn set_budget(&self, budget: Duration) {
        self.allowance.give(self.used_nanos(), nanos(budget));
    }

    /// Says that others may be at work in the instance too: see [`Allowance::share`].
    pub(crate) fn share(&self, slots: &Arc<Semaphore>, all: usize) {
        self.allowance.share(slots, all);
    }

    /// How the guest stands. To be asked while it runs.
    pub(crate) fn now(&self) -> Standing {
        let running = self.ran();
        let used = self.used_nanos() + running;
        let now = self.clock(false);
        let standing = self.allowance.stand(used, running);
        if let Some(Excess { by_nanos, .. }) = &standing.excess {
            // Taken that it ran evenly since it was last looked at.
            let seen = self.seen_nanos.load(Relaxed);
            let wall = now.saturating_sub(self.seen_at_nanos.load(Relaxed));
            let ran = used.saturating_sub(seen).max(1);
            let over = (*by_nanos).min(ran);
            let late = u128::from(wall) * u128::from(over) / u128::from(ran);
            self.late_nanos
                .store(late.try_into().unwrap_or(u64::MAX), Relaxed);
        } else {
            self.see(now, used);
        }
        standing
    }

    fn see(&self, at: u64, used: u64) {
        self.seen_at_nanos.store(at, Relaxed);
        self.seen_nanos.store(used, Relaxed);
    }

    /// About how long after its budget was spent the guest was found out.
    pub(crate) fn late(&self) -> Duration {
        Duration::from_nanos(self.late_nanos.load(Relaxed))
    }

    /// What the guest has used of its budget, while it does not run.
    pub(crate) fn spent(&self) -> Duration {
        self.allowance.spent(self.used_nanos())
    }

    /// How the guest has waited since the budget was given, while it does not run.
    pub(crate) fn waited(&self) -> Waited {
        self.allowance.waited(self.used_nanos())
    }

    /// What the guest has used in all, while it runs.
    pub(crate) fn used_now(&self) -> Duration {
        Duration::from_nanos(self.used_nanos() + self.ran())
    }

    /// For how long the guest's thread was preempted in the polls that have ended, and in the one
    /// under way if there is one. Of that, what the guest has run since the last epoch tick counts as
    /// preempted too: a guest that runs is seen at each.
    pub(crate) fn preempted(&self, is_running: bool) -> Duration {
        let mut nanos = self.preempted_nanos.load(Relaxed);
        if is_running {
            let took = self.clock(false);
            let took = took.saturating_sub(self.poll_begin_nanos.load(Relaxed));
            let ran = self.seen_nanos.load(Relaxed);
            nanos += took.saturating_sub(ran.saturating_sub(self.used_nanos()));
        }
        Duration::from_nanos(nanos)
    }

    fn used_nanos(&self) -> u64 {
        self.used_nanos.load(Relaxed)
    }

    /// The guest is resumed.
    pub(crate) fn begin(&self) {
        let precise = self.precise.load(Relaxed);
        let start = self.clock(precise);
        self.poll_start_nanos.store(start, Relaxed);
        let at = match precise {
            true => self.clock(false),
            false => start,
        };
        if !precise {
            self.read_seldom(at);
        }
        self.poll_begin_nanos.store(at, Relaxed);
        // One that has not been woken is polled for another reason, and waits on.
        let woken = self.woken_nanos.swap(0, Relaxed);
        if woken != 0 && self.is_blocked.swap(false, Relaxed) {
            let waited = woken.saturating_sub(self.blocked_nanos.load(Relaxed));
            self.allowance.wait(self.used_nanos(), waited);
        }
        self.see(at, self.used_nanos());
    }

    /// The guest has returned to the host.
    pub(crate) fn end(&self) {
        let spent = self.ran();
        self.used_nanos.store(self.used_nanos() + spent, Relaxed);
        self.allowance.charge(spent);
        self.pod.charge(spent);
        let end = self.clock(false);
        self.poll_end_nanos.store(end, Relaxed);
        let took = end.saturating_sub(self.poll_begin_nanos.load(Relaxed));
        self.preempted_nanos
            .fetch_add(took.saturating_sub(spent), Relaxed);
        self.precise
            .store(u128::from(spent) >= PRECISE_FROM.as_nanos(), Relaxed);
    }

    /// The guest has returned, and there is nothing to do for it until it is woken.
    pub(crate) fn block(&self) {
        if !self.is_blocked.swap(true, Relaxed) {
            let since = self.poll_end_nanos.load(Relaxed);
            self.blocked_nanos.store(since, Relaxed);
        }
    }

    /// What the guest waited for is there, though it may be a while until it runs. One that runs
    /// may wake itself, which ends no wait.
    pub(crate) fn wake(&self) {
        self.woken_nanos.store(self.clock(false).max(1), Relaxed);
    }

    /// Something has ended that a part of the guest really had to wait for, while others may have
    /// been at work.
    pub(crate) fn end_wait(&self) {
        self.allowance.end_wait();
    }

    /// For how long the guest has run in the poll under way.
    fn ran(&self) -> u64 {
        let precise = self.precise.load(Relaxed);
        let start = self.poll_start_nanos.load(Relaxed);
        let ran = self.clock(precise).saturating_sub(start);
        match LAST_READING.get() {
            Some((_, before)) if !precise && u128::from(ran) >= PRECISE_FROM.as_nanos() => {
                ran.min(thread_cpu_nanos().saturating_sub(before))
            }
            _ => ran,
        }
    }

    /// Has the CPU clock of this thread read if that was not done a moment ago. `at` is now.
    fn read_seldom(&self, at: u64) {
        let now = self.base + Duration::from_nanos(at);
        let is_fresh = |(then, _)| now.saturating_duration_since(then) < PRECISE_FROM;
        if !LAST_READING.get().is_some_and(is_fresh) {
            LAST_READING.set(Some((now, thread_cpu_nanos())));
        }
    }

    fn clock(&self, precise: bool) -> u64 {
        match precise {
            true => thread_cpu_nanos(),
            false => nanos(self.base.elapsed()),
        }
    }
}

fn thread_cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works for this long, not counting the time in which others have the processor.
    fn burn(time: Duration) {
        let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).expect("positive");
        let start = now();
        while now() - start < time {
            std::hint::spin_loop();
        }
    }

    /// A thread that does not run, for whatever reason, is no guest that computes.
    #[test]
    fn time_without_a_processor_is_not_counted() {
        let meter = CpuMeter::new(Arc::new(PodMeter::new(None)));
        meter.set_budget(Duration::from_millis(20));
        meter.begin();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(100) {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        assert!(meter.preempted(true) > Duration::from_millis(80));
        let standing = meter.now();
        assert!(standing.excess.is_none(), "{standing:?}");
        meter.end();
        assert!(meter.spent() < Duration::from_millis(20));
        // It is told where a probe asks why it got no answer.
        assert!(meter.preempted(false) > Duration::from_millis(80));
    }

    /// A guest that computes is seen to at each look, and is not called preempted.
    #[test]
    fn time_with_a_processor_is_no_preemption() {
        let meter = CpuMeter::new(Arc::default());
        meter.begin();
        let start = Instant::now();
        let before = meter.preempted(true);
        burn(Duration::from_millis(50));
        let used = meter.now();
        let took = start.elapsed();
        let preempted = meter.preempted(true) - before;
        // What else has the processor meanwhile is in the one as it is in the other.
        let apart = took.saturating_sub(Duration::from_millis(50));
        assert!(preempted <= apart + Duration::from_millis(2), "{used:?}");
        meter.end();
    }

    #[test]
    fn work_is_charged_and_waiting_is_not() {
        let pod = Arc::new(PodMeter::default());
        let meter = CpuMeter::new(Arc::clone(&pod));
        for _ in 0..4 {
            meter.begin();
            burn(Duration::from_millis(5));
            meter.end();
            // Work that is charged to no request stands for the wait.
            burn(Duration::from_millis(50));
        }
        let cpu = pod.usage().cpu;
        // The upper bound is the wall-clock time: what was waited must be missing from it.
        assert!(cpu >= Duration::from_millis(15), "{cpu:?}");
        assert!(cpu < Duration::from_millis(200), "{cpu:?}");
    }

    #[test]
    fn a_budget_counts_from_when_it_is_given() {
        let meter = Arc::new(CpuMeter::new(Arc::default()));
        meter.begin();
        burn(Duration::from_millis(3));
        meter.end();
        meter.set_budget(Duration::from_millis(20));
        meter.begin();
        assert!(meter.now().excess.is_none());
        while meter.now().excess.is_none() {
            burn(Duration::from_millis(1));
        }
        meter.end();
        assert!(meter.used_nanos() >= 20_000_000);
    }

    #[test]
    fn the_peak_is_of_all_instances_together() {
        let pod = PodMeter::default();
        pod.grow_memory(10, 10);
        pod.grow_memory(20, 20);
        pod.shrink_memory(10);
        pod.grow_memory(5, 25);
        let usage = pod.usage();
        assert_eq!((usage.memory_bytes, usage.memory_peak_bytes), (25, 30));
        assert_eq!(usage.instance_peak_bytes, 25);
    }
}
