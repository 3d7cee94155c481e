//! HTTP load from this process, on a thread of its own, which keeps to one processor: at a constant
//! rate, or as fast as answers come.
//!
//! Where latencies are told, the rate is constant. Each request has a time at which it is due, and
//! its latency counts from then, so that one which waits for a slow answer before it tells of that
//! wait too: no answer is left out because the server was slow (coordinated omission).

mod pacer;

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fs,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore, oneshot},
    task::{JoinSet, LocalSet},
    time::timeout,
};

use super::BenchError;
use pacer::Pacer;

/// How long a connection that failed waits before the next.
const PAUSE: Duration = Duration::from_millis(5);
/// Reasons of failed requests that are kept for people.
const MAX_REASONS: usize = 5;
/// How long answers may take once the load has ended.
const GRACE: Duration = Duration::from_secs(5);
/// Between these, latencies are told to three digits, in nanoseconds.
const BOUNDS: (u64, u64) = (1_000, 120_000_000_000);

/// An empty histogram of latencies in nanoseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(BOUNDS.0, BOUNDS.1, 3).expect("the bounds are constants")
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) method: http::Method,
    pub(super) host: String,
    pub(super) path: String,
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// By each connection as soon as it has its answer.
    Eager,
    /// So many a second, by the next connection that is free.
    Constant(f64),
}

/// What the answers to the requests of one phase were.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    /// How long the good ones took, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
    /// Requests that were sent, or should have been.
    pub(super) sent: u64,
    /// Requests that were answered with another status than 2xx, or not at all.
    pub(super) failed: u64,
}

/// All answers, by the phase in which they were due.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// Those of which there was a request.
    pub(super) phases: BTreeMap<usize, Answers>,
    /// Why requests failed, of the first of them.
    pub(super) reasons: Vec<String>,
}

impl Outcome {
    fn phase(&mut self, phase: usize) -> &mut Answers {
        let fresh = || Answers {
            latencies: histogram(),
            sent: 0,
            failed: 0,
        };
        self.phases.entry(phase).or_insert_with(fresh)
    }

    fn fail(&mut self, phase: usize, reason: String) {
        self.phase(phase).failed += 1;
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.phases.values().map(|it| it.sent).sum()
    }

    pub(super) fn failed(&self) -> u64 {
        self.phases.values().map(|it| it.failed).sum()
    }
}

#[derive(Default)]
struct Shared {
    phase: AtomicUsize,
    is_over: AtomicBool,
    over: Notify,
    /// The thread that asks, as the system numbers it.
    thread: AtomicI32,
    outcome: Mutex<Outcome>,
}

impl Shared {
    fn end(&self) {
        self.is_over.store(true, Relaxed);
        self.over.notify_one();
    }
}

/// Load that goes on. It ends when this is dropped.
pub(super) struct Load {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<()>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Load {
    /// Puts load on a server, in phase 0.
    pub(super) fn start(target: Target, connections: u32, pace: Pace) -> Result<Self, BenchError> {
        let shared = Arc::<Shared>::default();
        let (send, ended) = oneshot::channel();
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let pacer = match pace {
            Pace::Eager => None,
            Pace::Constant(per_second) => Some((Pacer::new()?, per_second)),
        };
        let asking = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("bench-load".to_owned());
        thread.spawn(move || {
            let thread = rustix::thread::gettid();
            asking.thread.store(thread.as_raw_nonzero().get(), Relaxed);
            // Where the system does not let it, figures are less steady.
            let _ = keep_to_one_processor();
            let work = work(target, connections, pacer, asking);
            LocalSet::new().block_on(&tokio, work);
            // A measurement that was given up has no reader.
            let _ = send.send(());
        })?;
        Ok(Self { shared, ended })
    }

    /// What is due from now on belongs to this phase.
    pub(super) fn enter(&self, phase: usize) {
        self.shared.phase.store(phase, Relaxed);
    }

    /// CPU time that the asking itself has taken so far, in milliseconds, where the system tells it.
    pub(super) fn cpu_ms(&self) -> Option<f64> {
        let thread = self.shared.thread.load(Relaxed);
        if thread == 0 {
            // It has not begun yet.
            return Some(0.0);
        }
        let path = format!("/proc/self/task/{thread}/schedstat");
        let nanos = fs::read_to_string(path).ok()?;
        let nanos: u64 = nanos.split(' ').next()?.parse().ok()?;
        Some(nanos as f64 / 1e6)
    }

    /// Ends it after the answers to come, and says what they all were.
    pub(super) async fn end(mut self) -> Result<Outcome, BenchError> {
        self.shared.end();
        let lost = |_| BenchError::Failed("the thread that puts load on it has ended".to_owned());
        (&mut self.ended).await.map_err(lost)?;
        Ok(std::mem::take(&mut *self.shared.outcome.lock()))
    }
}

/// Binds this thread to the last of the processors that it may use. The scheduler wakes the server's
/// threads beside it or elsewhere, and a thread that moves about would make of one round to the next
/// a median that is half as long or twice.
fn keep_to_one_processor() -> rustix::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(last.expect("it runs on one"));
    sched_setaffinity(None, &one)
}

