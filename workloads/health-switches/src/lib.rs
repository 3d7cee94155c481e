//! What the guests `health` and `health-p3` answer when they are asked how they are.
//!
//! Each function of `sampan:pod` is a [`Part`] with a [`Mode`], which is switched by name. All of it lives
//! as long as the instance.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// A function of `sampan:pod/health` or `sampan:pod/lifecycle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `health.started`
    Started,
    /// `health.ready`
    Ready,
    /// `health.live`
    Live,
    /// `lifecycle.pre-stop`
    PreStop,
}

/// What a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It says `ok`.
    On,
    /// It says that it is switched off.
    Off,
    /// It waits for ever.
    Hang,
    /// It computes for ever.
    Spin,
    /// It traps.
    Crash,
}

const PARTS: [(Part, &str); 4] = [
    (Part::Started, "started"),
    (Part::Ready, "ready"),
    (Part::Live, "live"),
    (Part::PreStop, "pre-stop"),
];

const MODES: [(Mode, &str); 5] = [
    (Mode::On, "on"),
    (Mode::Off, "off"),
    (Mode::Hang, "hang"),
    (Mode::Spin, "spin"),
    (Mode::Crash, "crash"),
];

/// For each part the place of its mode in `MODES`.
static SWITCHES: [AtomicU8; 4] = [const { AtomicU8::new(0) }; 4];
/// For each part how often it was called.
static CALLS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Switches the part `part` to `mode`, such as `ready` to `off`. Returns false if there is no such part or
/// mode.
pub fn switch(part: &str, mode: &str) -> bool {
    let part = PARTS.iter().position(|(_, name)| *name == part);
    let mode = MODES.iter().position(|(_, name)| *name == mode);
    let (Some(part), Some(mode)) = (part, mode) else {
        return false;
    };
    SWITCHES[part].store(mode as u8, Relaxed);
    true
}

/// Switches as the environment says: `READY=off`, `PRE_STOP=hang`. Other variables do nothing.
pub fn switch_by_environment(variables: Vec<(String, String)>) {
    for (name, value) in variables {
        switch(&name.to_lowercase().replace('_', "-"), &value);
    }
}

/// Switches as a path says: `/ready/off`. Returns false if it says nothing of that kind.
pub fn switch_by_path(path: &str) -> bool {
    let named = path.trim_start_matches('/').split_once('/');
    named.is_some_and(|(part, mode)| switch(part, mode))
}

/// Counts a call of `part` and says what it is to do.
pub fn asked(part: Part) -> Mode {
    CALLS[part as usize].fetch_add(1, Relaxed);
    MODES[usize::from(SWITCHES[part as usize].load(Relaxed))].0
}

/// The reason that `part` gives when it is off.
pub fn reason(part: Part) -> String {
    format!("{} is switched off", PARTS[part as usize].1)
}

/// How often each part was called, one a line.
pub fn calls() -> String {
    let lines = PARTS
        .iter()
        .zip(&CALLS)
        .map(|((_, name), count)| format!("{name} {}\n", count.load(Relaxed)));
    lines.collect()
}

/// Never returns and never calls the host.
#[inline(never)]
pub fn spin_when_asked() -> ! {
    let mut turns = 0_u64;
    loop {
        // Keeps the compiler from seeing that nothing comes of it.
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

/// A panic is a trap in a guest.
#[inline(never)]
pub fn crash_when_asked() -> ! {
    panic!("asked to crash")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_is_answered_and_counted() {
        assert_eq!(asked(Part::Ready), Mode::On);
        assert!(switch_by_path("/ready/off"));
        assert_eq!(asked(Part::Ready), Mode::Off);
        assert_eq!(reason(Part::Ready), "ready is switched off");
        switch_by_environment(vec![("PRE_STOP".to_owned(), "hang".to_owned())]);
        assert_eq!(asked(Part::PreStop), Mode::Hang);
        for path in ["/", "/ready", "/ready/maybe", "/nothing/on", "/ready/on/x"] {
            assert!(!switch_by_path(path), "{path}");
        }
        assert_eq!(calls(), "started 0\nready 2\nlive 0\npre-stop 1\n");
    }
}
