//! Leaves that say when a job runs.

use std::fmt;

use schemars::{Schema, json_schema};

use super::{
    leaf::{Leaf, Refusal, Scalar, Wanted},
    schema::or_variable,
};
use crate::{
    schedule,
    spec::problem::{nearest, quoted},
};

/// A cron expression of five fields, with one space between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expression(pub(crate) String);

impl Leaf for Expression {
    fn wanted() -> Wanted {
        Wanted::new(
            "a schedule",
            "write minute, hour, day of the month, month and day of the week in quotes, as in \
             \"*/5 * * * *\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        match schedule::check(text) {
            Ok(()) => {
                let fields: Vec<_> = text.split_ascii_whitespace().collect();
                Ok(Self(fields.join(" ")))
            }
            Err(error) => Err(Refusal::with_hint(error.to_string(), error.hint()).about(text)),
        }
    }

    fn schema() -> Schema {
        or_variable(json_schema!({
            "title": "cron expression",
            "type": "string",
            "pattern": "^\\s*\\S+(\\s+\\S+){4}\\s*$",
            "examples": ["*/5 * * * *", "30 2 * * MON-FRI"],
        }))
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone(pub(crate) String);

impl Leaf for Zone {
    fn wanted() -> Wanted {
        Wanted::new(
            "a time zone",
            "write its name in the IANA database in quotes, as in \"Europe/Berlin\" or \"UTC\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        if let Some(zone) = schedule::zone(text) {
            return Ok(Self(zone));
        }
        let message = format!("{} is no time zone", quoted(text));
        let mut zones = schedule::zones();
        // A guess costs the more, the more names it is made from.
        let first = |name: &str| name.chars().next().map(|first| first.to_ascii_lowercase());
        zones.retain(|zone| first(zone) == first(text));
        let lower: Vec<_> = zones.iter().map(|zone| zone.to_lowercase()).collect();
        let near = nearest(text, lower.iter().map(String::as_str));
        let near = near.and_then(|near| zones.iter().find(|zone| zone.eq_ignore_ascii_case(near)));
        match near {
            Some(near) => {
                let hint = format!("did you mean `{near}`?");
                Err(Refusal::with_hint(message, hint))
            }
            None => Err(Refusal::value(message)),
        }
    }

    fn schema() -> Schema {
        or_variable(json_schema!({
            "title": "time zone",
            "type": "string",
            "minLength": 1,
            "examples": ["UTC", "Europe/Berlin"],
        }))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
