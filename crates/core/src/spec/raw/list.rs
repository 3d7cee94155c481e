//! Lists, and tables whose keys the user chooses.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::de::DeValue;

use super::{
    decode::{Absent, Decode, Decoder, Value, description},
    leaf::{At, Leaf, Refusal, Scalar, Wanted},
};
use crate::{
    name::Name,
    object::Condition,
    spec::problem::{Place, ProblemKind},
};

/// The most elements of a list, and of a table whose keys the user chooses. Each service takes a
/// few hundred values to read, whatever is said of it.
pub(crate) const MAX_ELEMENTS: usize = 5000;

/// Reports that there are too many elements, before any of them is read.
fn too_many(elements: usize, place: &Place, decoder: &mut Decoder<'_>) -> bool {
    let beyond = elements > MAX_ELEMENTS;
    if beyond {
        let key = &place.key;
        let message = format!("`{key}` has {elements} elements, more than {MAX_ELEMENTS}");
        let hint = "leave some out, or split the app into several, each with a file of its own";
        decoder.problem(place, ProblemKind::Bound, message, hint);
    }
    beyond
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(value: &Value<'_>, place: Place, decoder: &mut Decoder<'_>) -> Option<Self> {
        let DeValue::Array(array) = value.get_ref() else {
            let hint = match value.get_ref().is_str() {
                true => "put it in square brackets: [\"…\"]",
                false => "write a list in square brackets",
            };
            decoder.wrong_type(&place, "a list", value.get_ref(), hint);
            return None;
        };
        if too_many(array.len(), &place, decoder) {
            return None;
        }
        let elements = array.iter().enumerate();
        let element = |(index, value): (usize, &Value<'_>)| {
            T::decode(value, place.element(index, value.span()), decoder)
        };
        Some(elements.filter_map(element).collect())
    }
}

impl<T> Absent for Vec<T> {
    fn absent(_: Place, _: &mut Decoder<'_>) -> Self {
        Self::new()
    }
}

/// A list that may also be one value alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<T: Decode> Decode for OneOrMany<T> {
    fn decode(value: &Value<'_>, place: Place, decoder: &mut Decoder<'_>) -> Option<Self> {
        match value.get_ref().is_array() {
            true => Vec::decode(value, place, decoder).map(Self),
            false => T::decode(value, place, decoder).map(|one| Self(vec![one])),
        }
    }
}

impl<T> Absent for OneOrMany<T> {
    fn absent(_: Place, _: &mut Decoder<'_>) -> Self {
        Self(Vec::new())
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A table whose keys the user chooses, in the order of the text.
#[derive(Clone, Debug)]
pub(crate) struct Map<K, V>(pub(crate) Vec<(At<K>, V)>);

impl<K: Leaf, V: Decode> Decode for Map<K, V> {
    fn decode(value: &Value<'_>, place: Place, decoder: &mut Decoder<'_>) -> Option<Self> {
        let hint = "write a table, as in `[header]` with keys below it or { key = … }";
        let table = decoder.table(value, &place, hint)?;
        if too_many(table.len(), &place, decoder) {
            return None;
        }
        let mut pairs: Vec<_> = table.iter().collect();
        pairs.sort_by_key(|(key, _)| key.span().start);
        let mut entries = Vec::new();
        for (key, value) in pairs {
            let name = key.get_ref();
            // Both are read even if one is bad, so that everything wrong is said at once.
            let key = decode_key(name, place.child(name, key.span()), decoder);
            let value = V::decode(value, place.child(name, value.span()), decoder);
            entries.extend(key.zip(value));
        }
        Some(Self(entries))
    }
}

/// A key is taken as it stands: variables are replaced in values only.
fn decode_key<K: Leaf>(name: &str, place: Place, decoder: &mut Decoder<'_>) -> Option<At<K>> {
    match K::accept(&Scalar::Text(name, false)) {
        Ok(key) => Some(At::key(key, place)),
        Err(refusal) => {
            let Wanted { what, hint: usual } = K::wanted();
            let (message, hint) = match refusal {
                Refusal::Type | Refusal::Nul => (format!("expected {what}"), usual),
                Refusal::Value(message, hint) => (message, hint.unwrap_or(usual)),
            };
            decoder.problem(&place, ProblemKind::Value, message, hint);
            None
        }
    }
}

impl<K, V> Absent for Map<K, V> {
    fn absent(_: Place, _: &mut Decoder<'_>) -> Self {
        Self(Vec::new())
    }
}

impl<K: Leaf, V: JsonSchema> JsonSchema for Map<K, V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("MapOf{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let value = generator.subschema_for::<V>();
        json_schema!({
            "type": "object",
            "propertyNames": K::schema(),
            "additionalProperties": value,
        })
    }
}

/// What a workload waits for: names alone, or each with a condition.
#[derive(Clone, Debug)]
pub(crate) struct Dependencies(pub(crate) Vec<(At<Name>, Option<At<Condition>>)>);

impl Decode for Dependencies {
    fn decode(value: &Value<'_>, place: Place, decoder: &mut Decoder<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => {
                let names: Vec<At<Name>> = Vec::decode(value, place, decoder)?;
                Some(Self(names.into_iter().map(|name| (name, None)).collect()))
            }
            DeValue::Table(_) => {
                let Map(entries) = Map::decode(value, place, decoder)?;
                Some(Self(
                    entries
                        .into_iter()
                        .map(|(name, c)| (name, Some(c)))
                        .collect(),
                ))
            }
            found => {
                let message = format!("expected a list or a table, found {}", description(found));
                let hint = "write [\"api\"], or { api = \"ready\", migrate = \"completed\" }";
                decoder.problem(&place, ProblemKind::Type, message, hint);
                None
            }
        }
    }
}

impl Absent for Dependencies {
    fn absent(_: Place, _: &mut Decoder<'_>) -> Self {
        Self(Vec::new())
    }
}

impl JsonSchema for Dependencies {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Dependencies".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = generator.subschema_for::<Vec<At<Name>>>();
        let table = generator.subschema_for::<Map<Name, At<Condition>>>();
        json_schema!({ "anyOf": [list, table] })
    }
}
