//! Every key of the spec with every sort of value: nothing panics, and what is refused is told with
//! its place.

use std::fmt::Write as _;

use proptest::{collection::vec, prelude::*, sample::select};
use sampan_core::spec;

use super::{coverage, fixtures::load};

/// Values as TOML has them: of every type, and at the edges of what is written in texts.
const VALUES: &[&str] = &[
    "true",
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "99999999999999999999999999999999999999999999",
    "1e308",
    "-0.0",
    "nan",
    "inf",
    "1979-05-27T07:32:00Z",
    "07:32:00",
    "[]",
    "{}",
    "[[[]]]",
    "[1, 'a', true, {}]",
    "{ '' = '' }",
    "{ '\u{202e}' = [] }",
    "''",
    "' '",
    "\"\\u0000\"",
    "\"a\\u0000b\"",
    "'\u{202e}\u{200b}\u{feff}'",
    "'\u{1f6f6}\u{fe0f}e\u{301}'",
    "'${'",
    "'${NOT_SET}'",
    "'${LONG}'",
    "'$$'",
    "'.'",
    "'..'",
    "'/'",
    "'//'",
    "'/../..'",
    "'~'",
    "'\\'",
    "'-'",
    "'%'",
    "'1'",
    "'0'",
    "'-1'",
    "'1e400'",
    "'0.0000000000000000000000001'",
    "'99999999999999999999999999TiB'",
    "'18446744073709551616B'",
    "'9223372036854775807ms'",
    "'1h1h'",
    "'999999999h'",
    "'0.0005'",
    "'99999999m'",
    "'100.0%'",
    "'-5%'",
    "'* * * * *'",
    "'*/0 * * * *'",
    "'0-59/61 25 32 13 8'",
    "'* * 31 2 *'",
    "'* * L-99 * *'",
    "'* * * * MON#9'",
    "'* * W * ?'",
    "'@reboot'",
    "'* * * * * * *'",
    "'59-0 * * * *'",
    "',,,, * * * *'",
    "'4294967296 * * * *'",
    "'Europe/Nowhere'",
    "'../../etc/localtime'",
    "'UTC+25'",
    "'tcp://'",
    "'tcp://*:*'",
    "'tcp://[:5432'",
    "'tcp://]:1'",
    "'http://[::ffff:1.2.3.4.5]'",
    "'https://*.'",
    "'https://a:65536'",
    "'http://.internal'",
    "'http://\u{ff4c}ocalhost'",
    "'sha256:'",
    "'a.b/*'",
    "'[/'",
];

/// What the formats of texts are made of.
const PIECES: &[&str] = &[
    "0",
    "1",
    "59",
    "9999999999999999999999",
    ".",
    "-",
    "+",
    "e",
    "%",
    "m",
    "ms",
    "s",
    "h",
    "d",
    "B",
    "KiB",
    "GiB",
    "TB",
    "*",
    "/",
    ",",
    " ",
    "L",
    "W",
    "#",
    "?",
    "MON",
    "JAN",
    "Europe/",
    "Berlin",
    "UTC",
    "http",
    "https",
    "tcp",
    "://",
    ":",
    "[",
    "]",
    "::",
    "@",
    "localhost",
    "internal",
    "example",
    "${",
    "}",
    "$",
    ":-",
    "sha256:",
    "a",
    "A",
    "_",
    "\u{e4}",
    "\u{202e}",
    "\\",
];

/// A spec in which one key has a value, and the tables around it what they must have.
fn with(path: &[coverage::Step], value: &str) -> String {
    let mut text = value.to_owned();
    for (index, step) in path.iter().enumerate().rev() {
        text = match step.kind {
            coverage::Kind::Value | coverage::Kind::Table => text,
            coverage::Kind::List => format!("[{text}]"),
            coverage::Kind::Map => format!("{{ web = {text} }}"),
        };
        let is_workload = index == 1 && matches!(path[0].key.as_str(), "service" | "job");
        let rest = match is_workload && step.key != "component" {
            true => ", component = 'a.wasm'",
            false => "",
        };
        text = match index {
            0 => format!("{} = {text}\n", step.key),
            _ => format!("{{ {} = {text}{rest} }}", step.key),
        };
    }
    match path[0].key.as_str() {
        "app" => text,
        _ => format!("app = 'shop'\n{text}"),
    }
}

/// Gives back whether the spec is good.
fn try_it(text: &str) -> bool {
    match load("sampan.toml", text) {
        Ok(app) => {
            serde_json::to_string(&app).expect("an app is JSON");
            true
        }
        Err(problems) => {
            assert!(!problems.to_plain().is_empty() && !problems.to_coloured().is_empty());
            for problem in problems.iter() {
                let is_whole = !problem.message.is_empty() && !problem.hint.is_empty();
                let is_placed = problem.line >= 1 && problem.column >= 1;
                assert!(is_whole && is_placed, "{text}: {problem:?}");
                assert!(
                    text.get(problem.span.clone()).is_some(),
                    "{text}: {problem:?}"
                );
            }
            false
        }
    }
}

#[test]
fn every_key_takes_or_refuses_every_sort_of_value() {
    let schema = spec::json_schema();
    let paths = coverage::paths(&schema);
    assert!(paths.len() >= 80, "only {} keys", paths.len());
    let mut wrong = String::new();
    for path in &paths {
        let good = VALUES.iter().filter(|value| try_it(&with(path, value)));
        if good.count() == VALUES.len() {
            let keys: Vec<_> = path.iter().map(|step| step.key.as_str()).collect();
            let _ = writeln!(wrong, "{} takes everything", keys.join("."));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_in_any_key_panics(
        path in select(coverage::paths(&spec::json_schema())),
        pieces in vec(select(PIECES), 0..8),
    ) {
        let value = toml::Value::String(pieces.concat()).to_string();
        try_it(&with(&path, &value));
    }
}
