//! Points in time as planners see them; times as people and programs read them.

use std::{
    fmt,
    ops::{Add, Sub},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

/// A point in time: the time since a moment that the caller chose and keeps.
///
/// It only goes forward. Planners compare such points and add to them; what the clock says is an
/// argument. Beyond the last one that can be written, time stands still.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
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

/// A length of time with three digits: `350 µs`, `1.23 ms`, `98.7 ms`, `4.56 s`, `2 min 05 s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took(pub Duration);

impl fmt::Display for Took {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs_f64() {
            s if s < 1e-3 => write!(f, "{:.0} µs", s * 1e6),
            s if s < 1e-2 => write!(f, "{:.2} ms", s * 1e3),
            s if s < 1e-1 => write!(f, "{:.1} ms", s * 1e3),
            s if s < 1.0 => write!(f, "{:.0} ms", s * 1e3),
            s if s < 60.0 => write!(f, "{s:.2} s"),
            s => write!(f, "{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0),
        }
    }
}

/// A time of the calendar, as the time since the beginning of 1970, in the manner of
/// [RFC 3339](https://www.rfc-editor.org/rfc/rfc3339): `2026-02-28T23:59:59.250Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub Duration);

impl From<SystemTime> for Utc {
    /// What is before 1970 counts as its beginning.
    fn from(at: SystemTime) -> Self {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        Self(since.unwrap_or_default())
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.as_millis()).ok();
        let time = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        // After the year 9999 there is no time in this form.
        write!(f, "{:.3}", time.unwrap_or(jiff::Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_000_000_000_000, "2001-09-09T01:46:40.000Z"),
            (1_798_761_599_001, "2026-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Utc(Duration::from_millis(millis)).to_string(), text);
        }
        // No time is too late.
        assert!(Utc(Duration::MAX).to_string().ends_with('Z'));
    }

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
            (999_000, "999 ms"),
            (4_560_000, "4.56 s"),
        ] {
            assert_eq!(Took(Duration::from_micros(micros)).to_string(), text);
        }
    }
}