/// What the connections of one load share.
struct Asking {
    target: Target,
    shared: Arc<Shared>,
    /// Times and phases of requests that are due and not sent, if the rate is constant.
    due: RefCell<VecDeque<(Instant, usize)>>,
    /// One for each of them.
    permits: Semaphore,
    /// Those that have been sent by each connection and have no answer yet.
    under_way: RefCell<Vec<Option<(Instant, usize)>>>,
    is_constant: bool,
}

async fn work(target: Target, connections: u32, pacer: Option<(Pacer, f64)>, shared: Arc<Shared>) {
    let asking = Rc::new(Asking {
        target,
        shared,
        due: RefCell::default(),
        permits: Semaphore::new(0),
        under_way: RefCell::new(vec![None; connections as usize]),
        is_constant: pacer.is_some(),
    });
    let mut all = JoinSet::new();
    for number in 0..connections as usize {
        all.spawn_local(connection(number, Rc::clone(&asking)));
    }
    match pacer {
        Some((pacer, per_second)) => tokio::select! {
            () = asking.shared.over.notified() => {}
            () = pace(pacer, per_second, &asking) => {}
        },
        None => asking.shared.over.notified().await,
    }
    // What is due is still sent, and then connections end.
    asking.permits.add_permits(connections as usize);
    let ended = async { while all.join_next().await.is_some() {} };
    let _ = timeout(GRACE, ended).await;
    all.shutdown().await;
    asking.give_up();
}

/// Makes requests due, at a constant rate.
async fn pace(pacer: Pacer, per_second: f64, asking: &Asking) {
    let Ok(pacer) = pacer.ready() else { return };
    let start = Instant::now();
    for number in 0_u32.. {
        let due = start + Duration::from_secs_f64(f64::from(number) / per_second);
        if pacer.until(due).await.is_err() {
            return;
        }
        let phase = asking.shared.phase.load(Relaxed);
        asking.due.borrow_mut().push_back((due, phase));
        asking.permits.add_permits(1);
    }
}

impl Asking {
    /// The next request, as soon as there is one: when it is due, and the phase it belongs to.
    async fn next(&self) -> Option<(Instant, usize)> {
        let is_over = || self.shared.is_over.load(Relaxed);
        if !self.is_constant {
            let phase = self.shared.phase.load(Relaxed);
            return (!is_over()).then(|| (Instant::now(), phase));
        }
        let permit = self.permits.acquire().await;
        permit.expect("it is never closed").forget();
        self.due.borrow_mut().pop_front()
    }

    fn begun(&self, number: usize, request: (Instant, usize)) {
        self.under_way.borrow_mut()[number] = Some(request);
        self.shared.outcome.lock().phase(request.1).sent += 1;
    }

    /// Takes note of what came of it: a reason if that is a failure.
    fn ended(&self, number: usize, failure: Option<String>) {
        let begun = self.under_way.borrow_mut()[number].take();
        let Some((due, phase)) = begun else { return };
        let mut outcome = self.shared.outcome.lock();
        match failure {
            Some(reason) => outcome.fail(phase, reason),
            None => {
                let nanos = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
                outcome.phase(phase).latencies.saturating_record(nanos);
            }
        }
    }

    /// What has no answer by now has failed.
    fn give_up(&self) {
        let connections = self.under_way.borrow().len();
        for number in 0..connections {
            self.ended(number, Some(format!("no answer within {GRACE:?}")));
        }
        let late = self.due.take();
        let mut outcome = self.shared.outcome.lock();
        for (_, phase) in late {
            outcome.phase(phase).sent += 1;
            outcome.fail(phase, format!("not sent within {GRACE:?}"));
        }
    }
}

async fn connection(number: usize, asking: Rc<Asking>) {
    let mut next = asking.next().await;
    while let Some(first) = next {
        next = match connect(asking.target.address).await {
            Ok(sender) => ask(number, first, sender, &asking).await,
            Err(reason) => {
                asking.begun(number, first);
                asking.ended(number, Some(reason));
                tokio::time::sleep(PAUSE).await;
                asking.next().await
            }
        }
    }
}

pub(super) type Sender = SendRequest<Empty<Bytes>>;

pub(super) async fn connect(address: SocketAddr) -> Result<Sender, String> {
    let no = |error: &dyn std::error::Error| format!("no connection: {error}");
    let stream = TcpStream::connect(address).await.map_err(|it| no(&it))?;
    stream.set_nodelay(true).map_err(|it| no(&it))?;
    let shaken = handshake(TokioIo::new(stream)).await;
    let (sender, connection) = shaken.map_err(|it| no(&it))?;
    // It ends with its sender; what becomes of a request is told where that was sent.
    tokio::spawn(connection);
    Ok(sender)
}

