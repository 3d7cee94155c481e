//! A file of another tool as a tree of texts, each with its line: of YAML and of TOML.

use std::collections::HashMap;

use anyhow::Context as _;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The most values that the aliases of a file may stand for.
const MAX_NODES: usize = 100_000;
/// How deep lists and tables may lie in one another.
const MAX_DEPTH: usize = 64;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Node,
}

impl Node {
    /// The value of a key, if this is a table that has it and it is not null.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let mut entries = self.entries().iter();
        let node = &entries.find(|entry| entry.key == key)?.node;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// The text of a key.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The keys of a table, in their order; none if it is something else.
    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Text(_) | Value::List(_) => &[],
        }
    }

    /// What is in a list, or the one value that stands for a list of it.
    pub(super) fn items(&self) -> &[Self] {
        match &self.value {
            Value::List(items) => items,
            Value::Null => &[],
            Value::Text(_) | Value::Map(_) => std::slice::from_ref(self),
        }
    }

    /// The texts of a list, or the one text that stands for it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.items().iter().filter_map(Self::text)
    }

    /// A list or table in few words, for comments.
    pub(super) fn shown(&self) -> String {
        let text = match &self.value {
            Value::Null => String::new(),
            Value::Text(text) => text.clone(),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(Self::shown).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Map(entries) => {
                let entries = entries.iter();
                let entries = entries.map(|it| format!("{}: {}", it.key, it.node.shown()));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
            }
        };
        let mut short: String = text.chars().take(60).collect();
        if short.len() < text.len() {
            short.push('…');
        }
        short
    }

    fn count(&self) -> usize {
        let below = match &self.value {
            Value::Null | Value::Text(_) => 0,
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|it| it.node.count()).sum(),
        };
        below + 1
    }
}

/// Reads the one document of a YAML file. Aliases are replaced, and `<<` is merged.
pub(super) fn yaml(text: &str) -> anyhow::Result<Node> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.context("it is no YAML")?;
        builder.event(event, span)?;
    }
    builder.root.context("there is nothing in it")
}

/// A list or table that is not at its end.
struct Open {
    line: usize,
    anchor: usize,
    is_map: bool,
    /// Of a table keys and values in turn.
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    /// What aliases have stood for so far.
    count: usize,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> anyhow::Result<()> {
        let line = span.start.line();
        let open = |anchor, is_map| Open {
            line,
            anchor,
            is_map,
            nodes: Vec::new(),
        };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_null = matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = match style == ScalarStyle::Plain && is_null {
                    true => Value::Null,
                    false => Value::Text(text.into_owned()),
                };
                self.add(Node { line, value }, anchor)
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor);
                let node = node.context("an alias leads to nothing")?;
                self.count += node.count();
                anyhow::ensure!(
                    self.count <= MAX_NODES,
                    "its aliases stand for more than {MAX_NODES} values"
                );
                let node = node.clone();
                self.add(node, 0)
            }
            Event::SequenceStart(anchor, _) => self.begin(open(anchor, false)),
            Event::MappingStart(anchor, _) => self.begin(open(anchor, true)),
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().context("an end without a beginning")?;
                let value = match open.is_map {
                    true => Value::Map(entries(open.nodes)),
                    false => Value::List(open.nodes),
                };
                let line = open.line;
                self.add(Node { line, value }, open.anchor)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, open: Open) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.open.len() < MAX_DEPTH,
            "it is more than {MAX_DEPTH} levels deep at line {}",
            open.line
        );
        self.open.push(open);
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> anyhow::Result<()> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.nodes.push(node),
            None => {
                anyhow::ensure!(
                    self.root.is_none(),
                    "there is more than one document in it, from line {} on",
                    node.line
                );
                self.root = Some(node);
            }
        }
        Ok(())
    }
}

