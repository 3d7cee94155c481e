//! Durations in hours, minutes, seconds and milliseconds.

use std::{fmt::Write as _, time::Duration};

use super::{Fault, Kind, QuantityError};

/// Units and their milliseconds, from large to small.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses whole numbers with units, largest unit first: `200ms`, `30s`, `1m30s`, `1h`, `0s`.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    Kind::Duration.parse(text, read)
}

fn read(mut rest: &str) -> Result<Duration, Fault> {
    let mut millis: u64 = 0;
    let mut allowed = &UNITS[..];
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit());
        let (number, after) = rest.split_at(digits.unwrap_or(rest.len()));
        let letters = after.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, next) = after.split_at(letters.unwrap_or(after.len()));
        if number.is_empty() || unit.is_empty() && !next.is_empty() {
            return Err(Fault::Malformed);
        }
        if unit.is_empty() {
            return Err(Fault::NoUnit);
        }
        let Some(index) = allowed.iter().position(|(name, _)| *name == unit) else {
            let known = UNITS.iter().any(|(name, _)| *name == unit);
            return Err(match known {
                true => Fault::UnitOrder(unit.to_owned()),
                false => Fault::UnknownUnit(unit.to_owned()),
            });
        };
        let part: u64 = number.parse().map_err(|_| Fault::TooLarge)?;
        millis = part
            .checked_mul(allowed[index].1)
            .and_then(|part| part.checked_add(millis))
            .ok_or(Fault::TooLarge)?;
        allowed = &allowed[index + 1..];
        rest = next;
        if rest.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
    }
}

/// Writes a duration as [`parse_duration`] reads it. What is below a millisecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    let mut text = String::new();
    for (unit, millis) in UNITS {
        let (count, remainder) = (rest / u128::from(millis), rest % u128::from(millis));
        rest = remainder;
        if count > 0 {
            write!(text, "{count}{unit}").expect("a string takes any text");
        }
    }
    match text.is_empty() {
        true => "0s".to_owned(),
        false => text,
    }
}

/// A duration as [`format_duration`] writes it, for `#[serde(with = …)]`.
pub mod duration_text {
    use std::{borrow::Cow, time::Duration};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes it.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }
}

/// Like [`duration_text`], for a duration that may be missing.
pub mod optional_duration_text {
    use std::{borrow::Cow, time::Duration};

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    /// Writes it.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(super::format_duration).serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = <Option<Cow<'de, str>>>::deserialize(deserializer)?;
        let duration = text.map(|text| super::parse_duration(&text));
        duration.transpose().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, millis, canonical) in [
            ("200ms", 200, "200ms"),
            ("30s", 30_000, "30s"),
            ("1m30s", 90_000, "1m30s"),
            ("90s", 90_000, "1m30s"),
            ("5m", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("1h1ms", 3_600_001, "1h1ms"),
            ("0s", 0, "0s"),
            ("0h0ms", 0, "0s"),
        ] {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(duration), canonical);
        }
        assert_eq!(format_duration(Duration::from_nanos(1_999_999)), "1ms");
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("", "`` is not a duration"),
            ("30", "`30` has no unit"),
            ("s", "`s` is not a duration"),
            ("-1s", "`-1s` is not a duration"),
            ("1.5s", "`1.5s` is not a duration"),
            ("1 s", "`1 s` is not a duration"),
            ("1s ", "`1s ` is not a duration"),
            ("1d", "`1d` has the unknown unit `d`"),
            ("10us", "`10us` has the unknown unit `us`"),
            ("30s1m", "`30s1m` has `m` in the wrong place"),
            ("1s1s", "`1s1s` has `s` in the wrong place"),
            ("5124095576031h", "`5124095576031h` is too large"),
            (
                "99999999999999999999ms",
                "`99999999999999999999ms` is too large",
            ),
        ] {
            assert_eq!(parse_duration(text).expect_err(text).to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn the_canonical_text_is_the_same_duration(millis in any::<u64>(), shift in 0u32..64) {
            let duration = Duration::from_millis(millis >> shift);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|([0-9]{1,21}(h|m|s|ms)){0,5}") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            }
        }
    }
}
