//! Problems as text for people.

use std::{borrow::Cow, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Problem, Problems, Related, Source};

/// How much of a file goes to the renderer for one problem, in bytes. It takes time for all of it,
/// also for what it then leaves out.
const MAX_SHOWN_BYTES: usize = 16 << 10;

impl Problems {
    /// All problems as text for people, without colour: message, file, line, column, the line
    /// itself, the path of the key and the hint. Ends with a line feed.
    pub fn to_plain(&self) -> String {
        all(self, &Renderer::plain())
    }

    /// The same with ANSI colours.
    pub fn to_coloured(&self) -> String {
        all(self, &Renderer::styled())
    }
}

/// All problems, one after the other, and how many more there are.
fn all(problems: &Problems, renderer: &Renderer) -> String {
    let mut text = String::new();
    for (source, problem) in &problems.list {
        text.push_str(&one(problem, &problems.sources[*source], renderer));
        text.push_str("\n\n");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    if problems.omitted > 0 {
        let more = Level::ERROR.primary_title(match problems.omitted {
            1 => "1 more problem is not shown".to_owned(),
            more => format!("{more} more problems are not shown"),
        });
        text.push('\n');
        text.push_str(&renderer.render(&[Group::with_title(more)]));
        text.push('\n');
    }
    text
}

fn one(problem: &Problem, source: &Source, renderer: &Renderer) -> String {
    let key = match problem.key.as_str() {
        "" => "the whole file",
        key => key,
    };
    let file = steady(&problem.file);
    let group = Level::ERROR.primary_title(problem.message.as_str());
    let help = Level::HELP.message(problem.hint.as_str());
    let primary = first_line(&source.text, &problem.span);
    let lines = lines_around(&source.text, [&primary]);
    if source.secret || lines.len() > MAX_SHOWN_BYTES {
        let why = match source.secret {
            true => "its lines are not shown",
            false => "the line is too long to be shown",
        };
        let origin = Origin::path(file).line(problem.line);
        let origin = origin.char_column(problem.column);
        let note = Level::NOTE.message(format!("at {key}; {why}"));
        return renderer.render(&[group.element(origin).element(note).element(help)]);
    }
    let other = problem.related.as_ref();
    let other = other.map(|other| (first_line(&source.text, &other.span), other));
    let (lines, near, far) = match other {
        None => (lines, None, None),
        Some((span, other)) => {
            let both = lines_around(&source.text, [&primary, &span]);
            match both.len() > MAX_SHOWN_BYTES {
                false => (both, Some((span, other)), None),
                true => (lines, None, Some(other)),
            }
        }
    };
    // The renderer gets these lines only, so places are counted from where they begin.
    // One may lie in carriage returns at their end, which are cut off.
    let within = |at: usize| at.min(lines.end) - lines.start;
    let place = |span: Range<usize>| within(span.start)..within(span.end);
    let other = near.map(|(span, other)| {
        AnnotationKind::Context
            .span(place(span))
            .label(other.message.as_str())
    });
    let snippet = Snippet::source(steady(&source.text[lines.clone()]))
        .path(file)
        .line_start(source.text[..lines.start].matches('\n').count() + 1)
        .annotation(AnnotationKind::Primary.span(place(primary)).label(key))
        .annotations(other);
    let far = far.map(|far| {
        let Related {
            line,
            column,
            message,
            ..
        } = far;
        Level::NOTE.message(format!("{message}, in line {line}, column {column}"))
    });
    renderer.render(&[group.element(snippet).elements(far).element(help)])
}

/// The whole lines from the first of these places to the last.
fn lines_around<const N: usize>(text: &str, spans: [&Range<usize>; N]) -> Range<usize> {
    let from = spans.iter().map(|span| span.start).min().unwrap_or(0);
    let to = spans.iter().map(|span| span.end).max().unwrap_or(0);
    let from = text[..from].rfind('\n').map_or(0, |at| at + 1);
    let to = to + text[to..].find('\n').unwrap_or(text.len() - to);
    // The last line loses its line feed, so its carriage return would stand alone.
    from..from + text[from..to].trim_end_matches('\r').len()
}

/// The part of a place that lies in its first line.
fn first_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    let end = text.floor_char_boundary(span.end).max(start);
    let line_end = text[start..end].find(['\n', '\r']);
    start..line_end.map_or(end, |at| start + at)
}

/// Without the control characters the renderer lets through: those beyond ASCII, which some
/// terminals obey. What takes their place is as long in bytes, so that places stay.
fn steady(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| ('\u{80}'..='\u{9f}').contains(&c);
    match text.contains(obeyed) {
        true => Cow::Owned(text.replace(obeyed, "\u{b7}")),
        false => Cow::Borrowed(text),
    }
}
