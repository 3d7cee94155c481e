//! One instance of a pod, from its making to its end, as the runtime and the worker know it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;
use sampan_core::plan::restart::End;
use sampan_runtime::pod::{PodWatch, Termination};
use tokio::sync::Notify;

use crate::agent::{
    handle::PodHandle, registry::PodRegistry, rotation::Rotation, upstream::PodUpstream,
};

/// What the runtime tells of an instance, and what may still be done with it.
pub(super) struct Incarnation<H> {
    upstream: Arc<PodUpstream<H>>,
    rotation: Arc<dyn Rotation>,
    registry: Arc<PodRegistry>,
    life: Mutex<Life<H>>,
    /// Whether its requests are to be counted.
    count: AtomicBool,
    arrived: Notify,
}

/// A change of readiness holds its lock, so that nothing that was decided before the
/// end of the instance is done after it.
enum Life<H> {
    Making,
    Alive(Arc<H>),
    /// It has ended by itself, and the worker does not know yet.
    Ended(End),
    /// The worker knows, or has ended it.
    Over,
}

/// What the worker must be told.
pub(super) enum News {
    /// The instance has ended; how.
    Ended(End),
    /// Its requests are to be counted.
    Count,
}

impl<H: PodHandle> Incarnation<H> {
    pub(super) fn new(
        upstream: &Arc<PodUpstream<H>>,
        rotation: &Arc<dyn Rotation>,
        registry: &Arc<PodRegistry>,
    ) -> Self {
        Self {
            upstream: Arc::clone(upstream),
            rotation: Arc::clone(rotation),
            registry: Arc::clone(registry),
            life: Mutex::new(Life::Making),
            count: AtomicBool::new(false),
            arrived: Notify::new(),
        }
    }

    /// The instance has been made. It may have ended since.
    pub(super) fn install(&self, instance: Arc<H>) {
        self.upstream.hold(&instance);
        let mut life = self.life.lock();
        match *life {
            Life::Making => {
                self.rotation.renew();
                self.upstream.serve(&instance);
                *life = Life::Alive(instance);
            }
            Life::Alive(_) | Life::Ended(_) | Life::Over => {}
        }
    }

    /// The instance, as long as it is alive.
    pub(super) fn instance(&self) -> Option<Arc<H>> {
        match &*self.life.lock() {
            Life::Alive(instance) => Some(Arc::clone(instance)),
            Life::Making | Life::Ended(_) | Life::Over => None,
        }
    }

    /// Lets the pod have requests or not. One whose instance has ended gets none.
    pub(super) fn set_ready(&self, ready: bool) {
        let life = self.life.lock();
        let alive = matches!(*life, Life::Alive(_));
        self.rotation.set_ready(ready && alive);
    }

    /// Whatever the runtime still says of it is of no interest any more.
    pub(super) fn retire(&self) {
        *self.life.lock() = Life::Over;
    }

    /// Has the worker count its requests.
    pub(super) fn count_again(&self) {
        self.count.store(true, Relaxed);
        self.arrived.notify_one();
    }

    /// Waits for news.
    pub(super) async fn news(&self) -> News {
        loop {
            if let Some(end) = self.ended() {
                return News::Ended(end);
            }
            if self.count.swap(false, Relaxed) {
                return News::Count;
            }
            self.arrived.notified().await;
        }
    }

    fn ended(&self) -> Option<End> {
        let mut life = self.life.lock();
        match std::mem::replace(&mut *life, Life::Over) {
            Life::Ended(end) => Some(end),
            other => {
                *life = other;
                None
            }
        }
    }
}

impl<H: PodHandle> PodWatch for Incarnation<H> {
    fn terminated(&self, termination: &Arc<Termination>) {
        let mut life = self.life.lock();
        match *life {
            Life::Making | Life::Alive(_) => {
                self.rotation.set_ready(false);
                self.upstream.close();
                *life = Life::Ended(match termination.exit_code {
                    Some(0) => End::Well,
                    Some(_) | None => End::Failed(termination.to_string()),
                });
            }
            Life::Ended(_) | Life::Over => return,
        }
        drop(life);
        self.registry.record(termination);
        self.arrived.notify_one();
    }

    fn instance_failed(&self, termination: &Arc<Termination>) {
        self.registry.record(termination);
        self.count_again();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::agent::{
        fake::{FakePod, FakeRotation, Stage, termination},
        upstream::PodUpstream,
    };

    #[test]
    fn what_was_decided_before_the_end_is_not_done_after_it() {
        let fake = Arc::<FakeRotation>::default();
        let rotation: Arc<dyn Rotation> = fake.clone();
        let upstream = Arc::new(PodUpstream::empty());
        let incarnation = Incarnation::new(&upstream, &rotation, &Arc::default());
        incarnation.set_ready(true);
        assert!(!fake.ready.load(SeqCst), "nothing is there yet");
        let instance = Arc::new(FakePod(Arc::<Stage>::default()));
        incarnation.install(instance);
        assert_eq!(fake.renewed.load(SeqCst), 1);
        incarnation.set_ready(true);
        assert!(fake.ready.load(SeqCst));
        incarnation.terminated(&termination("it trapped"));
        incarnation.set_ready(true);
        assert!(!fake.ready.load(SeqCst));
        assert!(incarnation.instance().is_none());
    }
}
