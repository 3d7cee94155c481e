//! Secrets of a Compose file as secrets of a spec, and as files of the guests that use them.

use sampan_core::name::Name;

use super::{Compose, parts::Part};
use crate::cli::import::{draft::Table, node::Node, source::name};

/// Where the value of a secret is.
enum Origin {
    File(String),
    Variable(String),
}

/// Where Compose puts them, and Sampan too.
const SECRETS_DIRECTORY: &str = "/run/secrets";
/// What is to be done about a secret whose value is not to be found.
const REMEDY: &str =
    "put its value into a file or a variable, and write `[secret.NAME]` with `file` or `env`";

impl Compose<'_> {
    /// The secrets that a service sees as files.
    pub(super) fn secrets(&mut self, node: &Node, part: &mut Part) {
        for item in node.items() {
            let Some(source) = item.text().or_else(|| item.text_of("source")) else {
                continue;
            };
            let what = format!("secret `{source}`");
            if let Err(why) = self.origin(source) {
                self.draft.note(&mut part.main, item.line, &what, &why);
                continue;
            }
            for owned in ["uid", "gid", "mode"] {
                if let Some(rights) = item.get(owned) {
                    let what = format!("`{owned}` of secret `{source}`");
                    let why =
                        "a guest has no users, and reads what it is lent: nothing can write it";
                    self.draft.note(&mut part.allow, rights.line, &what, why);
                }
            }
            let target = item.text_of("target").unwrap_or(source);
            let guest = match target.starts_with('/') {
                true => target.to_owned(),
                false => format!("{SECRETS_DIRECTORY}/{target}"),
            };
            let name = self.secret(source);
            let mut table = Table::entry(part.main.below("allow.files"));
            table.key("secret", name.as_str());
            if guest != format!("{SECRETS_DIRECTORY}/{name}") {
                table.key("guest", guest);
            }
            part.files.push(table);
        }
    }

    /// Where the file says that the value of a secret is, or why that cannot be carried over.
    fn origin(&self, secret: &str) -> Result<Origin, String> {
        let declared = self.root.get("secrets").and_then(|it| it.get(secret));
        let Some(declared) = declared else {
            return Err("there is no such secret in the file".to_owned());
        };
        match (declared.text_of("file"), declared.text_of("environment")) {
            (Some(file), _) if file.contains('$') || file.starts_with('~') => Err(format!(
                "`file` of a secret is a path without variables: write `[secret.NAME]` with the path \
                 that `{file}` stands for"
            )),
            (Some(file), _) => Ok(Origin::File(self.source.path(file))),
            (None, Some(variable)) => Ok(Origin::Variable(variable.to_owned())),
            (None, None)
                if declared.text_of("external") != Some("false")
                    && declared.get("external").is_some() =>
            {
                Err(format!(
                    "it is external: the container engine keeps its value, out of which nothing reads it; {REMEDY}"
                ))
            }
            (None, None) => Err(format!(
                "the file does not say where its value is: {REMEDY}"
            )),
        }
    }

    /// The name of a secret of the spec.
    fn secret(&mut self, secret: &str) -> Name {
        if let Some((_, name)) = self.secrets.iter().find(|(known, _)| known == secret) {
            return name.clone();
        }
        let mut taken = self.secrets.iter().map(|(_, name)| name.clone()).collect();
        let (name, _) = name(secret, &mut taken);
        self.secrets.push((secret.to_owned(), name.clone()));
        name
    }

    pub(super) fn secret_tables(&mut self) {
        for (secret, name) in std::mem::take(&mut self.secrets) {
            let mut table = Table::new(format!("secret.{name}"));
            let line = self.root.get("secrets").and_then(|it| it.get(&secret));
            let line = line.map_or(0, |it| it.line);
            match self.origin(&secret) {
                Ok(Origin::File(path)) => {
                    if !self.source.base.join(&path).is_file() {
                        table.comment(format!(
                            "line {line}: there is no file `{path}` yet: put the value there before `sampan up`"
                        ));
                    }
                    table.key("file", path);
                }
                Ok(Origin::Variable(variable)) => table.key("env", variable),
                Err(_) => {}
            }
            self.draft.add(table);
        }
    }
}
