//! Bodies of requests to the API.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};
use zeroize::Zeroizing;

use crate::secret::SecretValue;

/// A spec to apply, with everything of the client's world that it refers to.
///
/// The node checks it just as the client does, and opens no file that it names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    /// The text of the spec.
    pub spec: String,
    /// Name of its file, for messages.
    #[serde(default = "default_path")]
    pub path: String,
    /// The absolute directory that relative paths in it start from.
    pub base: String,
    /// Variables that it refers to.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// The texts of its env files, by the paths that it has for them.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The values of its secrets by their names, in base64. They are asked for, and never given back.
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub secrets: Secrets,
    /// Profiles that are on.
    #[serde(default)]
    pub profiles: Vec<String>,
    /// Replicas of services, in the place of those that the spec says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<String, u32>,
    /// SHA-256 of the component of each service and job, or of the list of its static files, as 64
    /// lower-case hex digits.
    pub components: BTreeMap<String, String>,
    /// What brings the change about, in a few words: shown with the revisions that it makes.
    #[serde(default)]
    pub cause: String,
}

/// Values of secrets on their way to a node: the one place where they are written out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, SecretValue>);

impl Secrets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = |value: &SecretValue| Zeroizing::new(STANDARD.encode(value.bytes()));
        let secrets = self.0.iter();
        let secrets = secrets.map(|(name, value)| (name, encoded(value).to_string()));
        serializer.collect_map(secrets)
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // For a map alone what is there instead would be said.
        deserializer.deserialize_any(SecretsVisitor)
    }
}

/// Reads secrets. What is wrong with one is said without it.
struct SecretsVisitor;

impl<'de> Visitor<'de> for SecretsVisitor {
    type Value = Secrets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secrets in base64 by their names")
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Secrets, E> {
        Err(E::custom("`secrets` is a text, and not an object"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secrets, A::Error> {
        let mut secrets = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value::<serde_json::Value>()?;
            let text = match value {
                serde_json::Value::String(text) => Some(Zeroizing::new(text)),
                _ => None,
            };
            let bytes = text.and_then(|text| STANDARD.decode(text.as_bytes()).ok());
            let wrong = || de::Error::custom(format!("the secret `{name}` is not base64"));
            let bytes = bytes.ok_or_else(wrong)?;
            secrets.insert(name, SecretValue::new(bytes));
        }
        Ok(Secrets(secrets))
    }
}

impl JsonSchema for Secrets {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secrets".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "additionalProperties": { "type": "string", "contentEncoding": "base64" },
            "writeOnly": true,
        })
    }
}

fn default_path() -> String {
    "sampan.toml".to_owned()
}

/// How many pods a service should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// So many.
    pub replicas: u32,
}

/// Which revision a service should go back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// This one; without it the one before.
    #[serde(default)]
    pub to: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(secrets: &str) -> Result<Apply, String> {
        let text =
            format!(r#"{{"spec": "", "base": "/", "components": {{}}, "secrets": {secrets}}}"#);
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_secret_is_written_for_the_node_and_shown_nowhere() {
        let apply = read(r#"{"db": "aHVudGVyMv8K"}"#).expect("good");
        let value = &apply.secrets.0["db"];
        assert_eq!(value.bytes(), b"hunter2\xff\n");
        assert!(!format!("{apply:?}").contains("hunter2"));
        let text = serde_json::to_string(&apply).expect("plain data");
        assert_eq!(serde_json::from_str::<Apply>(&text).expect("good"), apply);
    }

    #[test]
    fn what_is_no_secret_is_not_shown() {
        for bad in [
            r#""hunter2""#,
            r#"{"db": "hunter2!"}"#,
            r#"{"db": ["hunter2"]}"#,
        ] {
            let error = read(bad).expect_err(bad);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
