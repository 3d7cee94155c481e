//! What the TOML parser complains about, as problems with the place and a way out.

use std::{ops::Range, rc::Rc};

use toml::{
    Spanned,
    de::{DeTable, DeValue, Error},
};

use crate::spec::problem::{Draft, Place, ProblemKind, Report, excerpt, quoted};

/// Reports errors of the parser. What comes after a syntax error in the same line follows from it
/// and is left out.
///
/// Gives back whether the tree can be used all the same: its only errors are keys given twice.
pub(super) fn report_all(
    text: &str,
    root: &DeTable<'_>,
    errors: &[Error],
    report: &mut Report,
) -> bool {
    let mut usable = true;
    let lines = Lines::of(text);
    // The line of the last error that others may follow from.
    let mut last: Option<usize> = None;
    let mut errors: Vec<(Range<usize>, &Error)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or_default(), error))
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    for (span, error) in errors {
        let duplicate = error.message() == "duplicate key";
        usable &= duplicate;
        let line = lines.number(span.start);
        let follows = last == Some(line);
        if !duplicate {
            last = Some(line);
        }
        match (follows, duplicate) {
            (true, _) => {}
            (false, true) => report_duplicate(text, &lines, root, span, report),
            (false, false) => report_syntax((text, &lines), root, error.message(), span, report),
        }
    }
    usable
}

fn report_syntax(
    (text, lines): (&str, &Lines),
    root: &DeTable<'_>,
    message: &str,
    span: Range<usize>,
    report: &mut Report,
) {
    if report.is_full() {
        return report.omit();
    }
    let line = text[lines.start(span.start)..]
        .lines()
        .next()
        .unwrap_or_default();
    let key = match line.strip_prefix('[') {
        Some(header) => excerpt(header.trim_matches(['[', ']', ' ', '\t'])).into(),
        None => enclosing(text, lines, root, span.start).0,
    };
    let found = text.get(span.clone()).unwrap_or_default().trim();
    let unquoted = message.starts_with("string values must be quoted");
    let (message, hint) = match (unquoted, found.is_empty()) {
        (true, true) => ("a value is missing".to_owned(), "write one after the `=`"),
        (true, false) => (format!("{} is not a value", quoted(found)), advice(message)),
        (false, _) => (message.replace(", expected nothing", ""), advice(message)),
    };
    let place = Place {
        source: 0,
        span,
        key,
    };
    let message = format!("not TOML: {message}");
    report.add(Draft::new(&place, ProblemKind::Syntax, message, hint));
}

/// What to do about an error of the parser: the first line whose words are part of its message.
const ADVICE: [(&str, &str); 22] = [
    (
        "cannot extend",
        "a key cannot have a value and also keys below it: remove one of the two",
    ),
    (
        "must be quoted",
        "put text in quotes, as in name = \"value\"",
    ),
    (
        "carriage return",
        "end lines with a line feed, or with a carriage return and a line feed",
    ),
    ("comment", "remove the control character"),
    (
        "keys cannot be empty",
        "write a name; a key has letters, digits, `-` and `_`",
    ),
    (
        "unquoted key",
        "a key has letters, digits, `-` and `_`, or stands in quotes, and `=` follows it",
    ),
    (
        "keys cannot be",
        "write the key without quotes, or in one pair of them",
    ),
    (
        "escape",
        "write `\\\\` for a backslash, or use '…', where nothing is escaped",
    ),
    (
        "unicode",
        "write `\\u` and four hex digits, or `\\U` and eight",
    ),
    (
        "string",
        "close it with the quote it began with, and write control characters as escapes",
    ),
    ("quote", "close it with the quote it began with"),
    ("no value", "write `key = value`"),
    (
        "key-value pair",
        "write `key = value`, each in a line of its own",
    ),
    ("unclosed table", "close the header with `]`"),
    ("array table", "close the header with `]]`"),
    (
        "inline table",
        "close the table with `}` and put commas between its keys",
    ),
    (
        "array",
        "close the list with `]` and put commas between its values",
    ),
    ("date", "dates are not used in a spec; put text in quotes"),
    ("time", "times are not used in a spec; put text in quotes"),
    ("zero", "write the number without the zero in front"),
    ("`=`", "write `key = value` with one `=`"),
    (
        "",
        "a line is `key = value`, or `[table]`; text needs quotes",
    ),
];

