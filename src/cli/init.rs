//! `sampan init`: a new app that runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum, builder::PossibleValue};
use sampan_core::{name::Name, spec};

use super::{
    End, import,
    names::app_name,
    output::{Output, count},
    templates::{self, Start, Template},
};

/// Make a new app: a sampan.toml, and what to start with
///
/// Without `--template` that is a component which runs at once. With it, it is the source of a
/// service, or of a whole app: `sampan up --build --watch` builds it, runs it and follows what is
/// edited.
#[derive(Args)]
pub(super) struct Arguments {
    /// Directory of the app, by default this one or that of the file to begin from; it is made when it
    /// is not there
    directory: Option<PathBuf>,

    /// Begin with the source of a service in this language, or of a whole app
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    template: Option<Beginning>,

    /// Write the spec that says what a Compose file or a manifest of Spin says, with a comment on each
    /// thing that cannot be carried over
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// What a new app begins with.
#[derive(Clone, Copy)]
enum Beginning {
    Service(Template),
    Shop,
}

impl ValueEnum for Beginning {
    fn value_variants<'a>() -> &'a [Self] {
        const {
            &[
                Self::Service(Template::Rust),
                Self::Service(Template::Js),
                Self::Service(Template::Python),
                Self::Service(Template::C),
                Self::Service(Template::Static),
                Self::Shop,
            ]
        }
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::Service(template) => template.to_possible_value(),
            Self::Shop => Some(PossibleValue::new("shop").help(
                "A whole app in Rust: a front end, an API with state, a worker, a migration and a nightly job",
            )),
        }
    }
}

/// The guest a new app starts with.
const HELLO: &[u8] = include_bytes!("../../workloads/dist/hello.wasm");
/// What builds and runs an app that begins as source.
const BUILT: &str = "sampan up --build --watch";
/// The service that a template becomes.
const SERVICE: &str = "web";

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let beside = arguments.from.as_deref().and_then(Path::parent);
    let beside = beside.filter(|parent| *parent != Path::new(""));
    let directory = arguments.directory.as_deref().or(beside);
    let directory = directory.unwrap_or(Path::new("."));
    if let Some(file) = &arguments.from {
        return import(file, directory, output);
    }
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory `{}`", directory.display()))?;
    let (files, next) = match arguments.template {
        None => (hello(directory), "sampan up"),
        Some(Beginning::Service(template)) => (begun(directory, template), BUILT),
        Some(Beginning::Shop) => (templates::shop::files(&app_name(directory)), BUILT),
    };
    templates::write(directory, &files, output)?;
    let go = match directory.as_os_str() == "." {
        true => String::new(),
        false => format!("cd {} && ", directory.display()),
    };
    output.talk(&format!("next: {go}{next}"));
    Ok(())
}

/// Writes the spec that says what another file says.
fn import(file: &Path, directory: &Path, output: &Output) -> End {
    let imported = import::from(file, directory)?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory `{}`", directory.display()))?;
    let spec = vec![("sampan.toml".into(), imported.text.into_bytes())];
    templates::write(directory, &spec, output)?;
    if imported.notes > 0 {
        let things = count(imported.notes, "thing");
        output.talk(&format!(
            "{things} of `{}` could not be carried over: see the comments",
            file.display()
        ));
    }
    output.talk("next: build the components that it names, then `sampan up`");
    Ok(())
}

/// A component that is there already.
fn hello(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let named = format!("app = \"{}\"", app_name(directory));
    let text = spec::example().replacen("app = \"hello\"", &named, 1);
    vec![
        ("sampan.toml".into(), text.into_bytes()),
        ("hello.wasm".into(), HELLO.to_vec()),
    ]
}

/// The source of a service in the directory of the app.
fn begun(directory: &Path, template: Template) -> Vec<(PathBuf, Vec<u8>)> {
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
    files
}
