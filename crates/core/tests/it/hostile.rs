//! No text makes `load` panic, hang or grow without bound.

use std::{cell::Cell, fmt::Write as _, fs};

use proptest::{collection::vec, prelude::*, sample::Index};
use sampan_core::spec::{self, Input, MAX_PROBLEMS, MAX_SPEC_BYTES, ProblemKind, Problems};

use super::fixtures::{self, load};

/// Loads, and looks at what comes out in every way a user could.
fn try_everything(text: &str) {
    match load("sampan.toml", text) {
        Ok(app) => drop(serde_json::to_string(&app).expect("an app is JSON")),
        Err(problems) => look_at(&problems, text),
    }
}

fn look_at(problems: &Problems, text: &str) {
    let (plain, coloured) = (problems.to_plain(), problems.to_coloured());
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let steers = |c: char| (c.is_control() && c != '\n') || turns(c);
    assert!(!plain.contains(steers), "{plain:?}");
    assert!(
        !coloured.replace('\u{1b}', "").contains(steers),
        "{coloured:?}"
    );
    assert!((1..=MAX_PROBLEMS).contains(&problems.iter().count()));
    for problem in problems.iter() {
        assert!(
            !problem.message.is_empty() && !problem.hint.is_empty(),
            "{problem:?}"
        );
        assert!(problem.line >= 1 && problem.column >= 1, "{problem:?}");
        if problem.file == "sampan.toml" && text.len() <= MAX_SPEC_BYTES {
            assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
        }
    }
}

/// Loads and gives back the only problem.
fn only_problem(text: &str) -> (ProblemKind, usize) {
    let problems = load("sampan.toml", text).expect_err("a problem");
    look_at(&problems, text);
    let problem = problems.iter().next().expect("a problem");
    (problem.kind, problems.count())
}

#[test]
fn a_spec_has_a_longest_text() {
    let comment = "#".repeat(MAX_SPEC_BYTES);
    assert_eq!(
        only_problem(&format!("app = \"a\"\n{comment}")),
        (ProblemKind::Bound, 1)
    );
    let fitting = format!("app = \"a\"\n{}", &comment[10..]);
    load("sampan.toml", &fitting).expect("a text of just the bound");
}

#[test]
fn nesting_is_bounded_before_anything_is_built() {
    let dots = vec!["a"; 200_000].join(".");
    for text in [
        format!("{dots} = 1"),
        format!("[{dots}]"),
        format!("[[{dots}]]"),
        format!("app = {{ {dots} = 1 }}"),
        // The parser drops the value of a key that is given twice.
        format!("app = 1\napp = {{ {dots} = 1 }}"),
        format!("a = [{{ {dots} = 1 }}]\n[a]"),
        format!("a = {}", "[".repeat(500_000)),
        format!("a = {}", "{a=".repeat(300_000)),
        format!("a = {}", "[{a=".repeat(200_000)),
    ] {
        assert_eq!(
            only_problem(&text),
            (ProblemKind::Bound, 1),
            "{}",
            &text[..20]
        );
    }
}

#[test]
fn variables_cannot_fill_the_memory() {
    let mut text = "app = \"a\"\n[service.a]\ncomponent = \"a\"\n[service.a.env]\n".to_owned();
    for index in 0..1000 {
        writeln!(text, "a{index} = \"${{LONG}}\"").expect("a string takes any text");
    }
    let (kind, count) = only_problem(&text);
    assert_eq!(kind, ProblemKind::Bound);
    assert!(count > 900, "only {count} values were refused");
}

#[test]
fn env_files_cannot_fill_the_memory() {
    let mut text = "app = \"a\"\n".to_owned();
    for index in 0..1000 {
        writeln!(
            text,
            "[service.s{index}]\ncomponent = \"a\"\nenv_file = \"long.env\""
        )
        .expect("text");
    }
    let reads = Cell::new(0);
    let read_file = |_: &str| {
        reads.set(reads.get() + 1);
        Ok(format!("A={}", "x".repeat(MAX_SPEC_BYTES - 2)))
    };
    let environment = |_: &str| None;
    let input = Input {
        path: "sampan.toml",
        text: &text,
        environment: &environment,
        read_file: &read_file,
        profiles: &[],
    };
    let problems = spec::load(&input).expect_err("too much");
    look_at(&problems, &text);
    assert!(
        problems
            .iter()
            .all(|problem| problem.kind == ProblemKind::Bound)
    );
    assert_eq!(reads.get(), 1, "the file is read once");
}

