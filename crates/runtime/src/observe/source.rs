//! What a guest waits for, and who could end the wait.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Instant,
};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use sampan_core::name::{Name, PodName, ServiceKey};
use tokio::sync::SetOnce;

use crate::{neighbours::Neighbours, report::Deadlock, run_state::RunState};

/// Requests and calls in the order of their beginning.
static ORDER: AtomicU64 = AtomicU64::new(0);

/// Characters of a request that a report keeps.
const MAX_REQUEST_CHARACTERS: usize = 200;

/// One request that a pod was asked to answer.
#[derive(Debug)]
pub(crate) struct InboundRequest {
    /// Its id, if it has one: a probe has none.
    pub(crate) id: Option<Arc<str>>,
    pub(crate) method: http::Method,
    pub(crate) uri: http::Uri,
    pub(crate) since: Instant,
    /// Higher for whatever began later.
    pub(crate) order: u64,
    /// The call of another guest that this is, if it is one.
    pub(crate) call: Option<Arc<Call>>,
    is_probe: bool,
    answered: AtomicBool,
}

impl InboundRequest {
    pub(crate) fn new<B>(
        id: Option<Arc<str>>,
        request: &http::Request<B>,
        call: Option<Arc<Call>>,
    ) -> Arc<Self> {
        Self::make(id, request, call, false)
    }

    /// A question of the host itself.
    pub(crate) fn probe<B>(request: &http::Request<B>) -> Arc<Self> {
        Self::make(None, request, None, true)
    }

    /// The call of an export by the host, for the report: what the guest is asked without a client.
    pub(crate) fn question(what: &str) -> Arc<Self> {
        let mut request = http::Request::new(());
        // A word is a path, and says enough in a report.
        *request.uri_mut() = what.parse().unwrap_or_default();
        Self::probe(&request)
    }

    fn make<B>(
        id: Option<Arc<str>>,
        request: &http::Request<B>,
        call: Option<Arc<Call>>,
        is_probe: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            method: request.method().clone(),
            uri: request.uri().clone(),
            since: Instant::now(),
            order: ORDER.fetch_add(1, Ordering::Relaxed),
            call,
            is_probe,
            answered: AtomicBool::new(false),
        })
    }

    /// Notes that the head of the response, or word of a failure, is on its way to the caller.
    pub(crate) fn settle(&self) {
        self.answered.store(true, Ordering::Release);
        if let Some(call) = &self.call {
            call.settle();
        }
    }

    /// Whether the host asked.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// The request as reports show it, which is not too long.
    pub(crate) fn line(&self) -> String {
        let mut text = self.to_string();
        if let Some((end, _)) = text.char_indices().nth(MAX_REQUEST_CHARACTERS) {
            text.truncate(end);
            text.push('…');
        }
        text
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Acquire)
    }
}

impl fmt::Display for InboundRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (
            self.is_probe,
            self.uri.scheme(),
            self.uri.path().starts_with('/'),
        ) {
            (true, None, false) => write!(f, "the call of `{}`", self.uri),
            (true, ..) => write!(f, "the probe {} {}", self.method, self.uri),
            (false, ..) => write!(f, "{} {}", self.method, self.uri),
        }
    }
}

/// How far a call has come.
#[derive(Debug)]
enum At {
    /// Not sent yet.
    Begun,
    /// In the gateway's queue.
    Queue,
    /// In a pod, which is making an instance for it, or between two steps of the gateway. Its
    /// pod's host moves it on.
    Host,
    /// In this instance.
    Instance(Weak<RunState>),
}

/// A call from one guest to another service of the node.
pub(crate) struct Call {
    /// Of the same app as the caller.
    pub(crate) service: ServiceKey,
    pub(crate) order: u64,
    /// The pod and the instance of it that called.
    pod: PodName,
    pub(crate) caller: Weak<RunState>,
    neighbours: Arc<dyn Neighbours>,
    at: Mutex<At>,
    settled: AtomicBool,
    failed: SetOnce<Arc<Deadlock>>,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("service", &self.service)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// Who could end a wait for a call.
pub(crate) enum Other {
    /// Something is on its way already, or the host is at work.
    Outside,
    /// This instance.
    Instance(Arc<RunState>),
    /// The instances that hold a slot of the service.
    Slots,
}

impl Call {
    pub(crate) fn new(
        service: Name,
        pod: &PodName,
        caller: &Arc<RunState>,
        neighbours: &Arc<dyn Neighbours>,
    ) -> Arc<Self> {
        Arc::new(Self {
            service: ServiceKey::new(&pod.service().app, &service),
            order: ORDER.fetch_add(1, Ordering::Relaxed),
            pod: pod.clone(),
            caller: Arc::downgrade(caller),
            neighbours: Arc::clone(neighbours),
            at: Mutex::new(At::Begun),
            settled: AtomicBool::new(false),
            failed: SetOnce::new(),
        })
    }

