//! Leaves that are numbers and quantities, with the bounds they must keep.

use std::time::Duration;

use schemars::{Schema, json_schema};

use super::{
    leaf::{Leaf, Refusal, Scalar, Wanted},
    schema::{or_variable, text},
};
use crate::{
    quantity::{
        Amount, ByteSize, Cpu, Kind, Percent, QuantityError, format_duration, parse_duration,
    },
    spec::problem::quoted,
};

/// The longest duration a spec can name: a year. Clocks can be moved by it without overflow.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// The largest number of cores a spec can name.
const MAX_CORES: u32 = 1024;

/// `true` or `false`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl Leaf for Flag {
    fn wanted() -> Wanted {
        Wanted::new(
            "`true` or `false`",
            "write `true` or `false` without quotes",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        match scalar {
            Scalar::Boolean(value) => Ok(Self(*value)),
            Scalar::Text("true", true) => Ok(Self(true)),
            Scalar::Text("false", true) => Ok(Self(false)),
            Scalar::Text(..) | Scalar::Integer(_) | Scalar::Float(_) => Err(Refusal::Type),
        }
    }

    fn schema() -> Schema {
        or_variable(json_schema!({ "type": "boolean" }))
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Count<const MIN: u32, const MAX: u32>(pub(crate) u32);

impl<const MIN: u32, const MAX: u32> Leaf for Count<MIN, MAX> {
    fn wanted() -> Wanted {
        Wanted::new(
            "a whole number",
            format!("write a whole number from {MIN} to {MAX}, without quotes"),
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let range = i128::from(MIN)..=i128::from(MAX);
        let value = whole(scalar, &range)?;
        Ok(Self(u32::try_from(value).unwrap_or(MAX)))
    }

    fn schema() -> Schema {
        or_variable(json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX }))
    }
}

impl<const MIN: u32, const MAX: u32> std::fmt::Display for Count<MIN, MAX> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Wasmtime fuel: a whole number from 1 to the largest TOML has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fuel(pub(crate) u64);

impl Leaf for Fuel {
    fn wanted() -> Wanted {
        Wanted::new(
            "a whole number",
            format!(
                "write a whole number from 1 to {}, without quotes",
                i64::MAX
            ),
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let value = whole(scalar, &(1..=i128::from(i64::MAX)))?;
        Ok(Self(u64::try_from(value).unwrap_or(u64::MAX)))
    }

    fn schema() -> Schema {
        or_variable(json_schema!({ "type": "integer", "minimum": 1, "maximum": i64::MAX }))
    }
}

fn whole(scalar: &Scalar<'_>, range: &std::ops::RangeInclusive<i128>) -> Result<i128, Refusal> {
    let value = scalar.integer()?;
    if range.contains(&value) {
        return Ok(value);
    }
    let (bound, word) = match value < *range.start() {
        true => (range.start(), "less"),
        false => (range.end(), "more"),
    };
    Err(Refusal::value(format!(
        "{} is {word} than {bound}",
        shown_integer(value)
    )))
}

/// The integer, or that it is beyond all bounds when its digits are not known.
fn shown_integer(value: i128) -> String {
    match value {
        i128::MIN | i128::MAX => "the number".to_owned(),
        value => format!("`{value}`"),
    }
}

/// A finite number above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Positive(pub(crate) f64);

impl Leaf for Positive {
    fn wanted() -> Wanted {
        Wanted::new(
            "a number",
            "write a number above 0, as in 40 or 2.5, without quotes",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let value = match scalar {
            // Every integer a target can sensibly be is exact in an `f64`.
            Scalar::Integer(value) => *value as f64,
            Scalar::Float(value) => *value,
            Scalar::Text(text, true) => text.trim().parse().map_err(|_| Refusal::Type)?,
            Scalar::Text(_, false) | Scalar::Boolean(_) => return Err(Refusal::Type),
        };
        match value.is_finite() && value > 0.0 {
            true => Ok(Self(value)),
            false if value.is_finite() => Err(Refusal::value(format!(
                "{} is not above 0",
                quoted(&value.to_string())
            ))),
            false => Err(Refusal::value(format!("`{value}` is not a finite number"))),
        }
    }

    fn schema() -> Schema {
        or_variable(json_schema!({ "type": "number", "exclusiveMinimum": 0 }))
    }
}

/// A duration of at least `MIN_MS` milliseconds and at most a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time<const MIN_MS: u64>(pub(crate) Duration);

impl<const MIN_MS: u64> Leaf for Time<MIN_MS> {
    fn wanted() -> Wanted {
        Wanted::new(Kind::Duration.as_str(), Kind::Duration.advice())
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        let duration = parse_duration(text).map_err(refusal)?;
        let least = Duration::from_millis(MIN_MS);
        if duration < least {
            return Err(Refusal::with_hint(
                format!("{} is too short", quoted(text)),
                format!(
                    "write a duration of at least \"{}\"",
                    format_duration(least)
                ),
            ));
        }
        if duration > MAX_DURATION {
            return Err(Refusal::with_hint(
                format!("{} is too long", quoted(text)),
                format!(
                    "write a duration of at most \"{}\"",
                    format_duration(MAX_DURATION)
                ),
            ));
        }
        Ok(Self(duration))
    }

    fn schema() -> Schema {
        let title = if MIN_MS == 0 {
            "duration"
        } else {
            "duration above 0"
        };
        let pattern = "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";
        text(title, pattern, &["200ms", "30s", "1m30s"])
    }
}

impl<const MIN_MS: u64> std::fmt::Display for Time<MIN_MS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

/// A size from `MIN` to `MAX` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size<const MIN: u64, const MAX: u64>(pub(crate) ByteSize);

impl<const MIN: u64, const MAX: u64> Leaf for Size<MIN, MAX> {
    fn wanted() -> Wanted {
        Wanted::new(Kind::ByteSize.as_str(), Kind::ByteSize.advice())
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        let size = ByteSize::parse(text).map_err(refusal)?;
        let fault = match size.0 {
            bytes if bytes < MIN => "too small",
            bytes if bytes > MAX => "too large",
            _ => return Ok(Self(size)),
        };
        Err(Refusal::with_hint(
            format!("{} is {fault}", quoted(text)),
            format!(
                "write a size from \"{}\" to \"{}\"",
                ByteSize(MIN),
                ByteSize(MAX)
            ),
        ))
    }

    fn schema() -> Schema {
        let title = format!("size, {} to {}", ByteSize(MIN), ByteSize(MAX));
        text(
            &title,
            "^[0-9]+(\\.[0-9]+)?([KMGT]i?)?B$",
            &["64MiB", "1.5GB", "512B"],
        )
    }
}

/// A share of CPU from a thousandth of a core on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuShare(pub(crate) Cpu);

impl Leaf for CpuShare {
    fn wanted() -> Wanted {
        Wanted::new(
            Kind::Cpu.as_str(),
            format!("{}; quotes are needed for both", Kind::Cpu.advice()),
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        let cpu = Cpu::parse(text).map_err(refusal)?;
        let most = MAX_CORES * 1000;
        match cpu.millis {
            millis if (1..=most).contains(&millis) => Ok(Self(cpu)),
            _ => Err(Refusal::with_hint(
                format!("{} is not a share a pod can have", quoted(text)),
                format!("write a share from \"1m\" to \"{MAX_CORES}\""),
            )),
        }
    }

    fn schema() -> Schema {
        text("CPU share", "^[0-9]+(\\.[0-9]+)?m?$", &["500m", "2", "0.5"])
    }
}

/// A percentage from 1 to 95: what is close to all that a pod may use cannot be told from all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(pub(crate) Percent);

impl Leaf for Share {
    fn wanted() -> Wanted {
        Wanted::new(
            Kind::Percent.as_str(),
            "write a percentage from \"1%\" to \"95%\": no pod uses more than its limit, so \
             the rest is what the autoscaler has to see that more is needed",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        let percent = Percent::parse(text).map_err(refusal)?;
        match percent.0 {
            1..=95 => Ok(Self(percent)),
            _ => Err(Refusal::with_hint(
                format!("{} is not from 1 to 95 percent", quoted(text)),
                Self::wanted().hint,
            )),
        }
    }

    fn schema() -> Schema {
        text("percentage, 1% to 95%", "^[0-9]+%$", &["70%"])
    }
}

/// A number of pods up to 1000, or a percentage up to 100 of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pods(pub(crate) Amount);

impl Leaf for Pods {
    fn wanted() -> Wanted {
        Wanted::new(
            Kind::Amount.as_str(),
            "write a number of pods from 0 to 1000, as in 1, or a percentage to \"100%\", \
             as in \"25%\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let amount = match scalar {
            Scalar::Integer(value) => {
                let value = u32::try_from(*value).ok().filter(|value| *value <= 1000);
                let value = value.ok_or_else(|| {
                    let shown = shown_integer(scalar.integer().unwrap_or(i128::MAX));
                    Refusal::value(format!("{shown} is not from 0 to 1000"))
                })?;
                Amount::Count(value)
            }
            Scalar::Text(text, _) => Amount::parse(text)
                .map_err(|error| Refusal::with_hint(error.to_string(), Self::wanted().hint))?,
            Scalar::Float(_) | Scalar::Boolean(_) => return Err(Refusal::Type),
        };
        match (amount, scalar) {
            (Amount::Count(_), Scalar::Text(text, false)) => Err(Refusal::with_hint(
                format!("{} has no unit", quoted(text)),
                "write a number of pods without quotes, or a percentage with `%`",
            )),
            (Amount::Count(1001..) | Amount::Percent(Percent(101..)), Scalar::Text(text, _)) => {
                Err(Refusal::value(format!("{} is too large", quoted(text))))
            }
            (amount, _) => Ok(Self(amount)),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 1000 },
            {
                "title": "percentage, 0% to 100%",
                "type": "string",
                "pattern": "^[0-9]+%$",
                "examples": ["25%"],
            },
            super::schema::variable(),
        ] })
    }
}

fn refusal(error: QuantityError) -> Refusal {
    Refusal::with_hint(error.to_string(), error.hint())
}
