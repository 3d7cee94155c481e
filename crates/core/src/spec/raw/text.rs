//! Leaves that are texts: plain ones, paths, names of variables, digests.

use std::fmt;

use schemars::{Schema, json_schema};

use super::{
    leaf::{Leaf, Refusal, Scalar, Wanted},
    schema::{or_variable, text},
};
use crate::{
    name::{MAX_NAME_BYTES, Name, NameError},
    spec::problem::quoted,
};

/// A leaf that is a text, which may be anything but must not contain a NUL character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) String);

impl Leaf for Text {
    fn wanted() -> Wanted {
        Wanted::new("text", "write it in quotes")
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        match text.contains('\0') {
            true => Err(Refusal::Nul),
            false => Ok(Self(text.to_owned())),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

/// A command for a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) String);

impl Leaf for Command {
    fn wanted() -> Wanted {
        Wanted::new(
            "a command",
            "write a command of the shell in quotes, as in \"make web.wasm\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let Text(command) = Text::accept(scalar)?;
        match command.trim() {
            "" => Err(Refusal::value("the command is empty")),
            command => Ok(Self(command.to_owned())),
        }
    }

    fn schema() -> Schema {
        text("command of the shell", "\\S", &["make web.wasm"])
    }
}

/// A path on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPath(pub(crate) String);

impl Leaf for HostPath {
    fn wanted() -> Wanted {
        Wanted::new("a path", "write a path in quotes, relative to this file")
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let Text(path) = Text::accept(scalar)?;
        match path.is_empty() {
            true => Err(Refusal::value("the path is empty")),
            false => Ok(Self(path)),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "title": "path", "type": "string", "minLength": 1 })
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An absolute path in the guest, without `.`, `..`, empty parts and a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuestPath(pub(crate) String);

impl Leaf for GuestPath {
    fn wanted() -> Wanted {
        Wanted::new(
            "an absolute path",
            "write an absolute path in quotes, as in \"/data\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let Text(path) = Text::accept(scalar)?;
        let Some(inner) = path.strip_prefix('/') else {
            return Err(Refusal::value(format!(
                "{} does not begin with `/`",
                quoted(&path)
            )));
        };
        let inner = inner.strip_suffix('/').unwrap_or(inner);
        if !inner.is_empty()
            && let Some(part) = inner
                .split('/')
                .find(|part| matches!(*part, "" | "." | ".."))
        {
            let part = match part {
                "" => "an empty part".to_owned(),
                part => format!("the part `{part}`"),
            };
            return Err(Refusal::value(format!("{} has {part}", quoted(&path))));
        }
        Ok(Self(format!("/{inner}")))
    }

    fn schema() -> Schema {
        text("absolute path", "^/", &["/data"])
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path and query of a request a probe makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestPath(pub(crate) String);

impl Leaf for RequestPath {
    fn wanted() -> Wanted {
        Wanted::new(
            "the path of a request",
            "write a path that begins with `/`, as in \"/healthz\"",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let path = scalar.text()?;
        if !path.starts_with('/') {
            return Err(Refusal::value(format!(
                "{} does not begin with `/`",
                quoted(path)
            )));
        }
        // What a request line can carry unescaped: RFC 9112, section 3.2.
        match path.chars().find(|&c| !c.is_ascii_graphic() || c == '#') {
            Some(character) => Err(Refusal::with_hint(
                format!(
                    "{} has the character `{}`",
                    quoted(path),
                    character.escape_debug()
                ),
                "escape it as `%` and two hex digits for each of its bytes",
            )),
            None => Ok(Self(path.to_owned())),
        }
    }

    fn schema() -> Schema {
        text("path of a request", "^/[!-\"$-~]*$", &["/healthz"])
    }
}

/// The name of an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VariableName(pub(crate) String);

impl Leaf for VariableName {
    fn wanted() -> Wanted {
        Wanted::new(
            "the name of a variable",
            "a name has at least one character, and no `=` and no NUL character",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let name = scalar.text()?;
        match name.is_empty() || name.contains(['=', '\0']) {
            true => Err(Refusal::value(format!(
                "{} cannot be the name of a variable",
                quoted(name)
            ))),
            false => Ok(Self(name.to_owned())),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": "^[^=\\u0000]+$" })
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key a guest can read through `wasi:config`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConfigKey(pub(crate) String);

impl Leaf for ConfigKey {
    fn wanted() -> Wanted {
        Wanted::new("the name of a value", "a name has at least one character")
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        match scalar.text()? {
            "" => Err(Refusal::value("the name is empty")),
            name => Ok(Self(name.to_owned())),
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

impl Leaf for Name {
    fn wanted() -> Wanted {
        Wanted::new(
            "a name",
            format!(
                "a name has `a` to `z`, `0` to `9` and inner `-`, and at most {MAX_NAME_BYTES} \
                 characters"
            ),
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        Name::parse(text).map_err(|error| {
            let shown = quoted(text);
            let message = match error {
                NameError::Empty => "the name is empty".to_owned(),
                NameError::TooLong(_) => format!("{shown} is too long for a name"),
                NameError::Character(_, character) => {
                    format!(
                        "{shown} cannot be a name: it has `{}`",
                        character.escape_debug()
                    )
                }
                NameError::Hyphen(_) => {
                    format!("{shown} cannot be a name: it begins or ends with `-`")
                }
            };
            let lower = text.to_lowercase().replace(['_', ' ', '.'], "-");
            let near = Name::parse(&lower).ok();
            Refusal::Value(
                message,
                near.map(|near| format!("did you mean `{near}`? {}", Self::wanted().hint)),
            )
        })
    }

    fn schema() -> Schema {
        or_variable(json_schema!({
            "title": "name",
            "type": "string",
            "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
            "maxLength": MAX_NAME_BYTES,
        }))
    }
}

/// A SHA-256, as lower-case hex digits without the prefix it is written with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) String);

impl Leaf for Digest {
    fn wanted() -> Wanted {
        Wanted::new(
            "a digest",
            "write `sha256:` and the 64 hex digits that `sampan inspect` prints",
        )
    }

    fn accept(scalar: &Scalar<'_>) -> Result<Self, Refusal> {
        let text = scalar.text()?;
        let Some(digits) = text.strip_prefix("sha256:") else {
            return Err(Refusal::value(format!(
                "{} does not begin with `sha256:`",
                quoted(text)
            )));
        };
        if let Some(character) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
            let character = character.escape_debug();
            let message = format!(
                "{} has `{character}`, which is not a hex digit",
                quoted(text)
            );
            return Err(Refusal::value(message));
        }
        match digits.len() {
            64 => Ok(Self(digits.to_ascii_lowercase())),
            count => Err(Refusal::value(format!(
                "{} has {count} hex digits, not 64",
                quoted(text)
            ))),
        }
    }

    fn schema() -> Schema {
        text("digest", "^sha256:[0-9a-fA-F]{64}$", &[])
    }
}
