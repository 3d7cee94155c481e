//! No import circles, and the table of layers in `ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::PAGE_OF_LAYERS;
use crate::modules::{self, Graph};
use crate::tree::{Rule, Tree, Violation};

static CIRCLE: Rule = Rule {
    name: "import circles",
    why: "files that import one another in a circle are one file in several pieces: none can be \
          read, tested or replaced without all the others",
    remedy: "move what both need into a file below both, or let the lower one take a trait or a \
             value; `mod a;` in a parent is no import, `use a::A` and `a::f()` are",
};

static TABLE: Rule = Rule {
    name: "layers",
    why: "the table is the map of the crates, and the list of the edges that are allowed: an edge \
          that is not in it is a change of the architecture",
    remedy: "take the edge out again, or change the table with it: `target/ci/tidy --ignored \
             write_the_layers` writes it",
};

/// What the table stands between.
const MARKS: [&str; 2] = [
    "<!-- layers: written by `write_the_layers` of tests/tidy.rs -->\n",
    "<!-- end of layers -->\n",
];

pub(crate) fn check(tree: &Tree) -> Vec<Violation> {
    let graphs = modules::graphs(tree);
    let circles = graphs.iter().flat_map(circles);
    let mut found: Vec<_> = circles
        .map(|circle| Violation {
            path: circle.path,
            line: 1,
            rule: &CIRCLE,
            found: circle.text,
        })
        .collect();
    let Some(page) = tree.file(PAGE_OF_LAYERS) else {
        return found;
    };
    match written(&page.text, &graphs) {
        Some(text) => {
            let lines = text.lines().zip(page.text.lines()).enumerate();
            let different = lines
                .filter(|(_, (new, old))| new != old)
                .map(|(at, (new, _))| {
                    let text = format!("from here on the table is not that of the tree: `{new}`");
                    page.violation(at + 1, &TABLE, text)
                });
            found.extend(different.take(1));
        }
        None => found.push(page.violation(1, &TABLE, "no place for the table")),
    }
    found
}

/// The page with the table of `graphs` between its marks; `None` if it has no marks.
pub(crate) fn written(page: &str, graphs: &[Graph]) -> Option<String> {
    let (before, rest) = page.split_once(MARKS[0])?;
    let (_, after) = rest.split_once(MARKS[1])?;
    let mut text = String::new();
    for graph in graphs {
        text += &table(graph);
    }
    Some([before, MARKS[0], &text, "\n", MARKS[1], after].concat())
}

/// A row for each module, from the ground up: its layer and the modules that it may name.
fn table(graph: &Graph) -> String {
    let modules = folded(graph);
    let layers = layers(&modules);
    let mut order: Vec<_> = (0..layers.len())
        .filter(|&module| !matches!(modules.files[module].as_str(), "lib" | "main"))
        .collect();
    order.sort_by_key(|&module| (layers[module], module));
    let mut text = format!(
        "\n| layer | module of `{}` | names |\n|---|---|---|\n",
        graph.folder
    );
    // Those that name nothing share a row.
    let (ground, above): (Vec<_>, Vec<_>) = order
        .into_iter()
        .partition(|&module| named(&modules, module).next().is_none());
    let quoted = |of: &mut dyn Iterator<Item = usize>| {
        let names: Vec<_> = of.map(|at| format!("`{}`", modules.files[at])).collect();
        names.join(", ")
    };
    let ground = quoted(&mut ground.into_iter());
    let _ = writeln!(text, "| 0 | {ground} | nothing |");
    for module in above {
        let (layer, name) = (layers[module], &modules.files[module]);
        let names = quoted(&mut named(&modules, module));
        let _ = writeln!(text, "| {layer} | `{name}` | {names} |");
    }
    text
}

/// Every file with its layer and what it names of which other.
pub(crate) fn shown(graph: &Graph) -> String {
    let layers = layers(graph);
    let mut order: Vec<_> = (0..layers.len()).collect();
    order.sort_by_key(|&file| (layers[file], file));
    let mut text = String::new();
    for file in order {
        let _ = writeln!(text, "{:>3} {}", layers[file], path(graph, file));
        for other in named(graph, file) {
            text += &edge(graph, file, other);
        }
    }
    text
}

struct Circle {
    /// The first of its files.
    path: String,
    text: String,
}

/// The circles of a crate's files; of its modules if the files have none.
fn circles(graph: &Graph) -> Vec<Circle> {
    let found = knots(graph);
    if found.is_empty() {
        let modules = folded(graph);
        let knots = knots(&modules);
        return knots.iter().map(|knot| circle(&modules, knot)).collect();
    }
    found.iter().map(|knot| circle(graph, knot)).collect()
}

