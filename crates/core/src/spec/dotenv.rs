//! Env files: a `NAME=value` on each line.
//!
//! Blank lines and lines that begin with `#` are skipped; `export ` before a name is allowed. A
//! value in single quotes is taken as it stands; in double quotes `\n`, `\t`, `\"` and `\\` are
//! replaced; without quotes it ends before ` #` or with the line. Nothing is interpolated.

use std::ops::Range;

/// What a file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvFile {
    /// Variables in the order of the file; a later one of the same name wins.
    pub(crate) variables: Vec<(String, String)>,
    /// Lines that cannot be understood.
    pub(crate) faults: Vec<Fault>,
}

/// Something in an env file that cannot be understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Bytes of the file.
    pub(crate) span: Range<usize>,
    /// What is wrong.
    pub(crate) message: &'static str,
    /// What to do about it.
    pub(crate) hint: &'static str,
}

/// Parses a whole file.
pub(crate) fn parse(text: &str) -> EnvFile {
    let mut file = EnvFile::default();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let line_start = start;
        start += line.len();
        let line = line.trim_end_matches(['\r', '\n']);
        let content = line.trim_start_matches([' ', '\t', '\u{feff}']);
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let mut cursor = Line {
            text: line,
            at: line.len() - content.len(),
            start: line_start,
        };
        match cursor.variable() {
            Ok(variable) => file.variables.push(variable),
            Err(fault) => file.faults.push(fault),
        }
    }
    file
}

/// One line and how much of it was read.
struct Line<'a> {
    text: &'a str,
    at: usize,
    /// Where the line starts in the file.
    start: usize,
}

impl<'a> Line<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fault(&self, bytes: usize, message: &'static str, hint: &'static str) -> Fault {
        let from = self.start + self.at;
        Fault {
            span: from..from + bytes,
            message,
            hint,
        }
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
    }

    fn variable(&mut self) -> Result<(String, String), Fault> {
        if let Some(rest) = self.rest().strip_prefix("export")
            && rest.starts_with([' ', '\t'])
        {
            self.at += "export".len();
            self.skip_blanks();
        }
        let Some((name, _)) = self.rest().split_once('=') else {
            let bytes = self.rest().len();
            return Err(self.fault(bytes, "a line without `=`", "write `NAME=value`"));
        };
        let bytes = name.len();
        let name = name.trim_end_matches([' ', '\t']);
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(allowed)
        {
            let hint =
                "a name has letters, digits, `_`, `.` and `-`, and does not begin with a digit";
            return Err(self.fault(name.len().max(1), "not the name of a variable", hint));
        }
        self.at += bytes + 1;
        self.skip_blanks();
        let value = match self.rest().chars().next() {
            Some('\'') => self.literal()?,
            Some('"') => self.escaped()?,
            Some(_) | None => self.bare(),
        };
        if value.contains('\0') {
            let hint = "remove it: an environment variable cannot hold a NUL character";
            return Err(self.fault(0, "a NUL character in a value", hint));
        }
        Ok((name.to_owned(), value))
    }

    /// A value without quotes.
    fn bare(&mut self) -> String {
        let rest = self.rest();
        let is_comment = |at: usize| at == 0 || rest[..at].ends_with([' ', '\t']);
        let end = rest
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|&at| is_comment(at));
        rest[..end.unwrap_or(rest.len())]
            .trim_end_matches([' ', '\t'])
            .to_owned()
    }

    /// A value in single quotes.
    fn literal(&mut self) -> Result<String, Fault> {
        let inside = &self.rest()[1..];
        let Some(end) = inside.find('\'') else {
            let hint = "close it with `'` in the same line";
            return Err(self.fault(self.rest().len(), "a quote that is not closed", hint));
        };
        self.at += end + 2;
        self.end()?;
        Ok(inside[..end].to_owned())
    }

    /// A value in double quotes.
    fn escaped(&mut self) -> Result<String, Fault> {
        let opening = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            let Some(character) = self.rest().chars().next() else {
                self.at = opening;
                let hint = "close it with `\"` in the same line; write `\\n` for a line feed";
                return Err(self.fault(self.rest().len(), "a quote that is not closed", hint));
            };
            match character {
                '"' => break,
                '\\' => {
                    let escape = self.rest()[1..].chars().next();
                    value.push(match escape {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('"') => '"',
                        Some('\\') => '\\',
                        Some(_) | None => {
                            let hint = "the escapes are `\\n`, `\\t`, `\\\"` and `\\\\`; single quotes take text as it stands";
                            let bytes = 1 + escape.map_or(0, char::len_utf8);
                            return Err(self.fault(bytes, "an unknown escape", hint));
                        }
                    });
                    self.at += 2;
                }
                character => {
                    value.push(character);
                    self.at += character.len_utf8();
                }
            }
        }
        self.at += 1;
        self.end()?;
        Ok(value)
    }

    /// After a closing quote only blanks and a comment may follow.
    fn end(&mut self) -> Result<(), Fault> {
        self.skip_blanks();
        let rest = self.rest();
        match rest.is_empty() || rest.starts_with('#') {
            true => Ok(()),
            false => {
                let hint = "end the line after the closing quote, or put the whole value in quotes";
                Err(self.fault(rest.len(), "text after a closing quote", hint))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_way_to_write_a_value() {
        let text = "\u{feff}# comment\n\n  A=1\nexport B = two words # comment\r\nC='a # \\n'#c\n\
                    D=\"a\\n\\t\\\"\\\\\" # c\nE=\nF=x#y\nG=#z\nexport=1\nA=${B}";
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a # \\n"),
            ("D", "a\n\t\"\\"),
            ("E", ""),
            ("F", "x#y"),
            ("G", ""),
            ("export", "1"),
            ("A", "${B}"),
        ];
        let file = parse(text);
        assert_eq!(file.faults, []);
        let found: Vec<_> = file
            .variables
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_fault_has_its_place() {
        for (text, marked, message) in [
            ("A=1\nB", "B", "a line without `=`"),
            ("=1", "=", "not the name of a variable"),
            ("1A=1", "1A", "not the name of a variable"),
            ("ä=1", "ä", "not the name of a variable"),
            ("A='x", "'x", "a quote that is not closed"),
            ("A=\"x\\\"", "\"x\\\"", "a quote that is not closed"),
            ("A=\"x\\ä\"", "\\ä", "an unknown escape"),
            ("A=\"x\\", "\\", "an unknown escape"),
            ("A='x' y", "y", "text after a closing quote"),
            ("A=a\0", "", "a NUL character in a value"),
        ] {
            let faults = parse(text).faults;
            let found: Vec<_> = faults
                .iter()
                .map(|f| (&text[f.span.clone()], f.message))
                .collect();
            assert_eq!(found, [(marked, message)], "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|[\n\r\t =#'\"\\\\]|export ){0,40}") {
            for fault in parse(&text).faults {
                prop_assert!(text.get(fault.span).is_some());
            }
        }

        #[test]
        fn a_quoted_value_is_given_back(value in "[^\0\r]*") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let file = parse(&format!("A=\"{escaped}\""));
            prop_assert_eq!(file.variables, [("A".to_owned(), value)]);
        }
    }
}