/// Keys and values in turn as a table, into which others are merged by `<<`.
fn entries(nodes: Vec<Node>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut merged = Vec::new();
    let mut nodes = nodes.into_iter();
    while let (Some(key), Some(node)) = (nodes.next(), nodes.next()) {
        let line = key.line;
        match key.value {
            Value::Text(key) if key == "<<" => merged.push(node),
            Value::Text(key) => entries.push(Entry { key, line, node }),
            Value::Null | Value::List(_) | Value::Map(_) => {}
        }
    }
    for node in merged.iter().flat_map(Node::items) {
        for entry in node.entries() {
            if !entries.iter().any(|own| own.key == entry.key) {
                entries.push(entry.clone());
            }
        }
    }
    entries
}

/// Reads a TOML file.
pub(super) fn toml(text: &str) -> anyhow::Result<Node> {
    let root = DeTable::parse(text).map_err(|error| anyhow::anyhow!("it is no TOML: {error}"))?;
    let starts: Vec<_> = text.match_indices('\n').map(|(at, _)| at).collect();
    let lines = |at: usize| 1 + starts.partition_point(|start| *start < at);
    Ok(Node {
        line: 1,
        value: of_table(root.get_ref(), &lines),
    })
}

fn of_table(table: &DeTable<'_>, lines: &dyn Fn(usize) -> usize) -> Value {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            line: lines(key.span().start),
            node: of_value(value, lines),
        })
        .collect();
    // As they stand in the file, and not by their names.
    entries.sort_by_key(|entry| entry.line);
    Value::Map(entries)
}

fn of_value(value: &Spanned<DeValue<'_>>, lines: &dyn Fn(usize) -> usize) -> Node {
    let line = lines(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Text(number.to_string()),
        DeValue::Float(number) => Value::Text(number.to_string()),
        DeValue::Boolean(flag) => Value::Text(flag.to_string()),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|it| of_value(it, lines)).collect()),
        DeValue::Table(table) => of_table(table, lines),
    };
    Node { line, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_is_a_tree_of_texts_with_lines() {
        let text = "x-all: &all\n  a: 1\n  b: '~'\nservices:\n  web:\n    <<: *all\n    b: ~\n    c: [x, 3.10]\n";
        let root = yaml(text).expect("good YAML");
        let web = root
            .get("services")
            .and_then(|it| it.get("web"))
            .expect("there");
        assert_eq!(web.text_of("a"), Some("1"));
        assert!(web.get("b").is_none(), "null wins over what is merged");
        let list = web.get("c").expect("there");
        assert_eq!(list.texts().collect::<Vec<_>>(), ["x", "3.10"]);
        assert_eq!(list.line, 8);
        assert_eq!(web.shown(), "{b: , c: [x, 3.10], a: 1}");
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for (text, reason) in [
            ("a: b: c", "no YAML"),
            ("", "nothing in it"),
            ("a: 1\n---\nb: 2\n", "more than one document"),
            (&"[".repeat(100), "levels deep"),
            ("a: *b", "no YAML"),
        ] {
            let error = format!("{:#}", yaml(text).expect_err(text));
            assert!(error.contains(reason), "{error}");
        }
        // Each line doubles what the one before stands for.
        let mut laughs = "a0: &a0 [x, x]\n".to_owned();
        for number in 1..60 {
            let before = number - 1;
            laughs += &format!("a{number}: &a{number} [*a{before}, *a{before}]\n");
        }
        assert!(yaml(&laughs).is_err());
    }

    #[test]
    fn toml_keeps_the_order_and_the_lines() {
        let root = toml("b = 1\n\n[a]\nc = [true, 'x']\n").expect("good TOML");
        let keys: Vec<_> = root
            .entries()
            .iter()
            .map(|it| (&*it.key, it.line))
            .collect();
        assert_eq!(keys, [("b", 1), ("a", 3)]);
        let c = root.get("a").and_then(|it| it.get("c")).expect("there");
        assert_eq!((c.line, c.shown()), (4, "[true, x]".to_owned()));
    }
}