fn circle(graph: &Graph, knot: &[usize]) -> Circle {
    let mut text = format!("{} files name one another\n", knot.len());
    for &file in knot {
        for other in named(graph, file).filter(|other| knot.contains(other)) {
            text += &edge(graph, file, other);
        }
    }
    text.pop();
    Circle {
        path: path(graph, knot[0]),
        text,
    }
}

fn path(graph: &Graph, file: usize) -> String {
    format!("{}/{}", graph.folder, graph.files[file])
}

fn edge(graph: &Graph, from: usize, to: usize) -> String {
    let names: Vec<_> = graph.edges[&(from, to)]
        .iter()
        .map(String::as_str)
        .collect();
    let [file, other] = [from, to].map(|file| &graph.files[file]);
    format!("      {file} → {other}: {}\n", names.join(", "))
}

/// What `file` names.
fn named(graph: &Graph, file: usize) -> impl Iterator<Item = usize> {
    let edges = graph.edges.range((file, 0)..(file + 1, 0));
    edges.map(|((_, other), _)| *other)
}

/// The modules at the crate's root in place of the files: `a` for `a.rs` and all in `a/`.
fn folded(graph: &Graph) -> Graph {
    let root = |file: &String| {
        let name = file.split('/').next().unwrap_or(file);
        name.trim_end_matches(".rs").to_owned()
    };
    let files: BTreeSet<_> = graph.files.iter().map(root).collect();
    let files: Vec<_> = files.into_iter().collect();
    let place = |file: usize| {
        let name = root(&graph.files[file]);
        files.binary_search(&name).expect("a module of `files`")
    };
    let mut edges = BTreeMap::<_, BTreeSet<String>>::new();
    for ((from, to), names) in &graph.edges {
        let ends = (place(*from), place(*to));
        if ends.0 != ends.1 {
            edges.entry(ends).or_default().extend(names.iter().cloned());
        }
    }
    let folder = graph.folder.clone();
    Graph {
        folder,
        files,
        edges,
    }
}

/// What each file reaches through what it names.
fn reach(graph: &Graph) -> Vec<BTreeSet<usize>> {
    let of = |file| {
        let mut reached = BTreeSet::new();
        let mut ahead = vec![file];
        while let Some(at) = ahead.pop() {
            ahead.extend(named(graph, at).filter(|&other| reached.insert(other)));
        }
        reached
    };
    (0..graph.files.len()).map(of).collect()
}

/// The sets of files of which each reaches all others.
fn knots(graph: &Graph) -> Vec<Vec<usize>> {
    let reach = reach(graph);
    let knot = |file: usize| -> Vec<usize> {
        let others = reach[file].iter().copied();
        others
            .filter(|&other| reach[other].contains(&file))
            .collect()
    };
    let knots: BTreeSet<_> = (0..graph.files.len()).map(knot).collect();
    knots.into_iter().filter(|knot| !knot.is_empty()).collect()
}

