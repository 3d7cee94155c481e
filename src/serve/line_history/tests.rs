//! What has been printed, in memory and on disk.

use sampan_core::{name::ServiceKey, spec::node::LogLimits};
use tokio::sync::Notify;

use super::*;

struct Place {
    folder: tempfile::TempDir,
    limits: LogLimits,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            limits: LogLimits::default(),
        }
    }

    /// A run of a node.
    fn run(&self) -> Arc<LineHistory> {
        let file = self.folder.path().join("logs.db");
        let log = LineLog::open(&file, self.limits.clone()).expect("a log");
        Arc::new(LineHistory::new(Arc::default(), Some(log)))
    }
}

fn pod(slot: u32) -> Arc<PodName> {
    let service = ServiceKey::parse("shop/web").expect("a key");
    Arc::new(PodName::new(&service, 1, slot))
}

fn print(history: &LineHistory, slot: u32, text: impl Into<String>) {
    history.ring.push(Line {
        time: SystemTime::now(),
        pod: pod(slot),
        stream: logs::Stream::Stdout,
        request: None,
        text: text.into(),
        partial: false,
    });
}

/// Keeps what was printed, as at the end of a daemon.
async fn finish(history: &Arc<LineHistory>) {
    let finish = Arc::<Notify>::default();
    finish.notify_one();
    Arc::clone(history).keep(finish).await;
}

fn every() -> LineFilter {
    Arc::new(|_| true)
}

fn texts(lines: &[LoggedLine]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

/// All lines there are, in parts.
fn all(history: &LineHistory, of: &LinesOf) -> Vec<LoggedLine> {
    let (mut from, through) = history.span().into_inner();
    let mut lines = Vec::new();
    while from <= through {
        let part = history.part(of, from..=through, &every());
        assert_eq!(part.missed, 0);
        from = part.next;
        lines.extend(part.lines);
    }
    lines
}

#[tokio::test]
async fn lines_go_on_over_the_runs_of_a_node() {
    let place = Place::new();
    let history = place.run();
    history.ring.begin(&pod(0));
    print(&history, 0, "one");
    print(&history, 1, "two");
    finish(&history).await;
    drop(history);
    let history = place.run();
    history.ring.begin(&pod(0));
    print(&history, 0, "three");
    // Of these the first are on disk, and the last is not.
    let everything = all(&history, &LinesOf::default());
    assert_eq!(texts(&everything), ["one", "two", "three"]);
    let numbers: Vec<_> = everything.iter().map(|line| line.seq).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let of = LinesOf {
        pod: Some("web-1-0".to_owned()),
        ..LinesOf::default()
    };
    assert_eq!(texts(&all(&history, &of)), ["one", "three"]);
    let pods = history.pods(&of);
    assert_eq!(pods.len(), 1);
    assert_eq!(pods[0].begins, BTreeSet::from([1, 3]));
    let pods = history.pods(&LinesOf::default());
    assert_eq!((pods.len(), pods[1].begins.len()), (2, 0));
    // From the end on, over the border.
    let filter: LineFilter = Arc::new(|line| line.text != "two");
    let of = LinesOf::default();
    let back = history.back(&of, 1..=3, 2, &filter);
    assert_eq!((back.found, back.at, back.is_all), (1, 3, false));
    let back = history.back(&of, 1..=2, 1, &filter);
    assert_eq!((back.found, back.at), (1, 1));
}

#[tokio::test]
async fn without_a_log_there_are_the_lines_in_memory() {
    let history = LineHistory::new(Arc::default(), None);
    let long = "x".repeat(logs::MAX_LINE_BYTES);
    for _ in 0..400 {
        print(&history, 0, long.clone());
    }
    let (first, last) = history.span().into_inner();
    assert!(first > 200 && last == 400, "{first} {last}");
    assert_eq!(all(&history, &LinesOf::default()).len() as u64, 401 - first);
    let back = history.back(&LinesOf::default(), first..=last, 1000, &every());
    assert!(back.is_all);
    assert_eq!(back.found as u64, 401 - first);
}

/// A follower that is slower than the ring gets what has left it from the disk, each line once.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_follower_loses_and_doubles_no_line() {
    let place = Place::new();
    let history = place.run();
    let (done, keeper) = (Arc::<Notify>::default(), Arc::clone(&history));
    let keeping = tokio::spawn(keeper.keep(Arc::clone(&done)));
    const LINES: u64 = 2_000;
    let printing = {
        let history = Arc::clone(&history);
        tokio::spawn(async move {
            let tail = "x".repeat(20_000);
            let mut kept = history.kept.subscribe();
            for number in 1..=LINES {
                print(&history, 0, format!("{number} {tail}"));
                // The keeper is never so far behind that lines would be lost.
                if number % 200 == 0 {
                    kept.wait_for(|kept| *kept >= number)
                        .await
                        .expect("it runs");
                }
            }
        })
    };
    printing.await.expect("it ends");
    let (mut from, mut seen) = (1, Vec::new());
    while seen.len() < LINES as usize {
        let next = Arc::clone(&history).next(LinesOf::default(), from, every());
        let part = next.await;
        assert_eq!(part.missed, 0);
        assert!(part.next > from);
        from = part.next;
        seen.extend(part.lines.into_iter().map(|line| line.seq));
    }
    assert_eq!(seen, (1..=LINES).collect::<Vec<_>>());
    assert_eq!(history.lost(), 0);
    done.notify_one();
    keeping.await.expect("it ends");
}

#[tokio::test]
async fn what_is_lost_is_counted_and_said_where_it_is_missing() {
    let place = Place::new();
    let history = place.run();
    print(&history, 0, "first");
    finish(&history).await;
    drop(history);
    // The next run cannot write, and prints more than there is room for in memory.
    let history = place.run();
    let log = history.log.clone().expect("a log");
    let mut progress = keeper::Progress {
        position: 0,
        lost: 0,
        failing: Some("database or disk is full".to_owned()),
    };
    let long = "x".repeat(logs::MAX_LINE_BYTES);
    for _ in 0..300 {
        print(&history, 0, long.clone());
    }
    print(&history, 0, "last");
    let wrote = history.write(&log, &mut progress).await;
    assert_eq!(wrote, Ok(()));
    let lost = history.lost();
    assert!(lost > 100, "{lost}");
    assert!(progress.failing.is_none());
    let lines = all(&history, &LinesOf::default());
    assert_eq!(lines[0].text, "first");
    assert_eq!(
        lines[1].text,
        format!(
            "{lost} lines of all pods were lost here, because they could not be kept: database or \
             disk is full"
        )
    );
    assert_eq!(lines.len() as u64, 303 - lost);
    assert_eq!(lines.last().expect("lines").text, "last");
    // It is said to those too who ask for one pod.
    let of = LinesOf {
        pod: Some("web-1-0".to_owned()),
        ..LinesOf::default()
    };
    assert_eq!(all(&history, &of).len() as u64, 303 - lost);
}