#[test]
fn an_env_file_has_a_longest_text() {
    let text = "app = \"a\"\n[service.a]\ncomponent = \"a\"\nenv_file = \"long.env\"\n";
    let read_file = |_: &str| Ok("\n".repeat(MAX_SPEC_BYTES + 1));
    let environment = |_: &str| None;
    let input = Input {
        path: "sampan.toml",
        text,
        environment: &environment,
        read_file: &read_file,
        profiles: &[],
    };
    let problems = spec::load(&input).expect_err("too long");
    assert_eq!(
        problems.iter().next().map(|problem| problem.kind),
        Some(ProblemKind::Bound)
    );
}

#[test]
fn the_spec_can_name_itself_as_env_file() {
    let text = "app = \"a\"\n[service.a]\ncomponent = \"a\"\nenv_file = \"sampan.toml\"\n";
    let (environment, read_file) = (|_: &str| None, |_: &str| Ok(text.to_owned()));
    let input = Input {
        path: "sampan.toml",
        text,
        environment: &environment,
        read_file: &read_file,
        profiles: &[],
    };
    let problems = spec::load(&input).expect_err("a header is no variable");
    look_at(&problems, text);
    let kinds: Vec<_> = problems
        .iter()
        .map(|problem| (problem.kind, problem.line))
        .collect();
    assert_eq!(kinds, [(ProblemKind::EnvFile, 2)]);
}

#[test]
fn a_hundred_thousand_problems_are_counted() {
    let mut text = "app = \"a\"\n".to_owned();
    for index in 0..80_000 {
        writeln!(text, "k{index} = 1").expect("a string takes any text");
    }
    assert_eq!(only_problem(&text), (ProblemKind::UnknownKey, 80_000));
    let syntax = "=\n".repeat(500_000);
    assert_eq!(only_problem(&syntax), (ProblemKind::Syntax, 500_000));
    let in_one_line = format!("a = {}", "@ ".repeat(500_000));
    assert_eq!(only_problem(&in_one_line), (ProblemKind::Syntax, 1));
}

#[test]
fn long_chains_and_circles_of_dependencies() {
    let chain = |services: usize, last: &str| {
        let mut text = "app = \"a\"\n".to_owned();
        for index in 0..services {
            let next = match index + 1 == services {
                true => last.to_owned(),
                false => format!("\"s{}\"", index + 1),
            };
            writeln!(
                text,
                "[service.s{index}]\ncomponent=\"a\"\ndepends_on=[{next}]"
            )
            .expect("text");
        }
        text
    };
    let app = load("sampan.toml", &chain(5_000, "")).expect("a long chain");
    assert_eq!(app.services.len(), 5_000);
    assert_eq!(
        only_problem(&chain(5_000, "\"s0\"")),
        (ProblemKind::Cycle, 1)
    );
    // Two circles and a name that is not there.
    let last = "\"nobody\", \"s7\", \"s99\"";
    assert_eq!(only_problem(&chain(5_000, last)).1, 3);
}

#[test]
fn many_names_that_are_not_there() {
    let mut text = "app = \"a\"\n".to_owned();
    for index in 0..3_000 {
        writeln!(
            text,
            "[service.s{index}]\ncomponent=\"a\"\ndepends_on=[\"t{index}\",\"u\"]"
        )
        .expect("text");
    }
    assert_eq!(only_problem(&text), (ProblemKind::UnknownName, 6_000));
}

#[test]
fn a_guess_at_a_name_is_made_for_so_many_names_in_all() {
    let guesses = |services: usize| {
        let mut text = "app = \"a\"\n".to_owned();
        for index in 0..services {
            let (name, missing) = (format!("service-{index:04}"), format!("servize-{index:04}"));
            writeln!(
                text,
                "[service.{name}]\ncomponent=\"a\"\ndepends_on=[\"{missing}\"]"
            )
            .expect("text");
        }
        let problems = load("sampan.toml", &text).expect_err("none is there");
        let hints = problems.iter().map(|problem| &problem.hint);
        hints
            .filter(|hint| hint.starts_with("did you mean"))
            .count()
    };
    assert_eq!(guesses(50), 50);
    assert_eq!(guesses(1000), 20, "20,000 names are compared");
    assert_eq!(guesses(5000), 4);
}