fn advice(message: &str) -> &'static str {
    let fits = |(words, _): &&(&str, &'static str)| message.contains(words);
    ADVICE.iter().find(fits).map_or("", |(_, advice)| advice)
}

/// Where the lines of a text begin. A line may be as long as the text and have a table in every
/// other byte, so none of them is looked for its beginning.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(ends).collect())
    }

    /// The number of the line of a byte, from 0.
    fn number(&self, byte: usize) -> usize {
        self.0.partition_point(|start| *start <= byte) - 1
    }

    /// Where the line of a byte begins.
    fn start(&self, byte: usize) -> usize {
        self.0[self.number(byte)]
    }
}

fn report_duplicate(
    text: &str,
    lines: &Lines,
    root: &DeTable<'_>,
    span: Range<usize>,
    report: &mut Report,
) {
    if report.is_full() {
        return report.omit();
    }
    let name = text.get(span.clone()).unwrap_or_default();
    let (path, table) = enclosing(text, lines, root, span.start);
    let first = table.get_key_value(name).map(|(key, _)| key.span());
    let in_header = first.as_ref() == Some(&span) || first.is_none();
    let key = match in_header || path.is_empty() {
        true if path.is_empty() => name.into(),
        true => path,
        false => format!("{path}.{name}").into(),
    };
    let place = Place {
        source: 0,
        span,
        key,
    };
    let message = format!("{} is given twice", quoted(name));
    let hint = "remove one of the two, or put their keys together under one";
    let draft = Draft::new(&place, ProblemKind::DuplicateKey, message, hint);
    report.add(match first.filter(|first| first.start < place.span.start) {
        Some(first) => draft.also(&first, "first given here"),
        None => draft,
    });
}

/// The path of the table that is open at a byte of the text, and the table.
fn enclosing<'t, 'a>(
    text: &'t str,
    lines: &'t Lines,
    root: &'t DeTable<'a>,
    byte: usize,
) -> (Rc<str>, &'t DeTable<'a>) {
    let mut search = Search {
        text,
        lines,
        byte,
        steps: Vec::new(),
        start: 0,
        path: Vec::new(),
        table: root,
    };
    search.visit(root);
    let place = search
        .path
        .iter()
        .fold(Place::root(), |place, step| match step {
            Step::Key(name) => place.child(name, 0..0),
            Step::Index(index) => place.element(*index, 0..0),
        });
    (place.key, search.table)
}

#[derive(Clone, Copy)]
enum Step<'t> {
    Key(&'t str),
    Index(usize),
}

/// A walk through the tree for the last table that begins at or before a byte.
struct Search<'t, 'a> {
    text: &'t str,
    lines: &'t Lines,
    byte: usize,
    /// The way from the root to where the walk is.
    steps: Vec<Step<'t>>,
    /// Where the best table so far begins, the way to it, and itself.
    start: usize,
    path: Vec<Step<'t>>,
    table: &'t DeTable<'a>,
}

impl<'t, 'a> Search<'t, 'a> {
    fn visit(&mut self, table: &'t DeTable<'a>) {
        for (key, value) in table {
            self.steps.push(Step::Key(key.get_ref()));
            self.visit_value(value);
            self.steps.pop();
        }
    }

    /// Where a table begins. One that only a longer header names, as `a` in `[a.b]`, has the
    /// place of that part of the header, and begins with the header itself, no later than `a.b`.
    fn start_of(&self, byte: usize) -> usize {
        let line = self.lines.start(byte);
        match self.text[line..].starts_with('[') {
            true => line,
            false => byte,
        }
    }

    fn visit_value(&mut self, value: &'t Spanned<DeValue<'a>>) {
        match value.get_ref() {
            DeValue::Table(table) => {
                let start = self.start_of(value.span().start);
                if (self.start..=self.byte).contains(&start) {
                    self.start = start;
                    self.path.clone_from(&self.steps);
                    self.table = table;
                }
                self.visit(table);
            }
            DeValue::Array(array) => {
                for (index, value) in array.iter().enumerate() {
                    self.steps.push(Step::Index(index));
                    self.visit_value(value);
                    self.steps.pop();
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}
