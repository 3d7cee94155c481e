//! The line of those held back, and what a share is worth.

use super::*;

const SHARE: i64 = 50_000_000;

/// A quota of half a core, and instances of its pod.
fn pod(instances: usize) -> (Arc<CpuQuota>, Arc<Backlog>, Vec<Arc<RunState>>) {
    let backlog = Arc::new(Backlog {
        quotas: Mutex::default(),
        at_once: 2,
    });
    let quota = CpuQuota::new(Cpu { millis: 500 }, &backlog);
    (
        quota,
        backlog,
        (0..instances).map(|_| RunState::new()).collect(),
    )
}

/// Puts it into this window, however long the test has run.
fn at_window(quota: &CpuQuota, window: u64) -> Instant {
    let now = quota.base + WINDOW * u32::try_from(window).expect("small") + WINDOW / 2;
    quota.line.lock().turn_to(window, quota.share_nanos);
    now
}

fn held(quota: &CpuQuota) -> usize {
    quota.line.lock().held.len()
}

#[test]
fn what_a_window_leaves_over_is_not_saved_up() {
    let mut line = Line::new(SHARE);
    line.left_nanos -= SHARE / 2;
    line.turn_to(1, SHARE);
    assert_eq!(line.left_nanos, SHARE);
    line.turn_to(100, SHARE);
    assert_eq!(line.left_nanos, SHARE);
}

#[test]
fn a_debt_is_paid_by_the_windows_that_follow() {
    let mut line = Line::new(SHARE);
    // Three shares and a half in one window: the third one after it has something left again.
    line.left_nanos -= SHARE * 7 / 2;
    for (window, left) in [
        (1, -SHARE * 3 / 2),
        (2, -SHARE / 2),
        (3, SHARE / 2),
        (4, SHARE),
    ] {
        line.turn_to(window, SHARE);
        assert_eq!(line.left_nanos, left, "window {window}");
    }
    line.left_nanos -= SHARE * 7 / 2;
    line.turn_to(7, SHARE);
    assert_eq!(line.left_nanos, SHARE / 2);
    // A thread that is late with an earlier window changes nothing.
    line.turn_to(5, SHARE);
    assert_eq!((line.window, line.left_nanos), (7, SHARE / 2));
}

#[test]
fn an_instance_that_uses_it_up_every_time_has_the_share_on_average() {
    let mut line = Line::new(SHARE);
    let (mut used, windows) = (0, 1000);
    let tick = 5_000_000;
    for window in 0..windows {
        line.turn_to(window, SHARE - 1);
        while line.left_nanos > 0 {
            line.left_nanos -= tick;
            used += tick;
        }
    }
    let wanted = i64::try_from(windows).expect("small") * (SHARE - 1);
    assert!((used - wanted).abs() <= tick, "{used} of {wanted}");
}

#[test]
fn shares_of_any_size_are_of_the_window() {
    for (millis, nanos) in [(1, 100_000), (500, 50_000_000), (2000, 200_000_000)] {
        let quota = CpuQuota::new(Cpu { millis }, &Arc::default());
        assert_eq!(quota.share_nanos, nanos);
    }
    let most = CpuQuota::new(Cpu { millis: u32::MAX }, &Arc::default());
    assert!(most.share_nanos > 0);
}

#[test]
fn those_held_back_leave_a_few_at_a_time_in_their_order() {
    let (quota, backlog, cells) = pod(5);
    at_window(&quota, 1000);
    assert!(quota.admits(&cells[0]));
    quota.charge(50_000_000);
    for cell in &cells[1..4] {
        assert!(!quota.admits(cell) && cell.is_held());
        // To the detector of deadlocks it is one that can go on.
        assert!(cell.blocked().is_none() && !cell.is_idle());
        // It stands there once, however often it asks.
        assert!(!quota.admits(cell));
    }
    assert_eq!(held(&quota), 3);
    quota.line.lock().left_nanos = 10;
    // They stand before those that come now.
    assert!(!quota.admits(&cells[0]));
    backlog.look();
    let is_held = |n: usize| cells[n].is_held();
    assert_eq!([0, 1, 2, 3].map(is_held), [true, false, false, true]);
    // No more, before one of these has run.
    backlog.look();
    assert_eq!(held(&quota), 2);
    assert!(quota.admits(&cells[2]));
    quota.charge(5);
    assert_eq!([0, 1, 2, 3].map(is_held), [true, false, false, false]);
    // Nothing is left for the others, who keep their places.
    quota.charge(5);
    assert!(!quota.admits(&cells[3]) && !quota.admits(&cells[1]));
    let order: Vec<_> = quota.line.lock().held.iter().map(Arc::as_ptr).collect();
    assert_eq!(order, [1, 3, 0].map(|n| Arc::as_ptr(&cells[n])));
    assert_eq!(quota.line.lock().ahead, 0);
}

#[test]
fn one_that_is_gone_keeps_no_other_waiting() {
    let (quota, backlog, cells) = pod(4);
    at_window(&quota, 1000);
    quota.charge(50_000_000);
    assert!(cells.iter().all(|cell| !quota.admits(cell)));
    quota.line.lock().left_nanos = 10;
    backlog.look();
    assert_eq!((held(&quota), quota.line.lock().ahead), (2, 2));
    quota.forget(&cells[0]);
    quota.forget(&cells[2]);
    // Once is enough.
    quota.forget(&cells[0]);
    assert_eq!((held(&quota), quota.line.lock().ahead), (1, 1));
    backlog.look();
    assert_eq!((held(&quota), quota.line.lock().ahead), (0, 2));
    assert!(quota.admits(&cells[3]) && quota.admits(&cells[1]));
    assert_eq!(quota.line.lock().ahead, 0);
}

#[test]
fn only_quotas_that_hold_an_instance_are_looked_at() {
    let (quota, backlog, cells) = pod(2);
    let now = at_window(&quota, 1000);
    assert!(quota.admits(&cells[0]));
    assert_eq!(backlog.quotas.lock().len(), 0);
    quota.charge(60_000_000);
    assert!(!quota.admits(&cells[0]) && !quota.admits(&cells[1]));
    assert_eq!(backlog.quotas.lock().len(), 1);
    assert!(quota.look(now), "nothing is left");
    backlog.look();
    assert_eq!(backlog.quotas.lock().len(), 1);
    // No instance is held any more.
    quota.forget(&cells[0]);
    assert!(!cells[0].is_held());
    quota.forget(&cells[1]);
    assert!(quota.throttled() > Duration::ZERO);
    let throttled = quota.throttled();
    backlog.look();
    assert_eq!(backlog.quotas.lock().len(), 0);
    assert_eq!(quota.throttled(), throttled, "nobody is held any more");
    // It is there again when it is needed again.
    assert!(!quota.admits(&cells[0]));
    assert_eq!(backlog.quotas.lock().len(), 1);
}

#[test]
fn a_guest_that_yields_would_be_held_when_it_has_run_for_what_is_left() {
    let (quota, _, cells) = pod(1);
    at_window(&quota, 1000);
    assert!(quota.admits(&cells[0]));
    quota.charge(47_000_000);
    assert!(!quota.is_spent_after(Duration::from_millis(2)));
    assert!(quota.is_spent_after(Duration::from_millis(3)));
    assert!(quota.is_spent_after(Duration::MAX));
}
