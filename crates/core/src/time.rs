//! Points in time as planners see them, and lengths of time as people read them.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// A point in time: the time since a moment that the caller chose and keeps.
///
/// It only goes forward. Planners compare such points and add to them; what the clock says is an
/// argument. Beyond the last one that can be written, time stands still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// The caller's moment itself.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The point this long after the caller's moment.
    pub const fn after(since: Duration) -> Self {
        Self(since)
    }

    /// How long after the caller's moment it is.
    pub const fn since_zero(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    /// The time from `earlier` until this; nothing when it is not earlier.
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A length of time with the digits that people read: `350 µs`, `12.3 ms`, `4.56 s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 1e-3 {
            write!(f, "{:.0} µs", seconds * 1e6)
        } else if seconds < 1.0 {
            write!(f, "{:.1} ms", seconds * 1e3)
        } else {
            write!(f, "{seconds:.2} s")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_overflow() {
        let end = Timestamp::after(Duration::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Timestamp::ZERO - end, Duration::ZERO);
        assert_eq!((end - Timestamp::ZERO), Duration::MAX);
    }

    #[test]
    fn lengths_are_short() {
        for (micros, text) in [
            (350, "350 µs"),
            (12_345, "12.3 ms"),
            (999_000, "999.0 ms"),
            (4_560_000, "4.56 s"),
        ] {
            assert_eq!(Took(Duration::from_micros(micros)).to_string(), text);
        }
    }
}
