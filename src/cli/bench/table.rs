//! Reports as text for a terminal.

use super::{
    compare::{Change, Compared, Comparison, Verdict},
    show,
};
use crate::{
    cli::{
        get::table::numbers,
        output::{count, one_line, size},
    },
    serve::bench::report::{Axis, Group, Measurement, Report, Scale, Section, Unit},
};

/// A report, beside an earlier one if there is one.
pub(super) fn text(report: &Report, comparison: Option<&Comparison>) -> String {
    let mut text = String::new();
    for warning in show::warnings(report) {
        text += &format!("{warning}\n");
    }
    for section in &report.sections {
        text += &section_text(section, comparison);
    }
    if let Some(comparison) = comparison {
        text += &format!("\n{}", self::comparison(comparison));
    }
    text + &format!("\n{}\n", one_line(&show::conditions(report)))
}

/// What has changed, one line a group.
pub(super) fn comparison(comparison: &Comparison) -> String {
    let mut text = format!(
        "compared with {}: {}\n",
        one_line(&comparison.name),
        one_line(&comparison.answer())
    );
    for difference in &comparison.differences {
        text += &format!("  {}\n", one_line(difference));
    }
    if comparison.groups.is_empty() {
        return text + "nothing was measured in both\n";
    }
    let rows = comparison.groups.iter().map(|group| {
        let name = format!("{}: {}", group.bench, group.title.to_lowercase());
        let verdict = match group.all.verdict(group.better) {
            Verdict::Unclear => "no clear difference".to_owned(),
            Verdict::Better => format!("better: {}", in_words(group)),
            Verdict::Worse => format!("WORSE: {}", in_words(group)),
            Verdict::Different => in_words(group),
        };
        vec![name, ratio(group.all), verdict]
    });
    text + &numbers(&["", "new / old, 95 %", ""], rows) + "\n"
}

fn in_words(group: &Compared) -> String {
    show::verdict(group.unit, group.better, group.all.ratio)
}

/// `0.52 × (0.50–0.55)`.
pub(super) fn ratio(change: Change) -> String {
    let within = change
        .interval
        .map(|[low, high]| format!(" ({low:.2}–{high:.2})"));
    show::times(change.ratio) + &within.unwrap_or_default()
}

fn section_text(section: &Section, comparison: Option<&Comparison>) -> String {
    let mut text = format!("\n{}: {}\n", section.bench, section.title);
    for component in &section.components {
        let (name, size) = (one_line(&component.name), size(component.bytes));
        text += &format!(
            "  {name}, {size}, {}\n",
            &component.digest[..component.digest.len().min(12)]
        );
    }
    for note in &section.notes {
        text += &format!("  {}\n", one_line(note));
    }
    if let Some(noise) = &section.noise {
        text += &format!("  {}\n", show::noise(noise));
    }
    for group in &section.groups {
        let old = comparison.and_then(|it| it.group(&section.bench, &group.id));
        text += &format!("\n{}\n{}\n", group.title, group_text(group, old));
    }
    text
}

fn group_text(group: &Group, old: Option<&Compared>) -> String {
    match &group.axis {
        Some(Axis {
            scale: Scale::Linear,
            ..
        }) => {
            let points = count(group.measurements.len(), "point");
            format!(" {points}, which `--report` draws and `--json` has")
        }
        Some(axis) => along(group, axis, old),
        None => listed(group, old),
    }
}

/// A row for each measurement.
fn listed(group: &Group, old: Option<&Compared>) -> String {
    let is_spread = group.measurements.iter().any(|it| it.percentiles.is_some());
    let mut head = vec!["", "n", "median", "95 %"];
    if is_spread {
        head.extend(["p90", "p99", "max"]);
    }
    if old.is_some() {
        head.extend(["before", "new / old, 95 %"]);
    }
    let rows = group.measurements.iter().map(|it| {
        let value = |value| show::value(group.unit, value);
        let mut row = vec![one_line(&it.name), it.count.to_string(), value(it.value)];
        row.push(show::precision(it));
        if is_spread {
            let spread = it.percentiles.as_ref();
            let figures = spread.map(|it| [it.p90, it.p99, it.max].map(value));
            row.extend(figures.unwrap_or_default());
        }
        if let Some(old) = old {
            let found = old.of(it);
            row.push(found.map_or_else(String::new, |(old, _)| value(old.value)));
            row.push(
                found
                    .and_then(|(_, change)| change)
                    .map_or_else(String::new, ratio),
            );
        }
        row
    });
    numbers(&head, rows)
}

/// A row for each name, and a column for each place on the axis.
fn along(group: &Group, axis: &Axis, old: Option<&Compared>) -> String {
    let places = places(group);
    let columns: Vec<String> = places.iter().map(|x| show::place(*x)).collect();
    let mut head = vec![axis.label.as_str()];
    head.extend(columns.iter().map(String::as_str));
    let rows = names(group).into_iter().map(|name| {
        let mut row = vec![one_line(name)];
        row.extend(places.iter().map(|x| {
            let mut all = group.measurements.iter();
            let found = all.find(|it| it.name == name && it.x == Some(*x));
            found.map_or_else(String::new, |it| cell(group.unit, it, old))
        }));
        row
    });
    numbers(&head, rows)
}

/// A value, how well it is known if not well, and its ratio to the earlier one.
fn cell(unit: Unit, measurement: &Measurement, old: Option<&Compared>) -> String {
    let mut cell = show::value(unit, measurement.value);
    if measurement.is_unsteady() {
        cell = format!("{cell} {}", show::precision(measurement));
    }
    let change = old.and_then(|old| old.of(measurement)?.1);
    if let Some(change) = change {
        cell += &format!(" ({})", show::times(change.ratio));
    }
    cell
}

/// The places on the axis that have a measurement, in their order.
pub(super) fn places(group: &Group) -> Vec<f64> {
    let mut places: Vec<f64> = group.measurements.iter().filter_map(|it| it.x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    places
}

/// The names in a group, each once.
pub(super) fn names(group: &Group) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for measurement in &group.measurements {
        if !names.contains(&measurement.name.as_str()) {
            names.push(&measurement.name);
        }
    }
    names
}
