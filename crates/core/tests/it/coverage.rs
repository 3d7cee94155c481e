//! Every key of the spec is in the schema, in the reference, and in a fixture that is wrong about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use sampan_core::spec::{self, ProblemKind};
use serde_json::Value as Json;

use super::{fixtures, node};

/// A key: the name of its table in the schema, and its own.
type Key = (String, String);

/// The top level has no name in the schema.
const TOP: &str = "App";

/// What a key has: a value, a table, a list of either, or tables by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    Table,
    List,
    Map,
}

/// A key on the way to another.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) key: String,
    pub(super) kind: Kind,
}

/// Where each key stands that can be reached from the top level: the first way to it.
pub(super) fn paths(schema: &Json) -> Vec<Vec<Step>> {
    let found = walk(schema).into_values();
    found.map(|(path, _)| path).collect()
}

fn keys(schema: &Json) -> BTreeMap<Key, &Json> {
    let found = walk(schema).into_iter();
    found.map(|(key, (_, value))| (key, value)).collect()
}

/// The keys of the tables that can be reached from the top level.
fn walk(schema: &Json) -> BTreeMap<Key, (Vec<Step>, &Json)> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![(TOP.to_owned(), schema, Vec::new())];
    while let Some((name, table, above)) = waiting.pop() {
        for (key, value) in table["properties"].as_object().into_iter().flatten() {
            let id = (name.clone(), key.clone());
            if found.contains_key(&id) {
                continue;
            }
            let inner = table_in(schema, value);
            let kind = match &inner {
                _ if value["additionalProperties"].is_object() && inner.is_some() => Kind::Map,
                _ if value["items"].is_object() && inner.is_some() => Kind::List,
                Some(_) => Kind::Table,
                None => Kind::Value,
            };
            let key = key.clone();
            let path: Vec<_> = above.iter().cloned().chain([Step { key, kind }]).collect();
            if let Some((name, table)) = inner {
                waiting.push((name, table, path.clone()));
            }
            found.insert(id, (path, value));
        }
    }
    found
}

/// The table that a value is, or that its parts are.
fn table_in<'s>(schema: &'s Json, value: &'s Json) -> Option<(String, &'s Json)> {
    if let Some(reference) = value["$ref"].as_str() {
        let name = reference.rsplit('/').next().expect("a name");
        let found = &schema["$defs"][name];
        return match found["properties"].is_object() {
            true => Some((name.to_owned(), found)),
            false => table_in(schema, found),
        };
    }
    let parts = ["anyOf", "oneOf", "allOf"].map(|key| value[key].as_array());
    let parts = parts.into_iter().flatten().flatten();
    let inner = ["items", "additionalProperties"].map(|key| &value[key]);
    let inner = inner.into_iter().filter(|it| it.is_object());
    parts.chain(inner).find_map(|part| table_in(schema, part))
}

/// The parts of a problem's key: `service.web.env."A.B"` is three, and `[0]` is none.
fn parts(key: &str) -> Vec<String> {
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    for c in key.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    let index = |part: &String| part.find('[').unwrap_or(part.len());
    parts
        .iter()
        .map(|part| part[..index(part)].to_owned())
        .collect()
}

/// The key that the value at a place belongs to.
fn key_at(schema: &Json, path: &str) -> Option<Key> {
    let (mut name, mut table) = (TOP.to_owned(), schema);
    let mut parts = parts(path).into_iter();
    let mut found = None;
    while let Some(key) = parts.next() {
        let Some(value) = table["properties"].get(&key) else {
            break;
        };
        found = Some((name.clone(), key));
        let Some(inner) = table_in(schema, value) else {
            break;
        };
        // The names in a table of tables.
        let is_map = value["additionalProperties"].is_object();
        if is_map && parts.next().is_none() {
            break;
        }
        (name, table) = inner;
    }
    found
}

#[test]
fn places_lead_to_keys() {
    let schema = spec::json_schema();
    for (path, table, key) in [
        ("app", TOP, "app"),
        ("service", TOP, "service"),
        ("service.web", TOP, "service"),
        ("service.web.replicas", "Service", "replicas"),
        ("service.web.env.\"A.B\"", "Service", "env"),
        ("service.web.allow.outbound[0]", "Allow", "outbound"),
        ("job.a.allow.files[10].guest", "Mount", "guest"),
        ("service.web.liveness.http", "Probe", "http"),
    ] {
        let found = key_at(&schema, path).expect(path);
        assert_eq!((found.0.as_str(), found.1.as_str()), (table, key), "{path}");
    }
    assert_eq!(key_at(&schema, "nothing"), None);
}

