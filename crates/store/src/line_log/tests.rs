//! The log of lines, on disk.

use std::{fs, time::Duration};

use super::*;

const LIMITS: LogLimits = LogLimits {
    bytes: 64 << 20,
    pod_bytes: 16 << 20,
    keep: Duration::from_secs(3600),
};

fn source(app: &str, pod: &str) -> Arc<LogSource> {
    let service = pod.split('-').next().expect("a part").to_owned();
    Arc::new(LogSource {
        app: app.to_owned(),
        service,
        pod: pod.to_owned(),
    })
}

fn line(seq: u64, source: &Arc<LogSource>, text: &str) -> LoggedLine {
    LoggedLine {
        seq,
        time_ms: 1_000_000 + seq,
        source: Some(Arc::clone(source)),
        kind: 1,
        request: Some(format!("r{seq}")),
        text: text.to_owned(),
        partial: seq.is_multiple_of(2),
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("logs.db")
    }

    fn open(&self, limits: LogLimits) -> LineLog {
        LineLog::open(&self.file(), limits).expect("a log")
    }
}

fn of(app: Option<&str>, service: Option<&str>, pod: Option<&str>) -> LinesOf {
    let owned = |it: Option<&str>| it.map(str::to_owned);
    LinesOf {
        app: owned(app),
        service: owned(service),
        pod: owned(pod),
    }
}

/// All lines, however many parts they come in.
fn all(log: &LineLog, of: &LinesOf, from: u64) -> Vec<LoggedLine> {
    let (mut from, mut lines) = (from, Vec::new());
    let end = log.last().expect("read");
    while from <= end {
        let page = log.page(of, from..=end, &|_| true).expect("read");
        assert!(page.next > from);
        from = page.next;
        lines.extend(page.lines);
    }
    lines
}

fn numbers(lines: &[LoggedLine]) -> Vec<u64> {
    lines.iter().map(|line| line.seq).collect()
}

#[test]
fn what_was_appended_is_there_for_the_next_one_who_opens_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let log = place.open(LIMITS);
    let (web, api) = (source("shop", "web-1-0"), source("blog", "api-1-0"));
    let mut lines = vec![line(1, &web, "one"), line(2, &api, "zwei \u{1f6a2}")];
    lines.push(LoggedLine {
        source: None,
        request: None,
        ..line(3, &web, "about all")
    });
    log.append(&lines, &[(1, Arc::clone(&web))]).expect("kept");
    assert_eq!(all(&log, &LinesOf::default(), 0), lines);
    for file in fs::read_dir(place.0.path()).expect("a folder") {
        let mode = file.expect("a file").metadata().expect("a file");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }
    LineLog::open(&place.file(), LIMITS).expect_err("it is in use");
    drop(log);
    let log = place.open(LIMITS);
    assert_eq!(all(&log, &LinesOf::default(), 0), lines);
    assert_eq!(log.last(), Ok(3));
    // A pod that has begun and said nothing counts.
    log.append(&[], &[(5, Arc::clone(&api))]).expect("kept");
    assert_eq!(log.last(), Ok(4));
    let sources = log.sources(&LinesOf::default()).expect("read");
    let found = |at: usize| (sources[at].source.clone(), sources[at].begins.clone());
    assert_eq!(found(0), (api, vec![5]));
    assert_eq!(found(1), (web, vec![1]));
}

#[test]
fn lines_are_found_by_pod_and_time_from_both_ends() {
    let place = Place::new();
    let log = place.open(LIMITS);
    let pods = [
        source("shop", "web-1-0"),
        source("shop", "web-1-1"),
        source("blog", "web-1-0"),
    ];
    // Enough for several parts.
    let lines: Vec<_> = (1..=20_000_u64)
        .map(|seq| line(seq, &pods[(seq % 3) as usize], &format!("line {seq}")))
        .collect();
    for batch in lines.chunks(1_500) {
        log.append(batch, &[]).expect("kept");
    }
    let every =
        |keep: &dyn Fn(u64) -> bool| (1..=20_000).filter(|it| keep(*it)).collect::<Vec<_>>();
    let found = |of: LinesOf| numbers(&all(&log, &of, 0));
    assert_eq!(found(LinesOf::default()), every(&|_| true));
    assert_eq!(
        found(of(Some("shop"), None, None)),
        every(&|it| it % 3 != 2)
    );
    let pod = of(Some("shop"), Some("web"), Some("web-1-1"));
    assert_eq!(found(pod.clone()), every(&|it| it % 3 == 1));
    assert_eq!(
        found(of(None, None, Some("web-1-0"))),
        every(&|it| it % 3 != 1)
    );
    assert_eq!(found(of(Some("none"), None, None)), [] as [u64; 0]);
    for (time_ms, first) in [
        (0, 1),
        (1_000_777, 777),
        (1_020_000, 20_000),
        (2_000_000, 20_001),
    ] {
        assert_eq!(log.since(time_ms), Ok(first));
    }
    // The last ten that end in 7, of one pod and of all.
    for of in [pod, of(Some("shop"), None, None), LinesOf::default()] {
        let is_asked = |it: &LoggedLine| it.text.ends_with('7');
        let wanted: Vec<_> = all(&log, &of, 0).into_iter().filter(is_asked).collect();
        let (mut left, mut end) = (10, 20_000);
        let at = loop {
            let back = log.back(&of, 1..=end, left, &is_asked).expect("read");
            left -= back.found;
            if left == 0 || back.is_all {
                break back.at;
            }
            end = back.at - 1;
        };
        assert_eq!(at, wanted[wanted.len() - 10].seq);
    }
    let back = log.back(&LinesOf::default(), 1..=3, 10, &|_| true);
    let back = back.expect("read");
    assert_eq!((back.found, back.is_all), (3, true));
}

