//! From a TOML tree to typed tables, reporting everything that does not fit and carrying on.

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use crate::spec::{
    interpolate::{Failure, Replaced, interpolate},
    problem::{Draft, Place, ProblemKind, Report, nearest, quoted},
};

/// What a spec may grow to by interpolation and env files, in bytes.
///
/// Without it a short spec that names one long variable again and again would fill the memory.
const MAX_EXPANDED_BYTES: usize = 16 << 20;

/// A value of the TOML tree, with its place.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// Something a spec can hold at a key: a leaf, a list or a table.
pub(crate) trait Decode: Sized {
    /// Reads the value at `place`. `None` when there is none to be had, which was reported then.
    fn decode(value: &Value<'_>, place: Place, decoder: &mut Decoder<'_>) -> Option<Self>;
}

/// Something that has a meaning when its key is missing: an empty list, a table of defaults.
pub(crate) trait Absent {
    /// What the missing key at `place` means.
    fn absent(place: Place, decoder: &mut Decoder<'_>) -> Self;
}

/// What decoding needs beside the tree.
pub(crate) struct Decoder<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    /// What was found wrong so far.
    pub(crate) report: Report,
    expanded: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(environment: &'a dyn Fn(&str) -> Option<String>, report: Report) -> Self {
        Self {
            environment,
            report,
            expanded: 0,
        }
    }

    /// Reports a problem.
    pub(crate) fn problem(
        &mut self,
        place: &Place,
        kind: ProblemKind,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.report.add(Draft::new(place, kind, message, hint));
    }

    /// Counts bytes that come from outside the spec. False once there are too many, which is
    /// reported.
    pub(crate) fn expand(&mut self, place: &Place, bytes: usize) -> bool {
        self.expanded = self.expanded.saturating_add(bytes);
        let within = self.expanded <= MAX_EXPANDED_BYTES;
        if !within {
            let message = format!("the spec grows beyond {MAX_EXPANDED_BYTES} bytes here");
            let hint = "use fewer or shorter variables and env files";
            self.problem(place, ProblemKind::Bound, message, hint);
        }
        within
    }

    /// Replaces the variables in a text. `None` when it has none, or after a report.
    pub(super) fn interpolate(
        &mut self,
        text: &str,
        place: &Place,
    ) -> Result<Option<Replaced>, ()> {
        let left = MAX_EXPANDED_BYTES.saturating_sub(self.expanded);
        match interpolate(text, self.environment, left) {
            Ok(None) => Ok(None),
            Ok(Some(replaced)) => match self.expand(place, replaced.text.len()) {
                true => Ok(Some(replaced)),
                false => Err(()),
            },
            Err(Failure::TooLong) => {
                self.expand(place, usize::MAX);
                Err(())
            }
            Err(Failure::Unreplaceable(message, hint)) => {
                self.problem(place, ProblemKind::Interpolation, message, hint);
                Err(())
            }
        }
    }

    /// The table a value must be.
    pub(super) fn table<'t, 'i>(
        &mut self,
        value: &'t Value<'i>,
        place: &Place,
        hint: &str,
    ) -> Option<&'t DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        // The parser gives a list made of `[[headers]]` the place of the first of them.
        let place_of_first = |array: &DeArray<'_>| array.first().map(Spanned::span);
        let in_headers = value.get_ref().as_array().and_then(place_of_first) == Some(value.span());
        let hint = match in_headers {
            true => format!("write the header in single brackets: `[{}]`", place.key),
            false => hint.to_owned(),
        };
        self.wrong_type(place, "a table", value.get_ref(), &hint);
        None
    }

    /// Reports a value of the wrong type.
    pub(super) fn wrong_type(
        &mut self,
        place: &Place,
        expected: &str,
        found: &DeValue<'_>,
        hint: &str,
    ) {
        let message = format!("expected {expected}, found {}", description(found));
        self.problem(place, ProblemKind::Type, message, hint);
    }

    /// Reports the keys of a table that are not among the known ones.
    pub(super) fn unknown_keys(&mut self, table: &DeTable<'_>, place: &Place, known: &[&str]) {
        let is_known = |key: &&Spanned<_>| known.contains(&AsRef::<str>::as_ref(key.get_ref()));
        let mut unknown: Vec<&Spanned<_>> = table.keys().filter(|key| !is_known(key)).collect();
        unknown.sort_by_key(|key| key.span().start);
        for key in unknown {
            let name: &str = key.get_ref();
            if self.report.is_full() {
                self.report.omit();
                continue;
            }
            let place = place.child(name, key.span());
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", listed(known)),
            };
            let message = format!("unknown key {}", quoted(name));
            self.problem(&place, ProblemKind::UnknownKey, message, hint);
        }
    }
}

/// The ways to read a key of a table, named as in the declaration of tables.
impl Decoder<'_> {
    /// A key that must be there.
    pub(super) fn required<T: Decode>(
        &mut self,
        table: &DeTable<'_>,
        place: &Place,
        name: &str,
        example: &str,
    ) -> Option<T> {
        if !table.contains_key(name) {
            let hint = format!("add `{name} = {example}`");
            let message = format!("the key `{name}` is missing");
            self.problem(place, ProblemKind::MissingKey, message, hint);
        }
        self.optional(table, place, name)
    }

    /// A key that must be there, unless the key `other` is.
    pub(super) fn either<T: Decode>(
        &mut self,
        table: &DeTable<'_>,
        place: &Place,
        name: &str,
        example: &str,
        other: &str,
        other_example: &str,
    ) -> Option<T> {
        if !table.contains_key(name) && !table.contains_key(other) {
            let hint = format!("add `{name} = {example}`, or `{other} = {other_example}`");
            let message = format!("neither `{name}` nor `{other}` is there");
            self.problem(place, ProblemKind::MissingKey, message, hint);
        }
        self.optional(table, place, name)
    }

    /// A key that may be missing.
    pub(super) fn optional<T: Decode>(
        &mut self,
        table: &DeTable<'_>,
        place: &Place,
        name: &str,
    ) -> Option<T> {
        let value = table.get(name)?;
        T::decode(value, place.child(name, value.span()), self)
    }

    /// A list or table that has a meaning when it is missing.
    pub(super) fn nested<T: Decode + Absent>(
        &mut self,
        table: &DeTable<'_>,
        place: &Place,
        name: &str,
    ) -> T {
        match self.optional(table, place, name) {
            Some(value) => value,
            None => T::absent(place.child(name, place.span.clone()), self),
        }
    }
}

/// Words in backticks with commas between them.
pub(crate) fn listed(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

/// What a value is, in words, with the value itself when it is short.
pub(super) fn description(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the text {}", quoted(text)),
        DeValue::Integer(integer) => format!("the integer {}", quoted(&integer.to_string())),
        DeValue::Float(float) => format!("the number {}", quoted(float.as_str())),
        DeValue::Boolean(value) => format!("`{value}`"),
        DeValue::Datetime(date) => format!("the date `{date}`"),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
