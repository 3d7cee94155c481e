//! `limits.cpu`: how much CPU time the instances of a pod have together.
//!
//! It is cut into windows of 100 ms, as by the bandwidth control of Linux's scheduler (`cpu.max` of
//! [cgroup v2](https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu)). Who comes to be resumed
//! when the pod has used up its share of a window is held back until the next one. A guest is looked
//! at once a tick, so it may use more than was left; that is a debt which the following windows pay,
//! and so the mean is exact. What a window leaves over is not saved up.
//!
//! Those held back stand in a line. A few at a time are let go, the first ones first, whenever a
//! guest has run and something is left, and at every epoch tick: the thread of the epochs runs even
//! when all others are inside guests. So those that come later wait for those that came before.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sampan_core::quantity::Cpu;

use crate::{run_state::RunState, threads};

/// How often a pod gets its share: the default period of `cpu.max`, and that of Kubernetes.
const WINDOW: Duration = Duration::from_millis(100);
/// Thousandths of a core in a core.
const MILLIS: u64 = 1000;

/// The CPU time of one pod.
pub(crate) struct CpuQuota {
    /// Of each window.
    share_nanos: i64,
    /// The first window begins here: those of different pods do not begin at the same time.
    base: Instant,
    backlog: Arc<Backlog>,
    line: Mutex<Line>,
}

/// Those held back, and why.
struct Line {
    /// The window that `left_nanos` is of.
    window: u64,
    /// What is left of its share; a debt if less than nothing.
    left_nanos: i64,
    held: VecDeque<Arc<RunState>>,
    /// How many have been let go and have not come to run yet.
    ahead: usize,
    /// Whether it is in the backlog.
    is_listed: bool,
    /// Since when instances have been held because nothing is left.
    since: Option<Instant>,
    /// For how long instances were held, before that.
    throttled: Duration,
}

impl CpuQuota {
    /// A quota whose windows begin now.
    pub(crate) fn new(limit: Cpu, backlog: &Arc<Backlog>) -> Arc<Self> {
        let nanos = WINDOW.as_nanos() as u64 * u64::from(limit.millis) / MILLIS;
        let share_nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        Arc::new(Self {
            share_nanos,
            base: Instant::now(),
            backlog: Arc::clone(backlog),
            line: Mutex::new(Line::new(share_nanos)),
        })
    }

    /// Whether the instance may be resumed now. One that may not stands in the line from now on,
    /// and is woken when it leaves it; but for one that is blocked, which would do nothing anyway.
    pub(crate) fn admits(self: &Arc<Self>, instance: &Arc<RunState>) -> bool {
        let mut line = self.line.lock();
        if instance.is_held() {
            return false;
        }
        let now = Instant::now();
        line.turn_to(self.window(now), self.share_nanos);
        let was_ahead = instance.pass();
        line.ahead -= usize::from(was_ahead);
        if line.left_nanos > 0 && (was_ahead || line.held.is_empty()) {
            return true;
        }
        if instance.blocked().is_none() {
            instance.hold();
            match was_ahead {
                // It has not run since it stood there.
                true => line.held.push_front(Arc::clone(instance)),
                false => line.held.push_back(Arc::clone(instance)),
            }
            line.note(now);
            if !std::mem::replace(&mut line.is_listed, true) {
                self.backlog.add(self);
            }
        }
        false
    }

    /// Whether nothing is left for a guest that has run for so long since it was resumed.
    pub(crate) fn is_spent_after(&self, running: Duration) -> bool {
        let mut line = self.line.lock();
        line.turn_to(self.window(Instant::now()), self.share_nanos);
        line.left_nanos <= i64::try_from(running.as_nanos()).unwrap_or(i64::MAX)
    }

    /// Charges what a guest has used. It counts for the window in which a guest was resumed last.
    pub(crate) fn charge(&self, nanos: u64) {
        let mut line = self.line.lock();
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        line.left_nanos = line.left_nanos.saturating_sub(nanos);
        if !line.held.is_empty() {
            let free = line.let_go(self.backlog.at_once);
            line.note(Instant::now());
            drop(line);
            free.iter().for_each(|instance| instance.resume());
        }
    }

