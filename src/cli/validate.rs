//! `sampan validate`: is a spec good?

use std::{collections::BTreeMap, io};

use clap::Args;
use sampan_core::{
    name::Name,
    object::App,
    spec::{Found, SpecText, check_kinds},
};

use super::{
    EXIT_USAGE, End, Stop,
    output::{Output, count, one_line},
    spec::SpecArguments,
};
use crate::file;

/// Check a spec, and say everything that is wrong with it
///
/// Components that are there are looked at too, for what they cannot do of what the spec asks.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    spec: SpecArguments,

    /// Print the checked spec as JSON, with every default filled in
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let read = arguments.spec.read(output)?;
    let seen = Seen::of(&read.app, arguments);
    let spec = SpecText {
        path: arguments.spec.file.to_string_lossy().into_owned(),
        text: read.text,
    };
    check_kinds(&read.app, &seen.found, &spec).map_err(|problems| {
        output.problems(&problems);
        Stop::Quiet(EXIT_USAGE)
    })?;
    if arguments.json {
        return output.json(&read.app);
    }
    output.talk(&format!(
        "{} is good: app `{}`, {}, {}",
        arguments.spec.file.display(),
        read.app.name,
        count(read.app.services.len(), "service"),
        count(read.app.jobs.len(), "job"),
    ));
    if !seen.absent.is_empty() {
        let absent = seen.absent.join(", ");
        output.talk(&format!(
            "not looked at, because they are not there: the components of {absent}"
        ));
    }
    for odd in seen.odd {
        output.talk(&odd);
    }
    Ok(())
}

/// The components of services, as far as they are there.
#[derive(Default)]
struct Seen {
    found: BTreeMap<Name, Found>,
    absent: Vec<String>,
    /// Why others could not be looked at, a sentence each.
    odd: Vec<String>,
}

impl Seen {
    fn of(app: &App, arguments: &Arguments) -> Self {
        let mut seen = Self::default();
        let base = arguments.spec.base();
        for service in app.services.values().filter(|it| it.site.is_none()) {
            let path = base.join(&service.component.path);
            match file::kind(&path) {
                Ok(found) => drop(seen.found.insert(service.name.clone(), found)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    seen.absent.push(format!("`{}`", service.name));
                }
                Err(error) => seen.odd.push(format!(
                    "the component of `{}` cannot be looked at: {}",
                    service.name,
                    one_line(&error.to_string())
                )),
            }
        }
        seen
    }
}