/// How many files lie below each, one below the other; those of a circle lie in one layer.
fn layers(graph: &Graph) -> Vec<usize> {
    let reach = reach(graph);
    let mut layers = vec![0; reach.len()];
    // No chain is longer than there are files.
    for _ in 0..reach.len() {
        for (file, other) in graph.edges.keys().copied() {
            let same = usize::from(!reach[other].contains(&file));
            layers[file] = layers[file].max(layers[other] + same);
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The circles of the tree, each as its first path and the edges in it.
    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let graphs = modules::graphs(&Tree::of(files));
        let circles: Vec<_> = graphs.iter().flat_map(circles).collect();
        circles.into_iter().map(|circle| circle.text).collect()
    }

    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let graphs = modules::graphs(&Tree::of(files));
        let lines = graphs.iter().flat_map(|graph| {
            let edge = |(from, to): &(usize, usize)| edge(graph, *from, *to).trim().to_owned();
            graph.edges.keys().map(edge).collect::<Vec<_>>()
        });
        lines.collect()
    }

    #[test]
    fn an_import_is_found_however_it_is_written() {
        for source in [
            "use crate::b::B;",
            "use crate::{b::B};",
            "use crate::{b::{self as other, B}};",
            "use super::b::B;",
            "use super::{b::{B},};",
            "pub use crate::b::B as C; fn f(c: C) {}",
            "pub(crate) use crate::b::B; fn f() { B::new() }",
            "use crate::B;",
            "use crate::Renamed;",
            "fn f() { crate::b::B::new(); }",
            "fn f(x: &super::b::B) {}",
            "mod inner { use super::super::b::B; }",
            "mod inner { fn f() -> super::super::b::B {} }",
            "macro_rules! m { () => { $crate::b::B } }",
            "fn f() { use crate::b; b::B::new(); }",
        ] {
            let all = edges(&[
                (
                    "crates/x/src/lib.rs",
                    "mod a; mod b; pub use b::{B, B as Renamed};",
                ),
                ("crates/x/src/a.rs", source),
                ("crates/x/src/b.rs", "pub struct B;"),
            ]);
            let from_a: Vec<_> = all.iter().filter(|edge| edge.starts_with("a.rs")).collect();
            let one = matches!(from_a[..], [edge] if edge.starts_with("a.rs → b.rs: "));
            assert!(one && from_a[0].contains('B'), "{source}: {all:?}");
            assert_eq!(all.len(), 1, "{source}: {all:?}");
        }
    }

    #[test]
    fn look_alikes_and_tests_are_no_imports() {
        for source in [
            "// use crate::b::B;",
            "const A: &str = \"crate::b::B\";",
            "use other::b::B; use ::b::B; fn f() { ::b::f() }",
            "use crate::a::A; fn f() { self::f(); A::b() }",
            "pub(in crate::b) fn f() { x.b::<u8>() }",
            "#[cfg(test)] mod tests { use crate::b::B; }",
            "#[cfg(test)] mod tests;",
            "fn f() -> impl A + use<'a> {}",
            "pub use crate::b::B; fn f() { x.B() }",
        ] {
            let all = edges(&[
                ("crates/x/src/lib.rs", "mod a; mod b;"),
                ("crates/x/src/a.rs", source),
                ("crates/x/src/a/tests.rs", "use crate::b::B;"),
                ("crates/x/src/b.rs", ""),
            ]);
            assert_eq!(all, [""; 0], "{source}");
        }
    }

    #[test]
    fn a_name_leads_to_the_file_that_defines_it() {
        let all = edges(&[
            ("src/main.rs", "mod a; mod b;"),
            (
                "src/a.rs",
                "mod c; pub(crate) use c::{C, d::D}; pub(crate) struct A;",
            ),
            (
                "src/a/c.rs",
                "pub(crate) mod d { pub(crate) struct D; } pub(crate) struct C;",
            ),
            ("src/b.rs", "use crate::a::{A, C, D}; use std::fmt;"),
        ]);
        assert_eq!(all, ["b.rs → a.rs: A", "b.rs → a/c.rs: C, D"]);
    }

    #[test]
    fn a_circle_is_caught_with_the_names_that_tie_it() {
        let all = found(&[
            ("src/main.rs", "mod a; mod b; mod c; mod d;"),
            ("src/a.rs", "use crate::b::{B, f};"),
            ("src/b.rs", "use crate::c::C; use crate::d::D;"),
            ("src/c.rs", "fn f() { crate::a::A::new() }"),
            ("src/d.rs", ""),
        ]);
        let edges = "a.rs → b.rs: B, f\n      b.rs → c.rs: C\n      c.rs → a.rs: A";
        assert_eq!(all, [format!("3 files name one another\n      {edges}")]);
    }

    #[test]
    fn a_parent_and_its_child_make_a_circle_and_a_declaration_makes_none() {
        let child = ("src/a/b.rs", "use super::A;");
        let declared = ("src/a.rs", "mod b; struct A;");
        let called = ("src/a.rs", "mod b; struct A; fn f() { b::f() }");
        let root = ("src/main.rs", "mod a;");
        assert_eq!(found(&[root, declared, child]), [""; 0]);
        assert_eq!(found(&[root, called, child]).len(), 1);
    }

    #[test]
    fn modules_whose_files_have_no_circle_may_not_have_one_either() {
        let all = found(&[
            ("src/main.rs", "mod a; mod b;"),
            ("src/a.rs", "mod low; use crate::b::B;"),
            ("src/a/low.rs", "pub(crate) struct Low;"),
            ("src/b.rs", "use crate::a::low::Low;"),
        ]);
        assert_eq!(
            all,
            ["2 files name one another\n      a → b: B\n      b → a: Low"]
        );
    }

    #[test]
    fn a_table_that_is_not_that_of_the_tree_is_caught() {
        let at = |page: &str| {
            let tree = Tree::of(&[
                ("src/main.rs", "mod a; mod b;"),
                ("src/a.rs", "use crate::b::B;"),
                ("src/b.rs", ""),
                (PAGE_OF_LAYERS, page),
            ]);
            let graphs = modules::graphs(&tree);
            let found = check(&tree).into_iter().filter(|v| v.rule.name == "layers");
            let lines: Vec<_> = found.map(|violation| violation.line).collect();
            (lines, written(page, &graphs))
        };
        assert_eq!(at("No marks."), (vec![1], None));
        let (lines, page) = at(&format!("Page.\n{}{}End.\n", MARKS[0], MARKS[1]));
        assert_eq!(lines, [3]);
        let page = page.expect("marks");
        let rows = "| 0 | `b` | nothing |\n| 1 | `a` | `b` |\n";
        assert!(page.contains(rows), "{page}");
        assert_eq!(at(&page), (vec![], Some(page.clone())));
        assert_eq!(at(&page.replace("| `b` |\n", "| `c` |\n")).0, [7]);
    }
}
