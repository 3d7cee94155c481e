//! The metrics of a node without guests.

use super::families::ALL;

/// What people read. Its table has a row for each family.
const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

#[test]
fn the_document_has_every_metric_and_no_other() {
    let row = |line: &str| line.starts_with("| `").then(|| line.to_owned());
    let documented: Vec<_> = DOCUMENT.lines().filter_map(row).collect();
    let labels = |labels: &[&str]| {
        let quoted: Vec<_> = labels.iter().map(|it| format!("`{it}`")).collect();
        quoted.join(", ")
    };
    let exported = ALL.iter().map(|it| {
        let row = [
            format!("`{}`", it.name),
            it.kind.to_string(),
            labels(it.labels),
            it.help.to_owned(),
        ];
        format!("| {} |", row.join(" | ")).replace("|  |", "| |")
    });
    let exported: Vec<_> = exported.collect();
    assert_eq!(documented, exported, "\n{}", exported.join("\n"));
}

#[test]
fn names_have_units_and_counters_end_in_total() {
    for family in ALL {
        let name = family.name;
        let total = name.ends_with("_total");
        assert_eq!(
            total,
            family.kind == super::exposition::Type::Counter,
            "{name}"
        );
        if family.kind == super::exposition::Type::Histogram {
            assert!(name.ends_with("_seconds"), "{name}");
        }
        assert!(!family.help.contains(['\n', '\\', '|']), "{name}");
    }
}
