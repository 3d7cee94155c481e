//! `sampan init --from`: the spec that says what a file of another tool says.

mod compose;
mod draft;
mod node;
mod servers;
mod source;
mod spin;
mod variables;

use std::path::{Path, PathBuf};

use super::Stop;
use crate::file;
use anyhow::Context as _;
use source::Source;

/// A spec that says what another file says.
pub(super) struct Imported {
    pub(super) text: String,
    /// How much of the file could not be said, and is in comments.
    pub(super) notes: usize,
}

/// Reads a Compose file or a manifest of Spin, for a spec in `directory`.
pub(super) fn from(path: &Path, directory: &Path) -> Result<Imported, Stop> {
    let text = file::text(path)
        .with_context(|| format!("cannot read `{}`", path.display()))
        .map_err(Stop::usage)?;
    let base = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let absolute = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_beside = absolute(&base) == absolute(directory);
    let source = Source {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        prefix: match is_beside {
            true => String::new(),
            false => absolute(&base).display().to_string(),
        },
        base,
    };
    let of_file =
        |error: anyhow::Error| Stop::usage(error.context(format!("`{}`", path.display())));
    let app = super::names::app_name(&source.base);
    let mut draft = match path.extension().and_then(|it| it.to_str()) {
        Some("yaml" | "yml" | "json") => {
            let root = node::yaml(&text).map_err(of_file)?;
            compose::draft(&root, &source, &app).map_err(of_file)?
        }
        Some("toml") => {
            let root = node::toml(&text).map_err(of_file)?;
            spin::draft(&root, &source, &app).map_err(of_file)?
        }
        _ => {
            let error = "its name tells nothing: write a Compose file as `.yaml`, or a manifest of \
                         Spin as `.toml`";
            return Err(of_file(anyhow::anyhow!(error)));
        }
    };
    let read_file = |path: &str| {
        let read = file::text(&directory.join(path));
        read.map_err(|error| error.to_string())
    };
    let text = draft.finish("sampan.toml", &read_file);
    Ok(Imported {
        text,
        notes: draft.notes,
    })
}
