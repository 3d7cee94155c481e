//! Quantities as a spec writes them: sizes, durations, CPU shares, percentages.
//!
//! Every kind has one canonical text: `Display` writes it, parsing it again gives the same value,
//! and serialization uses it too.

mod amount;
mod cpu;
mod decimal;
mod duration;
mod size;

use std::fmt;

pub use duration::{duration_text, format_duration, optional_duration_text, parse_duration};

/// A number of bytes, written `64MiB`, `16MB`, `4KiB` or `512B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// A share of CPU in thousandths of a core, written `500m` or as a number of cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu {
    /// Thousandths of a core.
    pub millis: u32,
}

/// A percentage, written `25%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u32);

/// A number of pods, or a percentage of the replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// This many.
    Count(u32),
    /// This share of the replicas.
    Percent(Percent),
}

/// Why a text is not a quantity. The hint that goes with it is [`QuantityError::hint`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantityError {
    /// What was to be parsed.
    text: String,
    /// What it should have been.
    kind: Kind,
    fault: Fault,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// The text has no number where one belongs.
    Malformed,
    /// The text is a bare number, which could mean several things.
    NoUnit,
    /// The text has this unit, which does not exist.
    UnknownUnit(String),
    /// The text has this unit twice, or before a larger one.
    UnitOrder(String),
    /// The text has more digits after the point than the quantity can hold.
    Fraction,
    /// The value is too large to be held.
    TooLarge,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, kind, fault } = self;
        match fault {
            Fault::Malformed => write!(f, "`{text}` is not {}", kind.as_str()),
            Fault::NoUnit => write!(f, "`{text}` has no unit"),
            Fault::UnknownUnit(unit) => write!(f, "`{text}` has the unknown unit `{unit}`"),
            Fault::UnitOrder(unit) => write!(f, "`{text}` has `{unit}` in the wrong place"),
            Fault::Fraction => write!(f, "`{text}` is not a whole number of {}", kind.smallest()),
            Fault::TooLarge => write!(f, "`{text}` is too large"),
        }
    }
}

impl std::error::Error for QuantityError {}

/// The kinds of quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`ByteSize`].
    ByteSize,
    /// [`Cpu`].
    Cpu,
    /// [`Percent`].
    Percent,
    /// [`Amount`].
    Amount,
    /// [`std::time::Duration`].
    Duration,
}

impl Kind {
    /// What a value of this kind is, as in "a size".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByteSize => "a size",
            Self::Cpu => "a CPU share",
            Self::Percent => "a percentage",
            Self::Amount => "a number of pods or a percentage",
            Self::Duration => "a duration",
        }
    }

    /// How a good value is written, as advice.
    pub fn advice(self) -> &'static str {
        match self {
            Self::ByteSize => {
                "write a number and a unit, as in \"64MiB\"; the units are B, KB, MB, GB, TB \
                 and KiB, MiB, GiB, TiB"
            }
            Self::Cpu => "write thousandths of a core, as in \"500m\", or cores, as in \"0.5\"",
            Self::Percent => "write a whole number and a percent sign, as in \"25%\"",
            Self::Amount => "write a number of pods, as in 1, or a percentage, as in \"25%\"",
            Self::Duration => {
                "write whole numbers with units, largest first, as in \"200ms\", \"30s\" or \
                 \"1m30s\"; the units are h, m, s, ms"
            }
        }
    }

    /// What `read` makes of a text that should be of this kind.
    fn parse<T>(self, text: &str, read: fn(&str) -> Result<T, Fault>) -> Result<T, QuantityError> {
        read(text).map_err(|fault| QuantityError {
            text: text.to_owned(),
            kind: self,
            fault,
        })
    }

    fn smallest(self) -> &'static str {
        match self {
            Self::ByteSize => "bytes",
            Self::Cpu => "thousandths of a core",
            Self::Percent | Self::Amount => "percent",
            Self::Duration => "milliseconds",
        }
    }
}

impl QuantityError {
    /// How to write the value instead.
    pub fn hint(&self) -> &'static str {
        self.kind.advice()
    }
}

/// Parsing, and serialization as the canonical text.
macro_rules! as_text {
    ($($quantity:ident),*) => {$(
        impl $quantity {
            /// Parses the quantity; the type says how it is written.
            pub fn parse(text: &str) -> Result<Self, QuantityError> {
                Kind::$quantity.parse(text, Self::read)
            }
        }

        impl serde::Serialize for $quantity {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $quantity {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(ByteSize, Cpu, Percent, Amount);
