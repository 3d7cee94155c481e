//! A spec that is being written: keys, and comments on what cannot be said with them.

use std::fmt::Write as _;

use sampan_core::{escape, name::Name, object::SecretSource, secret::SecretValue, spec};

/// How wide comments are.
const WIDTH: usize = 98;
/// How often a value that is no good may be found and left out.
const MAX_REPAIRS: usize = 200;

/// A value of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Toml {
    Text(String),
    Number(u64),
    List(Vec<Toml>),
    /// A table whose keys are data.
    Map(Vec<(String, Toml)>),
}

impl From<&str> for Toml {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Toml {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Toml {
    pub(super) fn texts<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|it| Self::Text(it.into())).collect())
    }

    /// On one line, so that it can be left out by itself.
    fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::List(items) => {
                out.push('[');
                for (number, item) in items.iter().enumerate() {
                    out.push_str(if number == 0 { "" } else { ", " });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push('{');
                for (number, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if number == 0 { " " } else { ", " });
                    out.push_str(&key_text(key));
                    out.push_str(" = ");
                    value.write(out);
                }
                out.push_str(" }");
            }
        }
    }
}

fn key_text(key: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    match !key.is_empty() && key.chars().all(is_bare) {
        true => key.to_owned(),
        false => quoted(key),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        // Writing to a string cannot fail.
        let _ = match letter {
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            '\n' => write!(out, "\\n"),
            '\t' => write!(out, "\\t"),
            letter if letter.is_control() => write!(out, "\\u{:04X}", u32::from(letter)),
            letter => write!(out, "{letter}"),
        };
    }
    out.push('"');
    out
}

#[derive(Debug)]
enum Line {
    Comment(String),
    Key(String, Toml),
}

/// A table of the spec.
#[derive(Debug)]
pub(super) struct Table {
    /// Its header, without brackets; empty for the top level.
    header: String,
    /// Whether it is one of a list of tables.
    is_entry: bool,
    lines: Vec<Line>,
}

impl Table {
    pub(super) fn new(header: impl Into<String>) -> Self {
        Self {
            header: header.into(),
            is_entry: false,
            lines: Vec::new(),
        }
    }

    /// One of a list of tables.
    pub(super) fn entry(header: impl Into<String>) -> Self {
        Self {
            is_entry: true,
            ..Self::new(header)
        }
    }

    /// The header of a table below it.
    pub(super) fn below(&self, key: &str) -> String {
        format!("{}.{key}", self.header)
    }

    pub(super) fn key(&mut self, key: &str, value: impl Into<Toml>) {
        self.lines.push(Line::Key(key.to_owned(), value.into()));
    }

    pub(super) fn comment(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Comment(text.into()));
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

/// A spec that is being written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    tables: Vec<Table>,
    /// What could not be said.
    pub(super) notes: usize,
}

impl Draft {
    /// Adds a table, unless nothing is in it.
    pub(super) fn add(&mut self, table: Table) {
        if !table.is_empty() {
            self.tables.push(table);
        }
    }

