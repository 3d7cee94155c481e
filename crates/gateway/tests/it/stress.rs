//! Slots under thousands of random calls, cancellations and changes: never above capacity, none
//! lost, no request forgotten in the queue.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use sampan_core::fault::Fault;
use sampan_gateway::{
    BodyError, Endpoint, EndpointState, Gateway, ServiceConfig, Upstream, UpstreamError,
};

use crate::fixture::*;

const TASKS: u64 = 24;
const CALLS: u32 = 400;

/// Counts the requests inside a pod.
struct Inside(Arc<AtomicU32>);

impl Inside {
    fn enter(count: &Arc<AtomicU32>, capacity: u32) -> Self {
        let inside = count.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(
            inside <= capacity,
            "{inside} requests in a pod for {capacity}"
        );
        Self(count.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A body of a few frames that is inside its pod until it is dropped.
struct Slow {
    frames: u32,
    is_due: bool,
    _inside: Inside,
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.frames == 0 {
            return Poll::Ready(None);
        }
        self.is_due = !self.is_due;
        if self.is_due {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

fn busy(capacity: u32, seed: u64) -> Arc<dyn Upstream> {
    let count = Arc::<AtomicU32>::default();
    let seeds = std::sync::Mutex::new(Rng::with_seed(seed));
    pod(move |_, _| {
        let inside = Inside::enter(&count, capacity);
        let mut rng = seeds.lock().unwrap().fork();
        async move {
            for _ in 0..rng.u32(..6) {
                tokio::task::yield_now().await;
            }
            if rng.u32(..10) == 0 {
                return Err(UpstreamError::new(Fault::TimedOut));
            }
            let body = Slow {
                frames: rng.u32(..4),
                is_due: false,
                _inside: inside,
            };
            Ok(Response::new(body.boxed_unsync()))
        }
    })
}

/// One client: calls that run to their end, and calls that are dropped at a random point.
async fn client(gateway: Gateway, mut rng: Rng) -> u32 {
    let mut answered = 0;
    for _ in 0..CALLS {
        let patience = rng.bool().then(|| rng.u32(..30));
        let answer = async {
            let answer = gateway.handle(get("/"), None).await;
            let status = answer.status();
            answer.into_body().collect().await.unwrap();
            status
        };
        let status = tokio::select! {
            status = answer => status,
            () = run_out(patience) => continue,
        };
        // 503 would mean that a wake-up was lost: there is room in the queue, and time.
        assert!(status == 200 || status == 504, "{status}");
        answered += 1;
    }
    answered
}

async fn run_out(patience: Option<u32>) {
    match patience {
        None => std::future::pending().await,
        Some(steps) => {
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Changes states and publishes subsets until told to stop, then makes all ready again.
async fn disturb(
    gateway: Gateway,
    config: ServiceConfig,
    endpoints: Vec<Arc<Endpoint>>,
    mut rng: Rng,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let endpoint = &endpoints[rng.usize(..endpoints.len())];
        match rng.u32(..4) {
            0 => endpoint.set_state(EndpointState::Unready),
            1 | 2 => endpoint.set_state(EndpointState::Ready),
            _ => {
                let some = endpoints.iter().filter(|_| rng.bool()).cloned().collect();
                gateway.publish(vec![(config.clone(), some)]);
            }
        }
        tokio::task::yield_now().await;
        if rng.u32(..20) == 0 {
            endpoints
                .iter()
                .for_each(|endpoint| endpoint.set_state(EndpointState::Ready));
            gateway.publish(vec![(config.clone(), endpoints.clone())]);
        }
    }
    endpoints
        .iter()
        .for_each(|endpoint| endpoint.set_state(EndpointState::Ready));
    gateway.publish(vec![(config, endpoints)]);
}

async fn round(seed: u64, capacities: &[u32], is_disturbed: bool) {
    println!("seed {seed}, capacities {capacities:?}, disturbed: {is_disturbed}");
    let mut rng = Rng::with_seed(seed);
    let config = ServiceConfig {
        queue: TASKS as u32,
        queue_timeout: Duration::from_secs(30),
        ..web()
    };
    let endpoints: Vec<_> = (0..)
        .zip(capacities)
        .map(|(slot, &capacity)| ready(slot, capacity, busy(capacity, rng.u64(..))))
        .collect();
    let gateway = gateway(config.clone(), &endpoints);
    let clients: Vec<_> = (0..TASKS)
        .map(|_| tokio::spawn(client(gateway.clone(), rng.fork())))
        .collect();
    let stop = Arc::new(AtomicBool::new(!is_disturbed));
    let disturber = tokio::spawn(disturb(
        gateway.clone(),
        config,
        endpoints.clone(),
        rng.fork(),
        stop.clone(),
    ));
    // The change that ends a wait must not be the last of the disturber.
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    disturber.await.unwrap();

    let stats = gateway.stats(&name("web")).unwrap();
    assert_eq!((stats.in_flight, stats.queued), (0, 0));
    assert_eq!(
        stats.classes[1] + stats.classes[4],
        u64::from(answered) + in_body(&stats)
    );
    assert!(answered > TASKS as u32 * CALLS / 3, "{answered}");
    assert!(stats.canceled > 0);
    let load = gateway.load(&name("web")).unwrap();
    assert_eq!(
        (load.requests, load.ended),
        (stats.requests, stats.requests)
    );
    let places = load.endpoints.iter().map(|it| it.in_flight);
    for place in places.chain([load.in_flight, load.queued]) {
        assert_eq!(place.in_flight(), 0, "what began has ended: {load:?}");
    }
    for endpoint in &endpoints {
        assert_eq!(endpoint.in_flight(), 0, "{endpoint:?}");
        endpoint.set_state(EndpointState::Terminating);
        endpoint.drained().await;
    }
}

/// Answers that were dropped in their body: counted by status and as canceled.
fn in_body(stats: &sampan_gateway::ServiceStats) -> u64 {
    stats.classes.iter().sum::<u64>() + stats.canceled - stats.requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slots_are_never_exceeded_and_never_lost() {
    for seed in 0..12 {
        let capacities: &[u32] = match seed % 4 {
            0 => &[1],
            1 => &[2, 1],
            2 => &[1; 5],
            _ => &[8, 8, 8],
        };
        round(seed, capacities, seed >= 4).await;
    }
}

/// The narrowest race: one slot, and as many that want it as there are threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_freed_slot_is_never_overlooked() {
    let upstream = busy(1, 7);
    let config = ServiceConfig {
        queue_timeout: Duration::from_secs(30),
        ..web()
    };
    let endpoint = ready(0, 1, upstream);
    let gateway = gateway(config, [endpoint.clone()]);
    for _ in 0..4_000 {
        let pair = [0, 1, 2].map(|_| {
            let gateway = gateway.clone();
            tokio::spawn(async move { send_status(&gateway, get("/")).await })
        });
        for request in pair {
            let status = request.await.unwrap();
            assert!(status == 200 || status == 504, "{status}");
        }
        assert_eq!(endpoint.in_flight(), 0);
    }
}
