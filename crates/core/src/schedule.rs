//! When a job with a schedule is due: a cron expression in a time zone.
//!
//! The expression has the five fields of crontab, as [`croner`] takes them. Where the clocks of the
//! zone are changed, each due time comes about once:
//!
//! - A time that the change leaves out is due at the first instant after it, and several such times
//!   are due there together, once.
//! - A time that comes twice is due the first time.
//! - An expression that names every hour (`*`) goes by the time that passes: it is due in each hour
//!   that there is, in a repeated one too, and in none that there is not.

use std::cmp::Ordering;

use croner::{
    CivilDateTime, Cron, CronDateTime, Resolution, Weekday,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp, ZonedDateTime, civil,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

/// The longest expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 256;
/// How far ahead a due time is looked for. The 29th of February is a Monday again after at most 40
/// years.
const MAX_YEARS: i32 = 50;
/// Due times that are looked at for one that is still to come: those of a day that comes twice.
const MAX_PASSED: usize = 24 * 60;
/// The zone of a schedule that names none.
pub const UTC: &str = "UTC";

/// The fields of an expression: what each is called, and what it may be.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "a minute is from 0 to 59"),
    ("hour", "an hour is from 0 to 23"),
    (
        "day of the month",
        "a day of the month is from 1 to 31, or `L` for the last",
    ),
    ("month", "a month is from 1 to 12, or from `JAN` to `DEC`"),
    (
        "day of the week",
        "a day of the week is from 0 to 7, both for Sunday, or from `SUN` to `SAT`",
    ),
];

/// Why a text is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It has too few fields, or too many.
    #[error("has {0} fields, not 5")]
    Fields(usize),
    /// It is too long.
    #[error("is longer than {MAX_EXPRESSION_BYTES} bytes")]
    TooLong,
    /// A field cannot be read.
    #[error("has the {name} `{field}`, which cannot be")]
    Field {
        /// What the field is.
        name: &'static str,
        /// What it says.
        field: String,
        /// What it may say.
        bounds: &'static str,
    },
    /// Its fields are good, and no day is as they say.
    #[error("names a day that never comes")]
    Never,
}

impl ExpressionError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Field { bounds, .. } => {
                format!("{bounds}; `*`, `1,2`, `1-5` and `*/5` say more than one")
            }
            Self::Fields(_) | Self::TooLong => {
                "write minute, hour, day of the month, month and day of the week, as in \
                 \"*/5 * * * *\" for every five minutes"
                    .to_owned()
            }
            Self::Never => "write a day that the month has".to_owned(),
        }
    }
}

/// The names of all time zones.
pub fn zones() -> Vec<String> {
    let database = TimeZoneDatabase::bundled();
    let names = database.available();
    names.map(|name| name.as_str().to_owned()).collect()
}

/// The usual name of a time zone, if there is one of this name.
pub fn zone(name: &str) -> Option<String> {
    let found = find(name)?;
    Some(found.iana_name().unwrap_or(UTC).to_owned())
}

fn find(name: &str) -> Option<TimeZone> {
    match name.eq_ignore_ascii_case(UTC) {
        true => Some(TimeZone::UTC),
        false => TimeZoneDatabase::bundled().get(name).ok(),
    }
}

fn parser() -> CronParser {
    let parser = CronParser::builder().seconds(Seconds::Disallowed);
    parser.year(Year::Disallowed).build()
}

/// Reads an expression.
fn parse(expression: &str) -> Result<Cron, ExpressionError> {
    if expression.len() > MAX_EXPRESSION_BYTES {
        return Err(ExpressionError::TooLong);
    }
    let fields: Vec<_> = expression.split_ascii_whitespace().collect();
    let Ok(fields) = <[&str; 5]>::try_from(fields.as_slice()) else {
        return Err(ExpressionError::Fields(fields.len()));
    };
    for (number, (field, (name, bounds))) in fields.iter().zip(FIELDS).enumerate() {
        let mut alone = ["*"; 5];
        alone[number] = field;
        let legal = |c: char| c.is_ascii_alphanumeric() || "*/,-#".contains(c);
        if !field.chars().all(legal) || parser().parse(&alone.join(" ")).is_err() {
            let field = (*field).to_owned();
            return Err(ExpressionError::Field {
                name,
                field,
                bounds,
            });
        }
    }
    let cron = parser().parse(&fields.join(" "));
    cron.map_err(|_| ExpressionError::Never)
}

/// Whether an expression can be read and is ever due.
pub fn check(expression: &str) -> Result<(), ExpressionError> {
    let timetable = Timetable {
        cron: parse(expression)?,
        zone: TimeZone::UTC,
    };
    match timetable.after(Timestamp::UNIX_EPOCH) {
        Some(_) => Ok(()),
        None => Err(ExpressionError::Never),
    }
}

