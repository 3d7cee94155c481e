//! Leaves: single values with the place they stand at.

use schemars::Schema;
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::decode::{Decode, Decoder, Value, description};
use crate::spec::{
    interpolate::Replaced,
    problem::{Place, ProblemKind, quoted},
};

/// A kind of single value.
pub(crate) trait Leaf: Sized {
    /// What a good value is.
    fn wanted() -> Wanted;

    /// Takes the value in.
    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal>;

    /// The JSON Schema of a good value.
    fn schema() -> Schema;
}

/// What a good value is, in words, which say nothing of the value found.
pub(crate) struct Wanted {
    /// As in "a size".
    pub(crate) what: String,
    /// How it is written.
    pub(crate) hint: String,
}

impl Wanted {
    pub(crate) fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        let (what, hint) = (what.into(), hint.into());
        Self { what, hint }
    }
}

/// A value of the file, after replacement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'a> {
    /// A text, and whether a variable was replaced in it, so that it may also stand for a number.
    Text(&'a str, bool),
    /// An integer; one beyond 128 bits is the largest or smallest there is.
    Integer(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
}

impl<'a> Scalar<'a> {
    /// The text, if it is one.
    pub(crate) fn text(&self) -> Result<&'a str, Refusal> {
        match self {
            Self::Text(text, _) => Ok(text),
            Self::Integer(_) | Self::Float(_) | Self::Boolean(_) => Err(Refusal::Type),
        }
    }

    /// The integer, if it is one or a variable gave one.
    pub(crate) fn integer(&self) -> Result<i128, Refusal> {
        match self {
            Self::Integer(integer) => Ok(*integer),
            Self::Text(text, true) => text.trim().parse().map_err(|_| Refusal::Type),
            Self::Text(_, false) | Self::Float(_) | Self::Boolean(_) => Err(Refusal::Type),
        }
    }
}

/// Why a value was not taken in.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It has the wrong type.
    Type,
    /// It is a text with a NUL character, which would be cut off there.
    Nul,
    /// It cannot be: what is wrong, and advice better than [`Wanted::hint`], if there is any. The
    /// advice says nothing of the value.
    Value(String, Option<String>),
}

impl Refusal {
    /// The value cannot be, and [`Wanted::hint`] says how it can.
    pub(crate) fn value(message: impl Into<String>) -> Self {
        Self::Value(message.into(), None)
    }

    /// The value cannot be, and here is how it can.
    pub(crate) fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Value(message.into(), Some(hint.into()))
    }

    /// The refusal of a part of `text`, whose message is what the text has, as a sentence about it.
    pub(crate) fn about(self, text: &str) -> Self {
        match self {
            Self::Value(has, hint) => Self::Value(format!("{} {has}", quoted(text)), hint),
            Self::Type | Self::Nul => self,
        }
    }
}

/// Where a leaf's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was given and is good.
    Given,
    /// Nothing was given: it is the default.
    Default,
    /// What was given was refused; the default stands in for it.
    Refused,
}

/// A leaf and its place.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
    pub(crate) origin: Origin,
    /// The text as the file has it, when variables were replaced in it.
    written: Option<String>,
}

impl<T> At<T> {
    /// Whether the value was given and is good.
    pub(crate) fn is_given(&self) -> bool {
        self.origin == Origin::Given
    }

    /// Whether the value can be compared with others: it was not refused.
    pub(crate) fn is_sound(&self) -> bool {
        self.origin != Origin::Refused
    }

    /// The value for a message: as written in the file when variables were replaced in it, since
    /// those may be secret.
    pub(crate) fn shown(&self) -> String
    where
        T: std::fmt::Display,
    {
        match &self.written {
            Some(written) => quoted(written),
            None => quoted(&self.value.to_string()),
        }
    }

    /// The key of a table as a leaf.
    pub(super) fn key(value: T, place: Place) -> Self {
        Self {
            value,
            place,
            origin: Origin::Given,
            written: None,
        }
    }
}

