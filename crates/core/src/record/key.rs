//! Keys of objects in the store.

use crate::name::{Name, PodName, ServiceKey};

/// Kinds of objects, each below a prefix of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`super::App`]
    App,
    /// [`super::Service`]
    Service,
    /// [`super::Revision`]
    Revision,
    /// [`super::Pod`]
    Pod,
    /// [`super::Job`]
    Job,
    /// [`super::Secret`]
    Secret,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::App,
        Self::Service,
        Self::Revision,
        Self::Pod,
        Self::Job,
        Self::Secret,
    ];

    /// Where its keys begin.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::App => "/apps/",
            Self::Service => "/services/",
            Self::Revision => "/revisions/",
            Self::Pod => "/pods/",
            Self::Job => "/jobs/",
            Self::Secret => "/secrets/",
        }
    }
}

/// The key of an object. Numbers are written so that the order of texts is that of the numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An app.
    App(Name),
    /// A service.
    Service(ServiceKey),
    /// A revision of a service.
    Revision(ServiceKey, u64),
    /// A pod.
    Pod(PodName),
    /// A job.
    Job(ServiceKey),
    /// A secret of an app: its app, its name and its version.
    Secret(Name, Name, String),
}

impl Key {
    /// What it is the key of.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::App(_) => Kind::App,
            Self::Service(_) => Kind::Service,
            Self::Revision(..) => Kind::Revision,
            Self::Pod(_) => Kind::Pod,
            Self::Job(_) => Kind::Job,
            Self::Secret(..) => Kind::Secret,
        }
    }

    /// The app that it belongs to, or is.
    pub fn app(&self) -> &Name {
        match self {
            Self::App(name) | Self::Secret(name, ..) => name,
            Self::Service(key) | Self::Revision(key, _) | Self::Job(key) => &key.app,
            Self::Pod(pod) => &pod.service().app,
        }
    }

    /// Reads what `Display` writes; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| text.starts_with(kind.prefix()))?;
        let parts: Vec<_> = text[kind.prefix().len()..].split('/').collect();
        let service = |app, name| ServiceKey::parse(&format!("{app}/{name}")).ok();
        let key = match (kind, &parts[..]) {
            (Kind::App, [name]) => Self::App(Name::parse(name).ok()?),
            (Kind::Service, [app, name]) => Self::Service(service(app, name)?),
            (Kind::Job, [app, name]) => Self::Job(service(app, name)?),
            (Kind::Revision, [app, name, number]) => {
                Self::Revision(service(app, name)?, number.parse().ok()?)
            }
            (Kind::Pod, [app, name, revision, slot]) => Self::Pod(PodName::new(
                &service(app, name)?,
                revision.parse().ok()?,
                slot.parse().ok()?,
            )),
            (Kind::Secret, [app, name, version]) if is_version(version) => Self::Secret(
                Name::parse(app).ok()?,
                Name::parse(name).ok()?,
                (*version).to_owned(),
            ),
            (
                Kind::App | Kind::Service | Kind::Job | Kind::Revision | Kind::Pod | Kind::Secret,
                _,
            ) => return None,
        };
        (key.to_string() == text).then_some(key)
    }
}

/// Whether a text is the version of a secret: lower-case hex digits.
fn is_version(text: &str) -> bool {
    let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    !text.is_empty() && text.bytes().all(digit)
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind().prefix())?;
        match self {
            Self::App(name) => write!(f, "{name}"),
            Self::Service(key) | Self::Job(key) => write!(f, "{key}"),
            Self::Revision(key, number) => write!(f, "{key}/{number:010}"),
            Self::Secret(app, name, version) => write!(f, "{app}/{name}/{version}"),
            Self::Pod(pod) => {
                let service = pod.service();
                write!(f, "{service}/{:010}/{:05}", pod.revision(), pod.slot())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let web = ServiceKey::parse("shop/web").expect("a key");
        for (key, text) in [
            (Key::App(web.app.clone()), "/apps/shop"),
            (Key::Service(web.clone()), "/services/shop/web"),
            (Key::Job(web.clone()), "/jobs/shop/web"),
            (
                Key::Revision(web.clone(), 7),
                "/revisions/shop/web/0000000007",
            ),
            (
                Key::Pod(PodName::new(&web, 7, 12)),
                "/pods/shop/web/0000000007/00012",
            ),
            (
                Key::Secret(web.app.clone(), web.name.clone(), "0af9".to_owned()),
                "/secrets/shop/web/0af9",
            ),
        ] {
            assert_eq!(key.to_string(), text);
            assert_eq!(Key::parse(text), Some(key));
        }
        for bad in [
            "",
            "/apps/",
            "/apps/a/b",
            "/pods/a/b/1/1",
            "/events/00000000000000000009",
            "/secrets/a/b",
            "/secrets/a/b/",
            "/secrets/a/b/xyz",
            "/x/y",
        ] {
            assert_eq!(Key::parse(bad), None, "{bad}");
        }
    }
}
