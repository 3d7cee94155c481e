//! A pod: one component with its capabilities and limits, answering HTTP requests.
//!
//! How a request is run depends on the component's world and on what requests may share:
//!
//! | | `isolation = "request"` | `isolation = "pod"` |
//! |---|---|---|
//! | WASI 0.2 | `fresh`: an instance each, at most `concurrency` at once | `kept`: one instance, one request at a time |
//! | WASI 0.3 | `fresh` | `shared`: one instance, up to `concurrency` requests at once |
//!
//! Every request has one deadline over making the instance, the call and the body, and it is kept
//! outside the store: a future inside the store does not run while the guest does.

mod autopsy;
mod body;
mod coredump;
mod driver;
mod explain;
mod failure;
mod fate;
mod fresh;
mod held;
mod kept;
mod p3;
mod probe;
mod question;
mod reception;
mod request;
mod sendable;
mod shared;
pub mod template;
mod termination;

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use sampan_core::{histogram::Distribution, name::PodName, object::Isolation};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};
use wasmtime::Store;
use wasmtime_wasi_http::WasiBody;

use crate::{
    admission::inspect::Wasi,
    engine::{NoPlace, Place},
    lane::Pace,
    logs::Note,
    meter::Usage,
    neighbours::Body,
    observe::{
        cell::Cell,
        source::{Asked, Call},
    },
    runtime::{Runtime, StartError},
    sandbox::{PodContext, State},
};

pub(crate) use autopsy::frames;
use autopsy::{Death, Scope};
pub(crate) use coredump::MAX_AT_ONCE as MAX_DUMPS_AT_ONCE;
pub use coredump::{Coredump, expects_panic};
use driver::Driver;
pub use failure::{CallError, Failure, Remains};
use fate::{Ending, Fate};
pub use probe::Probed;
pub(crate) use question::Exports;
use question::Question;
use request::Expressible;
use sendable::Promise;
use template::Template;
pub use termination::{
    Evidence, Frame, HostCall, OpenWait, PodWatch, RequestReport, Sample, Termination, Unwatched,
};

/// The response of a guest, or the error code it gave in place of one.
type Head = Result<http::Response<WasiBody>, String>;

/// How much later than the deadline a request is given up by whoever waits for it. The task that
/// runs the instance keeps the same deadline and knows better what happened; this is for when the
/// guest, inside one long instruction, keeps that task from running.
const GRACE: Duration = Duration::from_millis(50);

/// One request on its way to an instance. What is asked is in its [`Fate`] until a guest begins.
struct Job {
    asked: Arc<Asked>,
    ending: Ending,
    deadline: Option<Instant>,
    slot: Slot,
}

/// What an instance is to do.
#[derive(Debug)]
enum Task {
    Request(Box<Expressible>),
    Question(Question),
}

/// One of a pod's `concurrency`, held by the instance and by the body of the response. Probes do
/// without.
type Slot = Option<Arc<OwnedSemaphorePermit>>;

/// What all requests of a pod share.
struct Shared {
    context: PodContext,
    template: Arc<Template>,
    runtime: Arc<Runtime>,
    slots: Arc<Semaphore>,
    watch: Arc<dyn PodWatch>,
    /// The instance that stays, if one does.
    instance: Mutex<Weak<Cell>>,
    /// Whether the pod is ended because its guest does not do what it should.
    condemned: AtomicBool,
}

/// A running pod. Dropping it ends its instances at once; drain it first.
pub struct Pod {
    shared: Arc<Shared>,
    driver: Driver,
}

