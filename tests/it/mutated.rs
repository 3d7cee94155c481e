//! Requests that a generator has bent, and the guest that answers whatever it is asked: nothing that
//! a client sends is ever held against it.
//!
//! `SAMPAN_REQUESTS=200000` sends that many, `SAMPAN_SEED=7` begins with another one: the request with
//! a number comes from the seed plus that number, so a run can be repeated from where it failed.

mod bytes;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    metrics::Metered,
    rig::{PATIENCE, get, guest},
};
use bytes::Conversation;

/// Conversations in a regular run.
const REQUESTS: u64 = 4_000;
/// Conversations between two looks at what was counted.
const ROUND: u64 = 1_000;
/// Conversations at once.
const AT_ONCE: usize = 16;
/// A server that says nothing for so long waits for more, and is told that there is none.
const QUIET: Duration = Duration::from_millis(50);

/// Every way to run a guest, each with a path of its own that is found without a host.
const SERVICES: [(&str, &str, &str); 4] = [
    ("fresh", "hello", "request"),
    ("kept", "hello", "pod"),
    ("fresh-p3", "hello-p3", "request"),
    ("shared", "hello-p3", "pod"),
];

fn spec() -> String {
    let mut text = "app = 'mutated'\n".to_owned();
    for (name, component, isolation) in SERVICES {
        text += &format!(
            "[service.{name}]\ncomponent = '{}'\nisolation = '{isolation}'\nreplicas = 2\n\
             route = ['/{name}']\n",
            guest(component)
        );
    }
    text
}

/// What has been answered.
#[derive(Clone, Copy, Debug, Default)]
struct Answers {
    good: u64,
    other: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_ever_held_against_a_guest() {
    let number = |name: &str, default: u64| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let (requests, seed) = (
        number("SAMPAN_REQUESTS", REQUESTS),
        number("SAMPAN_SEED", 1),
    );
    let mut metered = Metered::start(&spec());
    let at = metered.running.address();
    metered.running.line_with("is up");
    let mut all = Answers::default();
    for begin in (seed..seed + requests).step_by(ROUND as usize) {
        let end = (begin + ROUND).min(seed + requests);
        let answers = round(at, begin..end).await;
        all.good += answers.good;
        all.other += answers.other;
        // Each guest is there, and nothing is held against it.
        for (name, _, _) in SERVICES {
            let answer = get(at, "test", &format!("/{name}")).await;
            assert_eq!(
                (answer.status, &*answer.body),
                (200, "Hello from Sampan!\n")
            );
        }
        let scrape = metered.scrape().await;
        for name in [
            "sampan_kills_total",
            "sampan_restarts_total",
            "sampan_ejections_total",
        ] {
            assert_eq!(scrape.sum(name, &[]), 0.0, "{name}: seeds {begin} to {end}");
        }
    }
    let (head, events) = metered.ask("GET", "/v1/events").await;
    assert_eq!(head.status, 200);
    for bad in ["Trapped", "trapped", "BackOff", "restart"] {
        assert!(!events.contains(bad), "{events}");
    }
    let (status, talk) = metered.running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    assert!(!talk.contains("trapped"), "{talk}");
    println!("seeds {seed} to {}: {all:?}", seed + requests);
    // Many reach a guest, and many do not.
    assert!(
        all.good > requests / 8 && all.other > requests / 10,
        "{all:?}"
    );
}

/// The conversations of these seeds.
async fn round(at: SocketAddr, seeds: std::ops::Range<u64>) -> Answers {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for seed in seeds {
        let place = Arc::clone(&places).acquire_owned().await.expect("open");
        tasks.spawn(async move {
            let conversation = Conversation::of(seed, &SERVICES.map(|(name, _, _)| name));
            let whole = timeout(PATIENCE, talk(at, &conversation));
            let answer = whole.await.unwrap_or_else(|_| panic!("seed {seed} hangs"));
            drop(place);
            conversation.answers(&answer)
        });
    }
    let mut all = Answers::default();
    while let Some(answers) = tasks.join_next().await {
        let (good, other) = answers.expect("no panic");
        all.good += good;
        all.other += other;
    }
    all
}

/// Sends what is to be sent and reads what comes, until the server has nothing more to say.
async fn talk(at: SocketAddr, conversation: &Conversation) -> Vec<u8> {
    let mut io = TcpStream::connect(at).await.expect("it accepts");
    let mut answer = Vec::new();
    // It may stop reading in the middle.
    let _ = io.write_all(&conversation.bytes).await;
    let mut is_closed = conversation.is_cut;
    if is_closed {
        let _ = io.shutdown().await;
    }
    while !conversation.is_over(&answer) {
        match timeout(QUIET, io.read_buf(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {}
            Err(_) if !is_closed => {
                is_closed = true;
                let _ = io.shutdown().await;
            }
            // A pod that is busy may take its time.
            Err(_) => {}
        }
    }
    answer
}
