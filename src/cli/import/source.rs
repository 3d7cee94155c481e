//! The file that a spec is made from, and what both kinds of it have in common.

use std::path::PathBuf;

use sampan_core::name::Name;

use super::draft::Table;
use crate::cli::names::named;

/// The file that is read.
pub(super) struct Source {
    /// As messages name it.
    pub(super) name: String,
    /// The directory that its paths start from.
    pub(super) base: PathBuf,
    /// The same from where the spec is; empty if it is the same directory.
    pub(super) prefix: String,
}

impl Source {
    /// A path of the file as a path of the spec.
    pub(super) fn path(&self, path: &str) -> String {
        let path = path.strip_prefix("./").unwrap_or(path);
        let path = match path.trim_end_matches('/') {
            "" => path,
            path => path,
        };
        match path.starts_with('/') || self.prefix.is_empty() {
            true => path.to_owned(),
            false => format!("{}/{path}", self.prefix),
        }
    }
}

/// The first lines of the spec.
pub(super) fn top(source: &Source, app: &Name) -> Table {
    let mut top = Table::new("");
    top.comment(format!(
        "Made from {} by `sampan init --from`. What could not be carried over stands in comments, with \
         its line there. A component runs a program without a container: each has to be built.",
        source.name
    ));
    top.key("app", app.as_str());
    top
}

/// A name for something, and whether it is not the one that it had.
pub(super) fn name(text: &str, taken: &mut Vec<Name>) -> (Name, bool) {
    let fit = named(text);
    let mut name = fit.unwrap_or_else(|| Name::parse("unnamed").expect("the name is a constant"));
    let mut number = 2;
    while taken.contains(&name) {
        let next = format!("{}-{number}", &name.as_str()[..name.as_str().len().min(50)]);
        name = Name::parse(&next).unwrap_or(name);
        number += 1;
    }
    taken.push(name.clone());
    let is_other = name.as_str() != text;
    (name, is_other)
}