impl Pod {
    /// Starts a pod: makes its instance, or with `isolation = "request"` a trial one. `watch` is
    /// told what becomes of its instances.
    pub async fn start(
        runtime: &Arc<Runtime>,
        name: PodName,
        template: &Arc<Template>,
        watch: Arc<dyn PodWatch>,
    ) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            context: PodContext::new(
                name,
                runtime,
                template.is_concurrent(),
                template.sandbox.cpu,
            ),
            template: Arc::clone(template),
            runtime: Arc::clone(runtime),
            slots: Arc::new(Semaphore::new(template.concurrency() as usize)),
            watch,
            instance: Mutex::default(),
            condemned: AtomicBool::new(false),
        });
        let driver = Driver::start(&shared).await?;
        Ok(Self { shared, driver })
    }

    /// The pod's name.
    pub fn name(&self) -> &PodName {
        self.shared.context.log.pod()
    }

    /// Requests it takes at once.
    pub fn concurrency(&self) -> u32 {
        self.shared.template.concurrency()
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        self.shared.context.meter.usage()
    }

    /// The CPU time of guests for one request, of the requests that have ended, well or badly;
    /// those whose client went away before are not among them, nor are probes.
    ///
    /// With `isolation = "request"` the making of the instance is part of it, as it is for
    /// `request_cpu`. A WASI 0.3 instance that stays may be at several requests at once, and then
    /// nobody knows what each of them costs. Of these only the ones count that had it to themselves,
    /// from their beginning to the head of their response and what came with it.
    pub fn request_cpu(&self) -> Distribution {
        self.shared.context.meter.request_cpu()
    }

    /// Ends its instances at once, and with them the requests they have. It takes no more.
    pub fn end(&self) {
        self.driver.end();
    }

    /// Answers a request.
    ///
    /// Waits while `concurrency` requests are under way, for as long as the request's own deadline
    /// allows. Dropping the future, or the body of the response before its end, gives the request
    /// up: a fresh instance is freed at once, a kept one as soon as its guest notices.
    ///
    /// # Errors
    ///
    /// [`CallError`] has the request in it, as it was given, if no guest had begun to handle it.
    pub async fn call<B>(
        &self,
        request: http::Request<B>,
        request_id: Option<Arc<str>>,
    ) -> Result<http::Response<Body>, CallError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let shared = &self.shared;
        let deadline = shared.template.deadline();
        let call = request.extensions().get::<Arc<Call>>().map(Arc::clone);
        if let Some(call) = &call {
            call.reach_host();
        }
        let asked = Asked::new(request_id, &request, call);
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        let task = match Expressible::parse(request) {
            Ok(request) => Task::Request(Box::new(request)),
            Err(failure) => {
                shared.say(asked.id.clone(), &failure);
                return Err(CallError::over(failure));
            }
        };
        match shared.slot(deadline).await {
            Ok(slot) => self.exchange(Fate::new(&asked, task), deadline, slot).await,
            Err(failure) => Err(CallError::before(failure, Some(task))),
        }
    }

    /// Sends a request to the driver and waits for its answer.
    async fn exchange(
        &self,
        (fate, answer): (Arc<Fate>, oneshot::Receiver<Head>),
        deadline: Option<Instant>,
        slot: Slot,
    ) -> Result<http::Response<Body>, CallError> {
        let shared = &self.shared;
        let asked = Arc::clone(fate.asked());
        let job = Job {
            asked: Arc::clone(&asked),
            ending: Ending::of(&fate),
            deadline,
            slot: slot.clone(),
        };
        let guard = self.driver.send(shared, job).await?;
        let patience = match (shared.template.isolation(), shared.template.wasi()) {
            // The instance outlives the request, so nobody else keeps the request's deadline.
            (Isolation::Pod, Wasi::P3) => deadline,
            _ => deadline.map(|deadline| deadline + GRACE),
        };
        let debt = body::Debt {
            shared: Arc::clone(shared),
            asked,
            fate,
            _slot: slot,
            deadline: patience,
        };
        let failure = match fate::within(patience, answer).await {
            Ok(Ok(Ok(response))) => match sendable::fault(&response) {
                None => {
                    let is_head = debt.asked.method == http::Method::HEAD;
                    let promise = Promise::of(&response, is_head);
                    let body = |inner| body::ResponseBody::new(inner, promise, debt, guard);
                    return Ok(response.map(|inner| body(inner).boxed_unsync()));
                }
                Some(fault) => debt.refuse(Failure::Unsendable(fault)),
            },
            Ok(Ok(Err(code))) => debt.refuse(Failure::ErrorCode(code)),
            // The sender is gone, and why was said before.
            Ok(Err(_)) => debt.fate.failure().unwrap_or(Failure::NoResponse),
            Err(_) => debt.time_out(),
        };
        let fate = &debt.fate;
        // Whatever is said of it after this, no guest begins with it any more.
        if let Some(task) = fate.take_back() {
            return Err(CallError::before(failure, Some(task)));
        }
        let is_bystander = fate.is_bystander()
            || failure == Failure::Stopped && !shared.condemned.load(Ordering::Acquire);
        let repeatable = is_bystander && !fate.called_out();
        let remains = Remains::Nothing { repeatable };
        Err(CallError { failure, remains })
    }
}

impl Shared {
    async fn slot(&self, deadline: Option<Instant>) -> Result<Slot, Failure> {
        let slot = Arc::clone(&self.slots).acquire_owned();
        match fate::within(deadline, slot).await {
            Ok(permit) => Ok(Some(Arc::new(
                permit.expect("the semaphore is never closed"),
            ))),
            Err(_) => Err(Failure::Unavailable("all its slots stayed busy".to_owned())),
        }
    }

    /// A place in the engine's pool. There are fewer than a node may be asked for.
    async fn pool_place(&self) -> Result<Place, Failure> {
        let unavailable = |error: NoPlace| Failure::Unavailable(error.to_string());
        self.template
            .loaded
            .places
            .take()
            .await
            .map_err(unavailable)
    }

    /// Limits the making of an instance: a guest's start function may wait as long as it likes.
    async fn within_start<T>(
        &self,
        instance: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = self.runtime.limits.start_timeout;
        let made = tokio::time::timeout(limit, instance).await;
        made.unwrap_or(Err(Failure::SlowStart(limit)))
    }

    /// Whether more than one request is under way, so that others are likely to follow soon.
    fn is_busy(&self) -> bool {
        self.slots.available_permits() + 1 < self.template.concurrency() as usize
    }

    fn store(&self, pace: &Arc<Pace>) -> Result<Store<State>, Failure> {
        let template = &self.template;
        let engine = template.loaded.pre.engine();
        let store = template.sandbox.store(engine, &self.context, pace);
        store.map_err(|error| Failure::of_error(&error, template).of_making())
    }

    /// Notes the instance that answers from now on.
    fn settle(&self, instance: &Arc<Cell>) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(instance);
    }

    /// The instance that stays, if one does and it lives.
    fn instance(&self) -> Option<Arc<Cell>> {
        let instance = self.instance.lock().unwrap_or_else(PoisonError::into_inner);
        instance.upgrade()
    }

    /// Notes what a request has cost that an instance was at alone.
    fn count(&self, asked: &Asked, cell: &Cell) {
        if !asked.is_probe() {
            self.context.meter.count_request(cell.cpu.spent());
        }
    }

    /// Writes into the pod's log how a request failed.
    fn say(&self, request: Option<Arc<str>>, failure: &Failure) {
        let log = &self.context.log;
        log.note(Note::Failure, request, || failure.to_string());
    }
}
