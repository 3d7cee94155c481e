//! Leaves that are one of a few words.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize,
    de::{IntoDeserializer, value},
};
use serde_json::Value as Json;

use super::{
    decode::listed,
    leaf::{Leaf, Refusal, Scalar, Wanted},
    schema::or_variable,
};
use crate::{
    object::{Access, Condition, Isolation, OnFailure, Overlap, RestartPolicy, Strategy},
    spec::problem::{nearest, quoted},
};

/// Makes enums leaves. Their words are those of their serialization.
macro_rules! choices {
    ($($choice:ty),*) => {$(
        impl Leaf for $choice {
            fn wanted() -> Wanted {
                let words = hint_words::<Self>();
                Wanted::new(format!("one of {words}"), format!("write one of {words} in quotes"))
            }

            fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
                choose(scalar.text()?)
            }

            fn schema() -> Schema {
                or_variable(Self::json_schema(&mut SchemaGenerator::default()))
            }
        }
    )*};
}
choices!(
    Isolation,
    Condition,
    Access,
    RestartPolicy,
    Strategy,
    OnFailure,
    Overlap
);

fn choose<T: JsonSchema + for<'de> Deserialize<'de>>(text: &str) -> Result<T, Refusal> {
    let deserializer: value::StrDeserializer<'_, value::Error> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|_| {
        let words = words::<T>();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let hint = match nearest(text, words.iter().copied()) {
            Some(near) => format!("did you mean `{near}`? It is one of {}", listed(&words)),
            None => format!("write one of {}", listed(&words)),
        };
        Refusal::with_hint(format!("{} is not known here", quoted(text)), hint)
    })
}

fn hint_words<T: JsonSchema>() -> String {
    let words = words::<T>();
    listed(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The words of a choice, from its schema: a `const` each when they are documented.
fn words<T: JsonSchema>() -> Vec<String> {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let variants = schema
        .get("oneOf")
        .and_then(Json::as_array)
        .cloned()
        .unwrap_or_default();
    let word = |variant: &Json| variant.get("const")?.as_str().map(str::to_owned);
    variants.iter().filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_known() {
        assert_eq!(words::<Isolation>(), ["pod", "request"]);
        assert_eq!(words::<Condition>(), ["started", "ready", "completed"]);
        assert_eq!(words::<Access>(), ["read-only", "read-write"]);
        assert_eq!(words::<RestartPolicy>(), ["always", "on-failure", "never"]);
        assert_eq!(words::<Strategy>(), ["rolling", "recreate"]);
        assert_eq!(words::<OnFailure>(), ["rollback", "pause"]);
        assert_eq!(words::<Overlap>(), ["skip", "queue", "replace"]);
        assert_eq!(
            choose::<RestartPolicy>("on-failure").ok(),
            Some(RestartPolicy::OnFailure)
        );
        assert!(choose::<RestartPolicy>("OnFailure").is_err());
    }
}
