//! `sampan inspect`: what a component is and what it needs.

use std::{collections::BTreeSet, fmt::Write as _, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use sampan_runtime::admission::inspect::{Inspection, Wasi};

use super::{
    End,
    output::{self, Output},
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
    /// A line to paste. `allow` lines go into their own table.
    line: &'static str,
    allow: bool,
}

const GRANTS: &[Grant] = &[
    Grant {
        interfaces: &["wasi:http/outgoing-handler", "wasi:http/client"],
        key: "allow.outbound, allow.services",
        line: "outbound = []  # for example [\"https://api.example.com\"]",
        allow: true,
    },
    Grant {
        interfaces: &["wasi:filesystem/"],
        key: "allow.files",
        line: "files = []  # for example [{ host = \"data\", guest = \"/data\" }]",
        allow: true,
    },
    Grant {
        interfaces: &["wasi:cli/environment"],
        key: "env",
        line: "env = {}  # for example { LEVEL = \"info\" }",
        allow: false,
    },
    Grant {
        interfaces: &["wasi:config/"],
        key: "config",
        line: "config = {}  # for example { theme = \"dark\" }",
        allow: false,
    },
];

/// Interfaces the host has and never opens.
const CLOSED: &[&str] = &["wasi:sockets/"];

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let path = arguments.component.display();
    let bytes =
        file::component(&arguments.component).with_context(|| format!("cannot read `{path}`"))?;
    let found = Inspection::of(&bytes).with_context(|| format!("cannot inspect `{path}`"))?;
    if arguments.json {
        return output.json(&json(&found));
    }
    output.data(&table(&found));
    let paste = paste(&path.to_string(), &found);
    output.data(&format!("\nto paste into sampan.toml:\n\n{paste}"));
    Ok(())
}

fn world(found: &Inspection) -> &'static str {
    match (found.http, found.command) {
        (Some(Wasi::P2), _) => "wasi:http/proxy 0.2 (HTTP handler)",
        (Some(Wasi::P3), _) => "wasi:http/service 0.3 (HTTP handler)",
        (None, Some(Wasi::P2)) => "wasi:cli/command 0.2 (runs to its end)",
        (None, Some(Wasi::P3)) => "wasi:cli/command 0.3 (runs to its end)",
        (None, None) => "none that Sampan can run",
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

fn table(found: &Inspection) -> String {
    let mut text = format!(
        "digest   {}\nsize     {}\nworld    {}\nmemory   {} at start\n",
        found.digest,
        output::size(found.size_bytes as u64),
        world(found),
        output::size(found.initial_memory_bytes),
    );
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["", "interface", "granted by"]);
    for import in &found.imports {
        table.add_row(["import", import, need(import).unwrap_or("always there")]);
    }
    for export in &found.exports {
        table.add_row(["export", export, ""]);
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
    let stem = PathBuf::from(path)
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into());
    let name: String = stem
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = match name.trim_matches('-') {
        "" => "app",
        name => name,
    };
    let quoted = serde_json::Value::from(path);
    let mut text = format!("[{kind}.{name}]\ncomponent = {quoted}\n");
    let lines = |allow| {
        let of = |import: &String| grants_of(import).filter(|grant| grant.allow == allow);
        found
            .imports
            .iter()
            .filter_map(of)
            .map(|grant| grant.line)
            .collect::<BTreeSet<_>>()
    };
    for line in lines(false) {
        let _ = writeln!(text, "{line}");
    }
    let allowed = lines(true);
    if !allowed.is_empty() {
        let _ = writeln!(text, "\n[{kind}.{name}.allow]");
    }
    for line in allowed {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn json(found: &Inspection) -> serde_json::Value {
    let wasi = |wasi: Option<Wasi>| {
        wasi.map(|wasi| match wasi {
            Wasi::P2 => "0.2",
            Wasi::P3 => "0.3",
        })
    };
    let imports: Vec<_> = found
        .imports
        .iter()
        .map(|name| serde_json::json!({ "name": name, "granted_by": need(name) }))
        .collect();
    serde_json::json!({
        "digest": found.digest.to_string(),
        "size_bytes": found.size_bytes,
        "http": wasi(found.http),
        "command": wasi(found.command),
        "initial_memory_bytes": found.initial_memory_bytes,
        "imports": imports,
        "exports": found.exports,
    })
}
