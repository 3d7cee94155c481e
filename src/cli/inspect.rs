//! `sampan inspect`: what a component is and what it needs.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write as _,
    iter::successors,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use sampan_runtime::{
    LoadError,
    admission::{
        self,
        inspect::{Inspection, Wasi},
        link::LinkError,
    },
};

use super::{
    End,
    output::{self, Output},
    run::label,
};
use crate::file;

/// Show a component's world, imports and exports, and what it has to be granted
#[derive(Args)]
pub(super) struct Arguments {
    /// The component
    component: PathBuf,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// What an import needs in a spec.
struct Grant {
    /// Interfaces whose names start so need it.
    interfaces: &'static [&'static str],
    /// The key, for the table.
    key: &'static str,
    /// A line to paste. Those of `allow` go into their own table.
    line: &'static str,
}

const GRANTS: &[Grant] = &[
    Grant {
        interfaces: &["wasi:http/outgoing-handler", "wasi:http/client"],
        key: "allow.outbound, allow.services",
        line: "outbound = []  # for example [\"https://api.example.com\"]",
    },
    Grant {
        interfaces: &["wasi:sockets/"],
        key: "allow.outbound",
        line: "outbound = []  # for example [\"tcp://db.example.com:5432\"]",
    },
    Grant {
        interfaces: &["wasi:filesystem/"],
        key: "allow.files",
        line: "files = []  # for example [{ host = \"data\", guest = \"/data\" }, { secret = \"db\" }]",
    },
    Grant {
        interfaces: &["wasi:keyvalue/"],
        key: "allow.keyvalue",
        line: "keyvalue = []  # for example [\"sessions\"]",
    },
    Grant {
        interfaces: &["wasi:cli/environment"],
        key: "env",
        line: "env = {}  # for example { LEVEL = \"info\", PASSWORD = { secret = \"db\" } }",
    },
    Grant {
        interfaces: &["wasi:config/"],
        key: "config",
        line: "config = {}  # for example { theme = \"dark\" }",
    },
];

/// A component, and what this host says to it.
struct Subject {
    found: Inspection,
    /// Why it cannot run here.
    refused: Option<LoadError>,
}

impl Subject {
    /// Whether the host has nothing of this name.
    fn lacks(&self, import: &String) -> bool {
        match &self.refused {
            Some(LoadError::Link(LinkError::Missing(missing))) => missing.contains(import),
            _ => false,
        }
    }

    /// What it takes for an import to be there, in the words of the table.
    fn need(&self, import: &String) -> Option<&'static str> {
        match self.lacks(import) {
            true => Some("nothing: this host does not have it"),
            false => need(import),
        }
    }

    /// Whether it can run here, and why not.
    fn runs(&self) -> String {
        match &self.refused {
            None => "yes".to_owned(),
            Some(refused) => format!("no: {}", reason(refused)),
        }
    }
}

/// The error with its causes.
fn reason(error: &LoadError) -> String {
    let first: &dyn Error = error;
    let causes = successors(Some(first), |&cause| cause.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Interfaces the host has and never opens.
const CLOSED: &[&str] = &["wasi:sockets/udp"];

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let path = arguments.component.display();
    let bytes =
        file::component(&arguments.component).with_context(|| format!("cannot read `{path}`"))?;
    let found = Inspection::of(&bytes).with_context(|| format!("cannot inspect `{path}`"))?;
    let refused = admission::check(&bytes, &found).err();
    let subject = Subject { found, refused };
    if arguments.json {
        return output.json(&json(&subject));
    }
    output.data(&table(&subject));
    if subject.refused.is_none() {
        let paste = paste(&path.to_string(), &subject.found);
        output.data(&format!("\nto paste into sampan.toml:\n\n{paste}"));
    }
    Ok(())
}

fn world(found: &Inspection) -> &'static str {
    match (found.http, found.command) {
        (Some(Wasi::P2), _) => "wasi:http/proxy 0.2 (HTTP handler)",
        (Some(Wasi::P3), _) => "wasi:http/service 0.3 (HTTP handler)",
        (None, Some(Wasi::P2)) => "wasi:cli/command 0.2 (runs until it ends)",
        (None, Some(Wasi::P3)) => "wasi:cli/command 0.3 (runs until it ends)",
        (None, None) => "none that Sampan can run",
    }
}