#[test]
fn every_key_is_described_in_the_schema_and_in_the_reference() {
    let schema = spec::json_schema();
    let keys = keys(&schema);
    assert!(keys.len() >= 80, "only {} keys are found", keys.len());
    let reference = spec::reference();
    let mut missing = Vec::new();
    for ((table, key), value) in &keys {
        let meaning = value["description"].as_str().unwrap_or_default();
        let (start, end) = (format!("| `{key}` | "), meaning.replace("\n\n", "<br>"));
        let end = format!(" | {} |", end.replace('|', "\\|"));
        let is_there = reference
            .lines()
            .any(|line| line.starts_with(&start) && line.ends_with(&end));
        if meaning.is_empty() || !is_there {
            missing.push(format!("{table}.{key}"));
        }
    }
    assert!(
        missing.is_empty(),
        "without a description, or not in docs/spec.md (see SECTIONS in spec/reference.rs): {missing:?}"
    );
}

#[test]
fn every_key_has_a_fixture_with_a_bad_value() {
    let schema = spec::json_schema();
    let mut missing: BTreeSet<Key> = keys(&schema).into_keys().collect();
    for name in fixtures::names(".err") {
        let file = format!("{name}.toml");
        let text = fs::read_to_string(fixtures::folder().join(&file)).expect("a fixture");
        let problems = fixtures::load(&file, &text).expect_err("it is bad");
        for problem in problems.iter() {
            let is_about_a_value = match problem.kind {
                ProblemKind::Type
                | ProblemKind::Value
                | ProblemKind::UnknownName
                | ProblemKind::Cycle
                | ProblemKind::Conflict => true,
                // Of an env file the place is that of a line in it.
                ProblemKind::EnvFile => problem.file == file,
                _ => false,
            };
            let is_whole = problem.line > 0 && problem.column > 0 && !problem.hint.is_empty();
            if is_about_a_value && is_whole {
                key_at(&schema, &problem.key).map(|key| missing.remove(&key));
            }
        }
    }
    let missing: Vec<_> = missing
        .iter()
        .map(|(table, key)| format!("{table}.{key}"))
        .collect();
    assert!(
        missing.is_empty(),
        "no fixture in tests/ui/spec has a bad value of {missing:?}"
    );
}

#[test]
fn every_key_of_a_node_has_a_fixture_with_a_bad_value() {
    let schema = spec::node::json_schema();
    let mut missing: BTreeSet<Key> = keys(&schema).into_keys().collect();
    assert!(missing.len() >= 60, "only {} keys are found", missing.len());
    for problem in node::problems().values().flat_map(|all| all.iter()) {
        let is_about_a_value = matches!(problem.kind, ProblemKind::Type | ProblemKind::Value);
        let is_whole = problem.line > 0 && problem.column > 0 && !problem.hint.is_empty();
        if is_about_a_value && is_whole {
            key_at(&schema, &problem.key).map(|key| missing.remove(&key));
        }
    }
    let missing: Vec<_> = missing
        .iter()
        .map(|(table, key)| format!("{table}.{key}"))
        .collect();
    assert!(
        missing.is_empty(),
        "no fixture in tests/ui/node has a bad value of {missing:?}"
    );
}

/// What a grant opens is told on a page of its own, with what is denied without it.
#[test]
fn every_grant_is_among_the_capabilities() {
    let page = fixtures::folder().join("../../../docs/capabilities.md");
    let page = fs::read_to_string(page).expect("a page");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    let schema = spec::json_schema();
    let keys = keys(&schema);
    let grants = keys.keys().filter_map(|(table, key)| match table.as_str() {
        "Allow" => Some(format!("`allow.{key}")),
        "Service" | "Job" if matches!(key.as_str(), "env" | "env_file" | "config" | "args") => {
            Some(format!("`{key}"))
        }
        _ => None,
    });
    for grant in grants {
        let granted_by = |row: &&str| {
            row.split(" | ")
                .nth(2)
                .is_some_and(|it| it.contains(&grant))
        };
        assert!(
            rows.iter().any(granted_by),
            "no row of docs/capabilities.md is granted by {grant}`"
        );
    }
}
