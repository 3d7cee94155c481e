//! The secrets of a spec: where they come from, who uses them, and whether their values can be.

use std::collections::BTreeMap;

use super::names::Names;
use crate::{
    name::Name,
    object::{SecretSource, SecretUse},
    secret::{MAX_SECRET_BYTES, MAX_SECRETS_BYTES, SecretValue},
    spec::{
        input::ReadSecret,
        problem::{Draft, Place, ProblemKind, quoted},
        raw::{self, At, decode::Decoder},
    },
};

/// The secrets that a spec declares.
pub(super) struct Secrets<'c> {
    read: &'c ReadSecret<'c>,
    declared: BTreeMap<Name, Declared>,
    /// Of all that have been read.
    bytes: usize,
}

/// A secret that is declared.
struct Declared {
    place: Place,
    /// Where its value is: the source, its place, and what is shown of it.
    source: Option<(SecretSource, Place, String)>,
    is_used: bool,
    /// What was read, once it has been; `Some(None)` if it cannot be.
    value: Option<Option<SecretValue>>,
}

/// What a guest gets of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A variable.
    Text,
    /// A file.
    Bytes,
}

impl<'c> Secrets<'c> {
    pub(super) fn gather(
        spec: &raw::App,
        read: &'c ReadSecret<'c>,
        decoder: &mut Decoder<'_>,
    ) -> Self {
        let declared = spec.secret.0.iter().map(|(name, secret)| {
            let declared = Declared {
                place: name.place.clone(),
                source: source(secret, decoder),
                is_used: false,
                value: None,
            };
            (name.value.clone(), declared)
        });
        Self {
            read,
            declared: declared.collect(),
            bytes: 0,
        }
    }

    /// Where the secrets come from.
    pub(super) fn sources(self) -> BTreeMap<Name, SecretSource> {
        let declared = self.declared.into_iter();
        let sources = declared.filter_map(|(name, it)| Some((name, it.source?.0)));
        sources.collect()
    }
}

/// Where the value of a secret is, and where that is said.
fn source(
    secret: &raw::Secret,
    decoder: &mut Decoder<'_>,
) -> Option<(SecretSource, Place, String)> {
    match (&secret.file, &secret.env) {
        (Some(file), Some(env)) => {
            let message = "a secret has both `file` and `env`";
            let hint = "keep the one that has its value";
            let draft = Draft::new(&env.place, ProblemKind::Conflict, message, hint);
            decoder.report.add(draft.also(&file.place.span, "the file"));
            None
        }
        (Some(file), None) => {
            let source = SecretSource::File(file.value.0.clone().into());
            Some((source, file.place.clone(), file.shown()))
        }
        (None, Some(env)) => {
            let source = SecretSource::Env(env.value.0.clone());
            Some((source, env.place.clone(), env.shown()))
        }
        // What is wrong with a value that is there has been said.
        (None, None) if secret.has("file") || secret.has("env") => None,
        (None, None) => {
            let message = "a secret has neither `file` nor `env`";
            let hint = "add `file = \"db-password.txt\"` for a file with its value, or \
                        `env = \"DB_PASSWORD\"` for a variable";
            decoder.problem(&secret.place, ProblemKind::MissingKey, message, hint);
            None
        }
    }
}

impl Secrets<'_> {
    /// A secret that is used. What is not `on` gets it checked without its value.
    pub(super) fn used(
        &mut self,
        name: &At<Name>,
        form: Form,
        on: bool,
        names: &mut Names,
        decoder: &mut Decoder<'_>,
    ) -> Option<SecretUse> {
        let Some(declared) = self.declared.get_mut(&name.value) else {
            let known: Vec<_> = self.declared.keys().map(Name::as_str).collect();
            let near = names.near(name.value.as_str(), &known);
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let hint = hint.unwrap_or_else(|| {
                let name = &name.value;
                format!("declare it with a table `[secret.{name}]` that has a `file` or an `env`")
            });
            let message = format!("there is no secret {}", quoted(name.value.as_str()));
            decoder.problem(&name.place, ProblemKind::UnknownName, message, hint);
            return None;
        };
        declared.is_used = true;
        if on {
            self.read(&name.value, decoder);
            let declared = &self.declared[&name.value];
            let value = declared.value.as_ref().and_then(Option::as_ref)?;
            if form == Form::Text && value.text().is_none() {
                let message = format!("the secret {} is no text", quoted(name.value.as_str()));
                let hint = format!(
                    "a variable has UTF-8 without NUL characters; use it as a file, with \
                     `allow.files = [{{ secret = \"{}\" }}]`",
                    name.value
                );
                decoder.problem(&name.place, ProblemKind::Secret, message, hint);
                return None;
            }
        }
        Some(SecretUse {
            name: name.value.clone(),
            version: String::new(),
        })
    }

    /// Reads the value of a secret, once.
    fn read(&mut self, name: &Name, decoder: &mut Decoder<'_>) {
        let Some(declared) = self.declared.get_mut(name) else {
            return;
        };
        if declared.value.is_some() {
            return;
        }
        let Some((source, place, shown)) = &declared.source else {
            declared.value = Some(None);
            return;
        };
        let found = (self.read)(name, source);
        let name = quoted(name.as_str());
        let refused = match found {
            Ok(value) => {
                let bytes = value.bytes().len();
                self.bytes += bytes;
                let all = self.bytes;
                declared.value = Some(Some(value));
                refusal(&name, bytes, all)
            }
            Err(error) => Some(unreadable(&name, source, shown, &error)),
        };
        if let Some((message, hint)) = refused {
            declared.value = Some(None);
            decoder.problem(place, ProblemKind::Secret, message, hint);
        }
    }

    /// Says which secrets nothing uses: they would be read and sent for nothing.
    pub(super) fn report_unused(&self, decoder: &mut Decoder<'_>) {
        for (name, declared) in &self.declared {
            if declared.is_used {
                continue;
            }
            let message = format!("nothing uses the secret {}", quoted(name.as_str()));
            let hint = format!(
                "use it, with `env = {{ NAME = {{ secret = \"{name}\" }} }}` or \
                 `allow.files = [{{ secret = \"{name}\" }}]`, or remove it"
            );
            decoder.problem(&declared.place, ProblemKind::Secret, message, hint);
        }
    }
}

/// Why a value of so many bytes cannot be a secret, and what to do about it.
fn refusal(name: &str, bytes: usize, all: usize) -> Option<(String, String)> {
    if bytes == 0 {
        let message = format!("the secret {name} is empty");
        return Some((message, "give it a value, or remove it".to_owned()));
    }
    if bytes > MAX_SECRET_BYTES {
        let message = format!("the secret {name} has more than {MAX_SECRET_BYTES} bytes");
        let hint = "keep what is so large in a file or a volume, with its key as the secret";
        return Some((message, hint.to_owned()));
    }
    if all > MAX_SECRETS_BYTES {
        let message =
            format!("the secrets have more than {MAX_SECRETS_BYTES} bytes together with {name}");
        return Some((message, "use fewer or shorter ones".to_owned()));
    }
    None
}

fn unreadable(name: &str, source: &SecretSource, shown: &str, error: &str) -> (String, String) {
    let (message, hint) = match source {
        SecretSource::File(_) => (
            format!("cannot read the secret {name} from the file {shown}: {error}"),
            "paths are relative to this file; put its value there, or name another file",
        ),
        SecretSource::Env(_) => (
            format!("cannot read the secret {name} from the variable {shown}: {error}"),
            "set it in the environment of `sampan`, or name another variable",
        ),
    };
    (message, hint.to_owned())
}
