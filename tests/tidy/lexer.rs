//! Rust source as a flat list of tokens, so that no rule mistakes a string or a comment for code.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A word: a name or a keyword.
    Word,
    /// One character of punctuation, or `::`.
    Mark,
    /// A string, character, byte or number.
    Literal,
    /// A lifetime or a label.
    Lifetime,
}

/// A token and the line it starts on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its text; of a raw name (`r#type`) without the `r#`.
    pub(crate) text: &'a str,
    /// The line it starts on, from 1.
    pub(crate) line: usize,
}

impl Token<'_> {
    /// Whether it is this word or mark (never a literal that looks like it).
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Mark) && self.text == text
    }
}

/// Splits `source`; comments and white space are left out.
pub(crate) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer {
        source,
        at: 0,
        line: 1,
        tokens: Vec::new(),
    };
    while lexer.at < source.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
    tokens: Vec<Token<'a>>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    /// Moves on by `len` bytes, which end at a character's end.
    fn skip(&mut self, len: usize) {
        self.line += self.rest()[..len].matches('\n').count();
        self.at += len;
    }

    fn push(&mut self, kind: Kind, len: usize) {
        self.tokens.push(Token {
            kind,
            text: &self.rest()[..len],
            line: self.line,
        });
        self.skip(len);
    }

    fn step(&mut self) {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return;
        };
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else if first == '"' {
            self.push(Kind::Literal, quoted(rest, '"'));
        } else if first == '\'' {
            let (kind, len) = apostrophe(rest);
            self.push(kind, len);
        } else if first.is_ascii_digit() {
            self.push(Kind::Literal, number(rest));
        } else if is_word(first) {
            self.word(rest);
        } else if rest.starts_with("::") {
            self.push(Kind::Mark, 2);
        } else {
            self.push(Kind::Mark, first.len_utf8());
        }
    }

    /// A word, or the literal that its first letters are the prefix of.
    fn word(&mut self, rest: &'a str) {
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(len);
        let raw = matches!(word, "r" | "br" | "cr");
        if raw && let Some(body) = raw_string(after) {
            self.push(Kind::Literal, len + body);
        } else if matches!(word, "b" | "c") && after.starts_with('"') {
            self.push(Kind::Literal, len + quoted(after, '"'));
        } else if word == "b" && after.starts_with('\'') {
            self.push(Kind::Literal, len + quoted(after, '\''));
        } else if word == "r" && after.starts_with('#') && after[1..].starts_with(is_word) {
            self.skip(len + 1);
            let name = self
                .rest()
                .find(|c| !is_word(c))
                .unwrap_or(self.rest().len());
            self.push(Kind::Word, name);
        } else {
            self.push(Kind::Word, len);
        }
    }
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// The length of the block comment, nested ones included, that `rest` starts with.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of the literal between `quote`s that `rest` starts with.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// The length of `#*"…"#*`, or `None` if no raw string starts here.
fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(match body.find(&end) {
        Some(at) => hashes + 1 + at + end.len(),
        None => rest.len(),
    })
}

/// A character literal or a lifetime.
fn apostrophe(rest: &str) -> (Kind, usize) {
    let mut chars = rest.char_indices().skip(1);
    let first = chars.next().map(|(_, c)| c);
    let second = chars.next();
    match (first, second) {
        (Some('\\'), _) => (Kind::Literal, quoted(rest, '\'')),
        (Some(_), Some((at, '\''))) => (Kind::Literal, at + 1),
        _ => {
            let name = rest[1..].find(|c| !is_word(c)).unwrap_or(rest.len() - 1);
            (Kind::Lifetime, 1 + name)
        }
    }
}

/// The length of the number `rest` starts with; `0..9` is a number, two dots and a number.
fn number(rest: &str) -> usize {
    let mut len = 0;
    for (at, c) in rest.char_indices() {
        let fraction = c == '.' && rest[at + 1..].starts_with(|next: char| next.is_ascii_digit());
        if !is_word(c) && !fraction {
            break;
        }
        len = at + c.len_utf8();
    }
    len
}