/// As what it can stand in a spec.
fn kind(found: &Inspection) -> &'static str {
    match (found.http, found.command) {
        (Some(_), Some(_)) => "a service that answers requests (http), or a job",
        (Some(_), None) => "a service that answers requests (http)",
        (None, Some(_)) => "a job, or a service that runs all the time (command)",
        (None, None) => "none",
    }
}

fn need(import: &str) -> Option<&'static str> {
    if CLOSED.iter().any(|closed| import.starts_with(closed)) {
        return Some("nothing opens it: every call is refused");
    }
    grants_of(import).map(|grant| grant.key)
}

fn grants_of(import: &str) -> Option<&'static Grant> {
    GRANTS
        .iter()
        .find(|grant| grant.interfaces.iter().any(|name| import.starts_with(name)))
}

fn table(subject: &Subject) -> String {
    let found = &subject.found;
    let mut text = format!(
        "digest   {}\nsize     {}\nworld    {}\nkind     {}\nmemory   {} at start\nruns     {}\n",
        found.digest,
        output::size(found.size_bytes as u64),
        world(found),
        kind(found),
        output::size(found.initial_memory_bytes),
        output::one_line(&subject.runs()),
    );
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["", "interface", "granted by"]);
    for import in &found.imports {
        let granted = subject.need(import).unwrap_or("always there");
        table.add_row(["import", &output::one_line(import), granted]);
    }
    for export in &found.exports {
        table.add_row(["export", &output::one_line(export), ""]);
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "\n{}\n", table.trim_fmt());
    text
}

/// A part of a spec with all that this component could be granted.
fn paste(path: &str, found: &Inspection) -> String {
    let kind = if found.http.is_some() {
        "service"
    } else {
        "job"
    };
    let name = label(Path::new(path));
    let name = match name.trim_matches('-') {
        "" => "app",
        name => name,
    };
    let quoted = serde_json::Value::from(path);
    let mut text = format!("[{kind}.{name}]\ncomponent = {quoted}\n");
    let lines = |allow| {
        let is_wanted = |grant: &&Grant| grant.key.starts_with("allow.") == allow;
        let of = |import: &String| grants_of(import).filter(is_wanted);
        let lines = found.imports.iter().filter_map(of).map(|grant| grant.line);
        // One line for a key, which several imports may need.
        let by_key = lines.map(|line| (line.split(' ').next(), line));
        by_key.collect::<BTreeMap<_, _>>()
    };
    for line in lines(false).values() {
        let _ = writeln!(text, "{line}");
    }
    let allowed = lines(true);
    if !allowed.is_empty() {
        let _ = writeln!(text, "\n[{kind}.{name}.allow]");
    }
    for line in allowed.values() {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn json(subject: &Subject) -> serde_json::Value {
    let found = &subject.found;
    let wasi = |wasi: Option<Wasi>| {
        wasi.map(|wasi| match wasi {
            Wasi::P2 => "0.2",
            Wasi::P3 => "0.3",
        })
    };
    let imports: Vec<_> = found
        .imports
        .iter()
        .map(|name| {
            let (granted_by, offered) = (need(name), !subject.lacks(name));
            let granted_by = granted_by.filter(|_| offered);
            serde_json::json!({ "name": name, "offered": offered, "granted_by": granted_by })
        })
        .collect();
    serde_json::json!({
        "digest": found.digest.to_string(),
        "size_bytes": found.size_bytes,
        "http": wasi(found.http),
        "command": wasi(found.command),
        "kind": (found.http.is_some() || found.command.is_some())
            .then(|| found.found().kind.to_string()),
        "initial_memory_bytes": found.initial_memory_bytes,
        "refused": subject.refused.as_ref().map(reason),
        "imports": imports,
        "exports": found.exports,
    })
}

#[cfg(test)]
mod tests {
    use sampan_core::object::Grants;

    use super::*;

    #[test]
    fn every_grant_is_one_that_a_component_can_be_told_to_need() {
        // A grant that is new asks here for its row.
        let Grants {
            env: _,
            secret_env: _,
            config: _,
            services: _,
            outbound: _,
            files: _,
            keyvalue: _,
        } = Grants::default();
        let keys = GRANTS.iter().flat_map(|grant| grant.key.split(", "));
        let mut keys: Vec<_> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        let all = ["files", "keyvalue", "outbound", "services"].map(|key| format!("allow.{key}"));
        assert_eq!(keys[..4], all);
        assert_eq!(keys[4..], ["config", "env"]);
    }
}
