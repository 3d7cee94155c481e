//! Names of apps, services, jobs and pods.

use std::{borrow::Borrow, fmt, sync::Arc};

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

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A service or job of an app, as in `shop/web`: names are unique in an app, not on a node.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct ServiceKey {
    /// The app.
    pub app: Name,
    /// The service's or job's name in it.
    pub name: Name,
}

impl ServiceKey {
    /// The service or job `name` of `app`.
    pub fn new(app: &Name, name: &Name) -> Self {
        Self {
            app: app.clone(),
            name: name.clone(),
        }
    }

    /// The first key that a service or job of `app` can have, in the order of keys.
    pub fn first_of(app: &Name) -> Self {
        Self {
            app: app.clone(),
            name: Name("0".into()),
        }
    }

    /// Parses `APP/NAME`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (app, name) = text.split_once('/').ok_or(NameError::Empty)?;
        Ok(Self {
            app: Name::parse(app)?,
            name: Name::parse(name)?,
        })
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.name)
    }
}

/// The name of a pod: service, revision and slot, as in `web-7-0`. It also knows its app, which is
/// part of the name's identity but not of its text.
///
/// It is derived, never drawn, so that making a pod twice is harmless. Names are in the order of
/// app, service, revision and slot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    service: ServiceKey,
    revision: u64,
    slot: u32,
    text: Box<str>,
}

impl PodName {
    /// The name of the pod in `slot` of `revision` of `service`.
    pub fn new(service: &ServiceKey, revision: u64, slot: u32) -> Self {
        let text = format!("{}-{revision}-{slot}", service.name).into();
        Self(Arc::new(Parts {
            service: service.clone(),
            revision,
            slot,
            text,
        }))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The service or job it belongs to.
    pub fn service(&self) -> &ServiceKey {
        &self.0.service
    }

    /// The revision that it runs.
    pub fn revision(&self) -> u64 {
        self.0.revision
    }

    /// Which of the revision's pods it is, from 0.
    pub fn slot(&self) -> u32 {
        self.0.slot
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
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
        let web = ServiceKey::parse("shop/web").expect("a good key");
        assert_eq!(web.to_string(), "shop/web");
        let pod = |revision, slot| PodName::new(&web, revision, slot);
        assert_eq!(pod(7, 0).as_str(), "web-7-0");
        assert!(pod(7, 0) < pod(10, 0), "in the order of numbers");
        let other = ServiceKey::parse("blog/web").expect("a good key");
        let first = ServiceKey::first_of(&web.app);
        assert!(other < first && first < web, "keys of an app begin with it");
        assert_eq!(first, ServiceKey::parse("shop/0").expect("a good key"));
        assert_ne!(pod(7, 0), PodName::new(&other, 7, 0));
        for bad in ["web", "/web", "shop/", "shop/web/0"] {
            assert!(ServiceKey::parse(bad).is_err(), "{bad}");
        }
    }
}
