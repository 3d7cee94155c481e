//! What all requests of a pod share: its template, its slots, the instance that stays.

use std::sync::{Arc, Weak, atomic::AtomicBool};

use parking_lot::Mutex;
use sampan_core::name::PodName;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use wasmtime::{Store, component};

use super::{completion::within, failure::Failure, template::Template, watch::PodWatch};
use crate::{
    engine::Place,
    host::state::State,
    lane::Pace,
    logs::Note,
    observe::{cell::Cell, observed::Observed, source::InboundRequest},
    runtime::Runtime,
    sandbox::PodContext,
};

/// One of a pod's `concurrency`, held by the instance and by the body of the response. Probes do
/// without.
pub(super) type Slot = Option<Arc<OwnedSemaphorePermit>>;

/// What all requests of a pod share.
pub(super) struct PodInner {
    pub(super) context: PodContext,
    pub(super) template: Arc<Template>,
    pub(super) runtime: Arc<Runtime>,
    pub(super) slots: Arc<Semaphore>,
    pub(super) watch: Arc<dyn PodWatch>,
    /// The instance that stays, if one does.
    instance: Mutex<Weak<Cell>>,
    /// Whether the pod is ended because its guest does not do what it should.
    pub(super) condemned: AtomicBool,
}

/// An instance that stays. In this order, so that the place is free when the store is gone.
pub(super) struct Made<T> {
    pub(super) store: Store<State>,
    pub(super) instance: component::Instance,
    pub(super) handler: T,
    pub(super) place: Place,
}

impl PodInner {
    /// A pod without an instance.
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        name: PodName,
        template: &Arc<Template>,
        watch: Arc<dyn PodWatch>,
    ) -> Arc<Self> {
        let (concurrent, sandbox) = (template.loaded.concurrent, &template.sandbox);
        Arc::new(Self {
            context: PodContext::new(name, &runtime.node, concurrent, sandbox),
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
        let place = self.template.loaded.place().await;
        place.map_err(|error| Failure::Unavailable(error.to_string()))
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

    /// Whether more than half of its slots are taken: an instance that could be gone costs the others
    /// their caches then.
    pub(super) fn is_crowded(&self) -> bool {
        self.slots.available_permits() < self.template.concurrency() as usize / 2
    }

    pub(super) fn store(&self, pace: &Arc<Pace>) -> Result<Store<State>, Failure> {
        let template = &self.template;
        let engine = template.loaded.pre.engine();
        let store = template.sandbox.store(engine, &self.context, pace);
        store.map_err(|error| Failure::of_error(&error, template).of_making())
    }

    /// Makes an instance that stays, and answers from now on. `bind` finds what it exports.
    pub(super) async fn make<T>(
        &self,
        pace: &Arc<Pace>,
        bind: impl FnOnce(&component::Instance, &mut Store<State>) -> wasmtime::Result<T>,
    ) -> Result<Made<T>, Failure> {
        let place = self.pool_place().await?;
        let made = self.within_start(async {
            let mut store = self.store(pace)?;
            let cell = Arc::clone(&store.data().cell);
            let instantiate = async {
                let instance = self.template.loaded.pre.instantiate_async(&mut store);
                let instance = self.runtime.timings.instantiation(instance).await?;
                let handler = bind(&instance, &mut store)?;
                wasmtime::error::Ok((instance, handler))
            };
            let made = Observed::making(instantiate, cell).await;
            let (instance, handler) =
                made.map_err(|error| Failure::of_error(&error, &self.template).of_making())?;
            Ok(Made {
                store,
                instance,
                handler,
                place,
            })
        });
        let made = made.await?;
        self.context.meter.count_instance();
        *self.instance.lock() = Arc::downgrade(&made.store.data().cell);
        Ok(made)
    }

    /// The instance that stays, if one does and it lives.
    pub(super) fn instance(&self) -> Option<Arc<Cell>> {
        let instance = self.instance.lock();
        instance.upgrade()
    }

    /// Notes what a request has cost that an instance was at alone.
    pub(super) fn count(&self, inbound: &InboundRequest, cell: &Cell) {
        if !inbound.is_probe() {
            self.context.meter.count_request(cell.cpu.spent());
        }
    }

    /// Writes into the pod's log how a request failed.
    pub(super) fn say(&self, request: Option<Arc<str>>, failure: &Failure) {
        let log = &self.context.log;
        log.note(Note::Failure, request, || failure.to_string());
    }
}