/// The due times of a schedule.
#[derive(Debug)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

impl Timetable {
    /// Those of an expression in a time zone, if both are good.
    pub fn new(expression: &str, zone: &str) -> Option<Self> {
        // It has been checked as a whole where it was taken in.
        let cron = parser().parse(expression).ok()?;
        let zone = find(zone)?;
        Some(Self { cron, zone })
    }

    /// The first due time after `wall_ms`, both in milliseconds since the beginning of 1970; none
    /// within 50 years.
    pub fn next_after(&self, wall_ms: u64) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(wall_ms).ok()?).ok()?;
        u64::try_from(self.after(after)?.as_millisecond()).ok()
    }

    fn after(&self, after: Timestamp) -> Option<Timestamp> {
        if self.is_hourly() {
            let next = self.search(ZonedDateTime::new(after, self.zone.clone()))?;
            return Some(next.timestamp()).filter(|next| *next > after);
        }
        // By what clocks show, without a change of them.
        let shown = self.zone.to_datetime(after);
        let mut shown = shown.to_zoned_datetime(TimeZone::UTC).ok()?;
        for _ in 0..MAX_PASSED {
            shown = self.search(shown)?;
            let due = self.instant(shown.datetime())?;
            if due > after {
                return Some(due);
            }
        }
        None
    }

    fn is_hourly(&self) -> bool {
        let names = |hour| self.cron.pattern.hour_match(hour).unwrap_or(false);
        (0..24).all(names)
    }

    fn search(&self, after: ZonedDateTime) -> Option<ZonedDateTime> {
        let until = i32::from(after.year()) + MAX_YEARS;
        let after = Local { at: after, until };
        let next = self.cron.find_next_occurrence(&after, false);
        next.ok().map(|next| next.at)
    }

    /// When the clocks of the zone show this first, or have just been moved past it.
    fn instant(&self, shown: civil::DateTime) -> Option<Timestamp> {
        let ambiguous = self.zone.to_ambiguous_timestamp(shown);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
                ambiguous.earlier().ok()
            }
            AmbiguousOffset::Gap { .. } => {
                let second = SignedDuration::from_secs(1);
                let beyond = ambiguous.later().ok()?.checked_add(second).ok()?;
                let change = self.zone.preceding(beyond).next()?;
                Some(change.timestamp())
            }
        }
    }
}

/// A time in a zone, for `croner`.
#[derive(Clone)]
struct Local {
    at: ZonedDateTime,
    /// The last year that counts.
    until: i32,
}

impl Local {
    fn with(&self, at: Result<ZonedDateTime, jiff::Error>) -> Result<Self, CronError> {
        let until = self.until;
        let at = at.map_err(|_| CronError::InvalidTime)?;
        Ok(Self { at, until })
    }
}

/// A number of a date or a time of day, which `jiff` has in signed bytes.
fn small(number: u32) -> i8 {
    i8::try_from(number).unwrap_or(i8::MAX)
}

fn large(number: i8) -> u32 {
    u32::try_from(number).unwrap_or_default()
}

impl CronDateTime for Local {
    fn to_civil(&self) -> CivilDateTime {
        let it = self.at.datetime();
        let date = croner::CivilDate::from_parts_unchecked(
            it.year().into(),
            large(it.month()),
            large(it.day()),
        );
        let (hour, minute) = (large(it.hour()), large(it.minute()));
        let second = large(it.second());
        let time = croner::CivilTime::from_parts_unchecked(hour, minute, second);
        CivilDateTime::new(date, time)
    }

    fn civil_weekday(&self) -> Weekday {
        let days = self.at.weekday().to_sunday_zero_offset();
        Weekday::from_days_from_sunday(large(days))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        if civil.year() > self.until {
            return Err(CronError::TimeSearchLimitExceeded);
        }
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let shown = civil::DateTime::new(
            year,
            small(civil.month()),
            small(civil.day()),
            small(civil.hour()),
            small(civil.minute()),
            small(civil.second()),
            0,
        );
        let shown = shown.map_err(|_| CronError::InvalidDate)?;
        let ambiguous = self.at.time_zone().to_ambiguous_zoned_datetime(shown);
        Ok(match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => {
                Resolution::Single(self.with(ambiguous.unambiguous())?)
            }
            AmbiguousOffset::Fold { .. } => {
                let earlier = self.with(ambiguous.clone().earlier())?;
                Resolution::Ambiguous(earlier, self.with(ambiguous.later())?)
            }
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let later = self.at.checked_add(SignedDuration::from_secs(seconds));
        self.with(later).ok()
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.at.timestamp().cmp(&other.at.timestamp())
    }
}

#[cfg(test)]
mod tests;
