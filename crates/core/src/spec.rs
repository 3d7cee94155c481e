//! The spec file, `sampan.toml`: parsed, checked, described.
//!
//! [`load`] takes a text through three stages: `parse` makes a TOML tree with places, `raw` makes
//! typed tables of it and replaces variables, and `check` makes
//! [`object::App`](crate::object::App) of those. Every stage reports what it finds and carries on,
//! so that a user sees all problems at once. The tables in `raw` are also where [`json_schema`] and
//! [`reference()`] come from.

mod check;
mod dotenv;
mod input;
mod interpolate;
mod kinds;
pub mod node;
mod parse;
mod problem;
mod raw;
mod reference;
mod schema;

pub use input::{Input, ReadSecret};
pub use kinds::{Found, SpecText, check_kinds};
pub use parse::MAX_SPEC_BYTES;
pub use problem::{MAX_PROBLEMS, Problem, ProblemKind, Problems, Related};
pub use reference::{node_reference, reference};
pub use schema::json_schema;

use crate::object::{App, Outbound};
use problem::{Place, Report};
use raw::decode::Decoder;

/// Parses and checks a spec for which no secrets can be read.
///
/// # Errors
///
/// Those of [`load_with_secrets`].
pub fn load(input: &Input<'_>) -> Result<App, Problems> {
    load_with_secrets(input, &|_, _| Err("there are no secrets here".to_owned()))
}

/// Parses and checks a spec. The values of its secrets are checked too, and are not part of what
/// comes of it.
///
/// # Errors
///
/// All problems of the spec, or the first [`MAX_PROBLEMS`] of them.
pub fn load_with_secrets(input: &Input<'_>, read_secret: &ReadSecret<'_>) -> Result<App, Problems> {
    // A text beyond the bound is not shown either.
    let shown = if input.text.len() > MAX_SPEC_BYTES {
        ""
    } else {
        input.text
    };
    let mut decoder = Decoder::new(input.environment, Report::new(input.path, shown));
    let app = parse::parse(input.text, &mut decoder.report).and_then(|root| {
        let spec = raw::App::from_table(&root, Place::root(), &mut decoder);
        check::check(&spec, input, read_secret, &mut decoder)
    });
    decoder.report.finish(app)
}

/// Reads one rule of `allow.outbound`, such as `https://api.example.com`.
///
/// # Errors
///
/// What is wrong with the rule, and what to write.
pub fn server(rule: &str) -> Result<Outbound, String> {
    raw::server(rule)
}

/// A small spec with comments, to begin with.
pub fn example() -> &'static str {
    include_str!("spec/example.toml")
}
