//! SQLite inside a guest, on a volume: a row that was acknowledged is there for good.
//!
//! `SAMPAN_KILLS` makes the test as long as one likes.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{Daemon, times};
use crate::rig::{PATIENCE, get, guest};

const CLIENTS: usize = 4;

/// The only pod, whose only instance has the database open.
fn spec() -> String {
    let sqlite = guest("sqlite");
    format!(
        "[volume.rows]\nquota = '64MiB'\n\
         [service.db]\ncomponent = '{sqlite}'\nroute = ['x/']\nisolation = 'pod'\n\
         rollout = {{ max_surge = 0, max_unavailable = 1 }}\n\
         allow.files = [{{ volume = 'rows', guest = '/data', access = 'read-write' }}]\n"
    )
}

/// Adds a row and tells its number, if that is acknowledged.
fn add(at: SocketAddr, text: &str) -> io::Result<u64> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request = format!(
        "POST /add?text={text} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    // One chunk; of an answer that is cut off the end of the line is missing.
    let number = || {
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let line = body.split("\r\n").nth(1)?.strip_suffix('\n')?;
        head.starts_with("HTTP/1.1 200")
            .then(|| line.parse().ok())?
    };
    number().ok_or_else(|| io::Error::other(answer.clone()))
}

/// Rows that were acknowledged, by their numbers.
#[derive(Default)]
struct Rows {
    acknowledged: Mutex<BTreeMap<u64, String>>,
    answers: AtomicUsize,
}

impl Rows {
    /// Adds rows until the daemon is gone.
    fn add(&self, at: SocketAddr, round: usize, client: usize) {
        for row in 0.. {
            let text = format!("{round}-{client}-{row}");
            match add(at, &text) {
                Ok(number) => {
                    let other = self
                        .acknowledged
                        .lock()
                        .expect("no panic")
                        .insert(number, text);
                    assert_eq!(other, None, "row {number} is given twice");
                    self.answers.fetch_add(1, SeqCst);
                }
                Err(_) => return,
            }
        }
    }

    fn wait_for(&self, answers: usize) {
        let start = Instant::now();
        while self.answers.load(SeqCst) < answers {
            assert!(start.elapsed() < PATIENCE, "rows are not added");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_has_lost_no_row() {
    let mut daemon = Daemon::start();
    let mut at = daemon.running().address();
    daemon.apply(&spec());
    let mut total = 0;
    for round in 1..=times("SAMPAN_KILLS", 5) {
        let rows = Rows::default();
        std::thread::scope(|scope| {
            let rows = &rows;
            for client in 0..CLIENTS {
                scope.spawn(move || rows.add(at, round, client));
            }
            // Whatever it is doing after so many answers.
            rows.wait_for((round * 37) % 60 + 1);
            daemon.running().signal(rustix::process::Signal::KILL);
            daemon.running.take();
        });
        daemon.launch();
        at = daemon.running().address();
        let checked = get(at, "x", "/check").await;
        assert_eq!((checked.status, checked.body.as_str()), (200, "ok\n"));
        let acknowledged = rows.acknowledged.into_inner().expect("no panic");
        for (number, text) in &acknowledged {
            let found = get(at, "x", &format!("/text?n={number}")).await;
            assert_eq!(
                (found.status, found.body.trim_end()),
                (200, text.as_str()),
                "kill {round}: row {number}"
            );
        }
        let count = get(at, "x", "/count").await.body;
        let counted: Vec<usize> = count
            .split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect();
        let [rows, greatest] = counted[..] else {
            panic!("{count}");
        };
        // No number is left out, and of each client one row at most was not acknowledged.
        assert_eq!(rows, greatest);
        let least = total + acknowledged.len();
        assert!((least..=least + CLIENTS).contains(&rows), "{least} {rows}");
        total = rows;
    }
    eprintln!("{total} rows");
}
