//! `sampan init`: a new app that runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use sampan_core::{name::Name, spec};

use super::{
    End, Stop,
    output::Output,
    templates::{self, Start, Template},
};

/// Make a new app: a sampan.toml, and what to start with
///
/// Without `--template` that is a component which runs at once. With it, it is the source of a
/// service: `sampan up --build --watch` builds it, runs it and follows what is edited.
#[derive(Args)]
pub(super) struct Arguments {
    /// Directory of the app; it is made when it is not there
    #[arg(default_value = ".")]
    directory: PathBuf,

    /// Begin with the source of a service in this language
    #[arg(long, value_name = "NAME")]
    template: Option<Template>,
}

/// The guest a new app starts with.
const HELLO: &[u8] = include_bytes!("../../workloads/dist/hello.wasm");
/// The service that a template becomes.
const SERVICE: &str = "web";

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let directory = &arguments.directory;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory `{}`", directory.display()))?;
    let (files, next) = match arguments.template {
        None => (hello(), "sampan up"),
        Some(template) => (begun(directory, template)?, "sampan up --build --watch"),
    };
    templates::write(directory, &files, output)?;
    let go = match directory.as_os_str() == "." {
        true => String::new(),
        false => format!("cd {} && ", directory.display()),
    };
    output.talk(&format!("next: {go}{next}"));
    Ok(())
}

/// A component that is there already.
fn hello() -> Vec<(PathBuf, Vec<u8>)> {
    vec![
        ("sampan.toml".into(), spec::example().as_bytes().to_vec()),
        ("hello.wasm".into(), HELLO.to_vec()),
    ]
}

/// The source of a service in the directory of the app.
fn begun(directory: &Path, template: Template) -> Result<Vec<(PathBuf, Vec<u8>)>, Stop> {
    let service = Name::parse(SERVICE).expect("the name is a constant");
    let start = Start {
        template,
        service: &service,
        directory: "",
        route: "/",
    };
    let text = format!(
        "# One file describes one app. The whole format: docs/spec.md, or `sampan schema` for editors.\n\
         app = \"{}\"\n\n{}",
        app_name(directory),
        start.spec()
    );
    let mut files = vec![("sampan.toml".into(), text.into_bytes())];
    files.extend(start.files());
    Ok(files)
}

/// The name of the directory as that of an app, as far as it can be one.
pub(super) fn app_name(directory: &Path) -> Name {
    let path = fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    named(&name).unwrap_or_else(|| Name::parse("app").expect("the name is a constant"))
}

/// The name that is nearest to a text, if there is anything in it that can be in a name.
pub(super) fn named(text: &str) -> Option<Name> {
    let fit = |letter: char| match letter.to_ascii_lowercase() {
        letter if letter.is_ascii_alphanumeric() => letter,
        _ => '-',
    };
    let name: String = text
        .chars()
        .map(fit)
        .take(sampan_core::name::MAX_NAME_BYTES)
        .collect();
    Name::parse(name.trim_matches('-')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_gives_its_name_to_the_app() {
        for (text, name) in [
            ("shop", Some("shop")),
            ("My Shop_2", Some("my-shop-2")),
            ("_private_", Some("private")),
            ("…", None),
        ] {
            assert_eq!(named(text).as_ref().map(Name::as_str), name, "{text}");
        }
    }
}
