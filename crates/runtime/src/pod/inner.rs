//! What all requests of a pod share: its template, its slots, the instance that stays.

use std::sync::{Arc, Weak, atomic::AtomicBool};

use parking_lot::Mutex;
use sampan_core::name::PodName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use wasmtime::Store;

use super::{failure::Failure, fate::within, template::Template, watch::PodWatch};
use crate::{
    engine::{NoPlace, Place},
    host::state::State,
    lane::Pace,
    logs::Note,
    observe::{cell::Cell, source::Asked},
    runtime::Runtime,
    sandbox::PodContext,
};

/// One of a pod's `concurrency`, held by the instance and by the body of the response. Probes do
/// without.
pub(super) type Slot = Option<Arc<OwnedSemaphorePermit>>;

/// What all requests of a pod share.
pub(super) struct Shared {
    pub(super) context: PodContext,
    pub(super) template: Arc<Template>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) watch: Arc<dyn PodWatch>,
    /// The instance that stays, if one does.
    pub(super) instance: Mutex<Weak<Cell>>,
    /// Whether the pod is ended because its guest does not do what it should.
    pub(super) condemned: AtomicBool,
}

impl Shared {
    /// A pod without an instance.
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        name: PodName,
        template: &Arc<Template>,
        watch: Arc<dyn PodWatch>,
    ) -> Arc<Self> {
        let (concurrent, cpu) = (template.is_concurrent(), template.sandbox.cpu);
        Arc::new(Self {
            context: PodContext::new(name, &runtime.node, concurrent, cpu),
            template: Arc::clone(template),
            runtime: Arc::clone(runtime),
            slots: Arc::new(Semaphore::new(template.concurrency() as usize)),
            watch,
            instance: Mutex::default(),
            condemned: AtomicBool::new(false),
        })
    }

    pub(super) async fn slot(&self, deadline: Option<Instant>) -> Result<Slot, Failure> {
        let slot = Arc::clone(&self.slots).acquire_owned();
        match within(deadline, slot).await {
            Ok(permit) => Ok(Some(Arc::new(
                permit.expect("the semaphore is never closed"),
            ))),
            Err(_) => Err(Failure::Unavailable("all its slots stayed busy".to_owned())),
        }
    }

    /// A place in the engine's pool. There are fewer than a node may be asked for.
    pub(super) async fn pool_place(&self) -> Result<Place, Failure> {
        let unavailable = |error: NoPlace| Failure::Unavailable(error.to_string());
        self.template
            .loaded
            .places
            .take()
            .await
            .map_err(unavailable)
    }

    /// Limits the making of an instance: a guest's start function may wait as long as it likes.
    pub(super) async fn within_start<T>(
        &self,
        instance: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = self.runtime.node.limits.start_timeout;
        let made = tokio::time::timeout(limit, instance).await;
        made.unwrap_or(Err(Failure::SlowStart(limit)))
    }

    /// Whether more than one request is under way, so that others are likely to follow soon.
    pub(super) fn is_busy(&self) -> bool {
        self.slots.available_permits() + 1 < self.template.concurrency() as usize
    }

    pub(super) fn store(&self, pace: &Arc<Pace>) -> Result<Store<State>, Failure> {
        let template = &self.template;
        let engine = template.loaded.pre.engine();
        let store = template.sandbox.store(engine, &self.context, pace);
        store.map_err(|error| Failure::of_error(&error, template).of_making())
    }

    /// Notes the instance that answers from now on.
    pub(super) fn settle(&self, instance: &Arc<Cell>) {
        *self.instance.lock() = Arc::downgrade(instance);
    }

    /// The instance that stays, if one does and it lives.
    pub(super) fn instance(&self) -> Option<Arc<Cell>> {
        let instance = self.instance.lock();
        instance.upgrade()
    }

    /// Notes what a request has cost that an instance was at alone.
    pub(super) fn count(&self, asked: &Asked, cell: &Cell) {
        if !asked.is_probe() {
            self.context.meter.count_request(cell.cpu.spent());
        }
    }

    /// Writes into the pod's log how a request failed.
    pub(super) fn say(&self, request: Option<Arc<str>>, failure: &Failure) {
        let log = &self.context.log;
        log.note(Note::Failure, request, || failure.to_string());
    }
}