impl<T: Leaf> At<T> {
    /// The default of the key `name` in the table at `table`.
    ///
    /// # Panics
    ///
    /// When the default is refused: it is part of the program, and a test takes every one.
    fn preset(default: &Json, table: &Place, name: &str, origin: Origin) -> Self {
        let scalar = match default {
            Json::String(text) => Scalar::Text(text, false),
            Json::Bool(value) => Scalar::Boolean(*value),
            number => Scalar::Integer(number.as_i64().unwrap_or_default().into()),
        };
        let value = T::accept(&scalar)
            .unwrap_or_else(|_| panic!("the default of `{}.{name}` must be good", table.key));
        let place = table.child(name, table.span.clone());
        Self {
            value,
            place,
            origin,
            written: None,
        }
    }
}

impl Decoder<'_> {
    /// A key with a default, which also stands in for a value that was refused.
    pub(super) fn preset<T: Leaf>(
        &mut self,
        table: &DeTable<'_>,
        place: &Place,
        name: &str,
        default: impl Into<Json>,
    ) -> At<T> {
        let origin = match table.contains_key(name) {
            true => Origin::Refused,
            false => Origin::Default,
        };
        let given = self.optional(table, place, name);
        given.unwrap_or_else(|| At::preset(&default.into(), place, name, origin))
    }
}

impl<T: Leaf> Decode for At<T> {
    fn decode(value: &Value<'_>, place: Place, decoder: &mut Decoder<'_>) -> Option<Self> {
        let found = value.get_ref();
        let replaced = match found.as_str() {
            Some(text) => decoder.interpolate(text, &place).ok()?,
            None => None,
        };
        let scalar = scalar(found, replaced.as_ref());
        let result = scalar.map_or(Err(Refusal::Type), |scalar| T::accept(&scalar));
        let variables = replaced.is_some_and(|replaced| replaced.variables);
        let written = found.as_str().filter(|_| variables).map(str::to_owned);
        match result {
            Ok(value) => Some(Self {
                value,
                place,
                origin: Origin::Given,
                written,
            }),
            Err(refusal) => {
                refuse::<T>(refusal, found, written.as_deref(), &place, decoder);
                None
            }
        }
    }
}

/// A value of the file, after replacement, if it is a single one that a spec can hold.
fn scalar<'s>(found: &'s DeValue<'_>, replaced: Option<&'s Replaced>) -> Option<Scalar<'s>> {
    match found {
        DeValue::String(text) => Some(match replaced {
            Some(replaced) => Scalar::Text(&replaced.text, replaced.variables),
            None => Scalar::Text(text, false),
        }),
        DeValue::Integer(integer) => {
            let limit = match integer.as_str().starts_with('-') {
                true => i128::MIN,
                false => i128::MAX,
            };
            let value = i128::from_str_radix(integer.as_str(), integer.radix());
            Some(Scalar::Integer(value.unwrap_or(limit)))
        }
        DeValue::Float(float) => Some(Scalar::Float(float.as_str().parse().unwrap_or(f64::NAN))),
        DeValue::Boolean(value) => Some(Scalar::Boolean(*value)),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Reports that a value was not taken in. One that came out of variables is not shown.
fn refuse<T: Leaf>(
    refusal: Refusal,
    found: &DeValue<'_>,
    written: Option<&str>,
    place: &Place,
    decoder: &mut Decoder<'_>,
) {
    let Wanted { what, hint: usual } = T::wanted();
    let mut kind = ProblemKind::Value;
    let (message, hint) = match (refusal, written) {
        (Refusal::Nul, written) => {
            let message = match written {
                Some(written) => format!("{} becomes text with a NUL character", quoted(written)),
                None => format!("a NUL character in {}", description(found)),
            };
            let hint = "remove it: the guest would see the text cut off there";
            (message, hint.to_owned())
        }
        (Refusal::Type | Refusal::Value(..), Some(written)) => {
            (format!("{} does not become {what}", quoted(written)), usual)
        }
        (Refusal::Type, None) => {
            kind = ProblemKind::Type;
            (
                format!("expected {what}, found {}", description(found)),
                usual,
            )
        }
        (Refusal::Value(message, hint), None) => (message, hint.unwrap_or(usual)),
    };
    decoder.problem(place, kind, message, hint);
}

impl<T: Leaf> schemars::JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::wanted().what.into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> Schema {
        T::schema()
    }
}
