//! The values of `env`: texts and secrets.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    decode::{Decode, Decoder, Value},
    leaf::At,
    table::table,
    text::Text,
};
use crate::{name::Name, spec::problem::Place};

table! {
    /// A variable whose value is a secret.
    struct SecretVariable {
        /// The secret of this app, which a table `[secret.NAME]` declares.
        required secret: At<Name>, "\"db\"";
    }
}

/// The value of a variable.
#[derive(Clone, Debug)]
pub(crate) enum Variable {
    Text(At<Text>),
    Secret(SecretVariable),
}

impl Decode for Variable {
    fn decode(value: &Value<'_>, place: Place, decoder: &mut Decoder<'_>) -> Option<Self> {
        match value.get_ref().is_table() {
            true => SecretVariable::decode(value, place, decoder).map(Self::Secret),
            false => At::decode(value, place, decoder).map(Self::Text),
        }
    }
}

impl JsonSchema for Variable {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Variable".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let text = generator.subschema_for::<At<Text>>();
        let secret = generator.subschema_for::<SecretVariable>();
        json_schema!({ "anyOf": [text, secret] })
    }
}