/// A clock that is set back hides no line from those who ask by time.
#[test]
fn time_may_go_back() {
    let place = Place::new();
    let log = place.open(LIMITS);
    let web = source("shop", "web-1-0");
    let at = |seq, time_ms| LoggedLine {
        time_ms,
        ..line(seq, &web, "tick")
    };
    log.append(&[at(1, 5_000), at(2, 9_000)], &[])
        .expect("kept");
    drop(log);
    let log = place.open(LIMITS);
    log.append(&[at(3, 4_000), at(4, 6_000)], &[])
        .expect("kept");
    // What is older may be among them, and is left out by its own time.
    assert_eq!(log.since(5_500), Ok(2));
    assert_eq!(log.since(9_500), Ok(5));
}

#[test]
fn a_pod_and_the_node_keep_so_much_and_the_oldest_go() {
    let place = Place::new();
    let limits = LogLimits {
        bytes: 4 << 20,
        pod_bytes: 256 << 10,
        ..LIMITS
    };
    let log = place.open(limits.clone());
    let quiet = source("shop", "quiet-1-0");
    let said = line(1, &quiet, "once");
    log.append(std::slice::from_ref(&said), &[(1, Arc::clone(&quiet))])
        .expect("kept");
    let mut seq = 1;
    let mut print = |pod: &Arc<LogSource>, lines: usize| {
        let batch: Vec<_> = (0..lines)
            .map(|_| {
                seq += 1;
                line(seq, pod, &"x".repeat(1000))
            })
            .collect();
        log.append(&batch, &[]).expect("kept");
        log.trim(0).expect("trimmed");
    };
    let flood = source("shop", "flood-1-0");
    for _ in 0..20 {
        print(&flood, 100);
        let kept = log.sources(&of(None, None, Some("flood-1-0")));
        assert!(kept.expect("read")[0].bytes <= 256 << 10);
    }
    // Its flood costs other pods nothing.
    assert_eq!(all(&log, &of(None, None, Some("quiet-1-0")), 0), [said]);
    let last = all(&log, &of(None, None, Some("flood-1-0")), 0);
    assert_eq!(last.last().map(|it| it.seq), Some(2001));
    assert!(last.len() > 150, "{}", last.len());
    for number in 0..40 {
        print(&source("shop", &format!("many-1-{number}")), 200);
        assert!(log.bytes().expect("read") <= 4 << 20);
    }
    // The pods whose lines have gone are gone.
    let sources = log.sources(&LinesOf::default()).expect("read");
    let names: Vec<_> = sources.iter().map(|it| it.source.pod.as_str()).collect();
    assert!(
        !names.contains(&"quiet-1-0") && names.contains(&"many-1-39"),
        "{names:?}"
    );
    let file = fs::metadata(place.file()).expect("a file").len();
    assert!(file < 6 << 20, "{file}");
    drop(log);
    // With less than before the file gets smaller.
    let log = place.open(LogLimits {
        bytes: 1 << 20,
        ..limits
    });
    drop(log);
    let file = fs::metadata(place.file()).expect("a file").len();
    assert!(file <= (1 << 20) + (1 << 18), "{file}");
    let log = place.open(LIMITS);
    let kept = numbers(&all(&log, &LinesOf::default(), 0));
    assert_eq!(kept.last(), Some(&10_001));
}

