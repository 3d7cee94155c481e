//! What can be wrong with a spec, and where.

mod render;
mod report;

pub(crate) use report::{Draft, Place, Report, excerpt, nearest, quoted};

use std::{fmt, ops::Range};

/// One thing that is wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// What sort of problem it is.
    pub kind: ProblemKind,
    /// The file: the spec itself, or an env file it names.
    pub file: String,
    /// Bytes of the file's text the problem is about.
    pub span: Range<usize>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of the key, as in `service.web.limits.memory`; the table's own path when a key is
    /// missing in it, and empty for the whole file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Another place in the same file that has part in it.
    pub related: Option<Related>,
}

/// Another place that has part in a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Related {
    /// Bytes of the file's text.
    pub span: Range<usize>,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What that place has to do with it.
    pub message: String,
}

/// The sorts of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The text is not TOML.
    Syntax,
    /// A key or table is given twice.
    DuplicateKey,
    /// A bound of the reader: the file's size, its nesting, what it grows to.
    Bound,
    /// A table has a key that does not exist.
    UnknownKey,
    /// A table lacks a key it must have.
    MissingKey,
    /// A value has another type than its key takes.
    Type,
    /// A value of the right type cannot be.
    Value,
    /// A service or job is named that is not there.
    UnknownName,
    /// Services and jobs wait for one another in a circle.
    Cycle,
    /// Two values that are good by themselves cannot be together.
    Conflict,
    /// A `${…}` that cannot be replaced.
    Interpolation,
    /// A secret that cannot be read, or is none.
    Secret,
    /// An env file that cannot be read, or a line in one that cannot be understood.
    EnvFile,
}

/// Everything that is wrong with a spec, in the order of the text. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// Each with the index of its file in `sources`.
    list: Vec<(usize, Problem)>,
    /// Problems beyond [`MAX_PROBLEMS`], which were only counted.
    omitted: usize,
    sources: Vec<Source>,
}

/// The text of a file, so that its lines can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    file: String,
    text: String,
    /// Whether the lines may hold secrets, as those of an env file do. They are not shown then.
    secret: bool,
}

/// How many problems are kept; of those beyond it only the number is known.
pub const MAX_PROBLEMS: usize = 100;

impl Problems {
    /// The problems: those of the spec in the order of its text, then those of its env files.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter().map(|(_, problem)| problem)
    }

    /// How many there are, including those beyond [`MAX_PROBLEMS`]; at least 1.
    pub fn count(&self) -> usize {
        self.list.len() + self.omitted
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_plain().trim_end())
    }
}

impl std::error::Error for Problems {}