    /// Says in a table what of the other file cannot be carried over, and why.
    pub(super) fn note(&mut self, table: &mut Table, line: usize, what: &str, why: &str) {
        self.notes += 1;
        table.comment(format!("line {line}: {what}: {why}"));
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            if !text.is_empty() {
                text.push('\n');
            }
            // What is said of a service stands before it, so that its keys stand together.
            for line in &table.lines {
                if let Line::Comment(comment) = line {
                    comment_to(comment, &mut text);
                }
            }
            let has_keys = table.lines.iter().any(|line| matches!(line, Line::Key(..)));
            match (table.is_entry, &*table.header) {
                _ if !has_keys => {}
                (_, "") => {}
                (true, header) => text += &format!("[[{header}]]\n"),
                (false, header) => text += &format!("[{header}]\n"),
            }
            for line in &table.lines {
                if let Line::Key(key, value) = line {
                    text += &key_text(key);
                    text.push_str(" = ");
                    value.write(&mut text);
                    text.push('\n');
                }
            }
        }
        text
    }

    /// The spec. What its checks refuse is left out too, and said.
    pub(super) fn finish(
        &mut self,
        path: &str,
        read_file: &dyn Fn(&str) -> Result<String, String>,
    ) -> String {
        let mut text = self.text();
        let first = text.clone();
        // One that has to be set is for the user who runs it.
        let environment = |name: &str| {
            let is_needed = [format!("${{{name}}}"), format!("${{{name}:?")];
            let is_needed = is_needed.iter().any(|it| first.contains(it));
            let set = std::env::var(name).ok();
            set.or_else(|| is_needed.then(|| "1".to_owned()))
        };
        // So are values of secrets.
        let secret = |_: &Name, _: &SecretSource| Ok(SecretValue::new(b"1".to_vec()));
        for _ in 0..MAX_REPAIRS {
            let input = spec::Input {
                path,
                text: &text,
                environment: &environment,
                read_file,
                profiles: &[],
            };
            let Err(problems) = spec::load_with_secrets(&input, &secret) else {
                break;
            };
            let Some(problem) = problems.iter().next() else {
                break;
            };
            let why = format!("left out: {}; {}", problem.message, problem.hint);
            text = without(&text, problem.line, &why);
            self.notes += 1;
        }
        text
    }
}

/// The text with a line as a comment, or all lines of the table that begins there.
fn without(text: &str, line: usize, why: &str) -> String {
    let mut out = String::new();
    let mut is_left_out = false;
    for (number, part) in text.lines().enumerate() {
        let is_it = number + 1 == line;
        is_left_out = is_it || (is_left_out && !part.is_empty());
        if is_it {
            comment_to(why, &mut out);
        }
        let is_table = text
            .lines()
            .nth(line.saturating_sub(1))
            .is_some_and(|it| it.starts_with('['));
        if is_it || (is_left_out && is_table) {
            out += &format!("# {part}\n");
        } else {
            out += part;
            out.push('\n');
        }
    }
    out
}

/// Writes a comment over as many lines as it takes. What comes from the other file is escaped.
fn comment_to(comment: &str, out: &mut String) {
    let safe = escape::word(comment);
    for line in textwrap::wrap(&safe, WIDTH) {
        out.push_str("# ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_text_of_one_line_a_key() {
        let mut draft = Draft::default();
        let mut top = Table::new("");
        top.key("app", "shop");
        draft.add(top);
        let mut web = Table::new("service.web");
        web.key("component", "a\"b\\\n.wasm");
        draft.note(
            &mut web,
            7,
            "`privileged`",
            "a guest has\nno rights to raise",
        );
        let pairs = vec![("A B".to_owned(), Toml::from("$$"))];
        web.key("env", Toml::Map(pairs));
        web.key("replicas", Toml::Number(2));
        draft.add(web);
        draft.add(Table::new("service.web.allow"));
        assert_eq!(
            draft.text(),
            "app = \"shop\"\n\n\
             # line 7: `privileged`: a guest has\\nno rights to raise\n\
             [service.web]\n\
             component = \"a\\\"b\\\\\\n.wasm\"\n\
             env = { \"A B\" = \"$$\" }\n\
             replicas = 2\n"
        );
    }

    #[test]
    fn what_the_checks_refuse_is_left_out_and_said() {
        let mut draft = Draft::default();
        let mut top = Table::new("");
        top.key("app", "shop");
        draft.add(top);
        let mut web = Table::new("service.web");
        web.key("component", "web.wasm");
        web.key("replicas", Toml::Number(5000));
        draft.add(web);
        let mut probe = Table::new("service.web.readiness");
        probe.key("period", "1s");
        draft.add(probe);
        let text = draft.finish("sampan.toml", &|_| Err(String::new()));
        assert!(text.contains("\n# replicas = 5000\n"), "{text}");
        assert!(
            text.contains("\n# [service.web.readiness]\n# period = \"1s\"\n"),
            "{text}"
        );
        assert!(text.contains("[service.web]\ncomponent"), "{text}");
        assert_eq!(draft.notes, 2);
    }
}
