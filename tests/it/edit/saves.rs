//! Saves of a component, of every kind that editors and builds know: each is one swap.
//!
//! `SAMPAN_SAVES=100` saves so often in each way, and `--no-capture` shows how long it took.

use std::{
    env, fs,
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{HELLO, command};
use crate::rig::{Running, directory, eventually, get, guest};

const SPEC: &str = "app = 'a'\n\
    [service.web]\n\
    component = 'web.wasm'\n\
    route = ['web.test/']\n\
    debug_headers = true\n";
/// Clients that ask without a pause.
const CLIENTS: usize = 2;

/// How often each kind of save is tried: `SAMPAN_SAVES`, or a few times.
fn saves() -> usize {
    let saves = env::var("SAMPAN_SAVES").ok();
    saves.map_or(3, |it| it.parse().expect("a number"))
}

/// The component `hello`, and behind it a custom section that makes it another one.
fn component(number: usize) -> Vec<u8> {
    let mut bytes = fs::read(guest("hello")).expect("readable");
    let text = format!("\x04save{number:08}");
    bytes.push(0);
    bytes.push(u8::try_from(text.len()).expect("a short text"));
    bytes.extend(text.as_bytes());
    bytes
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A new file beside the old one, renamed over it.
    Atomic,
    /// A file from another directory, moved over it.
    Moved,
    /// Emptied, and written in pieces.
    InPlace,
    /// A link that leads to another file.
    Link,
}

struct Saver {
    place: PathBuf,
    at: SocketAddr,
    number: usize,
}

impl Saver {
    async fn save(&mut self, kind: Kind) {
        self.number += 1;
        let bytes = component(self.number);
        let at = |path: &str| self.place.join(path);
        let write = |path: &Path| fs::write(path, &bytes).expect("written");
        match kind {
            Kind::Atomic => {
                write(&at("web.wasm.tmp"));
                fs::rename(at("web.wasm.tmp"), at("web.wasm")).expect("renamed");
            }
            Kind::Moved => {
                write(&at("elsewhere/new.wasm"));
                fs::rename(at("elsewhere/new.wasm"), at("web.wasm")).expect("moved");
            }
            Kind::InPlace => {
                let mut file = fs::File::create(at("web.wasm")).expect("emptied");
                for part in bytes.chunks(bytes.len() / 3 + 1) {
                    file.write_all(part).expect("written");
                    // Half a file lies there while a good many requests are answered.
                    for _ in 0..20 {
                        get(self.at, "web.test", "/").await;
                    }
                }
            }
            Kind::Link => {
                let target = format!("elsewhere/{}.wasm", self.number);
                write(&at(&target));
                symlink(target, at("link")).expect("a link");
                fs::rename(at("link"), at("web.wasm")).expect("renamed");
            }
        }
    }
}

/// Asks without a pause until it is told to stop. Every answer has to be a good one.
async fn ask(at: SocketAddr, stop: Arc<AtomicBool>, asked: Arc<AtomicUsize>) {
    while !stop.load(Relaxed) {
        let answer = get(at, "web.test", "/").await;
        assert_eq!((answer.status, &*answer.body), (200, HELLO));
        asked.fetch_add(1, Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_save_is_one_swap_and_no_request_fails() {
    let place = directory(&[
        ("sampan.toml", SPEC.as_bytes()),
        ("web.wasm", &component(0)),
        ("elsewhere/x", b""),
    ]);
    // With a compile cache of its own, so that each is compiled.
    let mut command = command(place.path(), &["--watch"]);
    command.env("XDG_CACHE_HOME", place.path());
    let mut running = Running::start(command);
    running.line_with("is up");
    let at = running.address();
    let (stop, asked) = (Arc::default(), Arc::default());
    let clients =
        (0..CLIENTS).map(|_| tokio::spawn(ask(at, Arc::clone(&stop), Arc::clone(&asked))));
    let clients: Vec<_> = clients.collect();
    let mut saver = Saver {
        place: place.path().to_owned(),
        at,
        number: 0,
    };
    for kind in [Kind::Atomic, Kind::Moved, Kind::InPlace, Kind::Link] {
        let mut delays = Vec::new();
        for _ in 0..saves() {
            saver.save(kind).await;
            let saved = Instant::now();
            // The first revision was there before the first save.
            let wanted = (saver.number + 1).to_string();
            eventually(at, "web.test", "/", |it| {
                it.headers["sampan-revision"] == wanted.as_str()
            })
            .await;
            delays.push(saved.elapsed());
            running.line_with(&format!("revision {wanted} has taken over"));
        }
        delays.sort();
        let (middle, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
        println!("{kind:?}: served {middle:?} after the save, {longest:?} at most");
    }
    stop.store(true, Relaxed);
    for client in clients {
        client.await.expect("no request has failed");
    }
    let (status, talk) = running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
    let swaps = talk.matches("has taken over").count();
    assert_eq!(swaps, saver.number, "{talk}");
    assert_eq!(
        talk.matches("compiled in").count(),
        saver.number + 1,
        "{talk}"
    );
    println!("{} requests meanwhile", asked.load(Relaxed));
}