#[test]
fn old_lines_go() {
    let place = Place::new();
    let log = place.open(LIMITS);
    let web = source("shop", "web-1-0");
    let lines: Vec<_> = (1..=100).map(|seq| line(seq, &web, "x")).collect();
    log.append(&lines, &[(1, Arc::clone(&web))]).expect("kept");
    log.trim(1_000_000 + 3_600_000 + 51).expect("trimmed");
    assert_eq!(numbers(&all(&log, &LinesOf::default(), 0))[0], 51);
    log.trim(u64::MAX).expect("trimmed");
    assert_eq!(log.sources(&LinesOf::default()), Ok(Vec::new()));
    // The numbers go on in this run; the next one begins where it likes.
    log.append(&[line(101, &web, "again")], &[]).expect("kept");
    assert_eq!(numbers(&all(&log, &LinesOf::default(), 0)), [101]);
}

#[test]
fn of_a_pod_that_crashes_all_the_time_the_last_beginnings_are_kept() {
    let place = Place::new();
    let log = place.open(LIMITS);
    let web = source("shop", "web-1-0");
    for seq in 1..=50 {
        log.append(&[], &[(seq, Arc::clone(&web))]).expect("kept");
    }
    let sources = log.sources(&LinesOf::default()).expect("read");
    assert_eq!(sources[0].begins, [47, 48, 49, 50]);
}

#[test]
fn a_log_that_is_damaged_is_begun_anew_also_while_it_is_in_use() {
    let place = Place::new();
    let web = source("shop", "web-1-0");
    let lines: Vec<_> = (1..=5000).map(|seq| line(seq, &web, "text")).collect();
    let log = place.open(LIMITS);
    log.append(&lines, &[]).expect("kept");
    drop(log);
    let spoil = |part: &dyn Fn(usize) -> std::ops::Range<usize>| {
        let mut bytes = fs::read(place.file()).expect("a file");
        let part = part(bytes.len() / 4096);
        bytes[part.start * 4096..part.end * 4096].fill(7);
        fs::write(place.file(), bytes).expect("written");
    };
    let away = place.0.path().join("logs.db.damaged");
    // Its first pages and the last lines are whole.
    spoil(&|pages| pages / 4..pages / 2);
    let log = place.open(LIMITS);
    assert_eq!((log.last(), away.exists()), (Ok(5000), false));
    let read = (0..5000).step_by(500).map(|from| {
        let page = log.page(&LinesOf::default(), from..=5000, &|_| true);
        page.map(drop)
    });
    assert!(read.collect::<Result<Vec<_>, _>>().is_err());
    assert!(away.exists());
    log.append(&[line(5002, &web, "kept")], &[])
        .expect("begun anew");
    assert_eq!(numbers(&all(&log, &LinesOf::default(), 0)), [5002]);
    drop(log);
    for part in [|pages| 1..pages, |pages| 0..pages] {
        spoil(&part);
        let log = place.open(LIMITS);
        assert_eq!(log.last(), Ok(0));
        log.append(&lines, &[]).expect("begun anew");
    }
}

#[test]
fn what_is_left_of_the_disk_is_for_others() {
    let place = Place::new();
    let mut log = place.open(LIMITS);
    let web = source("shop", "web-1-0");
    log.reserve_bytes = u64::MAX;
    let full = log.append(&[line(1, &web, "x")], &[]).expect_err("no room");
    assert!(full.to_string().ends_with("of its disk are free"), "{full}");
    log.reserve_bytes = 0;
    log.append(&[line(1, &web, "x")], &[]).expect("kept");
}

#[test]
fn a_full_disk_refuses_lines_until_there_is_room() {
    let place = Place::new();
    let log = place.open(LIMITS);
    let web = source("shop", "web-1-0");
    let lines: Vec<_> = (1..=2000)
        .map(|seq| line(seq, &web, &"x".repeat(100)))
        .collect();
    log.append(&lines[..5], &[]).expect("kept");
    let limit = |pages: u32| {
        let state = log.state.lock();
        let limited = state
            .connection
            .pragma_update(None, "max_page_count", pages);
        limited.expect("a limit");
    };
    limit(1);
    for _ in 0..3 {
        let full = log.append(&lines[5..], &[]).expect_err("no room");
        assert!(full.reason.contains("full"), "{full}");
        assert_eq!(numbers(&all(&log, &LinesOf::default(), 0)), [1, 2, 3, 4, 5]);
    }
    limit(u32::MAX);
    log.append(&lines[5..], &[]).expect("kept");
    assert_eq!(all(&log, &LinesOf::default(), 0), lines);
    let sources = log.sources(&LinesOf::default()).expect("read");
    let bytes: u64 = lines.iter().map(LoggedLine::bytes).sum();
    assert_eq!(sources[0].bytes, bytes);
}