/// Asks one thing after the other, until the connection is closed or all is asked. Returns what is
/// to be asked on another one.
async fn ask(
    number: usize,
    first: (Instant, usize),
    mut sender: Sender,
    asking: &Asking,
) -> Option<(Instant, usize)> {
    let mut request = first;
    loop {
        // One that the server has closed between two requests has lost none.
        if sender.ready().await.is_err() {
            tokio::time::sleep(PAUSE).await;
            return Some(request);
        }
        asking.begun(number, request);
        let failure = match exchange(&mut sender, &asking.target).await {
            Ok(answer) if answer.status.is_success() => None,
            Ok(answer) => Some(format!("status {}", answer.status)),
            Err(reason) => Some(reason),
        };
        let is_broken = failure.is_some() && sender.is_closed();
        asking.ended(number, failure);
        request = asking.next().await?;
        if is_broken {
            return Some(request);
        }
    }
}

/// One answer, read to its end.
pub(super) struct Answer {
    pub(super) status: http::StatusCode,
    /// The revision that gave it, if it says so.
    pub(super) revision: Option<u64>,
}

/// Asks once.
pub(super) async fn exchange(sender: &mut Sender, target: &Target) -> Result<Answer, String> {
    let request = http::Request::builder()
        .method(target.method.clone())
        .uri(&target.path)
        .header(http::header::HOST, &target.host);
    let request = request.body(Empty::new()).map_err(|it| it.to_string())?;
    // After an answer the connection needs a moment until it takes the next request.
    let ready = sender.ready().await;
    ready.map_err(|error| format!("no connection: {error}"))?;
    let response = sender.send_request(request).await;
    let response = response.map_err(|error| format!("no answer: {error}"))?;
    let (head, body) = response.into_parts();
    let broken = |error: hyper::Error| format!("the answer broke off: {error}");
    body.collect().await.map_err(broken)?;
    let revision = head.headers.get("sampan-revision");
    Ok(Answer {
        status: head.status,
        revision: revision.and_then(|it| it.to_str().ok()?.parse().ok()),
    })
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn server() -> (TcpListener, Target) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = Target {
            address: listener.local_addr().expect("an address"),
            method: http::Method::GET,
            host: "bench.localhost".to_owned(),
            path: "/".to_owned(),
        };
        (listener, target)
    }

    async fn request(stream: &mut TcpStream) {
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).await.expect("a request") > 0);
    }

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    #[tokio::test]
    async fn what_is_not_a_whole_good_answer_is_a_failure() {
        let (listener, target) = server().await;
        let load = Load::start(target, 1, Pace::Eager).expect("a thread");
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let bad = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
        for answer in [GOOD, bad, half] {
            request(&mut stream).await;
            load.enter(1);
            stream.write_all(answer).await.expect("it reads");
        }
        load.shared.end();
        drop((stream, listener));
        let outcome = load.end().await.expect("an outcome");
        assert_eq!((outcome.sent(), outcome.failed()), (3, 2), "{outcome:?}");
        let reasons = &outcome.reasons;
        assert_eq!(reasons[0], "status 503 Service Unavailable");
        assert!(
            reasons[1].starts_with("the answer broke off"),
            "{reasons:?}"
        );
        let counts = outcome.phases.values().map(|it| it.latencies.len());
        assert_eq!(counts.collect::<Vec<_>>(), [1, 0]);
    }

    /// One answer that takes long makes all those late that should have been sent meanwhile, and
    /// each of them tells so.
    #[tokio::test]
    async fn a_request_that_had_to_wait_before_it_was_sent_counts_that_time() {
        const HELD: Duration = Duration::from_millis(200);
        let (listener, target) = server().await;
        let load = Load::start(target, 1, Pace::Constant(1000.0)).expect("a thread");
        let (mut stream, _) = listener.accept().await.expect("a connection");
        request(&mut stream).await;
        let begun = Instant::now();
        while begun.elapsed() < HELD {
            tokio::task::yield_now().await;
        }
        load.shared.end();
        let answering = async {
            loop {
                stream.write_all(GOOD).await.expect("it reads");
                let mut head = [0; 1024];
                if stream.read(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
        };
        let (outcome, ()) = tokio::join!(load.end(), answering);
        let answers = &outcome.expect("an outcome").phases[&0];
        assert!(answers.sent >= 190, "{}", answers.sent);
        assert_eq!((answers.latencies.len(), answers.failed), (answers.sent, 0));
        // The times at which they were due are evenly spread over the wait.
        let median = Duration::from_nanos(answers.latencies.value_at_quantile(0.5));
        assert!(median >= HELD / 3, "{median:?}");
    }
}
