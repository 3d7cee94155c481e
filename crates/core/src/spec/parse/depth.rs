//! A bound on how deep a TOML text nests, found before anything is built from it.
//!
//! The parser bounds brackets and braces but not dotted keys, and a tree as deep as a text is long
//! would overflow the stack of whatever walks or drops it.

use std::ops::Range;

use toml_parser::{
    ErrorSink, Source, Span,
    decoder::Encoding,
    parser::{EventReceiver, RecursionGuard, parse_document},
};

/// How deep tables and lists may be nested, by brackets, braces and dots together. A spec needs
/// six.
pub(super) const MAX_DEPTH: usize = 80;

/// The first place that is nested more than [`MAX_DEPTH`] deep.
pub(super) fn too_deep(text: &str) -> Option<Range<usize>> {
    let source = Source::new(text);
    let tokens = source.lex().into_vec();
    let mut depth = Depth::default();
    let mut guard = RecursionGuard::new(&mut depth, u32::try_from(MAX_DEPTH).unwrap_or(u32::MAX));
    let mut brackets = FirstDeep(None);
    parse_document(&tokens, &mut guard, &mut brackets);
    depth.exceeded.or(brackets.0)
}

/// Catches the one error the recursion guard reports.
struct FirstDeep(Option<Range<usize>>);

impl ErrorSink for FirstDeep {
    fn report_error(&mut self, error: toml_parser::ParseError) {
        if self.0.is_none() && error.description().contains("recursion") {
            self.0 = error.unexpected().map(|span| span.start()..span.end());
        }
    }
}

/// Adds up the parts of headers and dotted keys and the brackets and braces around a place.
#[derive(Default)]
struct Depth {
    /// Parts of the last header.
    header: usize,
    in_header: bool,
    /// Parts of the present key.
    key: usize,
    /// For each open bracket or brace, the parts of the key it is the value of, and itself.
    open: Vec<usize>,
    open_sum: usize,
    exceeded: Option<Range<usize>>,
}

impl Depth {
    fn start_header(&mut self) {
        self.header = 0;
        self.key = 0;
        self.in_header = true;
    }

    fn end_header(&mut self) {
        self.header = self.key;
        self.key = 0;
        self.in_header = false;
    }

    fn enter(&mut self, span: Span) -> bool {
        self.open.push(self.key + 1);
        self.open_sum += self.key + 1;
        self.key = 0;
        self.note(span)
    }

    fn leave(&mut self) {
        if let Some(parts) = self.open.pop() {
            self.open_sum -= parts;
            self.key = parts - 1;
        }
    }

    fn note(&mut self, span: Span) -> bool {
        let within = self.header + self.open_sum + self.key <= MAX_DEPTH;
        if !within && self.exceeded.is_none() {
            self.exceeded = Some(span.start()..span.end());
        }
        within
    }
}

impl EventReceiver for Depth {
    fn std_table_open(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        self.start_header();
    }

    fn std_table_close(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        self.end_header();
    }

    fn array_table_open(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        self.start_header();
    }

    fn array_table_close(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        self.end_header();
    }

    fn inline_table_open(&mut self, span: Span, _error: &mut dyn ErrorSink) -> bool {
        self.enter(span)
    }

    fn inline_table_close(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        self.leave();
    }

    fn array_open(&mut self, span: Span, _error: &mut dyn ErrorSink) -> bool {
        self.enter(span)
    }

    fn array_close(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        self.leave();
    }

    fn simple_key(&mut self, span: Span, _kind: Option<Encoding>, _error: &mut dyn ErrorSink) {
        self.key += 1;
        self.note(span);
    }

    fn value_sep(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        self.key = 0;
    }

    fn newline(&mut self, _span: Span, _error: &mut dyn ErrorSink) {
        if self.in_header {
            self.end_header();
        } else if self.open.is_empty() {
            self.key = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_bounded_however_it_is_reached() {
        let dots = |parts: usize| vec!["a"; parts].join(".");
        let deep = |text: String| too_deep(&text).is_some();
        assert!(!deep(format!("{} = 1", dots(80))));
        assert!(deep(format!("{} = 1", dots(81))));
        assert!(deep(format!("[{}]", dots(81))));
        assert!(deep(format!("[[{}]]", dots(100_000))));
        assert!(deep(format!("[{}]\n{} = 1", dots(50), dots(50))));
        assert!(deep(format!(
            "a = {{ {} = {{ {} = 1 }} }}",
            dots(50),
            dots(50)
        )));
        assert!(deep(format!("a = {}", "[".repeat(100_000))));
        assert!(deep(format!("a = {}", "{a=".repeat(100_000))));
        assert!(deep(format!("a = [{{ {} = 1 }}]\n[a]", dots(100_000))));
        let wide = format!(
            "[{}]\n{}\n",
            dots(40),
            format!("{} = 1\n", dots(30)).repeat(100)
        );
        assert!(!deep(wide));
        assert!(!deep("a = { b.c = 1, d.e = [1, 2], f = 3 }\n".repeat(100)));
    }
}