    /// Takes an instance that is not resumed any more out of the line.
    pub(crate) fn forget(&self, instance: &Arc<RunState>) {
        let mut line = self.line.lock();
        if instance.is_held() {
            line.held.retain(|it| !Arc::ptr_eq(it, instance));
            instance.release();
            instance.pass();
            line.note(Instant::now());
        } else if instance.pass() {
            line.ahead -= 1;
        }
    }

    /// For how long at least one instance has been held back because nothing was left.
    pub(crate) fn throttled(&self) -> Duration {
        let line = self.line.lock();
        line.throttled + line.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Lets the first ones go if there is something left. Says whether others are held back still.
    fn look(&self, now: Instant) -> bool {
        let mut line = self.line.lock();
        line.turn_to(self.window(now), self.share_nanos);
        let free = line.let_go(self.backlog.at_once);
        line.note(now);
        line.is_listed = !line.held.is_empty();
        let is_listed = line.is_listed;
        drop(line);
        free.iter().for_each(|instance| instance.resume());
        is_listed
    }

    fn window(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.base);
        (since.as_nanos() / WINDOW.as_nanos()) as u64
    }
}

impl fmt::Debug for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuQuota")
            .field("share_nanos", &self.share_nanos)
            .finish_non_exhaustive()
    }
}

impl Line {
    fn new(left_nanos: i64) -> Self {
        Self {
            window: 0,
            left_nanos,
            held: VecDeque::new(),
            ahead: 0,
            is_listed: false,
            since: None,
            throttled: Duration::ZERO,
        }
    }

    /// Pays debts with the shares of the windows that have begun since, and forgets what was left.
    fn turn_to(&mut self, window: u64, share_nanos: i64) {
        // Of two threads the one that read the clock first may come second.
        let begun = window.saturating_sub(self.window);
        if begun > 0 {
            let begun = i64::try_from(begun).unwrap_or(i64::MAX);
            let more = share_nanos.saturating_mul(begun);
            self.left_nanos = self.left_nanos.saturating_add(more).min(share_nanos);
            self.window = window;
        }
    }

    /// Lets the first ones go, if something is left, so that so many are on their way. They are to
    /// be resumed without this lock.
    fn let_go(&mut self, at_once: usize) -> Vec<Arc<RunState>> {
        let count = match self.left_nanos {
            1.. => at_once.saturating_sub(self.ahead).min(self.held.len()),
            _ => 0,
        };
        let free: Vec<_> = self.held.drain(..count).collect();
        free.iter().for_each(|instance| instance.release());
        self.ahead += count;
        free
    }

    /// Notes whether an instance is held because nothing is left.
    fn note(&mut self, now: Instant) {
        if self.left_nanos <= 0 && !self.held.is_empty() {
            self.since.get_or_insert(now);
        } else if let Some(since) = self.since.take() {
            self.throttled += now.saturating_duration_since(since);
        }
    }
}

/// The quotas that hold an instance back.
#[derive(Debug)]
pub(crate) struct Backlog {
    quotas: Mutex<Vec<Arc<CpuQuota>>>,
    /// How many of a pod are on their way from the line to a processor: enough that none waits for
    /// them, and so few that the others keep their places.
    at_once: usize,
}

impl Default for Backlog {
    fn default() -> Self {
        Self {
            quotas: Mutex::default(),
            at_once: 2 * threads::processors(),
        }
    }
}

impl Backlog {
    fn add(&self, quota: &Arc<CpuQuota>) {
        self.quotas.lock().push(Arc::clone(quota));
    }

    /// Lets those go who may run again. To be called at every epoch tick.
    pub(crate) fn look(&self) {
        // A quota adds itself with its own lock held, so that one cannot be taken under this one.
        let mut quotas = std::mem::take(&mut *self.quotas.lock());
        if quotas.is_empty() {
            return;
        }
        let now = Instant::now();
        quotas.retain(|quota| quota.look(now));
        self.quotas.lock().append(&mut quotas);
    }
}

#[cfg(test)]
mod tests;
