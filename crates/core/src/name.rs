//! Names of apps, services, jobs and pods.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The longest name, in bytes: an RFC 1123 label, as for a Kubernetes Service.
pub const MAX_NAME_BYTES: usize = 63;

/// The name of an app, service or job: `a-z`, `0-9` and inner hyphens, 1 to 63 bytes.
///
/// The rule is that of an RFC 1123 label, so that every name is also a host name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text has no characters.
    #[error("a name must not be empty")]
    Empty,
    /// The text has more than [`MAX_NAME_BYTES`] bytes.
    #[error("`{0}` has more than {MAX_NAME_BYTES} characters")]
    TooLong(String),
    /// The text has a character other than `a-z`, `0-9` and `-`.
    #[error("`{text}` has the character `{character}`", text = .0, character = .1.escape_default())]
    Character(String, char),
    /// The text begins or ends with a hyphen.
    #[error("`{0}` begins or ends with a hyphen")]
    Hyphen(String),
}

impl Name {
    /// Parses a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(text.to_owned()));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(character) = text.chars().find(|&c| !allowed(c)) {
            return Err(NameError::Character(text.to_owned(), character));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Hyphen(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The name of a pod: service, revision and slot, as in `web-7-0`.
///
/// It is derived, never drawn, so that making a pod twice is harmless.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName(Arc<str>);

impl PodName {
    /// The name of the pod in `slot` of `revision` of `service`.
    pub fn new(service: &Name, revision: u64, slot: u32) -> Self {
        Self(format!("{service}-{revision}-{slot}").into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_label() {
        for good in ["a", "web", "web-2", "0", &"a".repeat(63)] {
            assert_eq!(
                Name::parse(good).map(|n| n.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            "Web",
            "a_b",
            "a.b",
            "-a",
            "a-",
            "ä",
            "a\n",
            &"a".repeat(64),
        ] {
            assert!(Name::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_pod_name_is_derived() {
        let web = Name::parse("web").expect("a good name");
        assert_eq!(PodName::new(&web, 7, 0).as_str(), "web-7-0");
    }
}
