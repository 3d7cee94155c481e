//! Collecting problems: places, drafts, and the words that quote what a file says.

use std::{ops::Range, rc::Rc};

use super::{MAX_PROBLEMS, Problem, ProblemKind, Problems, Related, Source};
use crate::escape;

/// The longest excerpt of a file's text in a message, in characters.
const MAX_QUOTED: usize = 80;

/// Where something stands: which file, which bytes, under which key.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Index of the file in the report; 0 is the spec.
    pub(crate) source: usize,
    /// Bytes of the file's text.
    pub(crate) span: Range<usize>,
    /// Path of the key.
    pub(crate) key: Rc<str>,
}

impl Place {
    /// The whole spec.
    pub(crate) fn root() -> Self {
        Self {
            source: 0,
            span: 0..0,
            key: "".into(),
        }
    }

    /// The key `name` below this one, standing at `span`.
    pub(crate) fn child(&self, name: &str, span: Range<usize>) -> Self {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name = match !name.is_empty() && name.chars().all(bare) {
            true => excerpt(name),
            false => format!("\"{}\"", excerpt(name)),
        };
        let key = match self.key.is_empty() {
            true => name.into(),
            false => format!("{}.{name}", self.key).into(),
        };
        Self {
            source: self.source,
            span,
            key,
        }
    }

    /// The element `index` of this list, standing at `span`.
    pub(crate) fn element(&self, index: usize, span: Range<usize>) -> Self {
        Self {
            source: self.source,
            span,
            key: format!("{}[{index}]", self.key).into(),
        }
    }
}

/// A problem about to be reported.
#[must_use]
pub(crate) struct Draft<'a> {
    place: &'a Place,
    kind: ProblemKind,
    message: String,
    hint: String,
    related: Option<(Range<usize>, String)>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        place: &'a Place,
        kind: ProblemKind,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            place,
            kind,
            message: message.into(),
            hint: hint.into(),
            related: None,
        }
    }

    /// Points at a second place in the same file.
    pub(crate) fn also(mut self, span: &Range<usize>, message: impl Into<String>) -> Self {
        self.related = Some((span.clone(), message.into()));
        self
    }
}

/// The problems found so far.
pub(crate) struct Report(Problems);

impl Report {
    /// An empty report about the spec `text` in `file`.
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let source = Source {
            file: file.to_owned(),
            text: text.to_owned(),
            secret: false,
        };
        Self(Problems {
            list: Vec::new(),
            omitted: 0,
            sources: vec![source],
        })
    }

    /// Adds a file whose lines are not to be shown, and returns its index.
    pub(crate) fn add_secret_source(&mut self, file: &str, text: &str) -> usize {
        let source = Source {
            file: file.to_owned(),
            text: text.to_owned(),
            secret: true,
        };
        self.0.sources.push(source);
        self.0.sources.len() - 1
    }

    /// Whether further problems will only be counted. What it takes to describe one can then be
    /// left out for [`Self::omit`], which bounds the work a bad file causes.
    pub(crate) fn is_full(&self) -> bool {
        self.0.list.len() >= MAX_PROBLEMS
    }

    /// Counts a problem without describing it.
    pub(crate) fn omit(&mut self) {
        self.0.omitted += 1;
    }

    /// Reports a problem.
    pub(crate) fn add(&mut self, draft: Draft<'_>) {
        if self.is_full() {
            return self.omit();
        }
        let source = &self.0.sources[draft.place.source];
        let (line, column) = line_and_column(&source.text, draft.place.span.start);
        let problem = Problem {
            kind: draft.kind,
            file: source.file.clone(),
            span: draft.place.span.clone(),
            line,
            column,
            key: draft.place.key.to_string(),
            message: escape::word(&draft.message).into(),
            hint: escape::word(&draft.hint).into(),
            related: draft.related.map(|(span, message)| {
                let (line, column) = line_and_column(&source.text, span.start);
                Related {
                    span,
                    line,
                    column,
                    message: escape::word(&message).into(),
                }
            }),
        };
        self.0.list.push((draft.place.source, problem));
    }

    /// What was made of the spec if nothing was wrong with it, or else the problems in the order
    /// of the text. A caller that passes `None` must have reported a problem before.
    pub(crate) fn finish<T>(mut self, made: Option<T>) -> Result<T, Problems> {
        match made {
            Some(made) if self.0.list.is_empty() => Ok(made),
            made => {
                let list = &mut self.0.list;
                debug_assert!(
                    made.is_some() || !list.is_empty(),
                    "nothing made, no reason"
                );
                list.sort_by_key(|(source, problem)| (*source, problem.span.start));
                list.dedup();
                Err(self.0)
            }
        }
    }
}

/// Line and column of a byte, both from 1, the column in characters.
fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// Text of a file for a message: in backticks, control characters escaped, shortened.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", excerpt(text))
}

/// Text of a file for the path of a key: the same without backticks.
pub(crate) fn excerpt(text: &str) -> String {
    let start: String = text.chars().take(MAX_QUOTED).collect();
    let mut shown = escape::word(&start).into_owned();
    if text.chars().nth(MAX_QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

/// The known word `text` was probably meant to be.
pub(crate) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = text.chars().take(crate::name::MAX_NAME_BYTES + 1).count();
    if length > crate::name::MAX_NAME_BYTES {
        return None;
    }
    let lower = text.to_lowercase();
    let distance = |word: &str| match length >= 3 && word.starts_with(&lower) {
        true => 1,
        false => strsim::damerau_levenshtein(&lower, word),
    };
    known
        .into_iter()
        .map(|word| (distance(word), word))
        .filter(|(distance, word)| *distance <= length.max(word.len()).div_ceil(3).min(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let text = "a = \"größe\" x\nb";
        assert_eq!(
            line_and_column(text, text.find('x').expect("it is there")),
            (1, 13)
        );
        assert_eq!(line_and_column(text, text.len() - 1), (2, 1));
        assert_eq!(line_and_column(text, text.len() + 9), (2, 2));
        assert_eq!(line_and_column("", 0), (1, 1));
    }

    #[test]
    fn excerpts_are_short_and_harmless() {
        assert_eq!(quoted("a\u{1b}[31m\nb"), "`a\\u{1b}[31m\\nb`");
        assert_eq!(quoted("\u{9b}ü\u{202e}x"), "`\\u{9b}ü\\u{202e}x`");
        assert_eq!(quoted(&"ä".repeat(500)).chars().count(), MAX_QUOTED + 3);
        let place = Place::root()
            .child("service", 0..0)
            .child("a b", 0..0)
            .element(3, 0..0);
        assert_eq!(&*place.key, "service.\"a b\"[3]");
    }

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["replicas", "route", "limits"];
        assert_eq!(nearest("replica", known), Some("replicas"));
        assert_eq!(nearest("Limits", known), Some("limits"));
        assert_eq!(nearest("rotue", known), Some("route"));
        assert_eq!(nearest("lim", known), Some("limits"));
        assert_eq!(nearest("volumes", known), None);
        assert_eq!(nearest(&"r".repeat(100_000), known), None);
    }
}