#[test]
fn as_many_circles_as_there_are_services() {
    let circles = |back: &dyn Fn(usize) -> usize| {
        let mut text = "app = \"a\"\n".to_owned();
        for index in 0..5000 {
            let (next, back) = ((index + 1).min(4999), back(index));
            writeln!(
                text,
                "[service.s{index}]\ncomponent=\"a\"\ndepends_on=[\"s{next}\",\"s{back}\"]"
            )
            .expect("text");
        }
        let problems = load("sampan.toml", &text).expect_err("circles");
        look_at(&problems, &text);
        problems.count()
    };
    // The few that are described alike are one.
    for count in [circles(&|_| 0), circles(&|index| index.saturating_sub(1))] {
        assert!((4900..=5001).contains(&count), "{count}");
    }
}

#[test]
fn lists_and_tables_have_a_most_of_elements() {
    let bounded = |text: &str, key: &str| {
        let problems = load("sampan.toml", text).expect_err("too many");
        look_at(&problems, text);
        let bound = problems.iter().find(|it| it.kind == ProblemKind::Bound);
        assert_eq!(bound.expect("a bound").key, key);
        assert!(problems.count() < 3, "its elements are not read");
    };
    let tables = |header: &dyn Fn(usize) -> String| {
        let tables = (0..5001).map(|index| header(index) + "\n");
        format!("app = 'a'\n{}", tables.collect::<String>())
    };
    bounded(&tables(&|index| format!("[service.s{index}]")), "service");
    bounded(&tables(&|index| format!("[job.s{index}]")), "job");
    let forty_thousand = (0..40_000).map(|index| format!("[service.s{index}]\n"));
    let forty_thousand = format!("app = 'a'\n{}", forty_thousand.collect::<String>());
    assert!((600 << 10..MAX_SPEC_BYTES).contains(&forty_thousand.len()));
    bounded(&forty_thousand, "service");
    let service = "app = 'a'\n[service.a]\ncomponent = 'a'\n";
    let list = |element: &str| format!("[{}]", element.repeat(5001));
    bounded(
        &format!("{service}route = {}", list("'/',")),
        "service.a.route",
    );
    bounded(
        &format!("{service}env_file = {}", list("'a',")),
        "service.a.env_file",
    );
    bounded(
        &format!("{service}allow.files = {}", list("{},")),
        "service.a.allow.files",
    );
    let variables = (0..5001).map(|index| format!("A{index} = ''\n"));
    let variables = variables.collect::<String>();
    bounded(
        &format!("{service}[service.a.env]\n{variables}"),
        "service.a.env",
    );
    // One less is good.
    let good = forty_thousand
        .lines()
        .take(5001)
        .map(|line| match line.starts_with('[') {
            true => format!("{line}\ncomponent = 'a'\n"),
            false => format!("{line}\n"),
        });
    let app = load("sampan.toml", &good.collect::<String>()).expect("a good spec");
    assert_eq!(app.services.len(), 5000);
}

#[test]
fn one_line_with_tables_and_errors_all_along() {
    // Each error is told with the table that it is in, and no line is looked through for each table.
    let pair = "{b=1,b=1},";
    let text = format!(
        "app = 'a'\nx = [{}{}]",
        "{},".repeat(100_000),
        pair.repeat(100)
    );
    assert_eq!(only_problem(&text), (ProblemKind::DuplicateKey, 101));
    let twice = format!("app = 'a'\nx = [{}{}]", "{},".repeat(200_000), pair);
    try_everything(&twice);
    // What comes after an error in a line follows from it, however long the line is.
    let long = format!("{}\n{}", "= ".repeat(200_000), "b = 1\n".repeat(50_000));
    try_everything(&long);
}

