//! HTTP/2 frames that cost their sender little: the connection ends, or the cost is bounded, and
//! memory stays flat.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::Response;
use sampan_gateway::full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    corpus::http2::{field, frame},
    fixture::*,
};

/// Frames of a flood.
const FRAMES: u32 = 20_000;
/// A connection that is open so long after a flood began stays open.
const SETTLED: Duration = Duration::from_secs(2);
/// Memory a flood may leave behind, allocators' reserves included.
const SPARE_BYTES: usize = 32 << 20;
/// Times that a flood is tried which seems to cost more: the process is that of all other tests
/// too, and what those take meanwhile cannot be told apart.
const ATTEMPTS: usize = 3;

struct Flood {
    name: &'static str,
    /// The frame of this number, from 0.
    frame: fn(u32) -> Vec<u8>,
    /// Whether the connection has to end.
    is_cut: bool,
    /// The most requests of it that a pod may see.
    seen: usize,
}

const fn flood(name: &'static str, frame: fn(u32) -> Vec<u8>, is_cut: bool, seen: usize) -> Flood {
    Flood {
        name,
        frame,
        is_cut,
        seen,
    }
}

fn request() -> Vec<u8> {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/"),
    ]
    .iter()
    .flat_map(|(name, value)| field(name, value))
    .collect()
}

fn rapid_reset(number: u32) -> Vec<u8> {
    let stream = 2 * number + 1;
    [
        frame(1, 5, stream, &request()),
        frame(3, 0, stream, &[0, 0, 0, 8]),
    ]
    .concat()
}

fn continuation(number: u32) -> Vec<u8> {
    match number {
        0 => frame(1, 1, 1, &request()),
        _ => frame(9, 0, 1, &field("x", &"y".repeat(100))),
    }
}

/// A field of 4 KB is put into the table once and named thousands of times.
fn hpack_bomb(number: u32) -> Vec<u8> {
    let mut block = request();
    if number == 0 {
        // Literal with incremental indexing, RFC 7541 §6.2.1: a name of one byte, 4000 of value.
        block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        block.extend([b'y'; 4000]);
    }
    block.extend([0xbe; 10_000]);
    frame(1, 5, 2 * number + 1, &block)
}

fn empty_data(number: u32) -> Vec<u8> {
    match number {
        0 => frame(1, 4, 1, &request()),
        _ => frame(0, 0, 1, b""),
    }
}

fn many_streams(number: u32) -> Vec<u8> {
    // Never ended, so each holds its place.
    frame(1, 4, 2 * number + 1, &request())
}

const FLOODS: &[Flood] = &[
    flood("rapid reset", rapid_reset, true, 1000),
    flood("continuation", continuation, true, 0),
    flood("HPACK bomb", hpack_bomb, true, 0),
    flood("empty data", empty_data, true, 1),
    flood("streams beyond the limit", many_streams, true, 2000),
    flood("ping", |_| frame(6, 0, 0, b"12345678"), false, 0),
    flood("settings", |_| frame(4, 0, 0, b""), false, 0),
    flood(
        "priority",
        |n| frame(2, 0, 2 * n + 1, &[0, 0, 0, 0, 1]),
        false,
        0,
    ),
    flood(
        "window updates of nothing",
        |_| frame(8, 0, 0, &[0; 4]),
        true,
        0,
    ),
    flood("unknown frames", |_| frame(99, 0, 0, &[0; 100]), false, 0),
];

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// What came of a flood.
#[derive(Debug)]
struct Outcome {
    is_cut: bool,
    /// Requests that the pod saw.
    seen: usize,
    /// What the process grew by meanwhile.
    grown_bytes: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_or_cost_nothing() {
    let mut wrong = Vec::new();
    for flood in FLOODS {
        let mut outcome = flood.run().await;
        for _ in 1..ATTEMPTS {
            if outcome.grown_bytes <= SPARE_BYTES {
                break;
            }
            outcome = flood.run().await;
        }
        println!("{}: {outcome:?}", flood.name);
        let is_met = outcome.is_cut == flood.is_cut && outcome.seen <= flood.seen;
        if !is_met || outcome.grown_bytes > SPARE_BYTES {
            wrong.push(format!("{}: {outcome:?}", flood.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Flood {
    /// Floods a new server, which must answer a good client afterwards.
    async fn run(&self) -> Outcome {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        let upstream = pod(move |_, _| {
            count.fetch_add(1, Relaxed);
            async { Ok(Response::new(full("hello"))) }
        });
        let server = serve(&gateway(web(), [ready(0, 1000, upstream)])).await;
        let before = resident_bytes();
        let (mut reader, mut writer) = tokio::io::split(tcp(server.address).await);
        let reading = tokio::spawn(async move {
            let mut sink = vec![0; 64 << 10];
            while reader.read(&mut sink).await.is_ok_and(|n| n > 0) {}
        });
        let writing = async {
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            writer
                .write_all(&[&preface[..], &frame(4, 0, 0, b"")].concat())
                .await?;
            for number in 0..FRAMES {
                writer.write_all(&(self.frame)(number)).await?;
            }
            // The end of a connection that goes on is up to its client.
            std::future::pending().await
        };
        let ended = async {
            tokio::select! {
                end = writing => { let _: std::io::Result<()> = end; }
                _ = reading => {}
            }
        };
        let is_cut = tokio::time::timeout(SETTLED, ended).await.is_ok();
        let grown_bytes = resident_bytes().saturating_sub(before);
        let seen = seen.load(Relaxed);
        let mut client = h2(tcp(server.address).await).await;
        let request = http::Request::get("http://a/").body(sampan_gateway::empty());
        let answer = client.send_request(request.unwrap()).await;
        assert_eq!(answer.unwrap().status(), 200, "after {}", self.name);
        Outcome {
            is_cut,
            seen,
            grown_bytes,
        }
    }
}
