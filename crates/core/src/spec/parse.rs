//! From text to a TOML tree with places, within bounds.

mod depth;
mod syntax;

use toml::de::DeTable;

use super::problem::{Draft, Place, ProblemKind, Report};
use depth::{MAX_DEPTH, too_deep};

/// The longest spec, and the longest env file, in bytes.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// Parses a spec. Problems are reported; `None` when the tree cannot be used at all.
pub(crate) fn parse<'a>(text: &'a str, report: &mut Report) -> Option<DeTable<'a>> {
    if text.len() > MAX_SPEC_BYTES {
        let message = format!(
            "the file has {} bytes, more than {MAX_SPEC_BYTES}",
            text.len()
        );
        let hint = "split the app into several, each with a file of its own";
        report.add(Draft::new(
            &Place::root(),
            ProblemKind::Bound,
            message,
            hint,
        ));
        return None;
    }
    if let Some(span) = too_deep(text) {
        let place = Place {
            span,
            ..Place::root()
        };
        let message = format!("tables or lists are nested more than {MAX_DEPTH} deep");
        let hint = "a spec needs no more than six levels";
        report.add(Draft::new(&place, ProblemKind::Bound, message, hint));
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let root = root.into_inner();
    syntax::report_all(text, &root, &errors, report).then_some(root)
}