#[test]
fn an_env_file_may_be_named_often() {
    let names = "'a.env',".repeat(5000);
    let text = format!("app = 'a'\n[service.a]\ncomponent = 'a'\nenv_file = [{names}]\n");
    let profiles: Vec<_> = (0..100_000).map(|index| format!("p{index}")).collect();
    let input = Input {
        path: "sampan.toml",
        text: &text,
        environment: &|_| None,
        read_file: &|_| Ok("a=\n".repeat(300_000)),
        profiles: &profiles,
    };
    let problems = spec::load(&input).expect_err("it grows too large");
    look_at(&problems, &text);
    assert_eq!(
        problems.iter().next().map(|it| it.kind),
        Some(ProblemKind::Bound)
    );
}

#[test]
fn one_line_as_long_as_a_spec_can_be() {
    let long = "ä\u{9b}".repeat(100_000);
    let mut text = format!("app = \"a\"\nx = \"{long}\"\n");
    try_everything(&text);
    text.push_str("[service.a]\ncomponent = 1\n");
    try_everything(&text);
    let keys: Vec<String> = (0..60_000).map(|index| format!("k{index} = 1")).collect();
    try_everything(&format!(
        "app = \"a\"\nservice.a = {{ {} }}\n",
        keys.join(", ")
    ));
    try_everything(&format!("{}\n", "k".repeat(1_000_000)));
}

/// Pieces of specs: what a line-wise or letter-wise fuzzer would rarely put together.
fn piece() -> impl Strategy<Value = String> {
    let pieces = [
        "app",
        "service",
        "job",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\n",
        "\r\n",
        " ",
        "\t",
        "#",
        "\\",
        "\\u0000",
        "\\U0010FFFF",
        "\u{feff}",
        "\u{9b}",
        "[service.web]\n",
        "component = \"web.wasm\"\n",
        "replicas = 1\n",
        "route = [\"/\"]\n",
        "depends_on = [\"web\"]\n",
        "[service.web.limits]\n",
        "memory = \"64MiB\"\n",
        "env_file",
        "[job.web]\n",
        "[service.api]\n",
        "\"${A}\"",
        "\"${REPLICAS}\"",
        "\"${A:-\"",
        "$$",
        "nan",
        "-inf",
        "1e999",
        "0x",
        "0xffffffffffffffffffff",
        "-1",
        "99999999999999999999",
        "true",
        "1979-05-27",
        "\"bad.env\"",
        "\"good.env\"",
        "[service.web.autoscale]\n",
        "max = 1\n",
        "min = 2\n",
        "startup.http = \"/\"\n",
        "rollout = {}\n",
        "limits.cpu = \"1\"\n",
        "\"é\"",
    ];
    prop_oneof![
        4 => proptest::sample::select(pieces.to_vec()).prop_map(str::to_owned),
        1 => "\\PC{0,6}",
        1 => any::<char>().prop_map(String::from),
    ]
}

/// A change of a text: where, how much goes, what comes.
fn change() -> impl Strategy<Value = (Index, usize, Vec<String>)> {
    (any::<Index>(), 0usize..30, vec(piece(), 0..4))
}

fn all_fixtures() -> Vec<String> {
    let read = |name: &String| fs::read_to_string(fixtures::folder().join(format!("{name}.toml")));
    fixtures::names(".toml")
        .iter()
        .map(|name| read(name).expect("a fixture"))
        .collect()
}

#[test]
fn a_place_among_carriage_returns_is_shown() {
    // What the pieces below once came to.
    try_everything("\u{1f77b}\n\"\r\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_text_panics(text in "(\\PC|[\n\r\t\0\u{1b}]){0,200}") {
        try_everything(&text);
    }

    #[test]
    fn no_pieces_panic(pieces in vec(piece(), 0..60)) {
        try_everything(&pieces.concat());
    }

    #[test]
    fn no_changed_fixture_panics(which in any::<Index>(), changes in vec(change(), 1..6)) {
        let mut text = which.get(&all_fixtures()).clone();
        for (place, removed, added) in changes {
            let from = text.floor_char_boundary(place.index(text.len() + 1));
            let to = text.floor_char_boundary((from + removed).min(text.len()));
            text.replace_range(from..to, &added.concat());
        }
        try_everything(&text);
    }
}