/// The index just after the bracket that closes the one at `open`.
pub(crate) fn after_group(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        if token.kind == Kind::Mark {
            match token.text {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if depth == 0 {
            return index + 1;
        }
    }
    tokens.len()
}

/// The index just after the item that starts at `start`: after its `;` or its braces.
pub(crate) fn after_item(tokens: &[Token<'_>], start: usize) -> usize {
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        if token.is("{") {
            return after_group(tokens, at);
        } else if token.is("(") || token.is("[") {
            at = after_group(tokens, at);
        } else if token.is(";") {
            return at + 1;
        } else {
            at += 1;
        }
    }
    at
}

/// The items under a `#[cfg(test)]`, as ranges of token indices.
pub(crate) fn test_items(tokens: &[Token<'_>]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let inner = at + 2 < tokens.len() && tokens[at + 1].is("!") && tokens[at + 2].is("[");
        let open = if inner { at + 2 } else { at + 1 };
        if !tokens[at].is("#") || !tokens.get(open).is_some_and(|token| token.is("[")) {
            at += 1;
            continue;
        }
        let close = after_group(tokens, open);
        if !is_test_attribute(&tokens[open + 1..close]) {
            at = close;
        } else if inner {
            ranges.push(0..tokens.len());
            return ranges;
        } else {
            let mut item = close;
            while tokens.get(item).is_some_and(|token| token.is("#")) {
                item = after_group(tokens, item + 1);
            }
            let end = after_item(tokens, item);
            ranges.push(at..end);
            at = end;
        }
    }
    ranges
}

/// Whether the inside of an attribute reads `cfg(… test …)` without a `not`.
fn is_test_attribute(inside: &[Token<'_>]) -> bool {
    inside.first().is_some_and(|token| token.is("cfg"))
        && inside.iter().any(|token| token.is("test"))
        && !inside.iter().any(|token| token.is("not"))
}

/// The tokens of `tokens` that are not under a `#[cfg(test)]`.
pub(crate) fn production<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let tests = test_items(tokens);
    let outside = |index: &usize| !tests.iter().any(|range| range.contains(index));
    (0..tokens.len())
        .filter(outside)
        .map(|index| tokens[index])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).iter().map(|token| token.text).collect()
    }

    #[test]
    fn strings_and_comments_are_never_code() {
        for source in [
            "\"a { \\\" } fn\"",
            "r\"{\"",
            "r##\"a \"# { \"##",
            "b\"{\"",
            "br#\"{\"#",
            "c\"{\"",
            "'{'",
            "'\\''",
            "b'{'",
            "b'\\\\'",
            "'\\u{7b}'",
        ] {
            let found = tokens(source);
            assert_eq!(found.len(), 1, "{source}: {found:?}");
            assert_eq!(found[0].kind, Kind::Literal, "{source}");
            assert_eq!(found[0].text, source);
        }
        assert!(texts("// fn { \"\n/* { /* { */ \" */ //! {").is_empty());
    }

    #[test]
    fn lifetimes_are_not_characters() {
        assert_eq!(texts("fn f<'a>(x: &'a str) {}")[3], "'a");
        assert_eq!(texts("'outer: loop { break 'outer; }").len(), 8);
        assert_eq!(texts("('a', 'é', '_')").len(), 7);
    }

    #[test]
    fn marks_names_and_numbers() {
        assert_eq!(texts("a::b : c"), ["a", "::", "b", ":", "c"]);
        assert_eq!(
            texts("0..10 1.5e3 0xff_u8 x.0"),
            ["0", ".", ".", "10", "1.5e3", "0xff_u8", "x", ".", "0"]
        );
        assert_eq!(texts("r#type r br"), ["type", "r", "br"]);
    }

    #[test]
    fn lines_are_counted_through_strings_and_comments() {
        let source = "a\n\"x\ny\"\n/*\n*/ b r#\"\n\"# c";
        let lines: Vec<_> = tokens(source).iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 2, 5, 5, 6]);
    }

    #[test]
    fn broken_source_ends() {
        for source in [
            "\"",
            "'",
            "r#\"",
            "/* /*",
            "b'",
            "'\\",
            "r#",
            "é",
            "#[",
            "#![cfg(test",
        ] {
            let found = tokens(source);
            let _ = test_items(&found);
        }
    }

    #[test]
    fn test_items_are_left_out() {
        let rest = |source| -> Vec<&str> {
            production(&tokens(source))
                .iter()
                .map(|token| token.text)
                .collect()
        };
        assert_eq!(
            rest("a #[cfg(test)] mod tests { fn f() { x } } b"),
            ["a", "b"]
        );
        assert_eq!(
            rest("a #[cfg(test)] #[allow(dead_code)] mod tests; b"),
            ["a", "b"]
        );
        assert_eq!(
            rest("#[cfg(all(test, unix))] fn f(a: [u8; 2]) -> u8 { 1 } b"),
            ["b"]
        );
        assert_eq!(rest("#![cfg(test)] a b"), [""; 0]);
        assert_eq!(rest("#[cfg(not(test))] a;").len(), 12);
        assert_eq!(rest("#[cfg(unix)] a;").len(), 9);
    }
}