    fn place(&self, at: At) {
        *self.at.lock() = at;
    }

    /// It has been sent and waits; in the queue, if no pod has taken it.
    pub(crate) fn queue(&self) {
        let mut at = self.at.lock();
        if let At::Begun = *at {
            *at = At::Queue;
        }
    }

    /// A pod has it.
    pub(crate) fn reach_host(&self) {
        self.place(At::Host);
    }

    /// An instance has it.
    pub(crate) fn reach(&self, instance: &Arc<RunState>) {
        self.place(At::Instance(Arc::downgrade(instance)));
    }

    /// Notes that the answer, or word of a failure, is on its way.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// The answer, or word of a failure, is on its way to the caller.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) || self.failed.get().is_some()
    }

    /// Who could end a wait for this call.
    pub(crate) fn other(&self) -> Other {
        let at = self.at.lock();
        match &*at {
            At::Queue => Other::Slots,
            At::Begun | At::Host => Other::Outside,
            At::Instance(instance) => instance.upgrade().map_or(Other::Outside, Other::Instance),
        }
    }

    pub(crate) fn neighbours(&self) -> &dyn Neighbours {
        &*self.neighbours
    }

    /// Ends the caller's wait with an error.
    pub(crate) fn fail(&self, deadlock: &Arc<Deadlock>) {
        // Of two reports the first has ended it.
        let _ = self.failed.set(Arc::clone(deadlock));
    }

    /// Waits for [`Self::fail`].
    pub(crate) async fn failed(&self) {
        self.failed.wait().await;
    }
}

/// Whether the reader of a body waits for its writer.
#[derive(Default)]
pub(crate) struct Reading {
    waits: AtomicBool,
    task: AtomicWaker,
}

impl Reading {
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// The reader looks for more. When there is some, this task is woken.
    pub(super) fn begin(&self, task: &Waker) {
        self.task.register(task);
        self.waits.store(true, Ordering::Release);
    }

    /// The reader has got what it looked for.
    pub(super) fn end(&self) {
        self.waits.store(false, Ordering::Release);
    }
}

impl Wake for Reading {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.end();
        self.task.wake();
    }
}

/// What a guest waits for.
#[derive(Clone)]
pub(crate) enum Source {
    /// A time to come.
    Timer,
    /// A timer whose time has come: it only lets others go first.
    Past,
    /// Something outside of this node: a server, a file system, a client.
    Outside(Arc<str>),
    /// The head of the answer to a call.
    Head(Arc<Call>),
    /// More of a body, or room for more of one, that it shares with whom it called.
    Body(Arc<Call>),
    /// The same with its caller.
    Caller(Arc<InboundRequest>),
    /// Room in a body that this one reads, unless it waits for more of it.
    Reader(Arc<Reading>, Box<Source>),
    /// Something that only the guest itself could do.
    Own(&'static str),
    /// All waits that are registered with the cell.
    Registered,
    /// The host does not know.
    Unknown,
}

impl Source {
    /// Whether it is alive whatever other instances do.
    pub(crate) fn is_alive(&self) -> bool {
        match self {
            Self::Timer | Self::Past | Self::Outside(_) | Self::Unknown | Self::Registered => true,
            Self::Caller(inbound) => inbound.call.is_none(),
            Self::Reader(reading, reader) => !reading.waits() && reader.is_alive(),
            Self::Head(call) => call.is_settled(),
            Self::Body(_) | Self::Own(_) => false,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timer => f.write_str("a timer"),
            Self::Past => f.write_str("a timer that is over"),
            Self::Outside(what) => f.write_str(what),
            Self::Head(call) => write!(f, "the answer of `{}`", call.service.name),
            Self::Body(call) => write!(f, "the body it shares with `{}`", call.service.name),
            Self::Caller(inbound) => match &inbound.call {
                None => f.write_str("the client"),
                Some(call) => match call.caller.upgrade() {
                    Some(_) => write!(f, "the body it shares with `{}`", call.pod),
                    None => f.write_str("a caller that is gone"),
                },
            },
            Self::Reader(_, reader) => reader.fmt(f),
            Self::Own(what) => f.write_str(what),
            Self::Registered => f.write_str("a body"),
            Self::Unknown => f.write_str("something in the host"),
        }
    }
}
