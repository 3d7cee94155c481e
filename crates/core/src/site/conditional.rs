//! What of a file is sent: all of it, parts of it, or only that it has not changed.
//!
//! As [RFC 9110](https://www.rfc-editor.org/rfc/rfc9110) says in 13.2.2 and 14: what cannot be
//! understood in a request is as if it were not there.

use std::ops::Range;

/// More ranges than this, or ranges that overlap, are answered with the whole file: they cost more
/// than that.
const MAX_RANGES: usize = 16;
/// A date tells two versions apart from this many seconds after it on, as in 8.8.2.2.
const STRONG_AFTER: u64 = 60;

/// What a client says of the version that it has, and of what it wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Unmodified-Since`, in seconds since the beginning of 1970.
    pub if_unmodified_since: Option<u64>,
    /// `If-Modified-Since`, likewise.
    pub if_modified_since: Option<u64>,
    /// `If-Range`.
    pub if_range: Option<IfRange<'a>>,
    /// `Range`.
    pub range: Option<&'a str>,
}

/// The version that a range is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfRange<'a> {
    /// An entity tag.
    Tag(&'a str),
    /// A date, in seconds since the beginning of 1970.
    Date(u64),
    /// Neither.
    Unreadable,
}

/// The version that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// Its entity tag, which is a strong one.
    pub tag: &'a str,
    /// When it was modified, in seconds since the beginning of 1970.
    pub modified: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Send {
    /// All of it.
    Whole,
    /// These bytes, of which there are some.
    Part(Range<u64>),
    /// These bytes, as a message of several parts.
    Parts(Vec<Range<u64>>),
    /// That the client has it.
    NotModified,
    /// That it is not what the client asked to change nothing of.
    PreconditionFailed,
    /// That there are no such bytes.
    Unsatisfiable,
}

/// What is sent to a client at this time.
pub fn send(conditions: &Conditions<'_>, version: Version<'_>, now: u64) -> Send {
    let Version {
        tag,
        modified,
        bytes,
    } = version;
    let is_other = match (conditions.if_match, conditions.if_unmodified_since) {
        (Some(tags), _) => !names(tags, tag, false),
        (None, Some(since)) => modified > since,
        (None, None) => false,
    };
    if is_other {
        return Send::PreconditionFailed;
    }
    let is_known = match (conditions.if_none_match, conditions.if_modified_since) {
        (Some(tags), _) => names(tags, tag, true),
        (None, Some(since)) => modified <= since,
        (None, None) => false,
    };
    if is_known {
        return Send::NotModified;
    }
    let is_of_this = match conditions.if_range {
        None => true,
        Some(IfRange::Tag(wanted)) => wanted == tag,
        Some(IfRange::Date(date)) => date == modified && modified + STRONG_AFTER <= now,
        Some(IfRange::Unreadable) => false,
    };
    match conditions.range.filter(|_| is_of_this) {
        Some(range) => ranges(range, bytes),
        None => Send::Whole,
    }
}

/// Whether a list of entity tags has this one. A weak one is the same only where `is_weak` will do.
fn names(list: &str, tag: &str, is_weak: bool) -> bool {
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|item| {
            let item = match is_weak {
                true => item.strip_prefix("W/").unwrap_or(item),
                false => item,
            };
            item == tag
        })
}

fn ranges(text: &str, bytes: u64) -> Send {
    let Some(wanted) = parse(text) else {
        return Send::Whole;
    };
    let ranges: Vec<_> = wanted
        .iter()
        .filter_map(|wanted| wanted.of(bytes))
        .collect();
    match &ranges[..] {
        [] => Send::Unsatisfiable,
        [only] => Send::Part(only.clone()),
        several => {
            let mut sorted = several.to_vec();
            sorted.sort_by_key(|range| range.start);
            let overlap = sorted.windows(2).any(|two| two[0].end > two[1].start);
            match overlap {
                true => Send::Whole,
                false => Send::Parts(ranges),
            }
        }
    }
}

/// A range as it is asked for.
#[derive(Clone, Copy)]
enum Wanted {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl Wanted {
    /// The bytes of a file of this size, if there are any.
    fn of(self, bytes: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first) => first..bytes,
            Self::Between(first, last) => first..last.saturating_add(1).min(bytes),
            Self::Last(count) => bytes.saturating_sub(count)..bytes,
        };
        (range.start < range.end).then_some(range)
    }
}

fn parse(text: &str) -> Option<Vec<Wanted>> {
    let (unit, list) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut all = Vec::new();
    for item in list.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        if all.len() == MAX_RANGES {
            return None;
        }
        let (first, last) = item.split_once('-')?;
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            // A number that is too large is beyond any file.
            is_number.then(|| text.parse().unwrap_or(u64::MAX))
        };
        all.push(match (first.trim(), last.trim()) {
            ("", last) => Wanted::Last(number(last)?),
            (first, "") => Wanted::From(number(first)?),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return None;
                }
                Wanted::Between(first, last)
            }
        });
    }
    (!all.is_empty()).then_some(all)
}
