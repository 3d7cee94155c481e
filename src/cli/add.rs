//! `sampan add`: one more service for an app that is there.

use std::{env, fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use sampan_core::{
    name::Name,
    object::{App, SecretSource},
    secret::SecretValue,
    spec,
};

use super::{
    EXIT_USAGE, End, Stop,
    output::Output,
    spec::SpecArguments,
    templates::{self, Start, Template},
};
use crate::file;

/// Add a service to an app: its source in a directory of its own, and its part of the spec
///
/// What the spec says already stays as it is, to the letter.
#[derive(Args)]
pub(super) struct Arguments {
    /// Name of the service and of its directory
    #[arg(value_parser = Name::parse)]
    service: Name,

    /// Begin with the source of a service in this language
    #[arg(long, value_name = "NAME")]
    template: Template,

    /// The spec of the app
    #[arg(short, long, value_name = "FILE", default_value = "sampan.toml")]
    file: PathBuf,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let spec = SpecArguments {
        file: arguments.file.clone(),
        profile: Vec::new(),
    };
    let app = spec.read(output)?;
    let service = &arguments.service;
    refuse_taken(&app.text, &app.app, service)?;
    let start = Start {
        template: arguments.template,
        service,
        directory: service.as_str(),
        route: &format!("{service}.localhost/"),
    };
    let gap = match app.text.ends_with('\n') {
        true => "\n",
        false => "\n\n",
    };
    let text = format!("{}{gap}{}", app.text, start.spec());
    check(&spec, &text, output)?;
    templates::write(&spec.base(), &start.files(), output)?;
    let path = arguments.file.display();
    replace(&arguments.file, &text).with_context(|| format!("cannot write `{path}`"))?;
    output.talk(&format!("added service {service} to {path}"));
    output.talk("next: sampan up --build --watch");
    Ok(())
}

/// A service or job may be in the spec and belong to a profile that is off.
fn refuse_taken(text: &str, app: &App, service: &Name) -> Result<(), Stop> {
    let tables: toml::Table = toml::from_str(text).context("the spec is no TOML")?;
    let has = |kind| {
        let table = tables.get(kind).and_then(toml::Value::as_table);
        table.is_some_and(|table| table.contains_key(service.as_str()))
    };
    match (has("service"), has("job")) {
        (true, _) | (_, true) => Err(Stop::usage(anyhow::anyhow!(
            "there is `{service}` in app `{}` already: give it another name",
            app.name
        ))),
        (false, false) => Ok(()),
    }
}

/// Whether the spec is good with what is added.
fn check(arguments: &SpecArguments, text: &str, output: &Output) -> Result<(), Stop> {
    let base = arguments.base();
    let input = spec::Input {
        path: &arguments.file.to_string_lossy(),
        text,
        environment: &|name| env::var(name).ok(),
        read_file: &|path| file::text(&base.join(path)).map_err(|error| error.to_string()),
        profiles: &[],
    };
    // They were read before.
    let secret = |_: &Name, _: &SecretSource| Ok(SecretValue::new(b"1".to_vec()));
    spec::load_with_secrets(&input, &secret)
        .map(drop)
        .map_err(|problems| {
            output.problems(&problems);
            output
                .talk("nothing was written: the table of the service cannot be added to this spec");
            Stop::Quiet(EXIT_USAGE)
        })
}

/// Puts a text in the place of a file, whole or not at all, with the rights that it had.
fn replace(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    // Through a link to the file that is meant.
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or(&path);
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut file, text.as_bytes())?;
    fs::set_permissions(file.path(), fs::metadata(&path)?.permissions())?;
    file.persist(&path)?;
    Ok(())
}
